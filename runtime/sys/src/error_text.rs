//! What errors of the system are called. In: a number. Out: the words that glibc and Go have for it, which those who call a
//! runtime look for in what it says; musl has others. Must never: be in a program that is linked with glibc.
#![allow(unsafe_code)] // a name that the linker looks for, and a buffer of the standard library's

use std::ffi::CStr;
use std::ffi::c_char;
use std::ffi::c_int;

/// Those of errno(3) that musl calls otherwise and that a container or a network may meet.
const WORDS: [(c_int, &CStr); 32] = [
    (libc::EIO, c"Input/output error"),
    (libc::ECHILD, c"No child processes"),
    (libc::ENOMEM, c"Cannot allocate memory"),
    (libc::EBUSY, c"Device or resource busy"),
    (libc::EXDEV, c"Invalid cross-device link"),
    (libc::EMFILE, c"Too many open files"),
    (libc::ENOTTY, c"Inappropriate ioctl for device"),
    (libc::ESPIPE, c"Illegal seek"),
    (libc::EDOM, c"Numerical argument out of domain"),
    (libc::ERANGE, c"Numerical result out of range"),
    (libc::EDEADLK, c"Resource deadlock avoided"),
    (libc::ENAMETOOLONG, c"File name too long"),
    (libc::ELOOP, c"Too many levels of symbolic links"),
    (libc::EBADR, c"Invalid request descriptor"),
    (libc::ETIME, c"Timer expired"),
    (libc::EOVERFLOW, c"Value too large for defined data type"),
    (libc::EUSERS, c"Too many users"),
    (libc::ENOTSOCK, c"Socket operation on non-socket"),
    (libc::EMSGSIZE, c"Message too long"),
    (libc::EOPNOTSUPP, c"Operation not supported"),
    (libc::EADDRINUSE, c"Address already in use"),
    (libc::EADDRNOTAVAIL, c"Cannot assign requested address"),
    (libc::ENETUNREACH, c"Network is unreachable"),
    (libc::ENETRESET, c"Network dropped connection on reset"),
    (libc::ECONNABORTED, c"Software caused connection abort"),
    (libc::EISCONN, c"Transport endpoint is already connected"),
    (libc::ENOTCONN, c"Transport endpoint is not connected"),
    (libc::ETIMEDOUT, c"Connection timed out"),
    (libc::EHOSTUNREACH, c"No route to host"),
    (libc::EINPROGRESS, c"Operation now in progress"),
    (libc::EUCLEAN, c"Structure needs cleaning"),
    (libc::EDQUOT, c"Disk quota exceeded"),
];

/// strerror_r(3), the XSI-compliant one: what the standard library asks.
#[cfg_attr(not(test), unsafe(no_mangle))]
extern "C" fn __xpg_strerror_r(error: c_int, buffer: *mut c_char, length: usize) -> c_int {
    let own = WORDS.iter().find(|(number, _)| *number == error).map(|(_, words)| *words);
    // SAFETY: musl's texts are constants.
    let words = own.unwrap_or_else(|| unsafe { CStr::from_ptr(libc::strerror(error)) }).to_bytes_with_nul();
    if words.len() > length {
        return libc::ERANGE;
    }
    // SAFETY: the caller's buffer has `length` bytes, and there are no more.
    unsafe { buffer.copy_from_nonoverlapping(words.as_ptr().cast(), words.len()) };
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(error: c_int, length: usize) -> (c_int, String) {
        let mut buffer = vec![0xff_u8; length + 1];
        let status = __xpg_strerror_r(error, buffer.as_mut_ptr().cast(), length);
        assert_eq!(buffer[length], 0xff, "{error}: written behind the buffer");
        let text = CStr::from_bytes_until_nul(&buffer).map_or("", |text| text.to_str().unwrap());
        (status, text.to_owned())
    }

    /// The tests are linked with glibc.
    #[test]
    fn the_words_are_glibcs() {
        for (error, words) in WORDS {
            // SAFETY: the text is a constant, or this thread's own.
            let glibcs = unsafe { CStr::from_ptr(libc::strerror(error)) };
            assert_eq!(words, glibcs, "{error}");
            assert_eq!(asked(error, 64), (0, glibcs.to_str().unwrap().to_owned()));
        }
        assert_eq!(asked(libc::ENOENT, 64), (0, "No such file or directory".to_owned()));
    }

    #[test]
    fn what_does_not_fit_is_not_written() {
        assert_eq!(asked(libc::EBUSY, "Device or resource busy".len()).0, libc::ERANGE);
        assert_eq!(asked(libc::EBUSY, "Device or resource busy".len() + 1).0, 0);
    }
}
