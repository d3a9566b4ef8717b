//! Scenarios of the protocol as readable text files.
//!
//! A file in `scenarios/` is a list of blocks: commands, a line `----`, and their
//! transcript. `UPDATE=1` rewrites the transcripts; review the diff before you
//! commit it. The invariants are checked after every effect, and a violation
//! fails the test whatever the file contains.

use crate::support::at_rest::nobody_stays_locked;
use crate::support::{Sim, failed, plan, show};
use lockstep_barrier::coordinator::{self, VerbAction};
use lockstep_barrier::ids::{AgentName, Digest, PhaseRef, StepId, Track};
use lockstep_barrier::message::Outcome;
use lockstep_barrier::participant;
use lockstep_barrier::record::Resolution;
use lockstep_barrier::resolved_plan::Outputs;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

/// The simulation after the scenario in this file.
pub fn play_scenario(name: &str) -> Sim {
    let file = folder().join(format!("{name}.txt"));
    let text = fs::read_to_string(file).expect("a scenario");
    let mut sim = None;
    play(&text, &mut sim);
    sim.expect("a scenario has a plan")
}

fn scenarios() -> Vec<PathBuf> {
    let folder = folder();
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .expect("the scenarios")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|e| e == "txt"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no scenarios in {}", folder.display());
    files
}

#[test]
fn every_scenario_plays_as_written() {
    let files = scenarios();
    let wrong: Vec<String> = files.iter().filter_map(|file| check(file)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Without the recorded transcripts: whatever a scenario leads to, no invariant is
/// broken, and the run can be led to its end. A command that is no longer possible
/// ends the scenario.
#[test]
fn no_scenario_breaks_an_invariant() {
    let mut broken = Vec::new();
    for file in scenarios() {
        let text = fs::read_to_string(&file).expect("a readable file");
        let mut sim = None;
        let whole = catch_unwind(AssertUnwindSafe(|| play(&text, &mut sim))).is_ok();
        let Some(mut sim) = sim else { continue };
        let healed = if whole { sim.heal(false) } else { Ok(()) };
        let violations = sim.violations.iter().chain(healed.as_ref().err());
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        broken.extend(violations.map(|what| format!("{name}: {what}")));
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Runs a scenario; returns the first difference, if any.
fn check(file: &Path) -> Option<String> {
    println!("{}", file.display());
    let expected = fs::read_to_string(file).expect("a readable file");
    let mut sim = None;
    let played = play(&expected, &mut sim);
    let mut violations = Vec::new();
    if let Some(sim) = sim {
        violations.extend(nobody_stays_locked(&sim).err());
        violations.extend(sim.violations);
    }
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    if !violations.is_empty() {
        return Some(format!("{name}: {}\n{played}", violations.join("; ")));
    }
    if played == expected {
        return None;
    }
    if std::env::var_os("UPDATE").is_some() {
        fs::write(file, played).expect("a writable file");
        return None;
    }
    let line = expected
        .lines()
        .zip(played.lines())
        .position(|(a, b)| a != b)
        .unwrap_or_else(|| expected.lines().count().min(played.lines().count()));
    Some(format!(
        "{name}, line {}: expected {:?}, got {:?} (UPDATE=1 rewrites it)",
        line + 1,
        expected.lines().nth(line).unwrap_or(""),
        played.lines().nth(line).unwrap_or("")
    ))
}

/// Plays a scenario; returns it with its transcripts.
pub fn play(text: &str, sim: &mut Option<Sim>) -> String {
    let mut played = String::new();
    for block in text.trim_end().split("\n\n") {
        let commands: Vec<&str> = block.lines().take_while(|line| *line != "----").collect();
        played.push_str(&commands.join("\n"));
        let only_prose = commands.iter().all(|line| line.starts_with('#'));
        if only_prose {
            played.push_str("\n\n");
            continue;
        }
        let output = run_block(sim, &commands);
        played.push_str("\n----\n");
        for line in output {
            played.push_str(&line);
            played.push('\n');
        }
        played.push('\n');
    }
    format!("{}\n", played.trim_end())
}

fn run_block(sim: &mut Option<Sim>, commands: &[&str]) -> Vec<String> {
    let mut lines = commands.iter().filter(|line| !line.starts_with('#'));
    if commands.contains(&"plan") {
        let text: Vec<&str> = lines.skip(1).copied().collect();
        let mut fresh = Sim::new(plan::begin(&text.join("\n")));
        fresh.start();
        let output = std::mem::take(&mut fresh.trace);
        *sim = Some(fresh);
        return output;
    }
    let sim = sim.as_mut().expect("a plan comes first");
    for line in &mut lines {
        command(sim, line);
        sim.check_state();
    }
    std::mem::take(&mut sim.trace)
}

fn command(sim: &mut Sim, line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let agent = |index: usize| AgentName::from(words[index]);
    match words[0] {
        "connect" => words[1..].iter().for_each(|n| sim.connect(&(*n).into())),
        "disconnect" => words[1..]
            .iter()
            .for_each(|n| sim.drop_session(&(*n).into())),
        "settle" => sim.settle(),
        "quietly" => quietly(sim, &words[1..].join(" ")),
        "deliver" | "drop" | "duplicate" => network(sim, &words),
        "chore" => assert!(sim.do_chore(&agent(1)), "{line}: nothing to do"),
        "finish" => finish(sim, &words),
        "changes" => sim.changes(&agent(1), &words[3..].join(" ")),
        "effect" => sim.take_effect(&agent(1)),
        "changed-by-hand" => {
            let host = &mut sim.agent_mut(&agent(1)).host;
            host.insert(StepId::from(words[2]), crate::support::after());
        }
        "undone-by-hand" => sim.undone_by_hand(&agent(1), &StepId::from(words[2])),
        "in-order" => sim.in_order = true,
        "tick" if words[1] == "next" => assert!(sim.pass_to_deadline(), "no deadline"),
        "tick" => sim.pass(plan::duration(words[1])),
        "crash" if words[1] == "coordinator" => match words.get(2) {
            Some(after) => sim.crash_after = Some(after.parse().expect("effects")),
            None => sim.crash_coordinator(),
        },
        "crash" => sim.crash_agent(&agent(1)),
        "crash-after" => sim.crash_after = Some(words[1].parse().expect("effects")),
        "restart" if words[1] == "coordinator" => sim.restart_coordinator(),
        "restart" => sim.restart_agent(&agent(1)),
        "restore-backup" => sim.restore_backup(words[1].parse().expect("records")),
        "second-coordinator" => sim.second_coordinator(words[1].parse().expect("records")),
        "other" => {
            sim.switch();
            command(sim, &words[1..].join(" "));
            sim.switch();
        }
        "take-over" => {
            sim.stop_other();
            sim.take_over = true;
        }
        "later-run" => {
            let by = words[1].into();
            sim.coordinator(coordinator::Event::Superseded { by });
        }
        "reboot" => {
            sim.crash_agent(&agent(1));
            sim.agent_mut(&agent(1)).boots += 1;
            sim.restart_agent(&agent(1));
        }
        "restore-agent" => {
            sim.restore_agent(&agent(1), words[2].parse().expect("records"));
        }
        "lose-journal" => sim.lose_journal(&agent(1)),
        "refuses" | "agrees" | "indeterminate" => probes(sim, &words),
        "breach" => breach(sim, &words),
        "verb" => verb(sim, &words[1..]),
        "state" => {
            if let Some(run) = &sim.run {
                sim.trace.extend(show::state(run));
            }
        }
        "expect" => expect(sim, &words[1..].join(" ")),
        "host" => show_hosts(sim),
        other => panic!("unknown word: {other}"),
    }
}

/// `expect ended: rolled-back`: a line of the state contains this. Unlike the recorded
/// transcript, an expectation is never rewritten.
fn expect(sim: &mut Sim, text: &str) {
    let lines = sim.run.as_ref().map(|run| show::state(run));
    let lines = lines.unwrap_or_default();
    if !lines.iter().any(|line| line.contains(text)) {
        let state = lines.join("; ");
        sim.violated(&format!(
            "invariant it_ends_as_expected is broken: not {text:?} but {state}"
        ));
    }
}

/// How the probes of a step answer from now on.
fn probes(sim: &mut Sim, words: &[&str]) {
    let agent = sim.agent_mut(&AgentName::from(words[1]));
    let step = StepId::from(words[2]);
    match words[0] {
        "refuses" => agent.refuses.insert(step),
        "agrees" => agent.refuses.remove(&step),
        _ => agent.indeterminate.insert(step),
    };
}

/// Runs a command without adding to the transcript.
fn quietly(sim: &mut Sim, line: &str) {
    let length = sim.trace.len();
    command(sim, line);
    sim.trace.truncate(length);
}

/// `deliver c->a 0`, `drop a->c 1`, `duplicate c->a 0`: by index in the queue.
fn network(sim: &mut Sim, words: &[&str]) {
    let (from, to) = words[1].split_once("->").expect("from->to");
    let index: usize = words.get(2).map_or(0, |w| w.parse().expect("a place"));
    let orders = from == "C";
    let name = AgentName::from(if orders { to } else { from });
    match words[0] {
        "deliver" if orders => assert!(sim.deliver_order(&name, index), "nothing there"),
        "deliver" => assert!(sim.deliver_reply(&name, index), "nothing there"),
        "drop" if orders => drop(sim.orders.get_mut(&name).and_then(|q| q.remove(index))),
        "drop" => drop(sim.replies.get_mut(&name).and_then(|q| q.remove(index))),
        _ if orders => {
            let queue = sim.orders.get_mut(&name).expect("an agent");
            queue.push_back(queue[index].clone());
        }
        _ => {
            let queue = sim.replies.get_mut(&name).expect("an agent");
            queue.push_back(queue[index].clone());
        }
    }
}

/// `finish a stop-web done out=scn:42`
fn finish(sim: &mut Sim, words: &[&str]) {
    let name = AgentName::from(words[1]);
    let running = sim
        .agent(&name)
        .running
        .as_ref()
        .map(|r| r.task.step.clone());
    assert_eq!(running, Some(words[2].into()), "{name} runs something else");
    let outcome = match words[3] {
        "done" => Outcome::Done,
        "armed" => Outcome::Armed,
        "failed" => failed("it went wrong"),
        "failed-after-its-effect" => {
            sim.take_effect(&name);
            failed("it took effect, then went wrong")
        }
        "unknown" => unknown(),
        "unknown-after-its-effect" => {
            sim.take_effect(&name);
            unknown()
        }
        "drifted" => Outcome::Drifted {
            detail: "someone else changed it".to_owned(),
        },
        other => panic!("unknown word: {other}"),
    };
    let mut outputs = Outputs::new();
    for word in &words[4..] {
        let pair = word.strip_prefix("out=").and_then(|w| w.split_once(':'));
        let (key, value) = pair.expect("out=key:value");
        outputs.insert(key.to_owned(), value.into());
    }
    sim.finish(&name, outcome, outputs);
}

fn unknown() -> Outcome {
    Outcome::Unknown {
        reason: "no answer".to_owned(),
    }
}

/// `breach a guard session 42`: the watch reports it now and on every attestation,
/// until `breach a guard gone`.
fn breach(sim: &mut Sim, words: &[&str]) {
    let name = AgentName::from(words[1]);
    let detail = words[3..].join(" ");
    if detail == "gone" {
        sim.agent_mut(&name).breach = None;
        return;
    }
    sim.agent_mut(&name).breach = Some(detail.clone());
    let run = sim.begin.run.clone();
    let step = StepId::from(words[2]);
    sim.participant(&name, participant::Event::WatchBroke { run, step, detail });
}

fn phase(text: &str) -> PhaseRef {
    let (track, index) = text.split_at(1);
    PhaseRef {
        track: if track == "p" {
            Track::Forward
        } else {
            Track::Rollback
        },
        index: index.parse().expect("a phase"),
    }
}

/// `verb skip reason it was done by hand`
fn verb(sim: &mut Sim, words: &[&str]) {
    let reason = words.iter().position(|word| *word == "reason");
    let reason = reason.map(|at| words[at + 1..].join(" "));
    let target = |index: usize| {
        (
            AgentName::from(words[index]),
            StepId::from(words[index + 1]),
        )
    };
    let action = match words[0] {
        "approve" => VerbAction::Approve {
            phase: phase(words[1]),
            digest: words
                .get(2)
                .map_or_else(|| Digest::from("d1"), |d| Digest::from(*d)),
        },
        "resume" => VerbAction::Resume,
        "pause" => VerbAction::Pause,
        "retry" => VerbAction::Retry,
        "skip" => VerbAction::Skip,
        "rollback" => VerbAction::Rollback,
        "abort" => VerbAction::Abort,
        "waive" => {
            let (agent, step) = target(1);
            VerbAction::Waive { agent, step }
        }
        "resolve" => {
            let (agent, step) = target(1);
            let resolution = match words[3] {
                "done" => Resolution::Done,
                _ => Resolution::Failed,
            };
            VerbAction::ResolveUnknown {
                agent,
                step,
                resolution,
            }
        }
        other => panic!("unknown word: {other}"),
    };
    if let Err(refused) = sim.verb(action, reason.as_deref()) {
        sim.trace.push(format!("refused: {refused}"));
    }
}

fn show_hosts(sim: &mut Sim) {
    for name in sim.names() {
        let left: Vec<&str> = sim.agent(&name).host.keys().map(|s| s.0.as_str()).collect();
        let line = if left.is_empty() {
            format!("host {name}: as before")
        } else {
            format!("host {name}: {}", left.join(", "))
        };
        sim.trace.push(line);
    }
}
