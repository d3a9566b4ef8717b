//! Conversion between the generated types and those of the barrier.
//!
//! Conversion to the wire cannot fail; conversion from the wire returns an
//! [`Invalid`] for every missing or invalid part, and the message is rejected.

pub mod status;

use crate::v1;
use lockstep_barrier::ids::{Digest, Header, PhaseRef, RunId, StepId, Term, Track};
use lockstep_barrier::message::{
    Finding, Mode, Order, Outcome, Probe, Reply, TaskOrder, TaskReport, Verdict,
};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// A message that violates the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A required part is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A value that the protocol doesn't know.
    #[error("{0} has a value that this version doesn't know")]
    Unknown(&'static str),
    /// Malformed JSON.
    #[error("{field} is malformed: {problem}")]
    Json {
        field: &'static str,
        problem: String,
    },
    /// The message is not for this side.
    #[error("{0} is not something this side accepts")]
    Unexpected(&'static str),
}

/// Bytes of a sentence from an agent that is recorded in the journal: an error with
/// its cause and the end of a command's output. Without a limit one agent could
/// exceed the size of a journal entry and so stop the coordinator.
pub const MAX_SENTENCE: usize = 16 << 10;

/// Reasons of one refusal: more than one phase has tasks for one agent.
pub const MAX_REASONS: usize = 64;

/// Truncates a sentence that is too long.
pub fn brief(mut sentence: String) -> String {
    if sentence.len() > MAX_SENTENCE {
        sentence.truncate(sentence.floor_char_boundary(MAX_SENTENCE));
        sentence.push('…');
    }
    sentence
}

type Result<T> = std::result::Result<T, Invalid>;

fn json<T: DeserializeOwned + Default>(field: &'static str, text: &str) -> Result<T> {
    if text.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_str(text).map_err(|e| Invalid::Json {
        field,
        problem: e.to_string(),
    })
}

fn text<T: serde::Serialize>(value: &T) -> String {
    // Maps with text keys and JSON values always serialise.
    serde_json::to_string(value).unwrap_or_default()
}

impl From<Term> for v1::Term {
    fn from(term: Term) -> Self {
        Self {
            number: term.number,
            incarnation: term.incarnation,
        }
    }
}

impl From<v1::Term> for Term {
    fn from(term: v1::Term) -> Self {
        Self {
            number: term.number,
            incarnation: term.incarnation,
        }
    }
}

impl From<Track> for v1::Track {
    fn from(track: Track) -> Self {
        match track {
            Track::Forward => Self::Forward,
            Track::Rollback => Self::Rollback,
        }
    }
}

impl From<PhaseRef> for v1::PhaseRef {
    fn from(phase: PhaseRef) -> Self {
        Self {
            track: v1::Track::from(phase.track).into(),
            index: phase.index,
        }
    }
}

impl TryFrom<v1::PhaseRef> for PhaseRef {
    type Error = Invalid;

    fn try_from(phase: v1::PhaseRef) -> Result<Self> {
        let track = match phase.track() {
            v1::Track::Forward => Track::Forward,
            v1::Track::Rollback => Track::Rollback,
            v1::Track::Unspecified => return Err(Invalid::Unknown("track")),
        };
        Ok(Self {
            track,
            index: phase.index,
        })
    }
}

fn phase(phase: Option<v1::PhaseRef>) -> Result<PhaseRef> {
    phase.ok_or(Invalid::Missing("phase"))?.try_into()
}

fn run(id: String) -> Result<RunId> {
    if id.is_empty() {
        Err(Invalid::Missing("run_id"))
    } else {
        Ok(RunId(id))
    }
}

fn step(id: String) -> Result<StepId> {
    if id.is_empty() {
        Err(Invalid::Missing("step_id"))
    } else {
        Ok(StepId(id))
    }
}

fn steps(ids: Vec<String>) -> Result<Vec<StepId>> {
    ids.into_iter().map(step).collect()
}

fn step_texts(steps: Vec<StepId>) -> Vec<String> {
    steps.into_iter().map(|step| step.0).collect()
}

impl From<Header> for v1::OrderHeader {
    fn from(header: Header) -> Self {
        Self {
            run_id: header.run.0,
            phase: Some(header.phase.into()),
            attempt: header.attempt,
            term: Some(header.term.into()),
            decision: header.decision,
            plan_digest: header.digest.0,
        }
    }
}

fn header(header: Option<v1::OrderHeader>) -> Result<Header> {
    let header = header.ok_or(Invalid::Missing("header"))?;
    Ok(Header {
        run: run(header.run_id)?,
        phase: phase(header.phase)?,
        attempt: header.attempt,
        term: header.term.ok_or(Invalid::Missing("term"))?.into(),
        decision: header.decision,
        digest: Digest(header.plan_digest),
    })
}

impl From<TaskOrder> for v1::TaskOrder {
    fn from(task: TaskOrder) -> Self {
        let undo_of = match task.mode {
            Mode::Execute => String::new(),
            Mode::Undo { of } => of.0,
        };
        Self {
            step_id: task.step.0,
            action: task.action,
            undo_of,
            params_json: text(&task.params),
            timeout_ms: task.timeout,
            watch: task.watch,
        }
    }
}

impl TryFrom<v1::TaskOrder> for TaskOrder {
    type Error = Invalid;

    fn try_from(task: v1::TaskOrder) -> Result<Self> {
        let mode = if task.undo_of.is_empty() {
            Mode::Execute
        } else {
            Mode::Undo {
                of: StepId(task.undo_of),
            }
        };
        Ok(Self {
            step: step(task.step_id)?,
            action: task.action,
            mode,
            params: json("params_json", &task.params_json)?,
            timeout: task.timeout_ms,
            watch: task.watch,
        })
    }
}

/// Tasks from the wire.
///
/// # Errors
/// [`Invalid`] for the first task that isn't one.
pub fn tasks(tasks: Vec<v1::TaskOrder>) -> Result<Vec<TaskOrder>> {
    tasks.into_iter().map(TryInto::try_into).collect()
}

impl From<Order> for v1::session_response::Message {
    fn from(order: Order) -> Self {
        match order {
            Order::Prepare {
                header,
                tasks,
                start_by,
                finish_by,
                provisional,
            } => Self::Prepare(v1::Prepare {
                header: Some(header.into()),
                tasks: tasks.into_iter().map(Into::into).collect(),
                start_by_ms: start_by,
                finish_by_ms: finish_by,
                provisional,
            }),
            Order::Release {
                header,
                inputs,
                before_images,
            } => Self::Release(v1::Release {
                header: Some(header.into()),
                inputs_json: text(&inputs),
                before_images_json: text(&before_images),
            }),
            Order::Revoke { header } => Self::Revoke(v1::Revoke {
                header: Some(header.into()),
            }),
            Order::Attest {
                header,
                step,
                nonce,
            } => Self::Attest(v1::Attest {
                header: Some(header.into()),
                step_id: step.0,
                nonce,
            }),
            Order::Disarm { header, steps } => Self::Disarm(v1::Disarm {
                header: Some(header.into()),
                step_ids: step_texts(steps),
            }),
            Order::Ack {
                run,
                step,
                phase,
                attempt,
            } => Self::Acknowledge(v1::Acknowledge {
                run_id: run.0,
                step_id: step.0,
                phase: Some(phase.into()),
                attempt,
            }),
            Order::Close {
                run,
                term,
                decision,
            } => Self::Close(v1::Close {
                run_id: run.0,
                term: Some(term.into()),
                decision,
            }),
        }
    }
}

/// An order from the wire.
///
/// # Errors
/// [`Invalid`]; [`Invalid::Unexpected`] for messages outside the barrier.
pub fn order(message: v1::session_response::Message) -> Result<Order> {
    use v1::session_response::Message as M;
    Ok(match message {
        M::Prepare(m) => Order::Prepare {
            header: header(m.header)?,
            tasks: tasks(m.tasks)?,
            start_by: m.start_by_ms,
            finish_by: m.finish_by_ms,
            provisional: m.provisional,
        },
        M::Release(m) => Order::Release {
            header: header(m.header)?,
            inputs: json("inputs_json", &m.inputs_json)?,
            before_images: json("captures_json", &m.before_images_json)?,
        },
        M::Revoke(m) => Order::Revoke {
            header: header(m.header)?,
        },
        M::Attest(m) => Order::Attest {
            header: header(m.header)?,
            step: step(m.step_id)?,
            nonce: m.nonce,
        },
        M::Disarm(m) => Order::Disarm {
            header: header(m.header)?,
            steps: steps(m.step_ids)?,
        },
        M::Acknowledge(m) => Order::Ack {
            run: run(m.run_id)?,
            step: step(m.step_id)?,
            phase: phase(m.phase)?,
            attempt: m.attempt,
        },
        M::Close(m) => Order::Close {
            run: run(m.run_id)?,
            term: m.term.ok_or(Invalid::Missing("term"))?.into(),
            decision: m.decision,
        },
        M::Welcome(_) => return Err(Invalid::Unexpected("welcome")),
        M::PreflightOrder(_) => return Err(Invalid::Unexpected("preflight_order")),
    })
}

impl From<Finding> for v1::Finding {
    fn from(finding: Finding) -> Self {
        match finding {
            Finding::Pending => Self::Pending,
            Finding::Satisfied => Self::Satisfied,
            Finding::Indeterminate => Self::Indeterminate,
        }
    }
}

impl TryFrom<v1::Finding> for Finding {
    type Error = Invalid;

    fn try_from(finding: v1::Finding) -> Result<Self> {
        match finding {
            v1::Finding::Pending => Ok(Self::Pending),
            v1::Finding::Satisfied => Ok(Self::Satisfied),
            v1::Finding::Indeterminate => Ok(Self::Indeterminate),
            v1::Finding::Unspecified => Err(Invalid::Unknown("finding")),
        }
    }
}

fn verdict_to_wire(verdict: Verdict) -> (v1::VerdictKind, Vec<v1::ProbeResult>, Vec<String>) {
    match verdict {
        Verdict::Ready { probes } => {
            let probes = probes
                .into_iter()
                .map(|(step, probe)| v1::ProbeResult {
                    step_id: step.0,
                    finding: v1::Finding::from(probe.finding).into(),
                    before_image_json: probe.before_image.as_ref().map(text).unwrap_or_default(),
                })
                .collect();
            (v1::VerdictKind::Ready, probes, Vec::new())
        }
        Verdict::Refuse { reasons } => (v1::VerdictKind::Refuse, Vec::new(), reasons),
        Verdict::Lapsed => (v1::VerdictKind::Lapsed, Vec::new(), Vec::new()),
        Verdict::Busy => (v1::VerdictKind::Busy, Vec::new(), Vec::new()),
    }
}

fn verdict(vote: &mut v1::Vote) -> Result<Verdict> {
    Ok(match vote.verdict() {
        v1::VerdictKind::Ready => {
            let mut probes = BTreeMap::new();
            for result in std::mem::take(&mut vote.probes) {
                let finding = result.finding().try_into()?;
                let before_image = json("capture_json", &result.before_image_json)?;
                probes.insert(
                    step(result.step_id)?,
                    Probe {
                        finding,
                        before_image,
                    },
                );
            }
            Verdict::Ready { probes }
        }
        v1::VerdictKind::Refuse => Verdict::Refuse {
            reasons: std::mem::take(&mut vote.reasons)
                .into_iter()
                .take(MAX_REASONS)
                .map(brief)
                .collect(),
        },
        v1::VerdictKind::Lapsed => Verdict::Lapsed,
        v1::VerdictKind::Busy => Verdict::Busy,
        v1::VerdictKind::Unspecified => return Err(Invalid::Unknown("verdict")),
    })
}

/// An outcome's kind and detail, as the wire and the status pages have it.
pub fn outcome_to_wire(outcome: Outcome) -> (v1::OutcomeKind, String) {
    use v1::OutcomeKind as K;
    match outcome {
        Outcome::Done => (K::Done, String::new()),
        Outcome::Unchanged => (K::Unchanged, String::new()),
        Outcome::Armed => (K::Armed, String::new()),
        Outcome::Failed { error } => (K::Failed, error),
        Outcome::Unknown { reason } => (K::Unknown, reason),
        Outcome::Drifted { detail } => (K::Drifted, detail),
        Outcome::Interrupted => (K::Interrupted, String::new()),
        Outcome::NotStarted => (K::NotStarted, String::new()),
        Outcome::Lapsed => (K::Lapsed, String::new()),
    }
}

fn outcome(kind: v1::OutcomeKind, detail: String) -> Result<Outcome> {
    use v1::OutcomeKind as K;
    Ok(match kind {
        K::Done => Outcome::Done,
        K::Unchanged => Outcome::Unchanged,
        K::Armed => Outcome::Armed,
        K::Failed => Outcome::Failed { error: detail },
        K::Unknown => Outcome::Unknown { reason: detail },
        K::Drifted => Outcome::Drifted { detail },
        K::Interrupted => Outcome::Interrupted,
        K::NotStarted => Outcome::NotStarted,
        K::Lapsed => Outcome::Lapsed,
        K::Unspecified => return Err(Invalid::Unknown("outcome")),
    })
}

impl From<Reply> for v1::session_request::Message {
    fn from(reply: Reply) -> Self {
        match reply {
            Reply::Vote {
                run,
                phase,
                attempt,
                term,
                verdict,
            } => {
                let (kind, probes, reasons) = verdict_to_wire(verdict);
                Self::Vote(v1::Vote {
                    run_id: run.0,
                    phase: Some(phase.into()),
                    attempt,
                    term: Some(term.into()),
                    verdict: kind.into(),
                    probes,
                    reasons,
                })
            }
            Reply::Outcome(report) => {
                let (kind, detail) = outcome_to_wire(report.outcome);
                Self::TaskReport(v1::TaskReport {
                    run_id: report.run.0,
                    phase: Some(report.phase.into()),
                    attempt: report.attempt,
                    step_id: report.step.0,
                    outcome: kind.into(),
                    detail,
                    outputs_json: text(&report.outputs),
                    before_image_json: report.before_image.as_ref().map(text).unwrap_or_default(),
                    took_ms: report.took,
                })
            }
            Reply::Attestation {
                run,
                step,
                nonce,
                breach,
            } => Self::Attestation(v1::Attestation {
                run_id: run.0,
                step_id: step.0,
                nonce,
                breach: breach.unwrap_or_default(),
            }),
            Reply::Breach { run, step, detail } => Self::Breach(v1::Breach {
                run_id: run.0,
                step_id: step.0,
                detail,
            }),
            Reply::Disarmed { run, steps } => Self::Disarmed(v1::Disarmed {
                run_id: run.0,
                step_ids: step_texts(steps),
            }),
            Reply::Closed { run } => Self::Closed(v1::Closed { run_id: run.0 }),
        }
    }
}

/// A reply from the wire.
///
/// # Errors
/// [`Invalid`]; [`Invalid::Unexpected`] for messages outside the barrier.
pub fn reply(message: v1::session_request::Message) -> Result<Reply> {
    use v1::session_request::Message as M;
    Ok(match message {
        M::Vote(mut m) => Reply::Vote {
            verdict: verdict(&mut m)?,
            run: run(m.run_id)?,
            phase: phase(m.phase)?,
            attempt: m.attempt,
            term: m.term.ok_or(Invalid::Missing("term"))?.into(),
        },
        M::TaskReport(m) => Reply::Outcome(TaskReport {
            outcome: outcome(m.outcome(), brief(m.detail))?,
            run: run(m.run_id)?,
            phase: phase(m.phase)?,
            attempt: m.attempt,
            step: step(m.step_id)?,
            outputs: json("outputs_json", &m.outputs_json)?,
            before_image: json("capture_json", &m.before_image_json)?,
            took: m.took_ms,
        }),
        M::Attestation(m) => Reply::Attestation {
            run: run(m.run_id)?,
            step: step(m.step_id)?,
            nonce: m.nonce,
            breach: (!m.breach.is_empty()).then(|| brief(m.breach)),
        },
        M::Breach(m) => Reply::Breach {
            run: run(m.run_id)?,
            step: step(m.step_id)?,
            detail: brief(m.detail),
        },
        M::Disarmed(m) => Reply::Disarmed {
            run: run(m.run_id)?,
            steps: steps(m.step_ids)?,
        },
        M::Closed(m) => Reply::Closed {
            run: run(m.run_id)?,
        },
        M::Hello(_) => return Err(Invalid::Unexpected("hello")),
        M::Progress(_) => return Err(Invalid::Unexpected("progress")),
        M::PreflightReport(_) => return Err(Invalid::Unexpected("preflight_report")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn some_header() -> Header {
        Header {
            run: "r1".into(),
            phase: PhaseRef {
                track: Track::Rollback,
                index: 3,
            },
            attempt: 2,
            term: Term {
                number: 4,
                incarnation: 99,
            },
            decision: 17,
            digest: "abc".into(),
        }
    }

    #[test]
    fn what_an_agent_says_at_length_is_cut() {
        let long = "\u{1}ä".repeat(MAX_SENTENCE);
        let message = v1::session_request::Message::Breach(v1::Breach {
            run_id: "r1".into(),
            step_id: "fence".into(),
            detail: long,
        });
        let Ok(Reply::Breach { detail, .. }) = reply(message) else {
            panic!("a breach stays one");
        };
        assert!(detail.len() <= MAX_SENTENCE + "…".len() && detail.ends_with('…'));
    }

    #[test]
    fn every_order_survives_the_wire() {
        let task = TaskOrder {
            step: "stop".into(),
            action: "service.stop".into(),
            mode: Mode::Undo { of: "stop".into() },
            params: json!({"units": ["a.service"]}),
            timeout: 5000,
            watch: false,
        };
        let inputs = BTreeMap::from([(
            StepId::from("finalize"),
            BTreeMap::from([("scn".to_owned(), json!("42"))]),
        )]);
        let before_images =
            BTreeMap::from([(StepId::from("stop"), json!({"a.service": "active"}))]);
        let header = some_header;
        let orders = [
            Order::Prepare {
                header: header(),
                tasks: vec![task],
                start_by: 1,
                finish_by: 2,
                provisional: true,
            },
            Order::Release {
                header: header(),
                inputs,
                before_images,
            },
            Order::Revoke { header: header() },
            Order::Attest {
                header: header(),
                step: "watch".into(),
                nonce: 7,
            },
            Order::Disarm {
                header: header(),
                steps: vec!["watch".into()],
            },
            Order::Ack {
                run: "r1".into(),
                step: "stop".into(),
                phase: header().phase,
                attempt: 1,
            },
            Order::Close {
                run: "r1".into(),
                term: header().term,
                decision: 20,
            },
        ];
        for sent in orders {
            assert_eq!(order(sent.clone().into()), Ok(sent));
        }
    }

    #[test]
    fn every_reply_survives_the_wire() {
        let phase = some_header().phase;
        let vote = |verdict| Reply::Vote {
            run: "r1".into(),
            phase,
            attempt: 1,
            term: some_header().term,
            verdict,
        };
        let report = |outcome| {
            Reply::Outcome(TaskReport {
                run: "r1".into(),
                phase,
                attempt: 1,
                step: "stop".into(),
                outcome,
                outputs: BTreeMap::from([("scn".to_owned(), json!("42"))]),
                before_image: Some(json!({"was": 1})),
                took: 12,
            })
        };
        let probe = Probe {
            finding: Finding::Pending,
            before_image: None,
        };
        let detail = || "why".to_owned();
        let replies = [
            vote(Verdict::Ready {
                probes: BTreeMap::from([("stop".into(), probe)]),
            }),
            vote(Verdict::Refuse {
                reasons: vec!["no".into()],
            }),
            vote(Verdict::Lapsed),
            vote(Verdict::Busy),
            report(Outcome::Done),
            report(Outcome::Unchanged),
            report(Outcome::Armed),
            report(Outcome::Failed { error: detail() }),
            report(Outcome::Unknown { reason: detail() }),
            report(Outcome::Drifted { detail: detail() }),
            report(Outcome::Interrupted),
            report(Outcome::NotStarted),
            report(Outcome::Lapsed),
            Reply::Attestation {
                run: "r1".into(),
                step: "w".into(),
                nonce: 3,
                breach: None,
            },
            Reply::Breach {
                run: "r1".into(),
                step: "w".into(),
                detail: detail(),
            },
            Reply::Disarmed {
                run: "r1".into(),
                steps: vec!["w".into()],
            },
            Reply::Closed { run: "r1".into() },
        ];
        for sent in replies {
            assert_eq!(reply(sent.clone().into()), Ok(sent));
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let revoke = v1::session_response::Message::Revoke(v1::Revoke { header: None });
        assert_eq!(order(revoke), Err(Invalid::Missing("header")));
        let closed = v1::session_request::Message::Closed(v1::Closed {
            run_id: String::new(),
        });
        assert_eq!(reply(closed), Err(Invalid::Missing("run_id")));
        let vote = v1::Vote {
            run_id: "r".into(),
            ..Default::default()
        };
        let vote = v1::session_request::Message::Vote(vote);
        assert_eq!(reply(vote), Err(Invalid::Unknown("verdict")));
    }
}
