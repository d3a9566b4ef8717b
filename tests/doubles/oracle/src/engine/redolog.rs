//! Redo log groups and archived logs: sequences and SCN ranges per thread.

use super::clock;
use super::txn::Scn;
use jiff::civil;
use serde_json::{Value, json};

/// Redo log groups of each thread.
const GROUPS: u64 = 3;

#[derive(Debug, Clone)]
pub struct Archived {
    pub thread: u32,
    pub sequence: u64,
    pub first_scn: Scn,
    pub next_scn: Scn,
    pub first_time: civil::DateTime,
    /// NEXT_TIME, which is also COMPLETION_TIME.
    pub next_time: civil::DateTime,
    /// DELETED: RMAN has removed the file.
    pub deleted: bool,
}

/// The current log of a thread.
#[derive(Debug, Clone)]
pub struct CurrentLog {
    pub sequence: u64,
    pub first_scn: Scn,
    pub first_time: civil::DateTime,
}

/// The logs of all threads; thread n belongs to instance n.
#[derive(Debug)]
pub struct RedoLogs {
    /// The current log of each thread.
    pub current: Vec<CurrentLog>,
    /// The archived logs in order.
    pub archived: Vec<Archived>,
}

impl RedoLogs {
    /// The logs at start-up.
    pub fn new(threads: usize, scn: Scn) -> Self {
        let log = CurrentLog {
            sequence: 101,
            first_scn: scn,
            first_time: clock::now(),
        };
        Self {
            current: vec![log; threads],
            archived: Vec::new(),
        }
    }

    /// Switches a thread's log and archives the old one.
    pub fn switch(&mut self, thread: u32, scn: Scn) {
        let now = clock::now();
        let log = &mut self.current[thread as usize - 1];
        self.archived.push(Archived {
            thread,
            sequence: log.sequence,
            first_scn: log.first_scn,
            next_scn: scn,
            first_time: log.first_time,
            next_time: now,
            deleted: false,
        });
        *log = CurrentLog {
            sequence: log.sequence + 1,
            first_scn: scn,
            first_time: now,
        };
    }

    /// Removes the file of an archived log, as RMAN does; `false` where there
    /// is none.
    pub fn delete(&mut self, thread: u32, sequence: u64) -> bool {
        let meant = |log: &&mut Archived| log.thread == thread && log.sequence == sequence;
        match self.archived.iter_mut().find(meant) {
            Some(log) => {
                log.deleted = true;
                true
            }
            None => false,
        }
    }

    /// The group of a thread's log.
    pub fn group(thread: u32, sequence: u64) -> u64 {
        u64::from(thread - 1) * GROUPS + sequence % GROUPS + 1
    }

    pub fn observe(&self) -> Value {
        let list: Vec<Value> = self
            .archived
            .iter()
            .map(|log| {
                json!({ "thread": log.thread, "sequence": log.sequence,
                        "first_scn": log.first_scn, "next_scn": log.next_scn })
            })
            .collect();
        json!(list)
    }
}
