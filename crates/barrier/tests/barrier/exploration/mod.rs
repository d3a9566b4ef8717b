//! Exhaustive exploration of both state machines.
//!
//! A depth-first search applies every possible act to every state that it reaches,
//! within a budget of faults, and checks the invariants after each. The plans and
//! their budgets are in `tests/plans`. A violation is printed as a scenario that
//! replays the shortest path found.

mod acts;
mod budget;
mod plan_file;
mod search;
mod two_runs;

use crate::transcripts;
use budget::Budget;
use plan_file::PlanFile;
use search::Search;

/// States of one exploration of `make test`.
const TEST: usize = 3_000_000;

/// States of one exploration of `make verify`; 16 to 37 bytes each.
const VERIFY: usize = 12_000_000;

/// Which of a plan's budgets are explored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Test,
    Verify,
    /// Until the first violation.
    Mutants,
}

/// Explores a plan with each of its budgets, or with the one in `BUDGET`; returns
/// what is wrong.
fn explore(name: &str, size: Size) -> Vec<String> {
    let plan = PlanFile::read(name);
    let (mut budgets, most) = match size {
        Size::Test => (plan.test.clone(), TEST),
        Size::Verify => (plan.verify.clone(), VERIFY),
        Size::Mutants => (plan.mutants.clone(), TEST),
    };
    if let Ok(text) = std::env::var("BUDGET") {
        budgets = vec![Budget::parse(&text.split_whitespace().collect::<Vec<_>>())];
    }
    let mut problems = Vec::new();
    for budget in budgets {
        let mut search = Search::new(&plan, budget, most);
        search.until_the_first = size == Size::Mutants;
        let explored = search.run();
        println!("{explored}");
        for violation in explored.violations.values() {
            let text = search::scenario(&plan, budget, violation);
            println!("{} times:\n{text}", violation.times);
            problems.push(format!("{name} [{budget}]: {}", violation.what));
        }
        if !explored.exhausted && size == Size::Test {
            problems.push(format!("{name} [{budget}]: more than {most} states"));
        }
        if size == Size::Mutants && !problems.is_empty() {
            break;
        }
    }
    problems
}

fn explore_all(name: &str, size: Size) {
    let problems = explore(name, size);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

macro_rules! plans {
    ($($name:ident: $file:literal,)*) => {
        const PLANS: &[&str] = &[$($file),*];

        $(
            mod $name {
                #[test]
                fn within_its_budget() {
                    super::explore_all($file, super::Size::Test);
                }

                #[test]
                #[ignore = "make verify"]
                fn at_full_size() {
                    super::explore_all($file, super::Size::Verify);
                }
            }
        )*
    };
}

plans! {
    detachable: "detachable",
    guard: "guard",
    outage: "outage",
    point_of_no_return: "point-of-no-return",
    proofs: "proofs",
    rollback: "rollback",
    tiny: "tiny",
}

#[test]
fn every_plan_is_explored() {
    let files = std::fs::read_dir(plan_file::folder()).expect("the plans");
    let mut names: Vec<String> = files
        .map(|file| file.expect("a file").path())
        .filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned()))
        .collect();
    names.sort();
    let mut explored = PLANS.to_vec();
    explored.sort_unstable();
    assert_eq!(names, explored);
}

/// A path that is printed as a scenario leads to the same state when it is replayed.
#[test]
fn a_printed_path_replays() {
    for name in PLANS {
        let plan = PlanFile::read(name);
        let every_fault = Budget::each(1);
        let (text, reached) = search::a_path(&plan, every_fault, 60);
        let mut sim = None;
        transcripts::play(&text, &mut sim);
        let sim = sim.expect("a scenario has a plan");
        assert_eq!(sim.fingerprint(), reached.fingerprint(), "{name}:\n{text}");
    }
}

/// Small budgets that together reach every rule: `make mutants` runs them for each
/// mutation.
#[test]
#[ignore = "make mutants"]
fn mutants() {
    for name in PLANS {
        explore_all(name, Size::Mutants);
    }
}
