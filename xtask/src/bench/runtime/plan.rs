//! What is measured of whom -> a plan for `measure`. In: the runtimes, the pid of a container to join. Out: the plan's text.
//! Must never: ask one runtime for more than another.

use crate::conformance::Runtime;

/// The program runs in a container, and the container is gone again.
pub const FOREGROUND: &str = "foreground run";
/// The same with docker's filter.
pub const FILTERED: &str = "foreground run with docker's filter";
/// The same, the runtime being executed from a sealed memory file already.
pub const SEALED: &str = "foreground run, sealed before";
/// Three commands.
pub const CYCLE: &str = "create + start + delete";
/// Two commands, of a container that goes on running.
pub const DETACHED: &str = "run -d + delete";
/// The program joins a running container.
pub const EXEC: &str = "exec";
/// The same as `SEALED`, of exec.
pub const SEALED_EXEC: &str = "exec, sealed before";
/// The state of a running container.
pub const STATE: &str = "state";
/// All of `LISTED` containers.
pub const LIST: &str = "list";
/// The runtime says its version: what its start costs.
pub const VERSION: &str = "--version";

/// How many containers `list` lists.
pub const LISTED: u32 = 200;
/// Who is measured.
pub const RUNTIMES: [Runtime; 3] = [Runtime::Ours, Runtime::Crun, Runtime::Runc];
/// The name of the C program that does the least.
pub const FLOOR: &str = "floor";

const HOME: &str = "/suites/bench";

/// What a measurement is called.
pub fn name(what: &str, who: &str) -> String {
    format!("{what}: {who}")
}

/// A runtime with a state folder of its own: both others use runc's by default. Ours as the image has it.
pub fn program(runtime: Runtime) -> String {
    let program = if runtime == Runtime::Ours { "/suites/sealed/runc" } else { runtime.program() };
    format!("{program} --root /run/bench/{}", runtime.name())
}

/// A command that makes a container of `bundle`; `verb` has its options.
pub fn make(runtime: Runtime, verb: &str, bundle: &str, id: &str) -> String {
    format!("{} {verb} --bundle {HOME}/{bundle} {id}", program(runtime))
}

/// The container of a runtime that is joined.
pub fn held(runtime: Runtime) -> String {
    format!("held-{}", runtime.name())
}

/// All but `list`. `pid` is that of our held container; the floor joins it.
pub fn containers(filtered: bool, pid: &str) -> String {
    let mut plan = String::new();
    let mut add = |what: &str, who: &str, commands: &[String]| {
        plan += &format!("sample {}\n{}\n", name(what, who), commands.join("\n"));
    };
    for runtime in RUNTIMES {
        let (who, program) = (runtime.name(), program(runtime));
        let id = format!("one-{who}");
        let time = |words: String| format!("time {words}");
        let delete = || format!("{program} delete --force {id}");
        add(FOREGROUND, who, &[time(make(runtime, "run", "plain", &id))]);
        if filtered {
            add(FILTERED, who, &[time(make(runtime, "run", "filtered", &id))]);
        }
        let start = format!("{program} start {id}");
        add(CYCLE, who, &[make(runtime, "create", "plain", &id), start, delete()].map(time));
        add(DETACHED, who, &[make(runtime, "run -d", "sleeping", &id), delete()].map(time));
        add(EXEC, who, &[time(format!("{program} exec {} true", held(runtime)))]);
        add(STATE, who, &[time(format!("{program} state {}", held(runtime)))]);
        add(VERSION, who, &[time(format!("{program} --version"))]);
    }
    let (ours, held) = (Runtime::Ours.name(), held(Runtime::Ours));
    add(SEALED, ours, &[format!("sealed {}", make(Runtime::Ours, "run", "plain", "one-ours"))]);
    add(SEALED_EXEC, ours, &[format!("sealed {} exec {held} true", program(Runtime::Ours))]);
    add(FOREGROUND, FLOOR, &[format!("time {HOME}/floor run {HOME}/rootfs")]);
    add(EXEC, FLOOR, &[format!("time {HOME}/floor exec {pid}")]);
    plan
}

/// `list` alone.
pub fn lists() -> String {
    let sample =
        |runtime: Runtime| format!("sample {}\ntime {} list\n", name(LIST, runtime.name()), program(runtime));
    RUNTIMES.map(sample).concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_runtime_is_asked_for_the_same() {
        let plan = containers(true, "7");
        for who in ["ours", "crun", "runc"] {
            let samples =
                plan.lines().filter(|line| line.starts_with("sample ") && line.ends_with(who)).count();
            assert_eq!(samples, if who == "ours" { 9 } else { 7 }, "{plan}");
        }
        assert!(plan.contains("floor exec 7\n"));
        assert!(!containers(false, "7").contains("filtered"));
    }
}
