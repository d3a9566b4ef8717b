//! Shows the updates of a watched run in each output format.

use crate::failure::Failure;
use crate::output::{self, Format};
use crate::view::changes::Line;
use crate::view::live::Live;
use crate::view::{changes, clock, waiting};
use jiff::Timestamp;
use lockstep_api::{RunStatus, RunUpdate};
use std::time::{Duration, Instant};

/// Writes the updates of one run.
pub struct View {
    form: Form,
    last: Option<RunStatus>,
    /// When a line was last written.
    written: Instant,
}

/// A watch that isn't on a terminal repeats what it waits for after this time without
/// a line: often enough for a log that somebody follows.
const REPEAT_AFTER: Duration = Duration::from_secs(30);

enum Form {
    /// A line for each change.
    Lines,
    /// The same lines, with the running tasks below them.
    Live(Box<Live>),
    /// One JSON object per line.
    Objects,
    /// Only the final status, as one JSON document.
    Document,
}

impl View {
    /// The view for an output format; on a terminal, the table format is live.
    pub fn new(format: Format) -> Self {
        let form = match format {
            Format::Table if output::is_terminal() => Form::Live(Box::default()),
            Format::Table => Form::Lines,
            Format::Json => Form::Document,
            Format::Jsonl => Form::Objects,
        };
        Self {
            form,
            last: None,
            written: Instant::now(),
        }
    }

    /// Shows one update.
    ///
    /// # Errors
    /// The output can't be written.
    pub fn show(&mut self, update: RunUpdate) -> Result<(), Failure> {
        if matches!(self.form, Form::Objects) {
            output::value(Format::Jsonl, &update)?;
        }
        match update {
            RunUpdate::Status { run } => {
                if matches!(self.form, Form::Lines | Form::Live(_)) {
                    let lines = changes::between(self.last.as_ref(), &run);
                    self.lines(&lines)?;
                }
                if let Form::Live(live) = &mut self.form {
                    live.update(&run);
                }
                self.last = Some(*run);
            }
            RunUpdate::Line { line } => match &mut self.form {
                Form::Lines => self.lines(&[changes::of_line(&line)])?,
                Form::Live(live) => live.task_line(&line),
                Form::Objects | Form::Document => {}
            },
            RunUpdate::Connection { connection } => {
                self.lines(&[changes::of_connection(&connection)])?;
            }
            // Changes of the status already show the content of events.
            RunUpdate::Event { .. } => {}
        }
        Ok(())
    }

    /// Takes a status that has no change worth a line, such as a task's progress.
    pub fn refresh(&mut self, run: RunStatus) {
        if let Form::Live(live) = &mut self.form {
            live.update(&run);
        }
        self.last = Some(run);
    }

    /// Redraws what changes with time alone; without a terminal, repeats now and then
    /// what the run waits for.
    ///
    /// # Errors
    /// The output can't be written.
    pub fn tick(&mut self) -> Result<(), Failure> {
        match &mut self.form {
            Form::Live(live) => live.tick(),
            Form::Lines if self.written.elapsed() >= REPEAT_AFTER => {
                self.written = Instant::now();
                let now = Timestamp::now();
                let waiting = self.last.iter().flat_map(|run| waiting::lines(run, now));
                let lines: Vec<Line> = waiting.map(Line::from).collect();
                self.lines(&lines)?;
            }
            Form::Lines | Form::Objects | Form::Document => {}
        }
        Ok(())
    }

    /// Shows a note about the watch itself.
    ///
    /// # Errors
    /// The output can't be written.
    pub fn note(&mut self, text: &str) -> Result<(), Failure> {
        self.lines(&[text.to_owned().into()])
    }

    /// Removes the live rows, or prints the final document.
    ///
    /// # Errors
    /// The output can't be written.
    pub fn end(self) -> Result<(), Failure> {
        match (self.form, self.last) {
            (Form::Live(live), _) => live.clear(),
            (Form::Document, Some(run)) => output::value(Format::Json, &run)?,
            _ => {}
        }
        Ok(())
    }

    fn lines(&mut self, lines: &[Line]) -> Result<(), Failure> {
        let now = Timestamp::now();
        let text: String = lines
            .iter()
            .map(|line| format!("{}  {}\n", clock(line.at.unwrap_or(now)), line.text))
            .collect();
        if !text.is_empty() {
            self.written = Instant::now();
        }
        match &self.form {
            _ if text.is_empty() => Ok(()),
            Form::Lines => output::text(&text),
            Form::Live(live) => live.above(|| output::text(&text)),
            Form::Objects | Form::Document => Ok(()),
        }
    }
}
