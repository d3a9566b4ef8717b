//! The transaction of a job: the units that systemd starts and stops along
//! with the one that the job is for.
//!
//! The rules are those of systemd's transaction_add_job_and_dependencies
//! (src/core/transaction.c): a stop is propagated through the inverses of
//! Requires=, Requisite=, BindsTo= and PartOf= and through PropagatesStopTo=,
//! also by way of inactive units. A start pulls in Requires=, BindsTo=, Wants=
//! and Upholds=, and stops what conflicts in either direction. After the
//! transaction, systemd stops units with StopWhenUnneeded=.

use crate::action::{ActionError, Context};
use crate::host::systemd::{Facts, Systemd};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// A unit that changes along with one that is named in the step.
#[derive(Debug, Clone)]
pub struct Change {
    pub unit: String,
    /// The unit of the step with which it changes.
    pub with: String,
    pub facts: Facts,
}

/// What changes besides the units that are named in the step.
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    /// Units that are active, and are stopped.
    pub stops: Vec<Change>,
    /// Units that are inactive, and are started.
    pub starts: Vec<Change>,
    /// Units, those of the step included, that are neither: see
    /// [`Facts::is_unsettled`].
    pub unsettled: Vec<Facts>,
}

impl Transaction {
    /// Of stop jobs for these units.
    ///
    /// # Errors
    /// Where systemd doesn't answer.
    pub async fn of_stop(cx: &Context, units: &[String]) -> Result<Self, ActionError> {
        let mut graph = Graph::new(cx).await?;
        let stops = graph.stopped_with(own(units)).await?;
        Ok(Self {
            stops,
            starts: Vec::new(),
            unsettled: graph.unsettled(),
        })
    }

    /// Of start jobs for these units.
    ///
    /// # Errors
    /// Where systemd doesn't answer.
    pub async fn of_start(cx: &Context, units: &[String]) -> Result<Self, ActionError> {
        Graph::new(cx).await?.started_with(units).await
    }
}

/// A unit, and the unit of the step because of which it is considered.
type Open = VecDeque<(String, String)>;

fn own(units: &[String]) -> Open {
    units
        .iter()
        .map(|unit| (unit.clone(), unit.clone()))
        .collect()
}

/// Units by name, with the unit of the step that led there.
type Seen = BTreeMap<String, (String, Facts)>;

/// The units of a host, each read once.
struct Graph {
    systemd: Arc<Systemd>,
    read: BTreeMap<String, Facts>,
}

impl Graph {
    async fn new(cx: &Context) -> Result<Self, ActionError> {
        Ok(Self {
            systemd: cx.host.systemd().await?,
            read: BTreeMap::new(),
        })
    }

    async fn facts(&mut self, unit: &str) -> Result<Facts, ActionError> {
        if let Some(facts) = self.read.get(unit) {
            return Ok(facts.clone());
        }
        let facts = self.systemd.facts(unit).await?;
        self.read.insert(facts.id.clone(), facts.clone());
        self.read.insert(unit.to_owned(), facts.clone());
        Ok(facts)
    }

    /// The active units that are stopped with these, without these.
    async fn stopped_with(&mut self, mut open: Open) -> Result<Vec<Change>, ActionError> {
        let roots: Vec<String> = open.iter().map(|(unit, _)| unit.clone()).collect();
        let mut seen = Seen::new();
        while !open.is_empty() {
            while let Some((unit, with)) = open.pop_front() {
                let facts = self.facts(&unit).await?;
                if seen.contains_key(&facts.id) {
                    continue;
                }
                let stops = facts.stops().into_iter();
                open.extend(stops.map(|other| (other.to_owned(), with.clone())));
                seen.insert(facts.id.clone(), (with, facts));
            }
            open = self.no_longer_needed(&seen).await?;
        }
        let others = seen.into_iter().filter(|(_, (_, facts))| {
            facts.is_up() && !roots.iter().any(|root| facts.names.contains(root))
        });
        Ok(others.map(change).collect())
    }

    /// Units with StopWhenUnneeded= that no active unit but these needs.
    async fn no_longer_needed(&mut self, seen: &Seen) -> Result<Open, ActionError> {
        let mut open = Open::new();
        for (with, facts) in seen.values() {
            for name in facts.starts() {
                let needed = self.facts(name).await?;
                let counts = needed.stop_when_unneeded && needed.is_up();
                if !counts || seen.contains_key(&needed.id) {
                    continue;
                }
                let mut still = false;
                for by in needed.needed_by() {
                    still |= !seen.contains_key(by) && self.facts(by).await?.is_up();
                }
                if !still {
                    open.push_back((needed.id, with.clone()));
                }
            }
        }
        Ok(open)
    }

    /// The inactive units that are started with these, and the active ones that are
    /// stopped. The requirements of an active target are left out: those are
    /// the boot's, which every unit depends on by default.
    async fn started_with(&mut self, units: &[String]) -> Result<Transaction, ActionError> {
        let mut open = own(units);
        let (mut seen, mut ended) = (Seen::new(), Open::new());
        while let Some((unit, with)) = open.pop_front() {
            let facts = self.facts(&unit).await?;
            let of_the_boot = facts.id.ends_with(".target") && facts.is_up();
            let missing = facts.load != "loaded";
            if of_the_boot || missing || seen.contains_key(&facts.id) {
                continue;
            }
            for other in facts.ends() {
                if self.facts(other).await?.is_up() {
                    ended.push_back((other.to_owned(), with.clone()));
                }
            }
            let starts = facts.starts().into_iter();
            open.extend(starts.map(|other| (other.to_owned(), with.clone())));
            seen.insert(facts.id.clone(), (with, facts));
        }
        let mut stops = self.stopped_with(ended.clone()).await?;
        for (unit, with) in ended {
            let facts = self.facts(&unit).await?;
            if stops.iter().all(|change| change.unit != facts.id) {
                stops.push(change((facts.id.clone(), (with, facts))));
            }
        }
        let others = seen.into_iter().filter(|(_, (_, facts))| {
            !facts.is_up() && !units.iter().any(|unit| facts.names.contains(unit))
        });
        Ok(Transaction {
            stops,
            starts: others.map(change).collect(),
            unsettled: self.unsettled(),
        })
    }

    /// Of the units that were read: those of the step, those that change with them, and
    /// those on which that depends.
    fn unsettled(&self) -> Vec<Facts> {
        let read = self.read.iter().filter(|(name, facts)| **name == facts.id);
        let unsettled = read.filter(|(_, facts)| facts.is_unsettled());
        unsettled.map(|(_, facts)| facts.clone()).collect()
    }
}

fn change((unit, (with, facts)): (String, (String, Facts))) -> Change {
    Change { unit, with, facts }
}
