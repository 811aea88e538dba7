//! `coracle xattrs LIST`: extended attributes that an archive format could not hold. In: a file with a line each,
//! `PATH<tab>NAME<tab>0xHEX`. Out: the attributes, on the paths themselves, not on what links point to.
//! Must never: stop at a line that can't be done; all others still count.

use std::io::Write;
use std::path::Path;

use rustix::fs::XattrFlags;
use sys::start::ExitCode;

/// Sets what the file at `list` says. Exit code 1 when a line could not be done; each is told.
pub fn main(list: &Path) -> ExitCode {
    let text = match std::fs::read_to_string(list) {
        Ok(text) => text,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "coracle: {}: {error}", list.display()));
            return ExitCode::FAILURE;
        }
    };
    let mut code = ExitCode::SUCCESS;
    for (index, line) in text.lines().enumerate() {
        if let Err(reason) = set(line) {
            drop(writeln!(std::io::stderr(), "coracle: {}:{}: {reason}", list.display(), index + 1));
            code = ExitCode::FAILURE;
        }
    }
    code
}

fn set(line: &str) -> Result<(), String> {
    let Some((path, name, value)) = parse(line) else {
        return Err("expected PATH<tab>NAME<tab>0xHEX".to_string());
    };
    rustix::fs::lsetxattr(path, name, &value, XattrFlags::empty())
        .map_err(|errno| format!("{path}: attribute {name} can't be set: {errno}"))
}

fn parse(line: &str) -> Option<(&str, &str, Vec<u8>)> {
    let mut fields = line.split('\t');
    let (path, name, hex) = (fields.next()?, fields.next()?, fields.next()?.strip_prefix("0x")?);
    if fields.next().is_some() || !hex.is_ascii() || !hex.len().is_multiple_of(2) {
        return None;
    }
    let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    let value: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
    Some((path, name, value?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_may_be_any_bytes_and_none() {
        assert_eq!(parse("/a b\tuser.x\t0x00ff"), Some(("/a b", "user.x", vec![0, 255])));
        assert_eq!(parse("/a\tuser.x\t0x"), Some(("/a", "user.x", vec![])));
        for bad in
            ["", "/a\tuser.x", "/a\tuser.x\tblue", "/a\tuser.x\t0x0", "/a\tuser.x\t0xzz", "/a\tb\t0x00\tc"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
