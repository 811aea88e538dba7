//! Which case runs on which machine. In: the cases, the words that choose among them. Out: one group a machine, in a
//! fixed order. Must never: put an isolated case together with another.

use std::collections::BTreeMap;

use super::case::{Case, Machine};
use crate::vm::Boot;

/// One case, booted one way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial<'a> {
    /// The case's name, and with several ways of booting `/` and the way.
    pub name: String,
    /// The case.
    pub case: &'a Case,
    /// How its machine boots.
    pub boot: Boot,
}

/// Trials that share a machine.
#[derive(Debug)]
pub struct Group<'a> {
    /// How the machine boots.
    pub boot: Boot,
    /// What it is.
    pub machine: &'a Machine,
    /// What runs on it, one after the other.
    pub trials: Vec<Trial<'a>>,
}

/// A way of booting, as case files spell it.
pub fn boot_name(boot: Boot) -> &'static str {
    match boot {
        Boot::Direct => "direct",
        Boot::Plain => "plain",
        Boot::BiosCd => "bios-cd",
        Boot::BiosUsb => "bios-usb",
        Boot::UefiCd => "uefi-cd",
        Boot::UefiUsb => "uefi-usb",
    }
}

/// Every trial whose name contains one of `words` (no words: every one).
pub fn trials<'a>(cases: &'a [Case], words: &[String]) -> Vec<Trial<'a>> {
    let all = cases.iter().flat_map(|case| {
        case.boots.iter().map(move |&boot| {
            let name = match case.boots.len() {
                1 => case.name.clone(),
                _ => format!("{}/{}", case.name, boot_name(boot)),
            };
            Trial { name, case, boot }
        })
    });
    all.filter(|trial| words.is_empty() || words.iter().any(|word| trial.name.contains(word))).collect()
}

/// Trials -> machines: one for those that ask for the same and may share it, one for each that may not.
pub fn groups<'a>(trials: Vec<Trial<'a>>) -> Vec<Group<'a>> {
    let mut shared: BTreeMap<(&Machine, Boot), Vec<Trial<'a>>> = BTreeMap::new();
    let mut alone = Vec::new();
    for trial in trials {
        if trial.case.isolated {
            alone.push(Group { boot: trial.boot, machine: &trial.case.machine, trials: vec![trial] });
        } else {
            shared.entry((&trial.case.machine, trial.boot)).or_default().push(trial);
        }
    }
    let shared = shared.into_iter().map(|((machine, boot), trials)| Group { boot, machine, trials });
    shared.chain(alone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn case(name: &str, more: &str) -> Case {
        let text = format!("about = 'a'\nsteps = [{{ run = 'true' }}]\n{more}");
        super::super::case::parse(name, &text, Path::new("/nowhere")).unwrap()
    }

    fn names(group: &Group<'_>) -> Vec<String> {
        group.trials.iter().map(|trial| trial.name.clone()).collect()
    }

    #[test]
    fn the_same_machine_is_booted_once() {
        let cases = [case("a", ""), case("b", "[machine]\nmemory = 128"), case("c", "")];
        let groups = groups(trials(&cases, &[]));
        let mut all: Vec<Vec<String>> = groups.iter().map(names).collect();
        all.sort();
        assert_eq!(all, [vec!["a".to_owned(), "c".to_owned()], vec!["b".to_owned()]]);
    }

    #[test]
    fn an_isolated_case_is_alone() {
        let cases = [case("a", ""), case("b", "isolated = true"), case("c", "isolated = true")];
        assert!(groups(trials(&cases, &[])).iter().all(|group| group.trials.len() == 1));
    }

    #[test]
    fn each_way_of_booting_is_a_trial_with_a_machine_of_its_own() {
        let cases = [case("a", "boots = ['direct', 'uefi-usb']")];
        let groups = groups(trials(&cases, &[]));
        assert_eq!(groups.iter().flat_map(names).collect::<Vec<_>>(), ["a/direct", "a/uefi-usb"]);
        assert_eq!(groups.len(), 2);
    }

    #[test]
    fn words_choose_by_any_part_of_a_name() {
        let cases = [case("boot", "boots = ['direct', 'uefi-usb']"), case("dhcp", "")];
        let chosen = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            trials(&cases, &words).into_iter().map(|trial| trial.name).collect::<Vec<_>>()
        };
        assert_eq!(chosen(&["uefi", "dhcp"]), ["boot/uefi-usb", "dhcp"]);
        assert!(chosen(&["none such"]).is_empty());
    }
}
