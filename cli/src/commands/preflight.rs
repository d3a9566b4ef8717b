//! `lockstep preflight`: what each task would do on the real hosts, and what
//! stands in the way. Nothing is changed anywhere.

use crate::config::Connection;
use crate::coordinator::Coordinator;
use crate::exit::Exit;
use crate::failure::{Failure, OBSTACLES};
use crate::output::{self, Format};
use crate::plan_file::PlanFile;
use crate::status;
use lockstep_proto::v1::PreflightRequest;
use std::fmt::Write;

/// Probes a plan.
#[derive(Debug, clap::Args)]
pub struct Preflight {
    #[command(flatten)]
    file: PlanFile,
}

impl Preflight {
    pub async fn carry_out(self, connection: &Connection, format: Format) -> Result<Exit, Failure> {
        let plan = self.file.load()?.document();
        let coordinator = Coordinator::connect(connection).await?;
        let request = coordinator.request(PreflightRequest { plan: Some(plan) });
        let mut answers = coordinator
            .client()
            .preflight(request)
            .await
            .map_err(|status| coordinator.failure(&status))?
            .into_inner();
        let mut parts: Vec<status::Preflight> = Vec::new();
        while let Some(part) = answers
            .message()
            .await
            .map_err(|status| coordinator.failure(&status))?
        {
            let part = part.into();
            match format {
                Format::Table => output::text(&text(&part))?,
                Format::Jsonl => output::value(format, &part)?,
                Format::Json => {}
            }
            parts.push(part);
        }
        if format == Format::Json {
            output::values(format, &parts)?;
        }
        verdict(&parts)
    }
}

fn verdict(parts: &[status::Preflight]) -> Result<Exit, Failure> {
    let obstacles: usize = parts
        .iter()
        .map(|part| {
            let tasks = part.tasks.iter().map(|task| task.obstacles.len());
            part.obstacles.len() + tasks.sum::<usize>()
        })
        .sum();
    if obstacles == 0 {
        return Ok(Exit::Done);
    }
    let what = match obstacles {
        1 => "an obstacle stands in the way of this plan".to_owned(),
        _ => format!("{obstacles} obstacles stand in the way of this plan"),
    };
    Err(Failure::refused(OBSTACLES, what)
        .remedy("remove them and repeat the preflight; nothing was changed"))
}

/// One agent's part for people.
fn text(part: &status::Preflight) -> String {
    let mut text = String::new();
    // Writing into a String has no way to fail.
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
            Some("already") => "  (is so already)",
            Some("unclear") => "  (the probe can't tell)",
            _ => "",
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

    fn part(obstacles: &[&str]) -> status::Preflight {
        status::Preflight {
            agent: Some("app-1".to_owned()),
            obstacles: Vec::new(),
            tasks: vec![status::PreflightTask {
                phase: "stop".to_owned(),
                step: "web".to_owned(),
                action: "service.stop".to_owned(),
                finding: Some("todo"),
                would_do: vec!["stop shop.service".to_owned()],
                obstacles: obstacles.iter().map(|&text| text.to_owned()).collect(),
                remarks: Vec::new(),
            }],
        }
    }

    #[test]
    fn an_obstacle_refuses_the_plan() {
        assert_eq!(verdict(&[part(&[])]).unwrap(), Exit::Done);
        let failure = verdict(&[part(&["no such unit"]), part(&[])]).unwrap_err();
        assert_eq!(failure.exit(), Exit::Refused);
        assert_eq!(
            text(&part(&["no such unit"])),
            "app-1\n  stop web (service.stop)\n    stop shop.service\n    ✗ no such unit\n"
        );
    }
}
