//! A run's samples -> ours, the reference's and the floor's side by side. In: `Run`. Out: a table of medians and ratios.
//! Must never: hide what is missed.

use crate::bench::Run;

/// What is to be at most so many times what.
pub const TARGETS: &[(&str, &str, f64)] = &[
    ("bridge ADD: ours", "bridge ADD: reference", 0.4),
    ("bridge ADD: ours", "bridge ADD: floor", 1.5),
    ("chain ADD: ours", "chain ADD: reference", 0.12),
    ("dual-stack chain ADD: ours", "dual-stack chain ADD: reference", 0.12),
    ("bridge DEL: ours", "bridge DEL: floor", 1.1),
    ("chain DEL: ours", "chain DEL: floor", 1.1),
    ("dual-stack chain DEL: ours", "dual-stack chain DEL: floor", 1.1),
    ("host-local ADD, 5000 reservations: ours", "host-local ADD, 0 reservations: ours", 1.2),
    ("stream between two containers: ours", "stream between two containers: hand", 1.05),
    ("stream to a published port: ours", "stream to a published port: hand", 1.05),
];

const ROWS: [&str; 15] = [
    "bridge ADD",
    "chain ADD",
    "dual-stack chain ADD",
    "chain ADD by cni",
    "dual-stack chain ADD by cni",
    "bridge DEL",
    "chain DEL",
    "dual-stack chain DEL",
    "chain DEL by cni",
    "dual-stack chain DEL by cni",
    "host-local ADD, 0 reservations",
    "host-local ADD, 5000 reservations",
    "start",
    "stream between two containers",
    "stream to a published port",
];

const OTHERS: [&str; 3] = ["reference", "floor", "hand"];

/// The table.
pub fn summary(run: &Run) -> String {
    let mut out = format!("\n  {:<36}{:>9}", "medians, ms", "ours");
    for other in OTHERS {
        out += &format!("{other:>11}");
    }
    for other in OTHERS {
        out += &format!("{:>16}", format!("ours/{other}"));
    }
    out += "\n";
    for what in ROWS {
        out += &row(run, what);
    }
    out
}

fn row(run: &Run, what: &str) -> String {
    let ours = run.median(&format!("{what}: ours"));
    // One process of ours that calls all plugins is compared with what the others need for the same.
    let same = what.trim_end_matches(" by cni");
    let others = OTHERS.map(|who| run.median(&format!("{same}: {who}")));
    let mut out = format!("  {what:<36}");
    out += &ours.map_or_else(|| format!("{:>9}", "-"), |value| format!("{:>9.2}", value * 1e3));
    for value in others {
        out += &value.map_or_else(|| format!("{:>11}", "-"), |value| format!("{:>11.2}", value * 1e3));
    }
    for other in others {
        let ratio = ours.zip(other).map(|(ours, other)| ours / other);
        out += &ratio.map_or_else(|| format!("{:>16}", "-"), |ratio| format!("{ratio:>16.2}"));
    }
    out + "\n"
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A target whose name nothing is measured under would be kept for ever.
    #[test]
    fn targets_are_of_what_is_measured() {
        let script = include_str!("../../../../qemu/shares/bench/network");
        for (name, of, _) in TARGETS {
            for name in [name, of] {
                let (what, who) = name.split_once(": ").unwrap();
                assert!(ROWS.contains(&what), "{what}");
                assert!(who == "ours" || OTHERS.contains(&who), "{who}");
            }
        }
        // The script puts names together; these are their parts.
        for part in [
            "bridge",
            "chain",
            "dual-stack chain",
            "host-local ADD, $count reservations",
            "start",
            "stream between two containers",
            "stream to a published port",
        ] {
            assert!(script.contains(part), "{part}");
        }
    }

    #[test]
    fn a_row_has_ratios_and_gaps() {
        let samples = [("chain ADD: ours", 0.02), ("chain ADD: reference", 0.1)];
        let run = Run {
            kind: "network".to_owned(),
            machine: BTreeMap::new(),
            samples: samples.iter().map(|(name, value)| ((*name).to_owned(), vec![*value])).collect(),
            counts: BTreeMap::new(),
        };
        let text = summary(&run);
        let words: Vec<&str> =
            text.lines().find(|line| line.starts_with("  chain ADD")).unwrap().split_whitespace().collect();
        assert_eq!(words, ["chain", "ADD", "20.00", "100.00", "-", "-", "0.20", "-", "-"]);
    }
}
