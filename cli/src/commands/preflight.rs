//! `lockstep preflight`: reports what each task would do on its host, and which
//! obstacles prevent it. Nothing is changed.

use crate::config::Connection;
use crate::coordinator::Coordinator;
use crate::failure::{Failure, OBSTACLES};
use crate::output::{self, Format};
use crate::plan_file::PlanFile;
use lockstep_api::{Exit, Finding, PreflightReport};
use std::fmt::Write;

/// Probes a plan.
#[derive(Debug, clap::Args)]
pub struct Preflight {
    #[command(flatten)]
    file: PlanFile,
    #[command(flatten, next_help_heading = "Connection")]
    connection: Connection,
}

impl Preflight {
    pub async fn execute(self, format: Format) -> Result<Exit, Failure> {
        let plan = self.file.load()?;
        let coordinator = Coordinator::connect(&self.connection).await?;
        let mut reports = coordinator.preflight(plan).await?;
        let mut parts: Vec<PreflightReport> = Vec::new();
        while let Some(part) = reports
            .next()
            .await
            .map_err(|status| coordinator.failure(&status))?
        {
            if format == Format::Jsonl {
                output::value(format, &part)?;
            }
            parts.push(part);
        }
        // They arrive in the order in which agents finish; the plan as a whole is first.
        parts.sort_by(|a, b| a.agent.cmp(&b.agent));
        match format {
            Format::Table => output::text(&parts.iter().map(text).collect::<String>())?,
            Format::Json => output::values(format, &parts)?,
            Format::Jsonl => {}
        }
        verdict(&parts)
    }
}

fn verdict(parts: &[PreflightReport]) -> Result<Exit, Failure> {
    let obstacles: usize = parts.iter().map(PreflightReport::obstacle_count).sum();
    if obstacles == 0 {
        return Ok(Exit::Done);
    }
    let what = match obstacles {
        1 => "preflight found an obstacle".to_owned(),
        _ => format!("preflight found {obstacles} obstacles"),
    };
    Err(Failure::refused(OBSTACLES, what)
        .remedy("remove the obstacles and repeat the preflight; nothing was changed"))
}

/// The report of one agent as text.
fn text(part: &PreflightReport) -> String {
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = writeln!(
        text,
        "{}",
        part.agent.as_deref().unwrap_or("the plan as a whole")
    );
    for obstacle in &part.obstacles {
        let _ = writeln!(text, "  ✗ {obstacle}");
    }
    for task in &part.tasks {
        let finding = match task.finding {
            Some(Finding::Satisfied) => "  (already satisfied)",
            Some(Finding::Indeterminate) => "  (the probe can't tell)",
            Some(Finding::Pending) | None => "",
        };
        let _ = writeln!(
            text,
            "  {} {} ({}){finding}",
            task.phase, task.step, task.action
        );
        let lines = [
            ("", &task.would_do),
            ("✗ ", &task.obstacles),
            ("note: ", &task.remarks),
        ];
        for (mark, lines) in lines {
            for line in lines {
                let _ = writeln!(text, "    {mark}{line}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(obstacles: &[&str]) -> PreflightReport {
        PreflightReport {
            agent: Some("app-1".to_owned()),
            obstacles: Vec::new(),
            tasks: vec![lockstep_api::PreflightTask {
                phase: "stop".to_owned(),
                step: "web".to_owned(),
                action: "service.stop".to_owned(),
                finding: Some(Finding::Pending),
                would_do: vec!["stop shop.service".to_owned()],
                obstacles: obstacles.iter().map(|&text| text.to_owned()).collect(),
                remarks: Vec::new(),
            }],
        }
    }

    #[test]
    fn an_obstacle_fails_the_preflight() {
        assert_eq!(verdict(&[part(&[])]).unwrap(), Exit::Done);
        let failure = verdict(&[part(&["no such unit"]), part(&[])]).unwrap_err();
        assert_eq!(failure.exit(), Exit::Refused);
        assert_eq!(
            text(&part(&["no such unit"])),
            "app-1\n  stop web (service.stop)\n    stop shop.service\n    ✗ no such unit\n"
        );
    }
}
