//! Journals of the current format remain readable and fold to the same state.
//!
//! The fixtures in `tests/fixtures/journal-vN` are journals written in scenarios,
//! one entry per line, with the state to which each run's journal folds
//! (`*.state.txt`). Together they contain every record of both sides. If this test
//! fails, a build with the change can't resume a run of an earlier build. Then
//! either keep the old form readable, or raise `FormatVersion::CURRENT`, which
//! selects a new directory.
//!
//! Before the first release neither is necessary. Rewrite the fixtures, and
//! review the diff:
//!
//! ```text
//! UPDATE_FIXTURES=1 cargo test -p lockstep-barrier --test barrier journal::
//! ```

use crate::support::show;
use crate::transcripts;
use lockstep_barrier::coordinator::{self, FoldError, Run, State};
use lockstep_barrier::ids::Term;
use lockstep_barrier::participant::{self, ParticipantFoldError};
use lockstep_barrier::record::{FormatVersion, ParticipantRecord, Record, UnknownFormat};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Scenarios that together write every kind of record.
const SCENARIOS: [&str; 13] = [
    "agent-is-killed-during-a-task",
    "agent-is-restored-from-an-old-backup",
    "breach-before-a-release",
    "changes-survive-a-crash",
    "dead-application-host-is-left-out",
    "guard-is-disarmed-before-rollback",
    "happy-path",
    "late-outcome-after-a-waive",
    "late-undo-that-can-not-be-executed",
    "pause-and-resume",
    "refusal-then-retry",
    "skip-with-a-reason",
    "take-over-with-an-old-journal",
];

/// A function that returns the name of a record's variant, and the list of all
/// variants. A new variant fails to compile until it is listed here, and then the
/// test requires a fixture with it.
macro_rules! variants {
    ($function:ident, $list:ident, $enum:ident: $($variant:ident),* $(,)?) => {
        const $list: &[&str] = &[$(stringify!($variant)),*];

        fn $function(record: &$enum) -> &'static str {
            match record {
                $($enum::$variant { .. } => stringify!($variant),)*
            }
        }
    };
}

variants!(
    run_variant, RUN_VARIANTS, Record:
    Began, TermBegan, TookOver, Preparing, GateOpened, Released, TaskEnded, TaskLost, Revoked,
    Failed, Completed, Skipped, RetryDecided, Waived, UnknownResolved, Paused, Resumed,
    RollbackDecided, RollbackBegan, AbortDecided, Breached, Disarmed, Contradicted,
    UndoOutstanding, LateUndoPreparing, LateUndoReleased, LateUndoLeft, JournalLost, Ended, ClosedBy,
);

variants!(
    agent_variant, AGENT_VARIANTS, ParticipantRecord:
    Opened, Accepted, Promised, Refused, Tombstoned, ForwardClosed, Released, Intent, Changed, Ended,
    Acked, WatchArmed, WatchBroke, Disarmed, Closed,
);

fn folder() -> PathBuf {
    let version = FormatVersion::CURRENT.0;
    let name = format!("tests/fixtures/journal-v{version}");
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Fixtures whose names contain `part`, with their text.
fn fixtures(part: &str) -> Vec<(String, String)> {
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        write_fixtures();
    }
    let mut found: Vec<(String, String)> = fs::read_dir(folder())
        .expect("the fixtures")
        .map(|file| file.expect("a file").path())
        .filter(|path| path.to_string_lossy().contains(part))
        .map(|path| {
            let name = path.display().to_string();
            (name, fs::read_to_string(path).expect("a readable file"))
        })
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no {part} in {}", folder().display());
    found
}

/// Writes the fixtures once, although tests run in parallel.
fn write_fixtures() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let _ = fs::remove_dir_all(folder());
        fs::create_dir_all(folder()).expect("a writable folder");
        for scenario in SCENARIOS {
            let sim = transcripts::play_scenario(scenario);
            write(scenario, "coordinator.jsonl", &lines(sim.disk.clone()));
            write(
                scenario,
                "state.txt",
                &folded(sim.disk.clone().into_iter().collect()),
            );
            for (name, agent) in &sim.agents {
                write(
                    scenario,
                    &format!("agent-{name}.jsonl"),
                    &lines(agent.disk.clone()),
                );
            }
        }
    });
}

fn write(scenario: &str, suffix: &str, text: &str) {
    let path = folder().join(format!("{scenario}.{suffix}"));
    fs::write(path, text).expect("a writable folder");
}

fn lines<T: Serialize>(entries: impl IntoIterator<Item = T>) -> String {
    let line = |entry: T| serde_json::to_string(&entry).expect("records are JSON") + "\n";
    entries.into_iter().map(line).collect()
}

/// The state to which a run's journal folds, as text.
fn folded(entries: Vec<coordinator::Entry>) -> String {
    let next = Term {
        number: u64::from(u32::MAX),
        incarnation: 0,
    };
    let (run, _) = Run::resume(0, entries, next).expect("a fixture is a journal");
    show::state(&run).join("\n") + "\n"
}

/// Deserialises every line, and checks that it serialises to the same text.
fn round_trip<T: Serialize + DeserializeOwned>(name: &str, text: &str) -> Vec<T> {
    let mut entries = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let entry: T = serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("{name}:{number} can't be read: {error}"));
        let again = serde_json::to_string(&entry).expect("records are JSON");
        assert_eq!(again, line, "{name}:{number} is not written as it was read");
        entries.push(entry);
    }
    entries
}

fn assert_all(list: &[&'static str], seen: &BTreeSet<&'static str>) {
    let missing: Vec<_> = list.iter().filter(|name| !seen.contains(*name)).collect();
    assert!(
        missing.is_empty(),
        "no fixture has {missing:?}; add a scenario that writes it to SCENARIOS, then repeat this \
         test with UPDATE_FIXTURES=1"
    );
}

#[test]
fn runs_fold_as_they_did() {
    let mut seen = BTreeSet::new();
    let states = fixtures(".state.txt");
    let runs = fixtures(".coordinator.jsonl");
    assert_eq!(states.len(), runs.len());
    for ((name, text), (_, state)) in runs.iter().zip(states) {
        let entries: Vec<coordinator::Entry> = round_trip(name, text);
        seen.extend(entries.iter().map(|entry| run_variant(&entry.record)));
        assert_eq!(folded(entries), state, "{name}");
    }
    assert_all(RUN_VARIANTS, &seen);
}

#[test]
fn agents_journals_fold() {
    let mut seen = BTreeSet::new();
    for (name, text) in fixtures(".agent-") {
        let entries: Vec<participant::Entry> = round_trip(&name, &text);
        seen.extend(entries.iter().map(|entry| agent_variant(&entry.record)));
        participant::State::fold(entries)
            .unwrap_or_else(|error| panic!("{name} can't be folded: {error}"));
    }
    assert_all(AGENT_VARIANTS, &seen);
}

/// The first entry of a fixture, with format version 2.
fn in_format_2<T: DeserializeOwned>(part: &str) -> T {
    let (_, text) = &fixtures(part)[0];
    let first = text.lines().next().expect("an entry");
    assert!(first.contains(r#""format":1"#), "{first}");
    let other = first.replacen(r#""format":1"#, r#""format":2"#, 1);
    serde_json::from_str(&other).expect("the same but for the version")
}

#[test]
fn another_format_is_not_folded() {
    let unknown = UnknownFormat {
        found: Some(FormatVersion(2)),
        known: FormatVersion(1),
    };
    let run = State::fold([in_format_2(".coordinator.jsonl")]);
    assert_eq!(run, Err(FoldError::Format(unknown)));
    let agent = participant::State::fold([in_format_2(".agent-a.")]);
    assert_eq!(agent, Err(ParticipantFoldError::Format(unknown)));
}

#[test]
fn a_journal_opens_once_and_first() {
    let (_, text) = &fixtures(".agent-a.")[0];
    let entries: Vec<participant::Entry> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("an entry"))
        .collect();
    let mut headless = entries[1].clone();
    headless.seq = 1;
    let error = participant::State::fold([headless]);
    assert_eq!(error, Err(ParticipantFoldError::NotOpened));
    let mut again = entries[0].clone();
    again.seq = 2;
    let error = participant::State::fold([entries[0].clone(), again]);
    assert_eq!(error, Err(ParticipantFoldError::OpenedTwice { seq: 2 }));
}
