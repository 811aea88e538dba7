//! Where a boot's time goes: the machine is stopped every few milliseconds, and asked where its processors are. In: a
//! machine that has just been started. Out: seconds by function of the kernel, and by what is no kernel. Must never: count
//! the time for which the machine stood.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::vm::{READY, READY_DEADLINE, Vm};

/// How long the machine runs between two looks.
const RUN: Duration = Duration::from_millis(3);

/// Where the kernel's addresses begin, and the lowest that is not the processor's and the firmware's own.
const KERNEL: u64 = 0xffff_ffff_8000_0000;
const LOADED: u64 = 0x10_0000;

/// The kernel's functions by their addresses, when these are not random.
#[derive(Debug)]
pub struct Functions(BTreeMap<u64, String>);

impl Functions {
    /// From /proc/kallsyms (`ADDRESS TYPE NAME`).
    pub fn read(text: &str) -> Result<Self> {
        let function = |line: &str| {
            let mut fields = line.split_ascii_whitespace();
            let at = u64::from_str_radix(fields.next()?, 16).ok()?;
            fields.next().filter(|kind| matches!(*kind, "t" | "T"))?;
            Some((at, fields.next()?.to_owned()))
        };
        let functions: BTreeMap<u64, String> =
            text.lines().filter_map(function).filter(|(at, _)| *at >= KERNEL).collect();
        if functions.is_empty() {
            bail!("the guest's /proc/kallsyms has no addresses");
        }
        Ok(Self(functions))
    }

    /// What `registers`, QEMU's `info registers -a`, say of the first processor that is not waiting.
    fn place(&self, registers: &str) -> String {
        fn field<'a>(processor: &'a str, name: &str) -> Option<&'a str> {
            let rest = processor.split_once(name)?.1;
            rest.split(|letter: char| !letter.is_ascii_hexdigit()).next()
        }
        let mut processors = registers.split("CPU#").skip(1);
        let Some(busy) = processors.find(|processor| field(processor, "HLT=") != Some("1")) else {
            return "waiting".to_owned();
        };
        let at = field(busy, "RIP=").and_then(|at| u64::from_str_radix(at, 16).ok());
        match (at, field(busy, "CPL=")) {
            (Some(_), Some("3")) => "programs".to_owned(),
            (Some(at), _) if at >= KERNEL => {
                let function = self.0.range(..=at).next_back();
                function.map_or_else(|| "the kernel".to_owned(), |(_, name)| name.clone())
            }
            (Some(at), _) if at >= LOADED => "decompression".to_owned(),
            // Without a 64-bit register the processor is in the firmware's modes.
            _ => "firmware".to_owned(),
        }
    }
}

/// Adds to `places` where `vm` is until it is ready, in seconds.
pub fn sample(vm: &mut Vm, functions: &Functions, places: &mut BTreeMap<String, f64>) -> Result<()> {
    let until = Instant::now() + READY_DEADLINE;
    let mut running = Instant::now();
    // Nothing said in so short a time is no failure; a machine that ended is one at the next look.
    while vm.expect(READY, RUN).is_err() {
        let ran = running.elapsed();
        if Instant::now() > until {
            bail!("the guest was not ready in time");
        }
        let registers = vm.registers().context("asking where the processors are")?;
        running = Instant::now();
        *places.entry(functions.place(&registers)).or_default() += ran.as_secs_f64();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYMBOLS: &str = "0000000000000000 A fixed_percpu_data\nffffffff81000000 T _text\nffffffff81000100 t memset\n\
        ffffffff81000180 d data\nffffffff81000200 T next\n";

    #[test]
    fn a_processor_is_in_the_function_that_begins_before_it() {
        let functions = Functions::read(SYMBOLS).unwrap();
        let one = |rip: &str, cpl: u8, hlt: u8| {
            format!("\nCPU#0\nRAX=0 RIP={rip} RFL=00000046 [---Z-P-] CPL={cpl} II=0 A20=1 SMM=0 HLT={hlt}\n")
        };
        let at = |text: &str| functions.place(text);
        assert_eq!(at(&one("ffffffff81000190", 0, 0)), "memset");
        assert_eq!(at(&one("ffffffff81000200", 0, 0)), "next");
        assert_eq!(at(&one("ffffffff81000200", 0, 1)), "waiting");
        assert_eq!(at(&one("0000000000401000", 3, 0)), "programs");
        assert_eq!(at(&one("0000000001401000", 0, 0)), "decompression");
        assert_eq!(at("\nCPU#0\nEAX=0 EIP=0000fff0 EFL=00000002 [-------] CPL=0 HLT=0\n"), "firmware");
        let both = one("ffffffff81000200", 0, 1) + &one("ffffffff81000100", 0, 0).replace("#0", "#1");
        assert_eq!(at(&both), "memset");
    }

    #[test]
    fn symbols_without_addresses_are_told() {
        assert!(Functions::read("0000000000000000 T _text\n").is_err());
    }
}
