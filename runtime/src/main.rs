//! The program `coracle`: the name it is called by chooses the face (see `runtime::face`).

#![no_main] // `sys::start` begins it

#[global_allocator]
static HEAP: sys::heap::Heap = sys::heap::Heap::new();

sys::entry!(runtime::face::run);

// The linker reads them, and cargo would not know that it has to link again when they change.
const _: [&str; 2] = [include_str!("../order.ld"), include_str!("../shipped.ld")];
