//! Plans in a few lines of text.
//!
//! ```text
//! outage budget=60s from=1 to=2 reserve=10s
//! detachable c
//! phase stop start_by=10s finish_by=30s gate=approval on_failure=rollback
//!   stop-web a,b in=final.scn watch=2 proof keep
//! rollback
//! phase start
//!   start-web a,b undo=stop-web
//! ```

use lockstep_barrier::ids::{AgentName, Digest, JournalId, Millis, RunId, StepId};
use lockstep_barrier::layout::{Gate, Layout, OnFailure, Outage, PhaseSpec, StepSpec};
use lockstep_barrier::message::Mode;
use lockstep_barrier::record::Begin;
use serde_json::Value;
use std::collections::BTreeSet;

pub fn begin(text: &str) -> Begin {
    let layout = layout(text);
    let members = layout
        .agents()
        .into_iter()
        .map(|agent| {
            let journal = JournalId(format!("{agent}-1"));
            (agent, journal)
        })
        .collect();
    Begin {
        run: RunId::from("run-1"),
        layout,
        members,
        by: "operator".to_owned(),
        trace: String::new(),
        rest: Value::Null,
    }
}

fn layout(text: &str) -> Layout {
    let mut layout = Layout {
        digest: Digest::from("d1"),
        forward: Vec::new(),
        rollback: Vec::new(),
        detachable: BTreeSet::new(),
        outage: None,
    };
    let mut back = false;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let phases = if back {
            &mut layout.rollback
        } else {
            &mut layout.forward
        };
        if line.starts_with(' ') {
            phases
                .last_mut()
                .expect("a step stands in a phase")
                .steps
                .push(step(&words));
            continue;
        }
        match words[0] {
            "outage" => layout.outage = Some(outage(&words)),
            "detachable" => layout.detachable = agents(words[1]).into_iter().collect(),
            "rollback" => back = true,
            "phase" => phases.push(phase(&words)),
            other => panic!("what is {other}?"),
        }
    }
    layout
}

fn agents(text: &str) -> Vec<AgentName> {
    text.split(',').map(AgentName::from).collect()
}

fn outage(words: &[&str]) -> Outage {
    let mut outage = Outage {
        budget: 0,
        starts_with: 0,
        ends_with: 0,
        rollback_reserve: 0,
    };
    for word in &words[1..] {
        match word.split_once('=') {
            Some(("budget", v)) => outage.budget = duration(v),
            Some(("reserve", v)) => outage.rollback_reserve = duration(v),
            Some(("from", v)) => outage.starts_with = v.parse().expect("a phase"),
            Some(("to", v)) => outage.ends_with = v.parse().expect("a phase"),
            _ => panic!("what is {word}?"),
        }
    }
    outage
}

fn phase(words: &[&str]) -> PhaseSpec {
    let mut phase = PhaseSpec {
        name: words[1].to_owned(),
        gate: Gate::None,
        start_by: 10_000,
        finish_by: 60_000,
        on_failure: OnFailure::Hold,
        point_of_no_return: false,
        steps: Vec::new(),
    };
    for word in &words[2..] {
        match word.split_once('=') {
            Some(("start_by", v)) => phase.start_by = duration(v),
            Some(("finish_by", v)) => phase.finish_by = duration(v),
            Some(("gate", "approval")) => phase.gate = Gate::Approval,
            Some(("gate", "hold")) => phase.gate = Gate::Hold,
            Some(("on_failure", "rollback")) => phase.on_failure = OnFailure::Rollback,
            Some(("on_failure", "continue")) => phase.on_failure = OnFailure::Continue,
            Some(("on_failure", "hold")) => phase.on_failure = OnFailure::Hold,
            None if *word == "no-return" => phase.point_of_no_return = true,
            _ => panic!("what is {word}?"),
        }
    }
    phase
}

fn step(words: &[&str]) -> StepSpec {
    let mut step = StepSpec {
        id: StepId::from(words[0]),
        agents: agents(words[1]),
        action: words[0].to_owned(),
        mode: Mode::Execute,
        params: Value::Null,
        inputs: Vec::new(),
        timeout: 30_000,
        proof: false,
        undoable: true,
        watch_until: None,
    };
    for word in &words[2..] {
        match word.split_once('=') {
            Some(("undo", of)) => step.mode = Mode::Undo { of: of.into() },
            Some(("watch", v)) => {
                step.watch_until = Some(v.parse().expect("a phase"));
                step.undoable = false;
            }
            Some(("in", v)) => {
                let (from, output) = v.split_once('.').expect("step.output");
                step.inputs.push((from.into(), output.to_owned()));
            }
            Some(("timeout", v)) => step.timeout = duration(v),
            None if *word == "proof" => {
                step.proof = true;
                step.undoable = false;
            }
            None if *word == "keep" => step.undoable = false,
            _ => panic!("what is {word}?"),
        }
    }
    step
}

pub fn duration(text: &str) -> Millis {
    if let Some(millis) = text.strip_suffix("ms") {
        return millis.parse().expect("milliseconds");
    }
    let seconds = text.strip_suffix('s').expect("a duration");
    seconds.parse::<Millis>().expect("seconds") * 1_000
}
