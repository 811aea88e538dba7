//! The program that ships is compiled as for glibc and linked with musl: the structs that pass between the two must lie in
//! memory alike. In: the `libc` crate's layouts, musl's headers. Out: verdicts. Must never: repeat a number of either.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::fmt::Write as _;
use std::io::Write as _;
use std::mem::offset_of;
use std::process::{Command, Stdio};

/// What is declared where.
const HEADERS: [&str; 20] = [
    "dirent.h",
    "fcntl.h",
    "net/if.h",
    "netdb.h",
    "poll.h",
    "pthread.h",
    "pwd.h",
    "sched.h",
    "signal.h",
    "spawn.h",
    "stddef.h",
    "sys/resource.h",
    "sys/signalfd.h",
    "sys/socket.h",
    "sys/stat.h",
    "sys/uio.h",
    "sys/un.h",
    "sys/wait.h",
    "time.h",
    "unistd.h",
];

/// One assertion in C for each layout: the type's size, then where its fields begin.
macro_rules! layouts {
    ($($c:literal = $rust:ident { $($field:ident),* })*) => {{
        let mut text = String::new();
        $(
            claim(&mut text, &format!("sizeof({})", $c), size_of::<libc::$rust>());
            $(claim(
                &mut text,
                &format!("offsetof({}, {})", $c, stringify!($field)),
                offset_of!(libc::$rust, $field),
            );)*
        )*
        text
    }};
}

/// One assertion in C for each number that has a name.
macro_rules! numbers {
    ($($name:ident)*) => {{
        let mut text = String::new();
        $(claim(&mut text, stringify!($name), libc::$name);)*
        text
    }};
}

fn claim(text: &mut String, what: &str, rust: impl std::fmt::Display) {
    writeln!(text, "_Static_assert({what} == {rust}, \"{what} is {rust} in Rust\");").unwrap();
}

/// The structs of the functions that the standard library and this crate call in the C library, and the numbers that
/// are the library's own, not the kernel's.
fn claims() -> String {
    let structs = layouts! {
        "struct addrinfo" = addrinfo { ai_flags, ai_family, ai_socktype, ai_protocol, ai_addrlen, ai_addr, ai_next }
        "struct cmsghdr" = cmsghdr { cmsg_level, cmsg_type }
        "cpu_set_t" = cpu_set_t {}
        "struct dirent" = dirent64 { d_ino, d_off, d_reclen, d_type, d_name }
        "struct ifreq" = ifreq { ifr_name }
        "struct iovec" = iovec { iov_base, iov_len }
        "struct msghdr" = msghdr { msg_name, msg_namelen, msg_iov, msg_iovlen, msg_control, msg_controllen, msg_flags }
        "struct passwd" = passwd { pw_name, pw_passwd, pw_uid, pw_gid, pw_gecos, pw_dir, pw_shell }
        "struct pollfd" = pollfd { fd, events, revents }
        "posix_spawn_file_actions_t" = posix_spawn_file_actions_t {}
        "posix_spawnattr_t" = posix_spawnattr_t {}
        "pthread_attr_t" = pthread_attr_t {}
        "struct rlimit" = rlimit64 { rlim_cur, rlim_max }
        "struct sigaction" = sigaction { sa_sigaction, sa_mask, sa_flags, sa_restorer }
        "siginfo_t" = siginfo_t { si_signo, si_errno, si_code }
        "struct signalfd_siginfo" = signalfd_siginfo { ssi_signo, ssi_pid, ssi_status }
        "sigset_t" = sigset_t {}
        "struct sockaddr_storage" = sockaddr_storage { ss_family }
        "struct sockaddr_un" = sockaddr_un { sun_family, sun_path }
        "stack_t" = stack_t { ss_sp, ss_flags, ss_size }
        "struct stat" = stat64 {
            st_dev, st_ino, st_nlink, st_mode, st_uid, st_gid, st_rdev, st_size, st_blksize, st_blocks, st_atime, st_mtime, st_ctime
        }
        "struct timespec" = timespec { tv_sec, tv_nsec }
    };
    let numbers = numbers! {
        _SC_GETPW_R_SIZE_MAX _SC_HOST_NAME_MAX _SC_IOV_MAX _SC_NPROCESSORS_ONLN _SC_PAGESIZE
        EAI_SYSTEM POSIX_SPAWN_SETPGROUP POSIX_SPAWN_SETSIGDEF POSIX_SPAWN_SETSIGMASK POSIX_SPAWN_SETSID
        PTHREAD_CREATE_DETACHED SIG_BLOCK SIG_SETMASK
    };
    structs + &numbers
}

/// Whether musl's compiler takes these claims, and what it says.
fn judged(claims: &str) -> (bool, String) {
    let includes: String = HEADERS.map(|header| format!("#include <{header}>\n")).concat();
    let mut compiler = Command::new("musl-gcc")
        .args(["-D_GNU_SOURCE", "-fsyntax-only", "-x", "c", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    compiler.stdin.take().unwrap().write_all(format!("{includes}{claims}").as_bytes()).unwrap();
    let output = compiler.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn what_passes_between_rust_and_musl_lies_in_memory_alike() {
    let (taken, said) = judged(&claims());
    assert!(taken, "{said}");
}

#[test]
fn a_layout_that_differs_is_named() {
    let mut claims = String::new();
    claim(&mut claims, "sizeof(struct stat)", 7);
    let (taken, said) = judged(&claims);
    assert!(!taken && said.contains("sizeof(struct stat) is 7 in Rust"), "{said}");
}
