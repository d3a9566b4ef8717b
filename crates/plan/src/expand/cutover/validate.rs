//! Checks of a Cutover file, with pointers into the file.

use super::{AWS, LEAD, ORACLE, POSTGRES, STANDARD_PHASES, canary_party};
use crate::diagnose::{self, Fault, suggest};
use crate::document::join;
use crate::mappings::selects;
use crate::source::cutover::{Application, Cutover};
use crate::source::{Host, Hosts};
use std::collections::BTreeSet;

pub(super) fn check(source: &Cutover) -> Vec<Fault> {
    let mut faults = Vec::new();
    reverse(source, &mut faults);
    reverse_mappings(source, &mut faults);
    table_names(source, &mut faults);
    separate_tables(source, &mut faults);
    twice(source, &mut faults);
    sequence_owners(source, &mut faults);
    dms_accounts(source, &mut faults);
    reverse_identifier(source, &mut faults);
    phase_names(source, &mut faults);
    let oracle = &source.oracle;
    left_open(source, &mut faults);
    one_of(&oracle.hosts, &oracle.lead, "/oracle/lead", &mut faults);
    let mut names = BTreeSet::from([ORACLE, LEAD, POSTGRES, AWS].map(str::to_owned));
    for (index, application) in source.applications.iter().enumerate() {
        let pointer = format!("/applications/{index}");
        application_name(application, &pointer, &mut names, &mut faults);
        application_work(application, &pointer, &mut faults);
        if let Some(canary) = &application.canary {
            let pointer = format!("{pointer}/canary");
            one_of(&application.hosts, canary, &pointer, &mut faults);
        }
    }
    faults
}

/// Optional settings without which the plan verifies less than expected.
fn left_open(source: &Cutover, faults: &mut Vec<Fault>) {
    let oracle = &source.oracle;
    if oracle.closed_addresses.is_empty() {
        faults.push(
            Fault::new(
                diagnose::PORTS_UNCHECKED,
                "/oracle/closed_addresses",
                "closed_addresses is empty: no application host checks that Oracle's ports are closed",
                "list HOST:PORT of every listener that must be down in oracle.closed_addresses",
            )
            .into_warning(),
        );
    }
    if oracle.dms_machines.is_empty() {
        faults.push(
            Fault::new(
                diagnose::DMS_MACHINES_OPEN,
                "/oracle/dms_machines",
                "dms_machines is empty: sessions of a DMS user from any machine are neither killed \
                 nor reported",
                "list the addresses or host names of the replication instance in \
                 oracle.dms_machines, as V$SESSION.MACHINE shows them (an address such as \
                 10.0.0.7 also matches ip-10-0-0-7)",
            )
            .into_warning(),
        );
    }
}

fn reverse(source: &Cutover, faults: &mut Vec<Fault>) {
    if source.dms.reverse.is_none() {
        return;
    }
    if source.oracle.dms_listener.is_none() {
        faults.push(Fault::new(
            diagnose::NO_DMS_LISTENER,
            "/dms/reverse",
            "the reverse task connects to Oracle after the listeners have been stopped",
            "reserve a listener for DMS (static registration, restricted to DMS's addresses) and \
             name it in oracle.dms_listener",
        ));
    }
    for (side, table) in [
        ("oracle", &source.oracle.canary_table),
        ("postgres", &source.postgres.canary_table),
    ] {
        if table.is_none() {
            faults.push(Fault::new(
                diagnose::REVERSE_INCOMPLETE,
                "/dms/reverse",
                format!(
                    "the reverse task is verified with a canary, but {side}.canary_table is missing"
                ),
                format!("create the canary table and name it in {side}.canary_table"),
            ));
        }
    }
}

/// The reverse task must replicate the canary table and not the marker table, and
/// should replicate the compared tables.
fn reverse_mappings(source: &Cutover, faults: &mut Vec<Fault>) {
    let Some(reverse) = &source.dms.reverse else {
        return;
    };
    let fault = |message: String, remedy: &str| {
        let pointer = "/dms/reverse/table_mappings";
        Fault::new(diagnose::REVERSE_MAPPING, pointer, message, remedy)
    };
    let mappings = &reverse.table_mappings;
    if let Some(canary) = &source.postgres.canary_table
        && !selects(mappings, canary)
    {
        faults.push(fault(
            format!("no rule selects the canary table {canary}, so the canary would never arrive"),
            "add a selection rule that includes it",
        ));
    }
    let marker = &source.postgres.marker_table;
    if selects(mappings, marker) {
        faults.push(fault(
            format!(
                "the rules select the marker table {marker}, which belongs to the forward task"
            ),
            "exclude it, or include only the canary table by name",
        ));
    }
    let left_out = source.compare.tables.iter().map(|table| &table.postgres);
    for table in left_out.filter(|table| !selects(mappings, table)) {
        faults.push(
            fault(
                format!("no rule selects {table}, so Oracle would not receive changes made to it in PostgreSQL"),
                "add a selection rule that includes it, if a fallback needs its rows",
            )
            .into_warning(),
        );
    }
}

fn table_names(source: &Cutover, faults: &mut Vec<Fault>) {
    let mut parts = |pointer: String, name: &str, expected: usize, form: &str| {
        let found = name.split('.').filter(|part| !part.is_empty()).count();
        if found != expected || name.split('.').count() != expected {
            faults.push(Fault::new(
                diagnose::WRONG_VALUE,
                pointer,
                format!("{name:?} does not have the form {form}"),
                format!("write {form}"),
            ));
        }
    };
    let oracle = &source.oracle;
    let postgres = &source.postgres;
    parts(
        "/oracle/marker_table".into(),
        &oracle.marker_table,
        2,
        "OWNER.TABLE",
    );
    parts(
        "/postgres/marker_table".into(),
        &postgres.marker_table,
        2,
        "schema.table",
    );
    if let Some(table) = &oracle.canary_table {
        parts("/oracle/canary_table".into(), table, 2, "OWNER.TABLE");
    }
    if let Some(table) = &postgres.canary_table {
        parts("/postgres/canary_table".into(), table, 2, "schema.table");
    }
    for (index, table) in source.compare.tables.iter().enumerate() {
        let pointer = format!("/compare/tables/{index}");
        parts(format!("{pointer}/oracle"), &table.oracle, 2, "OWNER.TABLE");
        parts(
            format!("{pointer}/postgres"),
            &table.postgres,
            2,
            "schema.table",
        );
    }
    for (index, table) in source.compare.except.iter().enumerate() {
        let pointer = format!("/compare/except/{index}");
        parts(pointer, table, 2, "schema.table");
    }
    for (index, sequence) in postgres.sequences.iter().enumerate() {
        let pointer = format!("/postgres/sequences/{index}");
        parts(
            format!("{pointer}/column"),
            &sequence.column,
            3,
            "schema.table.column",
        );
        if let Some(oracle) = &sequence.oracle {
            parts(format!("{pointer}/oracle"), oracle, 2, "OWNER.SEQUENCE");
        }
    }
    for trigger in postgres.triggers.baseline.keys() {
        let pointer = join("/postgres/triggers/baseline", trigger);
        parts(pointer, trigger, 3, "schema.table.trigger");
    }
}

/// A table that both tasks replicate would send its rows back and forth forever.
fn separate_tables(source: &Cutover, faults: &mut Vec<Fault>) {
    let (oracle, postgres) = (&source.oracle, &source.postgres);
    for (side, marker, canary) in [
        ("oracle", &oracle.marker_table, &oracle.canary_table),
        ("postgres", &postgres.marker_table, &postgres.canary_table),
    ] {
        if canary.as_ref() == Some(marker) {
            faults.push(Fault::new(
                diagnose::WRONG_VALUE,
                format!("/{side}/canary_table"),
                format!("{marker} is also the marker table"),
                "create two tables: the forward task must map only the marker table, the reverse \
                 task only the canary table, or rows would circulate",
            ));
        }
    }
}

/// Each table and each sequence may be listed only once, because two entries could
/// contradict each other.
fn twice(source: &Cutover, faults: &mut Vec<Fault>) {
    let tables = || source.compare.tables.iter().enumerate();
    let oracle = tables().map(|(index, table)| (pointer_to(index, "oracle"), &table.oracle));
    each_once(oracle, "table", faults);
    let except = source.compare.except.iter().enumerate();
    let postgres = tables()
        .map(|(index, table)| (pointer_to(index, "postgres"), &table.postgres))
        .chain(except.map(|(index, table)| (format!("/compare/except/{index}"), table)));
    each_once(postgres, "table", faults);
    // One Oracle sequence may feed several columns.
    let sequences = source.postgres.sequences.iter().enumerate();
    let columns = sequences.map(|(index, sequence)| {
        let pointer = format!("/postgres/sequences/{index}/column");
        (pointer, &sequence.column)
    });
    each_once(columns, "sequence", faults);
}

fn pointer_to(table: usize, side: &str) -> String {
    format!("/compare/tables/{table}/{side}")
}

fn each_once<'a>(
    names: impl Iterator<Item = (String, &'a String)>,
    what: &str,
    faults: &mut Vec<Fault>,
) {
    let mut seen = BTreeSet::new();
    for (pointer, name) in names {
        if !seen.insert(name) {
            faults.push(Fault::new(
                diagnose::DUPLICATE_NAME,
                pointer,
                format!("the {what} {name} is listed more than once"),
                "list it once; a compared table can't also be excepted",
            ));
        }
    }
}

/// `oracle.finalize` reads the sequences of these schemas and no others.
fn sequence_owners(source: &Cutover, faults: &mut Vec<Fault>) {
    let schemas = &source.oracle.schemas;
    for (index, sequence) in source.postgres.sequences.iter().enumerate() {
        let Some((owner, _)) = sequence
            .oracle
            .as_ref()
            .and_then(|name| name.split_once('.'))
        else {
            continue;
        };
        // An empty list is reported by the schema check.
        if !schemas.is_empty() && !schemas.iter().any(|schema| schema == owner) {
            faults.push(Fault::new(
                diagnose::WRONG_VALUE,
                format!("/postgres/sequences/{index}/oracle"),
                format!("{owner:?} is not in oracle.schemas, so this sequence is not read"),
                "add the owner there, or correct the name of the sequence",
            ));
        }
    }
}

/// A locked account can't log in again, and the reverse task needs a new session.
fn dms_accounts(source: &Cutover, faults: &mut Vec<Fault>) {
    let oracle = &source.oracle;
    for (index, account) in oracle.accounts.iter().enumerate() {
        let of_dms = |user: &String| user.eq_ignore_ascii_case(account);
        if oracle.dms_users.iter().any(of_dms) {
            faults.push(Fault::new(
                diagnose::WRONG_VALUE,
                format!("/oracle/accounts/{index}"),
                format!(
                    "{account} is a DMS user (oracle.dms_users): locking it would lock out DMS"
                ),
                "use a separate user for DMS, or remove this one from accounts",
            ));
        }
    }
}

/// Source: AWS DMS API reference, CreateReplicationTask,
/// `ReplicationTaskIdentifier`.
fn reverse_identifier(source: &Cutover, faults: &mut Vec<Fault>) {
    let Some(reverse) = &source.dms.reverse else {
        return;
    };
    let identifier = &reverse.identifier;
    let usable = (1..=255).contains(&identifier.len())
        && identifier.starts_with(|c: char| c.is_ascii_alphabetic())
        && identifier
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-')
        && !identifier.contains("--")
        && !identifier.ends_with('-');
    if !usable {
        faults.push(Fault::new(
            diagnose::UNUSABLE_NAME,
            "/dms/reverse/identifier",
            format!("{identifier:?} is not a valid replication task identifier"),
            "it starts with a letter and consists of letters, digits and hyphens, 1 to 255 \
             characters, without consecutive hyphens or a hyphen at the end",
        ));
    }
}

/// A single host of a group can't have a label value that contradicts the group's.
fn one_of(hosts: &Hosts, one: &Host, pointer: &str, faults: &mut Vec<Fault>) {
    for (key, value) in &one.labels {
        if let Some(theirs) = hosts.labels.get(key).filter(|theirs| *theirs != value) {
            faults.push(Fault::new(
                diagnose::WRONG_VALUE,
                join(&format!("{pointer}/labels"), key),
                format!("{key}={value} matches none of the hosts, which have {key}={theirs}"),
                "list labels that distinguish this host; shared labels needn't be repeated",
            ));
        }
    }
}

fn phase_names(source: &Cutover, faults: &mut Vec<Fault>) {
    let gates = source.gates.keys().map(|name| ("/gates", name));
    let deadlines = source.deadlines.keys().map(|name| ("/deadlines", name));
    for (pointer, name) in gates.chain(deadlines) {
        if !STANDARD_PHASES.contains(&name.as_str()) {
            faults.push(
                Fault::new(
                    diagnose::UNKNOWN_PHASE,
                    join(pointer, name),
                    format!("{name:?} is not a standard phase"),
                    suggest(name, STANDARD_PHASES.iter().copied()),
                )
                .at_key(),
            );
        }
    }
}

fn application_name(
    application: &Application,
    pointer: &str,
    names: &mut BTreeSet<String>,
    faults: &mut Vec<Fault>,
) {
    let name = &application.name;
    let canary = application.canary.as_ref().map(|_| canary_party(name));
    for party in std::iter::once(name.clone()).chain(canary) {
        if !names.insert(party.clone()) {
            faults.push(Fault::new(
                diagnose::DUPLICATE_NAME,
                format!("{pointer}/name"),
                format!("there is another party named {party:?}"),
                format!(
                    "choose another name; {ORACLE}, {LEAD}, {POSTGRES}, {AWS} and NAME-canary are \
                     reserved"
                ),
            ));
        }
    }
    if application.hosts.expected == 1 && application.canary.is_some() {
        faults.push(
            Fault::new(
                diagnose::UNUSED_PARTY,
                format!("{pointer}/canary"),
                format!("application {name:?} has one host, which is its own canary"),
                "remove canary",
            )
            .into_warning(),
        );
    }
}

fn application_work(application: &Application, pointer: &str, faults: &mut Vec<Fault>) {
    let lists = [
        ("timers", &application.timers, ".timer"),
        ("services", &application.services, ".service"),
    ];
    for (field, units, suffix) in lists {
        for (index, unit) in units.iter().enumerate() {
            if !unit.contains('.') && !unit.contains("${") {
                faults.push(Fault::new(
                    diagnose::WRONG_VALUE,
                    format!("{pointer}/{field}/{index}"),
                    format!("{unit:?} is not the full name of a unit"),
                    format!("write {unit}{suffix}"),
                ));
            }
        }
    }
    for (index, file) in application.cron.iter().enumerate() {
        absolute(&format!("{pointer}/cron/{index}"), file, faults);
    }
    for (index, config) in application.config.iter().enumerate() {
        absolute(
            &format!("{pointer}/config/{index}/path"),
            &config.path,
            faults,
        );
        absolute(&format!("{pointer}/config/{index}/to"), &config.to, faults);
    }
    let nothing = application.timers.is_empty()
        && application.services.is_empty()
        && application.cron.is_empty()
        && application.processes.is_empty();
    if nothing {
        faults.push(Fault::new(
            diagnose::NO_STEPS,
            format!("{pointer}/name"),
            format!("application {:?} has nothing to stop", application.name),
            "list its services, timers, cron files or processes",
        ));
    }
}

fn absolute(pointer: &str, path: &str, faults: &mut Vec<Fault>) {
    if !path.starts_with('/') && !path.starts_with("${") {
        faults.push(Fault::new(
            diagnose::WRONG_VALUE,
            pointer,
            format!("{path:?} is not an absolute path"),
            "write an absolute path",
        ));
    }
}
