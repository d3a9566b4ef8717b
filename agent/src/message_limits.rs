//! Limits what an agent sends to what one message may hold.
//!
//! A vote or a report that the coordinator rejects for its size would end the
//! session and be sent again by the next one, without end. Therefore a
//! captured state that is too large is a refusal before anything is done,
//! outputs that are too large are a failure, and sentences are truncated.

use crate::action::Outputs;
use crate::preflight::PreflightFinding;
use lockstep_api::{Code, Diagnosis};
use lockstep_barrier::message::{Outcome, Probe, json_size};
use lockstep_proto::convert::diagnosis::short;
use lockstep_proto::convert::{MAX_SENTENCE, brief};
use lockstep_proto::limits::{MAX_BEFORE_IMAGES, MAX_OUTPUTS, MAX_REFUSAL, MAX_REPORT};

/// Bytes of each further sentence when a refusal is full: enough for its code
/// and what happened.
const SHORT: usize = 200;

/// What is left of the limits of one vote.
pub struct Vote {
    before_images: usize,
    sentences: usize,
}

impl Vote {
    pub fn new() -> Self {
        Self {
            before_images: MAX_BEFORE_IMAGES,
            sentences: MAX_REFUSAL,
        }
    }

    /// Counts one task's probe result against the limits.
    ///
    /// # Errors
    /// The reason of the refusal, truncated, where the probe failed or its
    /// captured state doesn't fit.
    pub fn fit(
        &mut self,
        action: &str,
        probed: Result<Probe, Diagnosis>,
    ) -> Result<Probe, Diagnosis> {
        let fitting = probed.and_then(|probe| {
            let bytes = probe.before_image.as_ref().map_or(0, json_size);
            if bytes <= self.before_images {
                self.before_images -= bytes;
                return Ok(probe);
            }
            let what = format!(
                "the before-image of {action} takes {bytes} bytes, and {} of {MAX_BEFORE_IMAGES} are \
                 left in this phase",
                self.before_images
            );
            Err(Diagnosis::new(Code::LS2012, what)
                .state_left("nothing was done")
                .remedy("let it change less at once, or put it into a phase of its own"))
        });
        fitting.map_err(|reason| {
            let mut reason = short(reason, MAX_SENTENCE);
            if json_size(&reason) > self.sentences {
                reason = short(reason, SHORT);
            }
            self.sentences = self.sentences.saturating_sub(json_size(&reason));
            reason
        })
    }
}

/// A task's outcome and outputs within the limits of a report.
pub fn outcome(action: &str, (outcome, outputs): (Outcome, Outputs)) -> (Outcome, Outputs) {
    let bytes = json_size(&outputs);
    if bytes > MAX_OUTPUTS {
        let what = format!(
            "{action} was executed, but its outputs have {bytes} bytes, more than {MAX_OUTPUTS}"
        );
        let diagnosis = Diagnosis::new(Code::LS2013, what)
            .state_left("what it did is in effect")
            .remedy("roll back, name fewer tables in this step of the plan, and start a new run");
        return (Outcome::failed(diagnosis), Outputs::new());
    }
    let outcome = match outcome {
        Outcome::Failed { diagnosis } => Outcome::failed(short(*diagnosis, MAX_SENTENCE)),
        Outcome::Drifted { detail } => Outcome::Drifted {
            detail: brief(detail),
        },
        Outcome::Unknown { reason } => Outcome::Unknown {
            reason: brief(reason),
        },
        outcome @ (Outcome::Done
        | Outcome::Unchanged
        | Outcome::Armed
        | Outcome::Interrupted
        | Outcome::NotStarted
        | Outcome::Lapsed) => outcome,
    };
    (outcome, outputs)
}

/// The bytes left in one preflight report.
pub struct Report(usize);

impl Report {
    pub fn new() -> Self {
        Self(MAX_REPORT)
    }

    /// Drops the lines of a finding that don't fit, obstacles last, and adds
    /// a line with their number. Foreseen outputs that don't fit are dropped: the
    /// tasks that consume them are then checked in the run.
    pub fn fit(&mut self, mut finding: PreflightFinding) -> PreflightFinding {
        for lines in [
            &mut finding.obstacles,
            &mut finding.remarks,
            &mut finding.would_do,
        ] {
            let mut fitting = Vec::new();
            let all = lines.len();
            for line in std::mem::take(lines).into_iter().map(brief) {
                if line.len() > self.0 {
                    break;
                }
                self.0 -= line.len();
                fitting.push(line);
            }
            if fitting.len() < all {
                fitting.push(format!(
                    "and {} more that the report has no room for",
                    all - fitting.len()
                ));
            }
            *lines = fitting;
        }
        let foreseen = json_size(&finding.foreseen);
        if foreseen > self.0 {
            finding.foreseen.clear();
        } else if !finding.foreseen.is_empty() {
            self.0 -= foreseen;
        }
        finding
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert;
    use crate::handle::{JournalEntry, Outgoing};
    use crate::preflight::PreflightReport;
    use lockstep_barrier::ids::{PhaseRef, RunId, StepId, Term, Track};
    use lockstep_barrier::message::{Change, Changes, Finding, Reply, TaskReport, Verdict};
    use lockstep_proto::limits::{MAX_CHANGE, MAX_MESSAGE};
    use prost::Message as _;
    use serde_json::Value;
    use std::collections::BTreeMap;

    const PHASE: PhaseRef = PhaseRef {
        track: Track::Forward,
        index: 0,
    };

    /// A text that has exactly so many bytes as JSON.
    fn of_size(bytes: usize) -> Value {
        Value::String("x".repeat(bytes - 2))
    }

    fn probe(bytes: usize) -> Result<Probe, Diagnosis> {
        Ok(Probe {
            finding: Finding::Pending,
            before_image: Some(of_size(bytes)),
        })
    }

    fn encoded(reply: Reply) -> usize {
        let head = JournalEntry {
            position: u64::MAX,
            hash: "f".repeat(64),
        };
        let message = Outgoing::Reply {
            reply,
            traceparent: "t".repeat(64),
            journal_head: Some(head),
        };
        convert::outgoing(message).encoded_len()
    }

    fn vote(verdict: Verdict) -> usize {
        let vote = Reply::Vote {
            run: RunId::from("0190c0de-0000-7000-8000-000000000001"),
            phase: PHASE,
            attempt: 1,
            term: Term {
                number: 1,
                incarnation: 1,
            },
            promise_age: 0,
            verdict,
        };
        encoded(vote)
    }

    #[test]
    fn a_vote_holds_captures_up_to_the_limit_and_refuses_beyond() {
        let mut room = Vote::new();
        let mut probes = BTreeMap::new();
        for (step, bytes) in [("a", 1_000), ("b", MAX_BEFORE_IMAGES - 1_000)] {
            let taken = room.fit("oracle.triggers.disable", probe(bytes)).unwrap();
            probes.insert(StepId::from(step), taken);
        }
        let size = vote(Verdict::Ready { probes });
        assert!(size > MAX_BEFORE_IMAGES && size <= MAX_MESSAGE, "{size}");

        let refused = room.fit("cron.disable", probe(3)).unwrap_err();
        assert_eq!(refused.code, Code::LS2012);
        let refused = Vote::new().fit("cron.disable", probe(MAX_BEFORE_IMAGES + 1));
        assert_eq!(refused.unwrap_err().code, Code::LS2012);
    }

    #[test]
    fn a_refusal_of_many_tasks_fits_into_a_message() {
        let mut room = Vote::new();
        let long = Diagnosis::new(Code::LS2103, "é".repeat(MAX_SENTENCE))
            .state_left("é".repeat(MAX_SENTENCE))
            .remedy("é".repeat(MAX_SENTENCE));
        let reasons: Vec<Diagnosis> = (0..lockstep_plan::check::MAX_STEPS)
            .map(|_| room.fit("a.b", Err(long.clone())).unwrap_err())
            .collect();
        assert!(reasons.iter().all(|reason| !reason.what.is_empty()));
        let size = vote(Verdict::Refuse { reasons });
        assert!(size <= MAX_MESSAGE, "{size}");
    }

    #[test]
    fn a_report_with_everything_at_its_limit_fits_into_a_message() {
        let full = Outputs::from([("tables".to_owned(), of_size(MAX_OUTPUTS - 11))]);
        assert_eq!(json_size(&full), MAX_OUTPUTS);
        let (done, outputs) = outcome("oracle.rows.digest", (Outcome::Done, full));
        assert_eq!(done, Outcome::Done);
        let detail = brief("x".repeat(MAX_MESSAGE));
        let report = TaskReport {
            run: RunId::from("0190c0de-0000-7000-8000-000000000001"),
            phase: PHASE,
            attempt: 1,
            step: StepId::from("rows"),
            outcome: Outcome::Drifted { detail },
            outputs,
            before_image: Some(of_size(MAX_BEFORE_IMAGES)),
            changes: Changes {
                made: vec![
                    Change {
                        at: u64::from(u32::MAX) * 1_000,
                        what: "x".repeat(MAX_CHANGE),
                    };
                    Changes::MAX
                ],
                omitted: u64::MAX,
            },
            took: 1,
        };
        let size = encoded(Reply::Outcome(report));
        assert!(size > 2 << 20 && size <= MAX_MESSAGE, "{size}");

        let more = Outputs::from([("tables".to_owned(), of_size(MAX_OUTPUTS - 10))]);
        let (failed, none) = outcome("oracle.rows.digest", (Outcome::Done, more));
        assert!(matches!(failed, Outcome::Failed { diagnosis } if diagnosis.code == Code::LS2013));
        assert!(none.is_empty());
        let long = Outcome::failed(Diagnosis::new(Code::LS2103, "x".repeat(MAX_MESSAGE)));
        let (Outcome::Failed { diagnosis }, _) = outcome("a.b", (long, Outputs::new())) else {
            panic!("it was a failure");
        };
        assert!(diagnosis.what.len() < MAX_SENTENCE + 8);
    }

    #[test]
    fn a_preflight_report_says_what_it_leaves_out() {
        let mut room = Report::new();
        let findings: Vec<PreflightFinding> = (0..lockstep_plan::check::MAX_STEPS)
            .map(|_| {
                room.fit(PreflightFinding {
                    step: Some(StepId("s".repeat(64))),
                    would_do: vec!["x".repeat(1_000); 100],
                    obstacles: vec!["LS2001".to_owned()],
                    ..Default::default()
                })
            })
            .collect();
        assert_eq!(findings[0].would_do.len(), 100);
        let last = &findings[findings.len() - 1];
        assert_eq!(
            last.would_do,
            ["and 100 more that the report has no room for"]
        );
        let report = PreflightReport {
            request_id: "1".to_owned(),
            findings,
        };
        let size = convert::outgoing(Outgoing::Preflight(report)).encoded_len();
        assert!(size <= MAX_MESSAGE, "{size}");
    }
}
