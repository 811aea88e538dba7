//! Calling a plugin: found on CNI_PATH, in this process where that is our own executable (contract rule 22), else as a
//! program.
//!
//! In: a plugin's type and a request. Out: its answer. Must never: run anything that CNI_PATH does not hold.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use serde_json::Value;

use super::error;
use super::error::Error;
use super::fields::Fields;
use super::plan::NetPlan;
use super::request::Request;

/// A program that is being written gives ETXTBSY; it is tried this often in all (contract rule 21).
const BUSY_TRIES_MAX: u32 = 5;
const BUSY_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// Calls the plugin `kind` and gives what it answered; DEL, CHECK, GC and STATUS answer nothing.
///
/// # Errors
/// The plugin's own, or why it could not be called.
pub fn call(kind: &str, request: Request) -> Result<Option<Value>, Error> {
    let program = find(kind, request.path.as_deref().unwrap_or_default())?;
    if is_own_program(&program) && super::plugin::is_plugin(kind) {
        return super::plugin::execute(kind, request);
    }
    execute(kind, &program, &request)
}

/// Calls the IPAM plugin `kind` with what the plugin that calls it was given. Ours needs not read that a second time.
///
/// # Errors
/// As `call`.
pub fn call_ipam(kind: &str, plan: &NetPlan) -> Result<Option<Value>, Error> {
    let program = find(kind, plan.request.path.as_deref().unwrap_or_default())?;
    if is_own_program(&program) && super::plugin::is_plugin(kind) {
        return super::plugin::carry_out(kind, plan);
    }
    execute(kind, &program, &plan.request)
}

/// Where the plugin `kind` lies.
///
/// # Errors
/// Code 7 for a type with `/`, 5 when no folder of the search path has it.
pub fn find(kind: &str, search_path: &str) -> Result<PathBuf, Error> {
    if kind.is_empty() || kind.contains('/') || kind == "." || kind == ".." {
        let message =
            format!("field type: {kind:?} is no plugin's name: it is looked for by name alone, without '/'");
        return Err(Error::new(error::INVALID_CONFIG, message));
    }
    let folders = std::env::split_paths(search_path);
    let found =
        folders.map(|folder| folder.join(kind)).find(|path| path.metadata().is_ok_and(|meta| meta.is_file()));
    found.ok_or_else(|| {
        let message = format!(
            "plugin {kind:?} is not in {search_path}; put it there, mend the field type, or set CNI_PATH to its folder"
        );
        Error::new(error::IO_FAILURE, message)
    })
}

fn is_own_program(path: &Path) -> bool {
    match (path.metadata(), Path::new("/proc/self/exe").metadata()) {
        (Ok(theirs), Ok(ours)) => (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()),
        _ => false,
    }
}

fn execute(kind: &str, program: &Path, request: &Request) -> Result<Option<Value>, Error> {
    let failed = |cause: std::io::Error| {
        Error::new(
            error::IO_FAILURE,
            format!("plugin {kind} ({}) could not be run: {cause}", program.display()),
        )
    };
    let mut child = spawn(program, request).map_err(failed)?;
    let stdin = child.stdin.take();
    // Written by a thread of its own, since a plugin may answer before it has read everything.
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            // A plugin that does not read its configuration closes the pipe; its answer says what it made of it.
            stdin.map(|mut pipe| pipe.write_all(&request.stdin))
        });
        child.wait_with_output()
    })
    .map_err(failed)?;
    if output.status.success() {
        if output.stdout.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        let answer = serde_json::from_slice(&output.stdout);
        return answer.map(Some).map_err(|cause| {
            Error::new(error::DECODING_FAILURE, format!("plugin {kind} answered what is not JSON: {cause}"))
        });
    }
    Err(error_of(kind, &output))
}

fn spawn(program: &Path, request: &Request) -> std::io::Result<Child> {
    let mut tries = 1;
    loop {
        let mut command = Command::new(program);
        command.envs(request.environment());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        match command.spawn() {
            Err(cause)
                if cause.kind() == std::io::ErrorKind::ExecutableFileBusy && tries < BUSY_TRIES_MAX =>
            {
                tries += 1;
                std::thread::sleep(BUSY_PAUSE); // nothing tells when the writer closes it
            }
            other => return other,
        }
    }
}

fn error_of(kind: &str, output: &std::process::Output) -> Error {
    let said = serde_json::from_slice::<Value>(&output.stdout).ok();
    let fields = said.as_ref().and_then(|value| Fields::new(value, "").ok());
    let code = fields.as_ref().and_then(|fields| fields.number("code").ok().flatten());
    let text = |key| fields.as_ref().and_then(|fields| fields.text(key).ok().flatten()).unwrap_or_default();
    match code {
        Some(code) => Error { code, message: text("msg").to_string(), details: text("details").to_string() },
        None => {
            let stderr = String::from_utf8_lossy(&output.stderr);
            Error::new(error::OTHER, format!("plugin {kind} failed ({}): {}", output.status, stderr.trim()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn folder(name: &str, script: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("cni-invoke-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let plugin = folder.join("foreign");
        std::fs::write(&plugin, script).unwrap();
        std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o755)).unwrap();
        folder
    }

    fn request(folder: &Path) -> Request {
        let path = Some(folder.to_str().unwrap().to_string());
        Request { command: "ADD".into(), path, stdin: b"{\"a\":1}".to_vec(), ..Request::default() }
    }

    #[test]
    fn rule_21_a_type_has_no_slash_and_a_missing_plugin_names_the_path() {
        assert_eq!(find("../bin/sh", "/opt/cni/bin").unwrap_err().code, error::INVALID_CONFIG);
        let error = find("no-such", "/opt/cni/bin:/x").unwrap_err();
        assert!(error.message.contains("/opt/cni/bin:/x") && error.message.contains("CNI_PATH"), "{error}");
    }

    #[test]
    fn rule_21_a_link_to_a_plugin_is_fine() {
        let folder = folder("link", "#!/bin/sh\n");
        let _ = std::os::unix::fs::symlink(folder.join("foreign"), folder.join("linked"));
        assert!(find("linked", folder.to_str().unwrap()).is_ok());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn rule_22_a_foreign_plugin_is_executed() {
        let folder = folder("run", "#!/bin/sh\ncat; echo log >&2\n");
        assert_eq!(call("foreign", request(&folder)).unwrap().unwrap()["a"], 1);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn rule_1_a_plugins_error_is_its_json() {
        let json = folder("error", "#!/bin/sh\necho '{\"code\": 11, \"msg\": \"later\"}'; exit 1\n");
        assert_eq!(call("foreign", request(&json)).unwrap_err(), Error::new(11, "later"));
        std::fs::remove_dir_all(json).unwrap();
        let text = folder("text", "#!/bin/sh\necho broken >&2; exit 3\n");
        let error = call("foreign", request(&text)).unwrap_err();
        assert!(error.code == error::OTHER && error.message.contains("broken"), "{error}");
        std::fs::remove_dir_all(text).unwrap();
    }
}
