//! A unit's life: started with a process in it, changed, stopped. In: its name. Out: systemd has done it. Must never: end
//! with a unit half made, or call an error that it is gone.

use super::bus::Bus;
use super::bus::Failure;
use super::name::Scope;
use super::property::Property;
use super::wire::Writer;
use crate::report;
use crate::report::Error;
use rustix::process::Pid;

/// systemd's names for what can be expected.
const EXISTS: &str = "UnitExists";
const NO_SUCH_UNIT: &str = "NoSuchUnit";
/// A job waits for, or takes the place of, what is still going on with the unit.
const REPLACE: &str = "replace";

/// A unit that holds a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// Whether the user's systemd has it.
    pub is_user: bool,
}

impl Unit {
    /// Starts it as `scope` says, with a process that waits, and with the properties of limits.
    ///
    /// # Errors
    /// systemd refuses, or has not done it in time; nothing is left then but the process.
    pub fn start(scope: &Scope, pid: Pid, limits: &[Property]) -> Result<(), Error> {
        let unit = &scope.unit;
        let mut bus = Bus::connect(unit.is_user)?;
        let own = scope.properties(pid.as_raw_nonzero().get().unsigned_abs());
        let mut started = unit.ask_to_start(&mut bus, [limits, &own, &scope.annotated]);
        if started.as_ref().is_err_and(|failure| failure.is(EXISTS)) {
            // What has failed under this name, and was kept for that, only stands in the way.
            unit.forget(&mut bus);
            started = unit.ask_to_start(&mut bus, [limits, &own, &scope.annotated]);
        }
        let error = match started {
            Ok(result) if result == "done" => return Ok(()),
            Ok(result) => Error::new(format!("error creating systemd unit `{}`: got `{result}`", unit.name)),
            // Whoever has the name keeps it.
            Err(failure) if failure.is_answer() => return Err(failure.on("start unit", &unit.name)),
            Err(failure) => failure.on("start unit", &unit.name),
        };
        unit.stop();
        Err(error)
    }

    /// Gives the result of the job.
    fn ask_to_start(&self, bus: &mut Bus, properties: [&[Property]; 3]) -> Result<String, Failure> {
        let mut body = self.arguments(REPLACE);
        write(&mut body, &properties);
        // No other units beside.
        body.array(b'(', |_| {});
        let job = bus.call("StartTransientUnit", "ssa(sv)a(sa(sv))", body)?;
        bus.job_result(&job)
    }

    /// Its name, and how a job is to treat others.
    fn arguments(&self, mode: &str) -> Writer {
        let mut body = Writer::default();
        body.text(b's', &self.name);
        if !mode.is_empty() {
            body.text(b's', mode);
        }
        body
    }

    /// Changes properties, until the unit ends.
    ///
    /// # Errors
    /// systemd refuses, or does not answer.
    pub fn set(&self, properties: &[Property]) -> Result<(), Error> {
        if properties.is_empty() {
            return Ok(());
        }
        let mut body = self.arguments("");
        // Not in the configuration.
        body.number(b'b', 1);
        write(&mut body, &[properties]);
        let set = Bus::connect(self.is_user)?.call("SetUnitProperties", "sba(sv)", body);
        set.map(drop).map_err(|failure| failure.on("set properties of", &self.name))
    }

    /// Moves a process in, into the cgroup `below` the unit's own, `/` or an absolute path from there. For what this caller may not:
    /// a user's systemd asks the system's, which lets him move his processes out of his sessions.
    ///
    /// # Errors
    /// systemd refuses, or does not answer.
    pub fn take_in(&self, pid: Pid, below: &str) -> Result<(), Error> {
        let mut body = self.arguments(below);
        body.array(b'u', |pids| pids.number(b'u', pid.as_raw_nonzero().get().unsigned_abs().into()));
        let moved = Bus::connect(self.is_user)?.call("AttachProcessesToUnit", "ssau", body);
        moved.map(drop).map_err(|failure| failure.on("move the process into", &self.name))
    }

    /// Stops it and has it forgotten. What keeps systemd from that is noted in the log: a unit without processes goes by
    /// itself, and where systemd is gone there are no units.
    pub fn stop(&self) {
        let mut bus = match Bus::connect(self.is_user) {
            Ok(bus) => bus,
            Err(error) => return report::debug(&error.to_string()),
        };
        match bus.call("StopUnit", "ss", self.arguments(REPLACE)).and_then(|job| bus.job_result(&job)) {
            Err(failure) if failure.is(NO_SUCH_UNIT) => return,
            Err(failure) => report::debug(&failure.on("stop", &self.name).to_string()),
            Ok(_) => {}
        }
        self.forget(&mut bus);
    }

    /// A unit that has failed is kept until this; one that has not, or is gone, does not mind.
    fn forget(&self, bus: &mut Bus) {
        let _ = bus.call("ResetFailedUnit", "s", self.arguments(""));
    }
}

/// Properties as an `a(sv)`.
fn write(out: &mut Writer, properties: &[&[Property]]) {
    out.array(b'(', |out| {
        for (name, value) in properties.iter().copied().flatten() {
            out.align(8);
            out.text(b's', name);
            out.variant(value);
        }
    });
}
