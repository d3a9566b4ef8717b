//! The three forms of output, and writing them without surprise at a closed pipe.

use crate::failure::{FILE, Failure};
use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use lockstep_api::Exit;
use serde::Serialize;
use std::io::{self, IsTerminal, Write};

/// The form of what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// A JSON object on each line.
    Jsonl,
}

/// Whether a person looks at the output.
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Writes text to standard output.
///
/// # Errors
/// The output can't be written. A reader that has gone (`| head`) is no error:
/// it has what it wanted.
pub fn text(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(FILE, Exit::Failed, "can't write the output").because(&error))
        }
        _ => Ok(()),
    }
}

/// Writes one value: pretty as a document, compact as a line.
///
/// # Errors
/// As [`text`].
pub fn value(format: Format, value: &impl Serialize) -> Result<(), Failure> {
    let json = match format {
        Format::Jsonl => serde_json::to_string(value),
        Format::Json | Format::Table => serde_json::to_string_pretty(value),
    };
    match json {
        Ok(json) => text(&(json + "\n")),
        Err(error) => {
            Err(Failure::new(FILE, Exit::Failed, "can't form the output").because(&error))
        }
    }
}

/// Writes several values: a list as a document, or a line each.
///
/// # Errors
/// As [`text`].
pub fn values<T: Serialize>(format: Format, values: &[T]) -> Result<(), Failure> {
    match format {
        Format::Jsonl => values.iter().try_for_each(|one| value(format, one)),
        Format::Json | Format::Table => value(format, &values),
    }
}

/// A table without lines, as wide as it needs to be on a pipe and as wide as the
/// terminal otherwise.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.iter().copied());
    table
}

/// The table's text, without blanks at the ends of lines.
pub fn table_text(table: &Table) -> String {
    table
        .lines()
        .map(|line| line.trim().to_owned() + "\n")
        .collect()
}
