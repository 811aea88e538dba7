//! What the standard library asks of glibc and of gcc's unwinder, for the program as it ships: linked with musl, and
//! aborting where it panics (docs/decisions/0018-musl-for-the-program.md). In: the linker's undefined symbols. Out: the
//! truth about this program: it has no stack to walk. Must never: be in a program that unwinds.
#![allow(unsafe_code)] // names that the linker looks for; what stands behind them is safe

use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_void;

/// `_URC_END_OF_STACK` of the Itanium C++ ABI, level 1.
const END_OF_STACK: c_int = 5;

/// No frame is shown, so that nothing calls the code that would look up its name in debug information: 110 kB.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_visit: *const c_void, _argument: *mut c_void) -> c_int {
    END_OF_STACK
}

/// Functions that only a landing pad or a visited frame would call, and there is neither.
macro_rules! nothing_there {
    ($($name:ident($($argument:ty),*) -> $answer:ty = $nothing:expr;)*) => {$(
        #[unsafe(no_mangle)]
        extern "C" fn $name($(_: $argument),*) -> $answer {
            $nothing
        }
    )*};
}

nothing_there! {
    _Unwind_FindEnclosingFunction(*mut c_void) -> *mut c_void = std::ptr::null_mut();
    _Unwind_GetCFA(*mut c_void) -> usize = 0;
    _Unwind_GetDataRelBase(*mut c_void) -> usize = 0;
    _Unwind_GetIP(*mut c_void) -> usize = 0;
    _Unwind_GetIPInfo(*mut c_void, *mut c_int) -> usize = 0;
    _Unwind_GetLanguageSpecificData(*mut c_void) -> *mut c_void = std::ptr::null_mut();
    _Unwind_GetRegionStart(*mut c_void) -> usize = 0;
    _Unwind_GetTextRelBase(*mut c_void) -> usize = 0;
    _Unwind_Resume(*mut c_void) -> ! = std::process::abort();
    _Unwind_SetGR(*mut c_void, c_int, usize) -> () = ();
    _Unwind_SetIP(*mut c_void, usize) -> () = ();
}

/// The standard library starts programs by posix_spawn where it knows that the library reports what exec says, glibc
/// since 2.24; musl always has. Else it forks, which copies page tables.
#[unsafe(no_mangle)]
extern "C" fn gnu_get_libc_version() -> *const c_char {
    c"2.26".as_ptr()
}
