//! The output formats, and writing to standard output, which may be a closed pipe.

use crate::failure::{FILE, Failure};
use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use lockstep_api::{Exit, printable, printable_coloured};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};

/// Output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// Text for people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// One JSON object per line.
    Jsonl,
}

/// Whether reports on standard error have colours: on a terminal, unless NO_COLOR is
/// set to something (https://no-color.org).
pub fn colours() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
}

/// Whether standard output is a terminal.
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Writes text to standard output, without what a terminal would obey.
///
/// # Errors
/// The output can't be written. A reader that closed the pipe (`| head`) is not an
/// error: it has read all that it needs.
pub fn text(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let text = printable(text);
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(FILE, Exit::Failed, "can't write the output").because(&error))
        }
        _ => Ok(()),
    }
}

/// Writes a question to standard error, so that it isn't part of the output.
///
/// # Errors
/// It can't be written.
pub fn prompt(text: &str) -> Result<(), Failure> {
    let mut out = io::stderr().lock();
    out.write_all(printable(text).as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| {
            Failure::new(FILE, Exit::Failed, "can't write the question").because(&error)
        })
}

/// Writes a report or an error to standard error, with the colours that this program
/// has given it.
pub fn report(text: &str) {
    eprint!("{}", printable_coloured(text));
}

/// Writes one value: indented as a document, compact as a line.
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
            Err(Failure::new(FILE, Exit::Failed, "can't serialize the output").because(&error))
        }
    }
}

/// Writes several values: one list as a document, or one line each.
///
/// # Errors
/// As [`text`].
pub fn values<T: Serialize>(format: Format, values: &[T]) -> Result<(), Failure> {
    match format {
        Format::Jsonl => values.iter().try_for_each(|one| value(format, one)),
        Format::Json | Format::Table => value(format, &values),
    }
}

/// A table without borders: on a terminal at most as wide as the terminal, otherwise
/// as wide as its content.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.iter().copied());
    table
}

/// The table as text, without leading and trailing blanks on its lines.
pub fn table_text(table: &Table) -> String {
    table
        .lines()
        .map(|line| line.trim().to_owned() + "\n")
        .collect()
}
