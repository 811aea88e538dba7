//! Everything in the image -> the texts of its licences, in one file. In: the pinned tarballs, the crates' own files, the
//! machine's packages. Out: licences.txt: each text once, below the names of all that come under it.
//! Must never: pass over a part: one that carries no text is listed as such, with its licence's name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::artifact::{Licences, RuntimeProgram};
use crate::context::Build;
use crate::prove::materials::Crate;
use crate::stage::{crates, fetch, unpack};
use crate::stamp::{Inputs, produce, write_whole};

/// Where distributions keep the terms of what xtask takes from the machine.
const MACHINE: [(&str, &[&str]); 4] = [
    ("GRUB", &["/usr/share/doc/grub-common/copyright", "/usr/share/licenses/grub/COPYING"]),
    (
        "libgcc",
        &[
            "/usr/share/doc/libgcc-12-dev/copyright",
            "/usr/share/doc/gcc/copyright",
            "/usr/share/licenses/gcc-libs/RUNTIME.LIBRARY.EXCEPTION",
        ],
    ),
    ("musl", &["/usr/share/doc/musl-dev/copyright", "/usr/share/licenses/musl/COPYRIGHT"]),
    ("Rust's standard library", &["/usr/share/doc/libstd-rust-dev/copyright"]),
];

/// Collects them.
pub fn run(build: &Build, runtime: &RuntimeProgram) -> Result<Licences> {
    let lock = build.layout.root().join("Cargo.lock");
    let mut inputs =
        Inputs::new("licences", 3).artifact("crates", &runtime.crates).file("Cargo.lock", &lock)?;
    for source in build.sources.all() {
        let wanted = format!("{} {} {}", source.pin(), source.licence, source.licence_files.join(" "));
        inputs = inputs.text(&source.name, &wanted);
    }
    let machine = machine_files(build)?;
    for (name, file) in &machine {
        match file {
            Some(file) => inputs = inputs.file(&format!("machine/{name}"), file)?,
            None => inputs = inputs.text(&format!("machine/{name}"), "absent"),
        }
    }
    let [text] = produce(build, inputs, ["licences.txt"], |shop| {
        let mut collection = Collection::default();
        for source in build.sources.all() {
            let files = unpack::files(&fetch::run(build, source)?, &source.licence_files)?;
            for (name, bytes) in files {
                collection.add(&format!("{} {}: {name}", source.name, source.version), &bytes);
            }
        }
        for (part, archive) in crates::archives(build, runtime)? {
            collection.add_crate(&part, crates::top_files(&archive, is_terms)?);
        }
        for (name, file) in &machine {
            match file {
                Some(file) => {
                    let bytes = read(file)?;
                    collection.add(&format!("{name}, from the machine's packages"), &bytes);
                    for more in referred(&String::from_utf8_lossy(&bytes)) {
                        collection.add(&more.display().to_string(), &read(&more)?);
                    }
                }
                None => collection.missing.push(format!("{name}: this machine's packages bring no text")),
            }
        }
        write_whole(&shop.out.join("licences.txt"), collection.text().as_bytes())
    })?;
    Ok(Licences(text))
}

/// Texts, each with the names of what comes under it.
#[derive(Default)]
struct Collection {
    texts: BTreeMap<String, Vec<String>>,
    missing: Vec<String>,
}

impl Collection {
    fn add(&mut self, name: &str, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n").trim_matches('\n').to_owned();
        self.texts.entry(text).or_default().push(name.to_owned());
    }

    fn add_crate(&mut self, part: &Crate, files: BTreeMap<String, Vec<u8>>) {
        let subject = format!("crate {} {} ({})", part.name, part.version, part.licence);
        if files.is_empty() {
            self.missing.push(format!("{subject}: its archive holds no text"));
        }
        for (name, bytes) in files {
            self.add(&format!("{subject}: {name}"), &bytes);
        }
    }

    fn text(self) -> String {
        let mut sections: Vec<(Vec<String>, String)> = self
            .texts
            .into_iter()
            .map(|(text, mut names)| {
                names.sort();
                (names, text)
            })
            .collect();
        sections.sort();
        let mut out =
            "The licences of what is in the image. Coracle's own is the Apache License 2.0.\n".to_owned();
        if !self.missing.is_empty() {
            out += &format!("\nWithout a text of their own:\n  {}\n", self.missing.join("\n  "));
        }
        for (names, text) in sections {
            out += &format!("\n{}\n{}\n\n{text}\n", "=".repeat(80), names.join("\n"));
        }
        out
    }
}

/// What the machine has of the terms of its own packages. Rust's are where its toolchain is.
fn machine_files(build: &Build) -> Result<Vec<(&'static str, Option<PathBuf>)>> {
    let mut command = std::process::Command::new(build.host.require("rustc")?);
    let said = command.args(["--print", "sysroot"]).output().context("rustc: cannot run")?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&said.stdout).trim());
    Ok(MACHINE
        .iter()
        .map(|&(name, files)| {
            let own =
                ["COPYRIGHT-library.html", "COPYRIGHT"].map(|file| sysroot.join("share/doc/rust").join(file));
            let own = if name.starts_with("Rust") { &own[..] } else { &[] };
            let mut all = own.iter().cloned().chain(files.iter().map(PathBuf::from));
            (name, all.find(|path| path.is_file()))
        })
        .collect())
}

/// The texts that Debian's copyright files refer to instead of repeating them, as far as they are here.
fn referred(text: &str) -> Vec<PathBuf> {
    const COMMON: &str = "/usr/share/common-licenses/";
    let name = |rest: &str| -> String {
        let plain = |letter: &char| letter.is_ascii_alphanumeric() || "-.".contains(*letter);
        rest.chars().take_while(plain).collect::<String>().trim_end_matches('.').to_owned()
    };
    let names: std::collections::BTreeSet<String> = text.split(COMMON).skip(1).map(name).collect();
    names.iter().map(|name| Path::new(COMMON).join(name)).filter(|path| path.is_file()).collect()
}

/// Whether a file of this name holds terms.
fn is_terms(name: &str) -> bool {
    let upper = name.to_uppercase();
    let words = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];
    words.iter().any(|word| upper.starts_with(word))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("{}: cannot read", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_text_refers_to_is_found() {
        assert_eq!(referred("see /usr/share/common-licenses/no-such-licence."), Vec::<PathBuf>::new());
        let debian = Path::new("/usr/share/common-licenses/GPL-3").is_file();
        let found = referred("in `/usr/share/common-licenses/GPL-3'\n or /usr/share/common-licenses/GPL-3.");
        assert_eq!(found.len(), usize::from(debian));
    }

    #[test]
    fn a_text_comes_once_below_all_that_come_under_it() {
        let mut collection = Collection::default();
        collection.add("b", b"terms\n");
        collection.add("a", b"terms\r\n\n");
        collection.missing.push("c: none".to_owned());
        let text = collection.text();
        assert_eq!(text.matches("terms").count(), 1);
        assert!(text.contains("\na\nb\n\nterms\n") && text.contains("\n  c: none\n"), "{text}");
    }
}
