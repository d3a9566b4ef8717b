//! Replies of an agent.

use super::diagnosis::from_agent;
use super::{
    Invalid, MAX_REASONS, Result, brief, json, phase, run, status, step, step_texts, steps, text,
    truncated,
};
use crate::limits::MAX_CHANGE;
use crate::v1;
use lockstep_barrier::message::{Change, Changes, Outcome, Probe, Reply, TaskReport, Verdict};
use std::collections::BTreeMap;

fn verdict_to_wire(
    verdict: Verdict,
) -> (v1::VerdictKind, Vec<v1::ProbeResult>, Vec<v1::Diagnosis>) {
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
        Verdict::Refuse { reasons } => {
            let reasons = reasons.into_iter().map(Into::into).collect();
            (v1::VerdictKind::Refuse, Vec::new(), reasons)
        }
        Verdict::Lapsed => (v1::VerdictKind::Lapsed, Vec::new(), Vec::new()),
        Verdict::Busy => (v1::VerdictKind::Busy, Vec::new(), Vec::new()),
    }
}

fn verdict(vote: &mut v1::Vote) -> Result<Verdict> {
    Ok(match vote.verdict() {
        v1::VerdictKind::Ready => {
            let mut probes = BTreeMap::new();
            for result in std::mem::take(&mut vote.probes) {
                let finding =
                    status::finding(result.finding)?.ok_or(Invalid::Unknown("finding"))?;
                let before_image = json("before_image_json", &result.before_image_json)?;
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
                .map(from_agent)
                .collect(),
        },
        v1::VerdictKind::Lapsed => Verdict::Lapsed,
        v1::VerdictKind::Busy => Verdict::Busy,
        v1::VerdictKind::Unspecified => return Err(Invalid::Unknown("verdict")),
    })
}

/// An outcome's kind, its detail, and a failure's diagnosis.
fn outcome_to_wire(outcome: Outcome) -> (v1::OutcomeKind, String, Option<v1::Diagnosis>) {
    use v1::OutcomeKind as K;
    let (kind, detail) = match outcome {
        Outcome::Done => (K::Done, String::new()),
        Outcome::Unchanged => (K::Unchanged, String::new()),
        Outcome::Armed => (K::Armed, String::new()),
        Outcome::Failed { diagnosis } => {
            return (K::Failed, String::new(), Some((*diagnosis).into()));
        }
        Outcome::Unknown { reason } => (K::Unknown, reason),
        Outcome::Drifted { detail } => (K::Drifted, detail),
        Outcome::Interrupted => (K::Interrupted, String::new()),
        Outcome::NotStarted => (K::NotStarted, String::new()),
        Outcome::Lapsed => (K::Lapsed, String::new()),
    };
    (kind, detail, None)
}

fn outcome(
    kind: v1::OutcomeKind,
    detail: String,
    diagnosis: Option<v1::Diagnosis>,
) -> Result<Outcome> {
    use v1::OutcomeKind as K;
    Ok(match kind {
        K::Done => Outcome::Done,
        K::Unchanged => Outcome::Unchanged,
        K::Armed => Outcome::Armed,
        K::Failed => Outcome::failed(from_agent(diagnosis.ok_or(Invalid::Missing("diagnosis"))?)),
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
                promise_age,
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
                    promise_age_ms: promise_age,
                })
            }
            Reply::Outcome(report) => {
                let (kind, detail, diagnosis) = outcome_to_wire(report.outcome);
                Self::TaskReport(v1::TaskReport {
                    run_id: report.run.0,
                    phase: Some(report.phase.into()),
                    attempt: report.attempt,
                    step_id: report.step.0,
                    outcome: kind.into(),
                    detail,
                    diagnosis,
                    outputs_json: text(&report.outputs),
                    before_image_json: report.before_image.as_ref().map(text).unwrap_or_default(),
                    took_ms: report.took,
                    changes_omitted: report.changes.omitted,
                    changes: report.changes.made.into_iter().map(Into::into).collect(),
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

impl From<Change> for v1::Change {
    fn from(change: Change) -> Self {
        Self {
            at_ms: change.at,
            what: change.what,
        }
    }
}

/// Changes that an agent reported, within their limits.
fn changes(made: Vec<v1::Change>, omitted: u64) -> Changes {
    let mut changes = Changes::default();
    changes.extend(Changes {
        made: made
            .into_iter()
            .map(|change| Change {
                at: change.at_ms,
                what: truncated(change.what, MAX_CHANGE),
            })
            .collect(),
        omitted,
    });
    changes
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
            promise_age: m.promise_age_ms,
        },
        M::TaskReport(m) => Reply::Outcome(TaskReport {
            outcome: outcome(m.outcome(), brief(m.detail), m.diagnosis)?,
            run: run(m.run_id)?,
            phase: phase(m.phase)?,
            attempt: m.attempt,
            step: step(m.step_id)?,
            outputs: json("outputs_json", &m.outputs_json)?,
            before_image: json("before_image_json", &m.before_image_json)?,
            changes: changes(m.changes, m.changes_omitted),
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
        M::Pong(_) => return Err(Invalid::Unexpected("pong")),
        M::PreflightReport(_) => return Err(Invalid::Unexpected("preflight_report")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::MAX_SENTENCE;
    use lockstep_api::{Code, Diagnosis};
    use lockstep_barrier::ids::{PhaseRef, Term, Track};
    use lockstep_barrier::message::Finding;
    use serde_json::json;

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

    fn report(phase: PhaseRef, outcome: Outcome) -> Reply {
        Reply::Outcome(TaskReport {
            run: "r1".into(),
            phase,
            attempt: 1,
            step: "stop".into(),
            outcome,
            outputs: BTreeMap::from([("scn".to_owned(), json!("42"))]),
            before_image: Some(json!({"was": 1})),
            changes: Changes {
                made: vec![Change {
                    at: 1_700_000_000_123,
                    what: "stopped orders.service".into(),
                }],
                omitted: 2,
            },
            took: 12,
        })
    }

    #[test]
    fn every_reply_survives_the_wire() {
        let phase = PhaseRef {
            track: Track::Forward,
            index: 3,
        };
        let vote = |verdict| Reply::Vote {
            run: "r1".into(),
            phase,
            attempt: 1,
            term: Term {
                number: 4,
                incarnation: 99,
            },
            promise_age: 20,
            verdict,
        };
        let report = |outcome| report(phase, outcome);
        let probe = Probe {
            finding: Finding::Pending,
            before_image: None,
        };
        let detail = || "why".to_owned();
        let no = || Diagnosis::new(Code::LS2103, "no").cause("because");
        let replies = [
            vote(Verdict::Ready {
                probes: BTreeMap::from([("stop".into(), probe)]),
            }),
            vote(Verdict::Refuse {
                reasons: vec![no()],
            }),
            vote(Verdict::Lapsed),
            vote(Verdict::Busy),
            report(Outcome::Done),
            report(Outcome::Unchanged),
            report(Outcome::Armed),
            report(Outcome::failed(no().state_left("as it was"))),
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
