//! What the compiler has to know of each ABI: its number in `seccomp_data.arch`, its call numbers, its words.
//!
//! In: an `Arch` of config.json. Out: facts (linux/audit.h, the kernel's system call tables).
//! Must never: hold a rule.

use super::tables;
use super::tables::NAME_ENDS;
use super::tables::NAMES;
use super::tables::NONE;
use spec::seccomp::Arch;

const LITTLE_ENDIAN: u32 = 0x4000_0000;
const BITS_64: u32 = 0x8000_0000;
/// The third MIPS ABI's mark.
const MIPS_N32: u32 = 0x2000_0000;

/// The bit that tells an x32 call from an x86_64 one (`__X32_SYSCALL_BIT`).
pub const X32_BIT: u32 = 0x4000_0000;

/// The first of ARM's private calls (`__ARM_NR_BASE` + 1), which lie outside the table.
pub const ARM_PRIVATE: u32 = 0x0f_0001;
const ARM_PRIVATE_NAMES: [&str; 6] = ["breakpoint", "cacheflush", "usr26", "usr32", "set_tls", "get_tls"];

/// A name of the tables, as its place in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name(usize);

impl Name {
    /// Looks a system call's name up; none: no architecture has it.
    pub fn find(name: &str) -> Option<Name> {
        let (mut low, mut high) = (0, tables::COUNT);
        while low < high {
            let middle = (low + high) / 2;
            match Name(middle).bytes().cmp(name.as_bytes()) {
                std::cmp::Ordering::Equal => return Some(Name(middle)),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    fn bytes(self) -> &'static [u8] {
        let start = if self.0 == 0 { 0 } else { NAME_ENDS[self.0 - 1] };
        &NAMES.as_bytes()[usize::from(start)..usize::from(NAME_ENDS[self.0])]
    }
}

/// The ABI that this program was built for, whose calls every filter covers.
pub const NATIVE: Arch = if cfg!(target_arch = "x86_64") {
    Arch::X86_64
} else if cfg!(target_arch = "aarch64") {
    Arch::Aarch64
} else if cfg!(target_arch = "riscv64") {
    Arch::Riscv64
} else if cfg!(target_arch = "arm") {
    Arch::Arm
} else if cfg!(target_arch = "s390x") {
    Arch::S390x
} else if cfg!(target_arch = "powerpc64") {
    Arch::Ppc64Le
} else if cfg!(target_arch = "loongarch64") {
    Arch::Loongarch64
} else {
    panic!("seccomp/arch.rs does not know this target yet: add it to NATIVE")
};

/// An ABI, as the kernel sees it.
pub trait Abi: Copy {
    /// The value of `seccomp_data.arch` (AUDIT_ARCH_*). x32 shares x86_64's.
    fn audit(self) -> u32;

    /// Whether the lower half of a 64-bit argument comes first in `seccomp_data`.
    fn is_little_endian(self) -> bool;

    /// Whether arguments are compared in full. For 32-bit ABIs (x32 and n32 too, as libseccomp has it) only the
    /// lower half counts, of the argument and of the value.
    fn has_wide_arguments(self) -> bool;

    /// The number of a call as it stands in `seccomp_data.nr`; none: this ABI lacks the call.
    fn number(self, name: Name) -> Option<u32>;

    /// ARM's private calls by name; none on every other ABI.
    fn private_number(self, name: &str) -> Option<u32>;
}

impl Abi for Arch {
    fn audit(self) -> u32 {
        match self {
            Arch::X86 => 3 | LITTLE_ENDIAN,
            Arch::X86_64 | Arch::X32 => 62 | LITTLE_ENDIAN | BITS_64,
            Arch::Arm => 40 | LITTLE_ENDIAN,
            Arch::Aarch64 => 183 | LITTLE_ENDIAN | BITS_64,
            Arch::Mips => 8,
            Arch::Mips64 => 8 | BITS_64,
            Arch::Mips64N32 => 8 | BITS_64 | MIPS_N32,
            Arch::Mipsel => 8 | LITTLE_ENDIAN,
            Arch::Mipsel64 => 8 | LITTLE_ENDIAN | BITS_64,
            Arch::Mipsel64N32 => 8 | LITTLE_ENDIAN | BITS_64 | MIPS_N32,
            Arch::Ppc => 20,
            Arch::Ppc64 => 21 | BITS_64,
            Arch::Ppc64Le => 21 | LITTLE_ENDIAN | BITS_64,
            Arch::S390 => 22,
            Arch::S390x => 22 | BITS_64,
            Arch::Parisc => 15,
            Arch::Parisc64 => 15 | BITS_64,
            Arch::Riscv64 => 243 | LITTLE_ENDIAN | BITS_64,
            Arch::Loongarch64 => 258 | LITTLE_ENDIAN | BITS_64,
            Arch::M68k => 4,
            Arch::Sh => 42 | LITTLE_ENDIAN,
            Arch::Sheb => 42,
        }
    }

    fn is_little_endian(self) -> bool {
        self.audit() & LITTLE_ENDIAN != 0
    }

    fn has_wide_arguments(self) -> bool {
        self.audit() & BITS_64 != 0 && !matches!(self, Arch::X32 | Arch::Mips64N32 | Arch::Mipsel64N32)
    }

    fn number(self, name: Name) -> Option<u32> {
        let (table, base): (&[u16; tables::COUNT], u32) = match self {
            Arch::X86 => (&tables::X86, 0),
            Arch::X86_64 => (&tables::X86_64, 0),
            Arch::X32 => (&tables::X32, X32_BIT),
            Arch::Arm => (&tables::ARM, 0),
            Arch::Aarch64 => (&tables::AARCH64, 0),
            Arch::Mips | Arch::Mipsel => (&tables::MIPS_O32, 4000),
            Arch::Mips64 | Arch::Mipsel64 => (&tables::MIPS_N64, 5000),
            Arch::Mips64N32 | Arch::Mipsel64N32 => (&tables::MIPS_N32, 6000),
            Arch::Ppc => (&tables::PPC, 0),
            Arch::Ppc64 | Arch::Ppc64Le => (&tables::PPC64, 0),
            Arch::S390 => (&tables::S390, 0),
            Arch::S390x => (&tables::S390X, 0),
            Arch::Parisc => (&tables::PARISC, 0),
            Arch::Parisc64 => (&tables::PARISC64, 0),
            Arch::Riscv64 => (&tables::RISCV64, 0),
            Arch::Loongarch64 => (&tables::LOONGARCH64, 0),
            Arch::M68k => (&tables::M68K, 0),
            Arch::Sh | Arch::Sheb => (&tables::SH, 0),
        };
        match table[name.0] {
            NONE => None,
            number => Some(base + u32::from(number)),
        }
    }

    fn private_number(self, name: &str) -> Option<u32> {
        if self != Arch::Arm {
            return None;
        }
        let place = ARM_PRIVATE_NAMES.iter().position(|private| *private == name)?;
        Some(ARM_PRIVATE + u32::try_from(place).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(arch: Arch, name: &str) -> Option<u32> {
        arch.number(Name::find(name)?)
    }

    #[test]
    fn every_name_is_found_and_in_order() {
        let mut last = "";
        for place in 0..tables::COUNT {
            let text = std::str::from_utf8(Name(place).bytes()).unwrap();
            assert!(text > last, "{text} after {last}");
            assert_eq!(Name::find(text), Some(Name(place)));
            last = text;
        }
        assert_eq!(usize::from(NAME_ENDS[tables::COUNT - 1]), NAMES.len());
        assert_eq!(Name::find(""), None);
        assert_eq!(Name::find("no_such_call"), None);
        assert_eq!(Name::find("zzz"), None);
    }

    /// The C library knows the target's own numbers from another source.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn numbers_agree_with_libc() {
        for (name, expected) in [
            ("read", libc::SYS_read),
            ("write", libc::SYS_write),
            ("mmap", libc::SYS_mmap),
            ("pread64", libc::SYS_pread64),
            ("clone3", libc::SYS_clone3),
            ("openat2", libc::SYS_openat2),
            ("bpf", libc::SYS_bpf),
            ("landlock_restrict_self", libc::SYS_landlock_restrict_self),
            ("mseal", libc::SYS_mseal),
            ("uselib", libc::SYS_uselib),
        ] {
            assert_eq!(number(Arch::X86_64, name), u32::try_from(expected).ok(), "{name}");
        }
    }

    /// Numbers that the manual pages and the C libraries of these machines give.
    #[test]
    fn numbers_of_other_machines() {
        for (arch, name, expected) in [
            (Arch::X86, "openat", Some(295)),
            (Arch::X86, "socketcall", Some(102)),
            (Arch::X86, "clock_gettime64", Some(403)),
            (Arch::X32, "read", Some(X32_BIT)),
            (Arch::X32, "ioctl", Some(X32_BIT | 514)),
            (Arch::X32, "execve", Some(X32_BIT | 520)),
            (Arch::Aarch64, "openat", Some(56)),
            (Arch::Aarch64, "open", None),
            (Arch::Aarch64, "renameat", Some(38)),
            (Arch::Aarch64, "newfstatat", Some(79)),
            (Arch::Aarch64, "getrlimit", Some(163)),
            (Arch::Riscv64, "renameat", None),
            (Arch::Riscv64, "riscv_flush_icache", Some(259)),
            (Arch::Loongarch64, "getrlimit", None),
            (Arch::Arm, "openat", Some(322)),
            (Arch::Arm, "socketcall", None),
            (Arch::S390x, "openat", Some(288)),
            (Arch::Ppc64Le, "openat", Some(286)),
            (Arch::Mips, "read", Some(4003)),
            (Arch::Mipsel64, "read", Some(5000)),
            (Arch::Mips64N32, "read", Some(6000)),
            (Arch::M68k, "clone3", Some(435)),
            (Arch::Sh, "openat", Some(295)),
            (Arch::Parisc, "openat", Some(275)),
        ] {
            assert_eq!(number(arch, name), expected, "{arch:?} {name}");
        }
        assert_eq!(Arch::Arm.private_number("set_tls"), Some(0x0f_0005));
        assert_eq!(Arch::Aarch64.private_number("set_tls"), None);
    }
}
