//! Reads plan files from disk; the plan crate checks and expands them.

use crate::failure::{FILE, Failure, PLAN};
use crate::output::colours;
use lockstep_plan::{Checked, MAX_BYTES, Overrides, Plan};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

/// A plan file and the values of its variables.
#[derive(Debug, Clone, clap::Args)]
pub struct PlanFile {
    /// The plan, YAML.
    #[arg(value_name = "PLAN")]
    path: PathBuf,
    /// Set a variable of the plan; may be repeated.
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = assignment)]
    vars: Vec<(String, String)>,
}

/// A checked plan without errors.
#[derive(Debug)]
pub struct Loaded {
    /// The expanded plan.
    pub plan: Plan,
    /// The YAML text of the file.
    pub source: String,
}

impl PlanFile {
    /// For commands that take the path of the plan as an option of their own.
    pub fn at(path: PathBuf) -> Self {
        Self {
            path,
            vars: Vec::new(),
        }
    }

    /// Reads and checks the file. Problems of the plan are part of the result, not an
    /// error.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn check(&self) -> Result<(Checked, String), Failure> {
        let name = self.path.display().to_string();
        let unreadable = |error: &dyn std::error::Error| {
            Failure::refused(FILE, format!("can't read the plan {name}")).because(error)
        };
        // Reading at most one byte over the limit is enough to detect a file that is too
        // long, or a device that never ends.
        let mut bytes = Vec::new();
        File::open(&self.path)
            .and_then(|file| file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes))
            .map_err(|error| unreadable(&error))?;
        if bytes.len() > MAX_BYTES {
            let what = format!("{name} is too long: a plan has at most {MAX_BYTES} bytes");
            return Err(Failure::refused(FILE, what));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let good = error.utf8_error().valid_up_to();
            let line = 1 + error.as_bytes()[..good]
                .iter()
                .filter(|b| **b == b'\n')
                .count();
            Failure::refused(FILE, format!("{name}, line {line}: this is not UTF-8 text"))
                .remedy("save the plan as UTF-8")
        })?;
        let vars: BTreeMap<_, _> = self.vars.iter().cloned().collect();
        Ok((
            lockstep_plan::check(&name, &text, &Overrides { vars }),
            text,
        ))
    }

    /// Reads a plan that is to be sent to the coordinator or shown.
    ///
    /// # Errors
    /// The file can't be read, or the plan has errors; all of its problems are reported.
    pub fn load(&self) -> Result<Loaded, Failure> {
        let (Checked { plan, problems }, source) = self.check()?;
        match plan {
            Some(plan) => Ok(Loaded { plan, source }),
            None => Err(
                Failure::refused(PLAN, format!("{} can't be run", self.path.display()))
                    .report(problems.render(colours()), problems.json())
                    .remedy("fix the plan; nothing was sent to the coordinator"),
            ),
        }
    }
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &str) -> String {
        let checked = PlanFile::at(path.into()).check();
        format!("{:?}", checked.expect_err("this is not a plan"))
    }

    #[test]
    fn an_endless_file_is_refused() {
        assert!(refusal("/dev/zero").contains("too long"));
    }

    #[test]
    fn the_line_that_is_not_utf_8_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plan.yaml");
        std::fs::write(&path, b"kind: Plan\nname: Z\xe9\n").unwrap();
        let message = refusal(path.to_str().unwrap());
        assert!(message.contains("line 2"), "{message}");
    }
}
