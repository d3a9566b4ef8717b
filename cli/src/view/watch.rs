//! Shows the updates of a running run in each output format.

use crate::failure::Failure;
use crate::output::{self, Format};
use crate::view::live::Live;
use crate::view::{changes, clock};
use jiff::Timestamp;
use lockstep_api::{RunStatus, RunUpdate};

/// Writes the updates of one run.
pub struct View {
    form: Form,
    last: Option<RunStatus>,
}

enum Form {
    /// A line for each change, as they come.
    Lines,
    /// The same lines, with what is being done below them.
    Live(Box<Live>),
    /// One object a line.
    Objects,
    /// Nothing until the end, and then how the run stands.
    Document,
}

impl View {
    /// The view that suits the format and where the output goes.
    pub fn new(format: Format) -> Self {
        let form = match format {
            Format::Table if output::is_terminal() => Form::Live(Box::default()),
            Format::Table => Form::Lines,
            Format::Json => Form::Document,
            Format::Jsonl => Form::Objects,
        };
        Self { form, last: None }
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
                    live.stands(&run);
                }
                self.last = Some(*run);
            }
            RunUpdate::Line { line } => match &mut self.form {
                Form::Lines => self.lines(&[changes::of_line(&line)])?,
                Form::Live(live) => live.works(&line),
                Form::Objects | Form::Document => {}
            },
            // The changes of the status tell people the same.
            RunUpdate::Event { .. } => {}
        }
        Ok(())
    }

    /// Tells people something about the watching itself.
    ///
    /// # Errors
    /// The output can't be written.
    pub fn note(&mut self, text: &str) -> Result<(), Failure> {
        self.lines(&[text.to_owned()])
    }

    /// Takes the live part away and prints what is left to print.
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

    fn lines(&mut self, lines: &[String]) -> Result<(), Failure> {
        let now = clock(Timestamp::now());
        let text: String = lines
            .iter()
            .map(|line| format!("{now}  {line}\n"))
            .collect();
        match &self.form {
            _ if text.is_empty() => Ok(()),
            Form::Lines => output::text(&text),
            Form::Live(live) => live.above(|| output::text(&text)),
            Form::Objects | Form::Document => Ok(()),
        }
    }
}
