//! Effects and states as lines of a transcript.

use lockstep_barrier::coordinator::{self, Run, TaskStatus, Wait};
use lockstep_barrier::ids::{AgentName, Header, StepId, Track};
use lockstep_barrier::message::{Finding, Order, Outcome, Reply, TaskOrder, Verdict};
use lockstep_barrier::participant::{self, Purpose};
use lockstep_barrier::record::{ParticipantRecord, Record, Signed, SkipCause};

fn steps(tasks: &[TaskOrder]) -> String {
    let names: Vec<&str> = tasks.iter().map(|task| task.step.0.as_str()).collect();
    names.join(" ")
}

fn ids(steps: &[StepId]) -> String {
    let names: Vec<&str> = steps.iter().map(|step| step.0.as_str()).collect();
    names.join(" ")
}

fn at(header: &Header) -> String {
    format!(
        "{}#{} t{} d{}",
        header.phase, header.attempt, header.term.number, header.decision
    )
}

pub fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done => "done".to_owned(),
        Outcome::Already => "already".to_owned(),
        Outcome::Standing => "standing".to_owned(),
        Outcome::Failed { error } => format!("failed ({error})"),
        Outcome::Unknown { reason } => format!("unknown ({reason})"),
        Outcome::Drifted { detail } => format!("drifted ({detail})"),
        Outcome::Interrupted => "interrupted".to_owned(),
        Outcome::NotStarted => "not-started".to_owned(),
        Outcome::Lapsed => "lapsed".to_owned(),
    }
}

/// A serialised value without its quotes and braces: enough to read.
fn brief(value: &impl serde::Serialize) -> String {
    let text = serde_json::to_string(value).expect("it is JSON");
    text.replace('"', "")
}

pub fn coordinator_effect(effect: &coordinator::Effect) -> String {
    match effect {
        coordinator::Effect::Persist(entry) => {
            format!("C journal {}: {}", entry.seq, record(&entry.record))
        }
        coordinator::Effect::Send { to, order } => format!("C -> {to}: {}", self::order(order)),
    }
}

fn record(record: &Record) -> String {
    match record {
        Record::Began { begin, term } => {
            format!(
                "began {} plan {} t{}",
                begin.run, begin.layout.digest, term.number
            )
        }
        Record::TermBegan { term } => format!("term-began t{}", term.number),
        Record::TookOver {
            agent,
            term,
            decision,
        } => format!("took-over from t{} d{decision} at {agent}", term.number),
        Record::Preparing {
            phase,
            attempt,
            because,
            tasks,
            ..
        } => {
            let round: Vec<String> = tasks
                .iter()
                .map(|(agent, steps)| format!("{agent}: {}", ids(steps)))
                .collect();
            format!(
                "preparing {phase}#{attempt} ({}) {}",
                brief(because),
                round.join("; ")
            )
        }
        Record::Released {
            phase,
            attempt,
            consumed,
            ..
        } => {
            let inputs: Vec<String> = consumed
                .iter()
                .map(|c| format!(" {}.{} of {}#{}", c.step, c.output, c.agent, c.attempt))
                .collect();
            let inputs = inputs.join(",");
            let uses = if inputs.is_empty() { "" } else { " consuming" };
            format!("released {phase}#{attempt}{uses}{inputs}")
        }
        Record::TaskEnded { agent, report } => format!(
            "task-ended {} {agent} {}#{} {}",
            report.step,
            report.phase,
            report.attempt,
            outcome(&report.outcome)
        ),
        Record::Failed {
            phase,
            attempt,
            failure,
            leads_to,
        } => format!(
            "failed {phase}#{attempt} {} -> {}",
            brief(failure),
            brief(leads_to)
        ),
        Record::Contradicted { detail, .. } => format!("contradicted: {detail}"),
        Record::Completed { phase } => format!("completed {phase}"),
        Record::Revoked { phase, attempt } => format!("revoked {phase}#{attempt}"),
        Record::TaskLost { agent, step } => format!("task-lost {step} {agent}"),
        Record::GateOpened { phase, signed } => format!("gate-opened {phase} by {}", signed.by),
        Record::RetryDecided { phase, signed } => {
            let by = signed.as_ref().map_or("itself", |signed| &signed.by);
            format!("retry-decided {phase} by {by}")
        }
        Record::Skipped { phase, why } => match why {
            SkipCause::NothingToDo => format!("skipped {phase}: nothing to do"),
            SkipCause::Operator { signed } => format!("skipped {phase}: {}", reason(signed)),
        },
        Record::Waived {
            agent,
            step,
            signed,
        } => format!("waived {step} {agent}: {}", reason(signed)),
        Record::Owed { debt } => format!("owed {} {}", debt.step, debt.agent),
        Record::ClosedBy { agent } => format!("closed-by {agent}"),
        Record::Disarmed { agent, steps } => format!("disarmed {} {agent}", ids(steps)),
        Record::JournalLost { agent } => format!("journal-lost {agent}"),
        Record::Breached {
            agent,
            step,
            detail,
        } => format!("breached {step} {agent}: {detail}"),
        other => brief(other)
            .trim_start_matches("{record:")
            .trim_end_matches('}')
            .to_owned(),
    }
}

fn reason(signed: &Signed) -> &str {
    signed.reason.as_deref().unwrap_or("no reason given")
}

fn order(order: &Order) -> String {
    match order {
        Order::Prepare { header, tasks, .. } => {
            format!("prepare {} [{}]", at(header), steps(tasks))
        }
        Order::Release { header, inputs, .. } => {
            let given = if inputs.is_empty() {
                String::new()
            } else {
                format!(" with {}", brief(inputs))
            };
            format!("release {}{given}", at(header))
        }
        Order::Revoke { header } => format!("revoke {}", at(header)),
        Order::Attest { header, step, .. } => format!("attest {} {step}", at(header)),
        Order::Disarm { header, steps } => format!("disarm {} {}", at(header), ids(steps)),
        Order::Ack {
            step,
            phase,
            attempt,
            ..
        } => format!("ack {step} {phase}#{attempt}"),
        Order::Close { term, decision, .. } => format!("close t{} d{decision}", term.number),
    }
}

pub fn participant_effect(agent: &AgentName, effect: &participant::Effect) -> String {
    use participant::Effect;
    match effect {
        Effect::Persist(entry) => {
            format!(
                "{agent} journal {}: {}",
                entry.seq,
                own_record(&entry.record)
            )
        }
        Effect::Send(reply) => format!("{agent} -> C: {}", self::reply(reply)),
        Effect::Probe {
            phase,
            attempt,
            purpose,
            tasks,
            ..
        } => {
            let purpose = match purpose {
                Purpose::Vote => "for a vote",
                Purpose::Start => "before the start",
                Purpose::AfterCrash => "after a crash",
            };
            format!(
                "{agent} probes {} {purpose} {phase}#{attempt}",
                steps(tasks)
            )
        }
        Effect::Execute {
            phase,
            attempt,
            task,
            ..
        } => format!("{agent} EXECUTES {} {phase}#{attempt}", task.step),
        Effect::Undo {
            phase,
            attempt,
            task,
            capture,
            ..
        } => format!(
            "{agent} UNDOES {} {phase}#{attempt} to {}",
            task.step,
            brief(capture)
        ),
        Effect::Cancel { step, attempt, .. } => format!("{agent} cancels {step}#{attempt}"),
        Effect::Attest { step, .. } => format!("{agent} watch {step} looks"),
        Effect::Disarm { step, .. } => format!("{agent} watch {step} stops"),
        Effect::Arm {
            step, after_gap, ..
        } => {
            let gap = if *after_gap { " after a gap" } else { "" };
            format!("{agent} watch {step} stands again{gap}")
        }
    }
}

fn own_record(record: &ParticipantRecord) -> String {
    match record {
        ParticipantRecord::Obeyed { term, decision, .. } => {
            format!("obeyed t{} d{decision}", term.number)
        }
        ParticipantRecord::Promised {
            phase,
            attempt,
            tasks,
            ..
        } => format!("promised {phase}#{attempt} [{}]", steps(tasks)),
        ParticipantRecord::Refused { phase, attempt, .. } => format!("refused {phase}#{attempt}"),
        ParticipantRecord::Tombstoned {
            phase,
            attempt,
            why,
            ..
        } => format!("tombstoned {phase}#{attempt} ({})", brief(why)),
        ParticipantRecord::ForwardClosed { .. } => "forward-closed".to_owned(),
        ParticipantRecord::Released { phase, attempt, .. } => {
            format!("released {phase}#{attempt}")
        }
        ParticipantRecord::Intent {
            phase,
            attempt,
            step,
            capture,
            ..
        } => format!(
            "intent {step} {phase}#{attempt} captured {}",
            brief(capture)
        ),
        ParticipantRecord::Ended { report } => format!(
            "ended {} {}#{} {}",
            report.step,
            report.phase,
            report.attempt,
            outcome(&report.outcome)
        ),
        ParticipantRecord::Acked {
            step,
            phase,
            attempt,
            ..
        } => format!("acked {step} {phase}#{attempt}"),
        ParticipantRecord::WatchArmed { task, .. } => format!("watch-armed {}", task.step),
        ParticipantRecord::WatchBroke { step, detail, .. } => {
            format!("watch-broke {step}: {detail}")
        }
        ParticipantRecord::Disarmed { steps, .. } => format!("disarmed {}", ids(steps)),
        ParticipantRecord::Closed { .. } => "closed".to_owned(),
    }
}

fn reply(reply: &Reply) -> String {
    match reply {
        Reply::Vote {
            phase,
            attempt,
            verdict,
            ..
        } => {
            let verdict = match verdict {
                Verdict::Ready { probes } => {
                    let found: Vec<String> = probes
                        .iter()
                        .map(|(step, probe)| format!("{step} {}", finding(&probe.finding)))
                        .collect();
                    format!("ready ({})", found.join(", "))
                }
                Verdict::Refuse { reasons } => format!("refuse ({})", reasons.join("; ")),
                Verdict::Lapsed => "lapsed".to_owned(),
                Verdict::Busy => "busy".to_owned(),
            };
            format!("vote {phase}#{attempt} {verdict}")
        }
        Reply::Outcome(report) => format!(
            "outcome {} {}#{} {}",
            report.step,
            report.phase,
            report.attempt,
            outcome(&report.outcome)
        ),
        Reply::Attestation { step, breach, .. } => match breach {
            None => format!("attestation {step} clean"),
            Some(detail) => format!("attestation {step} breach: {detail}"),
        },
        Reply::Breach { step, detail, .. } => format!("breach {step}: {detail}"),
        Reply::Disarmed { steps, .. } => format!("disarmed {}", ids(steps)),
        Reply::Closed { .. } => "closed".to_owned(),
    }
}

fn finding(finding: &Finding) -> &'static str {
    match finding {
        Finding::Todo => "todo",
        Finding::Already => "already",
        Finding::Unclear => "unclear",
    }
}

fn status(status: &TaskStatus) -> String {
    match status {
        TaskStatus::Waiting => "waiting".to_owned(),
        TaskStatus::Released => "released".to_owned(),
        TaskStatus::Lost => "LOST".to_owned(),
        TaskStatus::Ended { report } => outcome(&report.outcome),
        TaskStatus::Waived => "waived".to_owned(),
        TaskStatus::Voided => "voided".to_owned(),
        TaskStatus::Owed => "owed".to_owned(),
    }
}

/// The run as a status page would show it.
pub fn state(run: &Run) -> Vec<String> {
    let state = run.state();
    let mut lines = Vec::new();
    for track in [Track::Forward, Track::Rollback] {
        if track == Track::Rollback && state.rollback.is_none() {
            continue;
        }
        let specs = match track {
            Track::Forward => &state.begin.layout.forward,
            Track::Rollback => &state.begin.layout.rollback,
        };
        for (spec, phase) in specs.iter().zip(state.phases(track)) {
            let tasks: Vec<String> = spec
                .steps
                .iter()
                .flat_map(|step| {
                    step.agents
                        .iter()
                        .map(move |a| (step.id.clone(), a.clone()))
                })
                .filter_map(|key| {
                    let task = state.tasks.get(&key)?;
                    let nothing = task.status == TaskStatus::Waiting && task.attempt == 0;
                    (!nothing).then(|| format!("{} {}: {}", key.0, key.1, status(&task.status)))
                })
                .collect();
            let text = serde_json::to_value(&phase.status).expect("it is JSON");
            let name = text["status"].as_str().unwrap_or("?");
            let attempt = phase.attempt;
            lines.push(format!(
                "{} {name}#{attempt} {}",
                spec.name,
                tasks.join(", ")
            ));
        }
    }
    for debt in &state.debts {
        lines.push(format!("owed: {} on {}", debt.step, debt.agent));
    }
    let changed: Vec<String> = state
        .still_changed()
        .map(|(step, agent)| format!("{step} on {agent}"))
        .collect();
    if !changed.is_empty() && state.rollback.is_some() {
        lines.push(format!("still changed: {}", changed.join(", ")));
    }
    if let Some(ending) = state.ended {
        lines.push(format!("ended: {}", brief(&ending)));
    }
    let waits: Vec<String> = run.waits_on().iter().map(wait).collect();
    if !waits.is_empty() {
        lines.push(format!("waits: {}", waits.join(", ")));
    }
    lines.into_iter().map(|l| l.trim_end().to_owned()).collect()
}

fn wait(wait: &Wait) -> String {
    match wait {
        Wait::Vote {
            agent,
            connected,
            busy,
        } => {
            let note = match (connected, busy) {
                (_, true) => " (busy)",
                (false, _) => " (not connected)",
                _ => "",
            };
            format!("vote of {agent}{note}")
        }
        Wait::Approval { phase } => format!("approval of {phase}"),
        Wait::HoldGate { phase } => format!("resume at {phase}"),
        Wait::Paused { by } => format!("resume (paused by {by})"),
        Wait::Held { reasons } => format!("resume (held: {})", reasons.join("; ")),
        Wait::Decision { phase } => format!("the operator's decision on {phase}"),
        Wait::Disarm { agent, step } => format!("{step} on {agent} to disarm"),
        Wait::Attestation { agent, step } => format!("{step} on {agent} to attest"),
        Wait::Outcome { agent, step, lost } => {
            let note = if *lost { " (lost)" } else { "" };
            format!("outcome of {step} on {agent}{note}")
        }
        Wait::GiveUp { reasons } => format!("abort ({})", reasons.join("; ")),
        Wait::TakeOver { reason } => format!("--take-over: {reason}"),
        Wait::Close { agent } => format!("{agent} to close"),
    }
}
