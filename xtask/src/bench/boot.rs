//! Boot: from QEMU's start to the system's words. In: the image. Out: samples of ready, first container, the floor and
//! Debian's kernel, interleaved in each round; a timeline. Must never: measure one thing after the other: a machine that
//! gets busier would make the last one slow.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::chart::{Bar, Row, svg};
use super::{Run, floor, machine, places, stats};
use crate::context::Build;
use crate::stage::rootfs::Contents;
use crate::stamp::write_whole;
use crate::vm::{Acceleration, Boot, Files, Profile, READY, READY_DEADLINE, Vm, probe};

const FLOOR: &str = "floor: our kernel, an init that prints one line";
const DEBIAN: &str = "floor: Debian's cloud kernel, the same init";
const READY_NAME: &str = "ready";
const CONTAINER: &str = "first container's first line";
/// Of the shell in the example bundle; the machine's own shells have another.
const PROMPT: &str = "/ # ";

/// What is to be at most so many times what.
pub const TARGETS: [(&str, &str, f64); 3] =
    [(READY_NAME, FLOOR, 1.15), (CONTAINER, FLOOR, 1.3), (FLOOR, DEBIAN, 0.5)];

/// Measures in `rounds` rounds.
pub fn run(build: &Build, rounds: u32) -> Result<Run> {
    let image = crate::cmd::iso::make(build, &Contents::default())?;
    let files = crate::cmd::qemu::files(&image);
    let acceleration = probe(build)?;
    let room = build.layout.target().join("bench/room");
    std::fs::create_dir_all(&room).with_context(|| format!("{}: cannot create", room.display()))?;
    let floor_initramfs = floor::initramfs(build, &room)?;
    let debian = match floor::debian_kernel(build) {
        Ok(kernel) => Some(kernel),
        Err(error) => {
            build.ui.say("bench", &format!("without Debian's kernel: {error:#}"));
            None
        }
    };
    let bench = Bench { build, acceleration, log: build.layout.notes().join("log/bench.log") };
    let of = |kernel: &Path| Files {
        iso: files.iso.clone(),
        kernel: kernel.to_owned(),
        initramfs: floor_initramfs.clone(),
    };
    let facts = machine(
        build,
        &[("acceleration", format!("{acceleration:?}")), ("image", image.iso.0.sha256.clone())],
    );
    let mut samples: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for round in 1..=rounds {
        build.ui.say("bench", &format!("boot, round {round} of {rounds}"));
        let mut add = |name: &str, seconds| samples.entry(name.to_owned()).or_default().push(seconds);
        // Each comes first, second and third as often: whoever follows the longest may have to wait for its end.
        for place in 0..3 {
            match (place + round) % 3 {
                0 => add(FLOOR, bench.patiently(|| bench.until(&of(&files.kernel), floor::WORD))?),
                1 => {
                    if let Some(kernel) = &debian {
                        add(DEBIAN, bench.patiently(|| bench.until(&of(kernel), floor::WORD))?);
                    }
                }
                _ => {
                    let (ready, container) = bench.patiently(|| bench.container(&files))?;
                    add(READY_NAME, ready);
                    add(CONTAINER, container);
                }
            }
        }
    }
    let picture = build.layout.target().join("bench/boot.svg");
    let of = |name: &str| samples.get(name).map_or(0.0, |values| stats::quartiles(values).1);
    let (floor, ready) = (of(FLOOR), of(READY_NAME));
    let rows = [
        bench.patiently(|| bench.phases(&files, floor, ready))?,
        bench.patiently(|| bench.initcalls(&files))?,
    ];
    for row in &rows {
        build.ui.say("bench", &row.title);
        for bar in &row.bars {
            build.ui.say("", &format!("{:>7.3} s  {}", bar.length, bar.name));
        }
    }
    build.ui.say("bench", "where the processors are until ready, when they are looked at");
    for (name, seconds) in bench.patiently(|| bench.places(&files, &room))? {
        build.ui.say("", &format!("{seconds:>7.3} s  {name}"));
    }
    write_whole(&picture, svg(&rows).as_bytes())?;
    build.ui.say("bench", &picture.display().to_string());
    Ok(Run { kind: "boot".to_owned(), machine: facts, samples, counts: BTreeMap::new() })
}

struct Bench<'a> {
    build: &'a Build,
    acceleration: Acceleration,
    log: PathBuf,
}

impl Bench<'_> {
    fn boot(&self, files: &Files, boot: Boot, append: &str) -> Result<(Vm, Instant)> {
        self.boot_with(files, boot, append, None)
    }

    fn boot_with(
        &self,
        files: &Files,
        boot: Boot,
        append: &str,
        share: Option<PathBuf>,
    ) -> Result<(Vm, Instant)> {
        let profile = Profile {
            boot,
            memory: 512,
            cpus: 2,
            network: None,
            disks: Vec::new(),
            share,
            append: append.to_owned(),
        };
        let started = Instant::now();
        Ok((Vm::boot(self.build, &profile, files, self.acceleration, &self.log)?, started))
    }

    /// Measures once more, twice at most, when a boot fails: a guest that a busy host starves panics over its timer.
    fn patiently<T>(&self, measure: impl Fn() -> Result<T>) -> Result<T> {
        for _ in 0..2 {
            match measure() {
                Err(error) => self.build.ui.say("bench", &format!("a boot failed, once more: {error:#}")),
                done => return done,
            }
        }
        measure()
    }

    /// Seconds until the machine says `word`.
    fn until(&self, files: &Files, word: &str) -> Result<f64> {
        let (mut vm, started) = self.boot(files, Boot::Direct, "")?;
        vm.expect(word, READY_DEADLINE)?;
        Ok(started.elapsed().as_secs_f64())
    }

    /// Seconds until the system is ready, and until an example of the image's that is then asked for shows its prompt.
    fn container(&self, files: &Files) -> Result<(f64, f64)> {
        let (mut vm, started) = self.boot(files, Boot::Direct, "")?;
        vm.wait_ready()?;
        let ready = started.elapsed().as_secs_f64();
        // The shell asks for nothing; what comes before its prompt waits in the terminal.
        vm.send(" runc run --bundle /containers/shell first\n")?;
        vm.expect(PROMPT, Duration::from_secs(60))?;
        Ok((ready, started.elapsed().as_secs_f64()))
    }

    /// What the kernel has noted down in a quiet boot, of the lines with `pattern`. On the console they would come late, and
    /// slow it down.
    fn logged(&self, files: &Files, append: &str, pattern: &str) -> Result<String> {
        let (mut vm, _) = self.boot(files, Boot::Direct, &format!("printk.time=1 {append}"))?;
        vm.wait_ready()?;
        // What is typed comes back, so the word that ends it is written otherwise there.
        vm.send(&format!(" dmesg | grep '{pattern}'; echo En''d\n"))?;
        Ok(String::from_utf8_lossy(&vm.expect("End", Duration::from_secs(60))?).into_owned())
    }

    /// One boot of the ISO by its marks on the serial line; and the direct one's `floor` and `ready`, divided by the kernel's
    /// own clock, which says when /init begins.
    fn phases(&self, files: &Files, floor: f64, ready: f64) -> Result<Row> {
        let (mut vm, started) = self.boot(files, Boot::BiosCd, "")?;
        let mut bars = Vec::new();
        let mut begin = 0.0;
        for (name, mark) in [
            ("firmware and GRUB", "Booting Coracle..."),
            ("GRUB's loading, the kernel, init and services", READY),
        ] {
            vm.expect(mark, READY_DEADLINE)?;
            let end = started.elapsed().as_secs_f64();
            bars.push(Bar { name: name.to_owned(), begin, length: end - begin });
            begin = end;
        }
        let said = self.logged(files, "", "Run /init as init process")?;
        let kernel = stamp(&said).context("the kernel's messages have no time")?.min(floor);
        for (name, begin, end) in [
            ("direct: QEMU, firmware, decompression", 0.0, floor - kernel),
            ("direct: kernel, to /init", floor - kernel, floor),
            ("direct: init and services, to ready", floor, ready),
        ] {
            bars.push(Bar { name: name.to_owned(), begin, length: end - begin });
        }
        Ok(Row { title: "phases of one boot from CD by BIOS, and of direct ones".to_owned(), bars })
    }

    /// Where the direct machine spends its time, the most first, in seconds of a boot. `room` is a folder for its symbols.
    fn places(&self, files: &Files, room: &Path) -> Result<Vec<(String, f64)>> {
        const BOOTS: u32 = 4;
        const SHOWN: usize = 15;
        // Once at random addresses, the kernel's functions would have other ones in each boot.
        const FIXED: &str = "nokaslr";
        let (mut vm, _) = self.boot_with(files, Boot::Direct, FIXED, Some(room.to_owned()))?;
        vm.wait_ready()?;
        vm.command("cat /proc/kallsyms > /mnt/share/kallsyms", Duration::from_secs(60))?;
        drop(vm);
        let symbols = room.join("kallsyms");
        let symbols = std::fs::read_to_string(&symbols)
            .with_context(|| format!("{}: cannot read", symbols.display()))?;
        let functions = places::Functions::read(&symbols)?;
        let mut seconds = BTreeMap::new();
        for _ in 0..BOOTS {
            let (mut vm, _) = self.boot(files, Boot::Direct, FIXED)?;
            places::sample(&mut vm, &functions, &mut seconds)?;
        }
        let mut places: Vec<(String, f64)> =
            seconds.into_iter().map(|(name, seconds)| (name, seconds / f64::from(BOOTS))).collect();
        places.sort_by(|one, other| other.1.total_cmp(&one.1));
        places.truncate(SHOWN);
        Ok(places)
    }

    /// The kernel's initcalls that take longest. Noting each down takes time too: for shares, not for sums.
    fn initcalls(&self, files: &Files) -> Result<Row> {
        const SHOWN: usize = 15;
        let said = self.logged(files, "initcall_debug log_buf_len=1M", "initcall .* returned")?;
        let mut bars = initcall_bars(&said);
        bars.sort_by(|one, other| other.length.total_cmp(&one.length));
        bars.truncate(SHOWN);
        bars.sort_by(|one, other| one.begin.total_cmp(&other.begin));
        Ok(Row { title: format!("the kernel's {SHOWN} longest initcalls, by the kernel's clock"), bars })
    }
}

/// The time stamp of the last message, `[    0.512345] ...`.
fn stamp(said: &str) -> Option<f64> {
    let (_, rest) = said.rsplit_once('[')?;
    rest.split_once(']')?.0.trim().parse().ok()
}

/// `[    0.5] initcall NAME+0x0/0x1 returned 0 after 123 usecs`, as bars.
fn initcall_bars(text: &str) -> Vec<Bar> {
    let bar = |line: &str| -> Option<Bar> {
        let (time, rest) = line.split_once('[')?.1.split_once(']')?;
        let (name, rest) = rest.trim().strip_prefix("initcall ")?.split_once(" returned ")?;
        let micros: f64 = rest.split_once(" after ")?.1.split_once(" usecs")?.0.parse().ok()?;
        let (end, length) = (time.trim().parse::<f64>().ok()?, micros / 1e6);
        let name = name.split('+').next().unwrap_or(name).to_owned();
        Some(Bar { name, begin: (end - length).max(0.0), length })
    };
    text.lines().filter_map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_initcall_is_a_bar() {
        let text = "[    0.500000] calling  a+0x0/0x10 @ 1\r\n[    0.512000] initcall a+0x0/0x10 returned 0 after 12000 usecs\r\nx\n";
        let bars = initcall_bars(text);
        assert_eq!((bars.len(), bars[0].name.as_str(), bars[0].length), (1, "a", 0.012));
        assert!((bars[0].begin - 0.5).abs() < 1e-9);
    }

    #[test]
    fn the_last_messages_time_is_read() {
        assert_eq!(stamp("[    0.1] x\n[    0.512345] Run /init as init process"), Some(0.512345));
        assert_eq!(stamp("no time"), None);
    }
}
