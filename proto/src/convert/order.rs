//! Orders of the coordinator.

use super::{Invalid, Result, json, phase, run, step, step_texts, steps, text};
use crate::v1;
use lockstep_barrier::ids::{Digest, Header, StepId};
use lockstep_barrier::message::{Mode, Order, TaskOrder};

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
            read_only: task.read_only,
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
            read_only: task.read_only,
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
                promise_age,
                inputs,
                before_images,
            } => Self::Release(v1::Release {
                header: Some(header.into()),
                promise_age_ms: promise_age,
                inputs_json: text(&inputs),
                before_images_json: text(&before_images),
            }),
            Order::Revoke {
                header,
                cancel_read_only,
            } => Self::Revoke(v1::Revoke {
                header: Some(header.into()),
                cancel_read_only,
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
            promise_age: m.promise_age_ms,
            inputs: json("inputs_json", &m.inputs_json)?,
            before_images: json("before_images_json", &m.before_images_json)?,
        },
        M::Revoke(m) => Order::Revoke {
            header: header(m.header)?,
            cancel_read_only: m.cancel_read_only,
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
        M::Ping(_) => return Err(Invalid::Unexpected("ping")),
        M::PreflightOrder(_) => return Err(Invalid::Unexpected("preflight_order")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_barrier::ids::{PhaseRef, Term, Track};
    use serde_json::json;
    use std::collections::BTreeMap;

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
    fn every_order_survives_the_wire() {
        let task = TaskOrder {
            step: "stop".into(),
            action: "service.stop".into(),
            mode: Mode::Undo { of: "stop".into() },
            params: json!({"units": ["a.service"]}),
            timeout: 5000,
            read_only: true,
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
                promise_age: 40,
                inputs,
                before_images,
            },
            Order::Revoke {
                header: header(),
                cancel_read_only: true,
            },
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
    fn a_missing_header_is_named() {
        let revoke = v1::session_response::Message::Revoke(v1::Revoke::default());
        assert_eq!(order(revoke), Err(Invalid::Missing("header")));
    }
}
