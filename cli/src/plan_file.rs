//! Plan files: read from disk, checked and expanded by the plan crate.

use std::collections::BTreeMap;
use std::fs;
use std::io::{IsTerminal, stderr};
use std::path::PathBuf;

use lockstep_plan::{Checked, MAX_BYTES, Overrides, Plan};
use lockstep_proto::v1::PlanDocument;

use crate::failure::{FILE, Failure, PLAN};

/// A plan file and the values of its variables.
#[derive(Debug, Clone, clap::Args)]
pub struct PlanFile {
    /// The plan, YAML.
    #[arg(value_name = "PLAN")]
    path: PathBuf,
    /// Gives a variable of the plan a value; may be repeated.
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = assignment)]
    vars: Vec<(String, String)>,
}

/// A plan that can be run.
#[derive(Debug)]
pub struct Loaded {
    /// The expanded plan.
    pub plan: Plan,
    source: String,
}

impl PlanFile {
    /// For the coordinator's commands that take a plan beside other things.
    pub fn at(path: PathBuf) -> Self {
        Self {
            path,
            vars: Vec::new(),
        }
    }

    /// Reads and checks the file; the plan's own problems are no failure here.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn check(&self) -> Result<(Checked, String), Failure> {
        let name = self.path.display().to_string();
        let cant = |error: &dyn std::error::Error| {
            Failure::refused(FILE, format!("can't read the plan {name}")).because(error)
        };
        let length = fs::metadata(&self.path)
            .map_err(|error| cant(&error))?
            .len();
        if length > MAX_BYTES as u64 {
            let what = format!("{name} has {length} bytes; a plan has at most {MAX_BYTES}");
            return Err(Failure::refused(FILE, what));
        }
        let text = fs::read_to_string(&self.path).map_err(|error| cant(&error))?;
        let vars: BTreeMap<_, _> = self.vars.iter().cloned().collect();
        Ok((
            lockstep_plan::check(&name, &text, &Overrides { vars }),
            text,
        ))
    }

    /// Reads a plan that is to be used.
    ///
    /// # Errors
    /// The file can't be read, or the plan has problems, all of which are told.
    pub fn load(&self) -> Result<Loaded, Failure> {
        let (Checked { plan, problems }, source) = self.check()?;
        match plan {
            Some(plan) => Ok(Loaded { plan, source }),
            None => Err(
                Failure::refused(PLAN, format!("{} can't be run", self.path.display()))
                    .report(problems.render(stderr().is_terminal()), problems.json())
                    .remedy("mend the plan; nothing was sent to the coordinator"),
            ),
        }
    }
}

impl Loaded {
    /// The plan as the coordinator takes it.
    pub fn document(self) -> PlanDocument {
        PlanDocument {
            plan_json: self.plan.to_json(),
            digest: self.plan.digest().to_string(),
            source: self.source,
        }
    }
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("it has the form NAME=VALUE".to_owned()),
    }
}
