//! Runs a case: breaks an example and compares the reported problems.

use lockstep_plan::{Overrides, check};
use std::fs;

/// One change that breaks an example, and the problems that must be reported.
pub struct Case {
    /// File name in `deploy/plans`, without its extension.
    example: &'static str,
    /// Text of the example; its first occurrence is replaced.
    replace: &'static str,
    by: &'static str,
    /// The code of each problem, and the text that follows its location.
    reported: &'static [(&'static str, &'static str)],
}

pub const fn case(
    example: &'static str,
    replace: &'static str,
    by: &'static str,
    reported: &'static [(&'static str, &'static str)],
) -> Case {
    Case {
        example,
        replace,
        by,
        reported,
    }
}

pub fn example(name: &str) -> String {
    let path = format!(
        "{}/../../deploy/plans/{name}.yaml",
        env!("CARGO_MANIFEST_DIR")
    );
    fs::read_to_string(path).unwrap()
}

/// The codes that a case reports.
///
/// # Errors
/// Other problems were reported than the case expects.
pub fn run(case: &Case) -> Result<Vec<&'static str>, String> {
    let good = example(case.example);
    assert!(
        good.contains(case.replace),
        "{:?} is not in the example",
        case.replace
    );
    let broken = good.replacen(case.replace, case.by, 1);
    let mut overrides = Overrides::default();
    if case.example == "plan" {
        overrides.vars.insert("release".into(), "2026-11".into());
    }
    let checked = check("broken.yaml", &broken, &overrides);
    let reported: Vec<(&str, String)> = checked
        .problems
        .iter()
        .map(|problem| {
            let line = broken.lines().nth(problem.line - 1).unwrap_or_default();
            (
                problem.code.as_str(),
                line.chars().skip(problem.column - 1).collect(),
            )
        })
        .collect();
    let as_expected = reported.len() == case.reported.len()
        && reported
            .iter()
            .zip(case.reported)
            .all(|((code, at), (expected, word))| code == expected && at.starts_with(word));
    if !as_expected {
        return Err(format!(
            "{:?} replaced by {:?}: expected {:?}, reported\n{}\n",
            case.replace, case.by, case.reported, checked.problems
        ));
    }
    for problem in checked.problems.iter() {
        assert!(!problem.remedy.is_empty(), "{problem}");
    }
    assert_eq!(checked.plan.is_some(), !checked.problems.has_errors());
    Ok(reported.into_iter().map(|(code, _)| code).collect())
}

/// The codes of all problems of a plan, in the order of their locations.
pub fn codes_of(text: &str) -> Vec<&'static str> {
    let checked = check("plan.yaml", text, &Overrides::default());
    checked
        .problems
        .iter()
        .map(|problem| problem.code.as_str())
        .collect()
}
