//! Faults made in the range, one for each phase that can roll back.
//!
//! Each strikes a late task of its phase, so that something has been done
//! before it fails. The product has no switch for any of them.

use crate::range::{Error, Range, wait};
use serde_json::json;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Duration of each of the two commands of a slow stop. Together they exceed the
/// rehearsal's unit_timeout of 15 s; each stays below TimeoutStopSec=, which is per command,
/// so that the preflight can't foresee it (systemd.service(5), TimeoutStopSec=).
const SLOW_STOP_SECS: u32 = 13;

/// How long a run may take until it has closed Oracle.
const CLOSED_LIMIT: Duration = Duration::from_secs(300);

/// The phase in which the range makes something fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// DMS refuses to create the reverse task.
    Prepare,
    /// A service takes longer to stop than the plan allows.
    StopApplications,
    /// Oracle refuses to change AQ_TM_PROCESSES.
    CloseOracle,
    /// The marker never arrives: DMS applies nothing.
    FinalChanges,
    /// PostgreSQL holds a row that Oracle doesn't.
    VerifyRows,
    /// The forward task stops, and has not been able to apply a change.
    StopDms,
    /// DMS refuses to start the reverse task.
    ReverseTask,
    /// A sequence is too short for what Oracle has given out.
    PreparePostgres,
    /// CloudWatch refuses the second of the alarms.
    Monitoring,
}

impl Fault {
    /// All of them, in the order of the phases.
    pub const ALL: [Self; 9] = [
        Self::Prepare,
        Self::StopApplications,
        Self::CloseOracle,
        Self::FinalChanges,
        Self::VerifyRows,
        Self::StopDms,
        Self::ReverseTask,
        Self::PreparePostgres,
        Self::Monitoring,
    ];

    /// The standard phase it strikes.
    #[must_use]
    pub fn phase(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::StopApplications => "stop-applications",
            Self::CloseOracle => "close-oracle",
            Self::FinalChanges => "final-changes",
            Self::VerifyRows => "verify-rows",
            Self::StopDms => "stop-dms",
            Self::ReverseTask => "reverse-task",
            Self::PreparePostgres => "prepare-postgres",
            Self::Monitoring => "monitoring",
        }
    }

    /// What is wrong in the range, for the reader of the rehearsal.
    #[must_use]
    pub fn description(self) -> &'static str {
        match self {
            Self::Prepare => "DMS denies CreateReplicationTask",
            Self::StopApplications => "shop-orders.service on app-3 is slow to stop",
            Self::CloseOracle => "Oracle answers ORA-02097 to AQ_TM_PROCESSES",
            Self::FinalChanges => "the DMS task applies nothing",
            Self::VerifyRows => "PostgreSQL holds a row too many in shop.ticks",
            Self::StopDms => "the DMS task stops with a change it could not apply",
            Self::ReverseTask => "DMS denies StartReplicationTask",
            Self::PreparePostgres => "the sequence of shop.order_lines ends at 5",
            Self::Monitoring => "CloudWatch denies the second alarm",
        }
    }

    /// Puts the fault into the range.
    ///
    /// # Errors
    /// When the part that is to fail does not take it.
    pub fn arm(self, range: &Range) -> Result<(), Error> {
        let dms = |body: serde_json::Value| range.dms.post("/control/faults", &body).map(drop);
        let deny = |operation: &str| {
            dms(json!({"kind": "access_denied", "operation": operation, "times": 1}))
        };
        match self {
            Self::Prepare => deny("CreateReplicationTask"),
            Self::StopApplications => slow_stop(range),
            Self::CloseOracle => range.oracle.inject("AQ_TM_PROCESSES", 2097, 1).map(drop),
            // The trial marker before the outage must arrive.
            Self::FinalChanges => {
                let dms = range.dms;
                when_oracle_is_closed(self, range, move || {
                    let fault = json!({"kind": "apply_paused", "task": "forward"});
                    dms.post("/control/faults", &fault).map(drop)
                });
                Ok(())
            }
            Self::VerifyRows => {
                let sql = "INSERT INTO shop.ticks VALUES (-1, now())";
                range.postgres.query(sql, "shop").map(drop)
            }
            Self::StopDms => dms(json!({
                "kind": "stop_leaves_exception", "task": "forward",
                "schema": "shop", "table": "orders",
                "message": "invalid byte sequence for encoding",
            })),
            Self::ReverseTask => deny("StartReplicationTask"),
            // The preflight would find it.
            Self::PreparePostgres => {
                let postgres = range.postgres.clone();
                when_oracle_is_closed(self, range, move || {
                    let sql = "ALTER SEQUENCE shop.order_lines_id_seq MAXVALUE 5";
                    postgres.query(sql, "shop").map(drop)
                });
                Ok(())
            }
            Self::Monitoring => dms(json!({
                "kind": "access_denied", "operation": "PutMetricAlarm", "after": 1, "times": 1,
            })),
        }
    }

    /// Takes it out again; what it left behind in the range is put right.
    ///
    /// # Errors
    /// When the part that failed does not answer.
    pub fn clear(self, range: &Range) -> Result<(), Error> {
        range.dms.delete("/control/faults")?;
        match self {
            Self::VerifyRows => range
                .postgres
                .query("DELETE FROM shop.ticks WHERE id = -1", "shop")
                .map(drop),
            Self::StopDms => range
                .postgres
                .query("DELETE FROM public.awsdms_apply_exceptions", "shop")
                .map(drop),
            Self::PreparePostgres => {
                let sql = "ALTER SEQUENCE shop.order_lines_id_seq NO MAXVALUE";
                range.postgres.query(sql, "shop").map(drop)
            }
            _ => Ok(()),
        }
    }
}

/// Puts a fault in place only when the applications' account is locked.
fn when_oracle_is_closed(
    fault: Fault,
    range: &Range,
    strike: impl FnOnce() -> Result<(), Error> + Send + 'static,
) {
    let oracle = range.oracle.clone();
    std::thread::spawn(move || {
        let locked = wait::until("the account SHOP to be locked", CLOSED_LIMIT, || {
            let status = oracle.observe()?["accounts"]["SHOP"].clone();
            let locked = status.as_str().is_some_and(|text| text.contains("LOCKED"));
            Ok(locked.then_some(()))
        });
        if let Err(error) = locked.and_then(|()| strike()) {
            eprintln!("the fault in {} is not in place: {error}", fault.phase());
        }
    });
}

/// A drop-in with a slow ExecStop: the unit does stop, only too late.
fn slow_stop(range: &Range) -> Result<(), Error> {
    let Some(host) = range.host("app-3") else {
        return Ok(());
    };
    let dir = host.units().join("shop-orders.service.d");
    std::fs::create_dir_all(&dir).map_err(Error::file("create", &dir))?;
    let path = dir.join("slow.conf");
    let command = format!("ExecStop=/bin/sleep {SLOW_STOP_SECS}\n");
    let text = format!("[Service]\n{command}{command}");
    std::fs::write(&path, text).map_err(Error::file("write", &path))?;
    host.systemctl(&["daemon-reload"]).map(drop)
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.phase())
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|fault| fault.phase() == text)
            .ok_or_else(|| {
                let known: Vec<&str> = Self::ALL.into_iter().map(Self::phase).collect();
                format!(
                    "{text:?} is no phase that can be made to fail; take one of {}",
                    known.join(", ")
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_found_by_the_name_of_its_phase() {
        for fault in Fault::ALL {
            assert_eq!(fault.phase().parse(), Ok(fault));
        }
        assert!(
            "open-postgres"
                .parse::<Fault>()
                .unwrap_err()
                .contains("stop-dms")
        );
    }
}
