//! Runs `runtime::fuzz`'s target of this name. In: bytes of libFuzzer's. Out: a crash where one of them shows a fault.
//! Must never: know more than the name.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| runtime::fuzz::run("state", input));
