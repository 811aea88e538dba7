//! `runc list` and `state`. In: the store. Out: a table, JSON or ids. Must never: fail for one container whose record is
//! broken; that one is reported, the others are shown.

use std::io::Write;

use clap::ValueEnum;

use crate::report;
use crate::report::Error;
use crate::report::Fails;
use crate::store::Container;
use crate::store::Outline;
use crate::store::Status;
use crate::store::Store;
use crate::store::Users;

/// Lists containers.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Form of the list
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    format: Format,
    /// Show only names
    #[arg(short, long)]
    quiet: bool,
}

/// Forms of lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    Table,
    /// One array.
    Json,
}

impl List {
    /// Prints the list.
    ///
    /// # Errors
    /// The store can't be read, or standard output not be written.
    pub fn run(&self, store: &Store) -> Result<(), Error> {
        let (containers, errors) = store.all()?;
        for error in errors {
            report::warn(&error.to_string());
        }
        let text = if self.quiet {
            containers.iter().map(|container| format!("{}\n", container.record.id)).collect()
        } else if self.format == Format::Json {
            json(&containers)?
        } else {
            table(&containers)
        };
        std::io::stdout().write_all(text.as_bytes()).step("write", "standard output")
    }
}

fn json(containers: &[Container<Outline>]) -> Result<String, Error> {
    if containers.is_empty() {
        // As runc.
        return Ok("null\n".to_string());
    }
    let owners = owners(containers);
    let both = containers.iter().zip(&owners);
    let states: Vec<_> =
        both.map(|(container, owner)| container.state(container.status(), Some(owner))).collect();
    serde_json::to_string(&states).map(|text| text + "\n").map_err(|error| Error::new(error.to_string()))
}

/// runc's columns: each at least 12 wide, three spaces between.
fn table(containers: &[Container<Outline>]) -> String {
    let mut rows: Vec<[String; 6]> =
        vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_string)];
    for (container, owner) in containers.iter().zip(owners(containers)) {
        let (record, status) = (&container.record, container.status());
        let pid = if status == Status::Stopped { 0 } else { record.pid };
        rows.push([
            record.id.clone(),
            pid.to_string(),
            status.to_string(),
            record.bundle.display().to_string(),
            record.created.clone(),
            owner,
        ]);
    }
    columns(&rows)
}

fn owners(containers: &[Container<Outline>]) -> Vec<String> {
    let users = Users::read();
    containers.iter().map(|container| container.owner(&users)).collect()
}

/// Lines up all columns but the last.
pub fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    const WIDTH_MIN: usize = 12;
    const GAP: usize = 3;
    let width =
        |column: usize| rows.iter().map(|row| row[column].len() + GAP).max().unwrap_or(0).max(WIDTH_MIN);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            line.push_str(cell);
            if column + 1 < N {
                line.push_str(&" ".repeat(widths[column].saturating_sub(cell.len())));
            }
        }
        line + "\n"
    };
    rows.iter().map(line).collect()
}

/// Prints one container's state.
///
/// # Errors
/// Standard output can't be written.
pub fn show_state(container: &Container) -> Result<(), Error> {
    let owner = container.owner(&Users::read());
    let text = serde_json::to_string_pretty(&container.state(container.status(), Some(&owner)));
    let text = text.map_err(|error| Error::new(error.to_string()))? + "\n";
    std::io::stdout().write_all(text.as_bytes()).step("write", "standard output")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_as_runcs() {
        let rows = [
            ["ID", "PID", "OWNER"].map(str::to_string),
            ["a-long-container", "7", "root"].map(str::to_string),
        ];
        assert_eq!(
            columns(&rows),
            "ID                 PID         OWNER\na-long-container   7           root\n"
        );
    }
}
