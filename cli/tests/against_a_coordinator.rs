//! The `lockstep` binary against a scripted coordinator: exit codes, output and lost
//! connections.

#![expect(clippy::unwrap_used, reason = "a test fails at the first error")]

mod scripted;

use lockstep_proto::v1::RunOutcome;
use scripted::{Answer, SEEN, Scripted, line, run};

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_exits_with_the_exit_code_of_the_run() {
    let cases = [
        (RunOutcome::Completed, 0, "run completed"),
        (RunOutcome::Failed, 1, "run failed"),
        (RunOutcome::Aborted, 1, "run aborted"),
        (RunOutcome::RolledBack, 5, "run rolled-back"),
        (
            RunOutcome::Waiting,
            6,
            "run waits for an approval of open-postgres",
        ),
    ];
    for (outcome, code, expected) in cases {
        let mut last = run(outcome);
        if outcome == RunOutcome::Waiting {
            last.waits_on = vec!["an approval of open-postgres".to_owned()];
        }
        let script = vec![
            Answer::Status(Box::new(run(RunOutcome::Running))),
            Answer::Line(line("stopping shop.service")),
            Answer::Status(Box::new(last)),
        ];
        let coordinator = Scripted::start(vec![script]).await;
        let plan = coordinator.plan();
        let done = coordinator
            .lockstep(&["run", "start", &plan, "--watch"])
            .await;
        assert_eq!(done.code, code, "{outcome:?}: {done:?}");
        assert!(done.out.contains(expected), "{outcome:?}: {done:?}");
        assert!(
            done.out
                .contains("app-1 stop-web | stopping shop.service\n"),
            "{done:?}"
        );
        assert_eq!(done.err, "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_reconnects_after_a_restart_and_repeats_nothing() {
    let coordinator = Scripted::start(vec![
        vec![
            Answer::Status(Box::new(run(RunOutcome::Running))),
            Answer::Event(7),
            Answer::Fail(tonic::Status::unavailable("restarting")),
        ],
        vec![Answer::Fail(tonic::Status::unavailable("restarting"))],
        vec![
            Answer::Status(Box::new(run(RunOutcome::Running))),
            Answer::Status(Box::new(run(RunOutcome::Completed))),
        ],
    ])
    .await;
    let done = coordinator.lockstep(&["run", "watch"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(
        done.out.matches("run r-1: plan shop").count(),
        1,
        "{done:?}"
    );
    assert_eq!(
        done.out
            .matches("the connection to the coordinator was lost")
            .count(),
        1
    );
    // The first watch requests the newest run; the others request this run after the
    // last entry that was shown.
    assert_eq!(
        coordinator.requested_watches(),
        [
            ("".to_owned(), 0),
            ("r-1".to_owned(), 7),
            ("r-1".to_owned(), 7)
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_supports_every_output_format() {
    let script = || {
        vec![
            Answer::Status(Box::new(run(RunOutcome::Running))),
            Answer::Line(line("one")),
            Answer::Status(Box::new(run(RunOutcome::Completed))),
        ]
    };
    let coordinator = Scripted::start(vec![script(), script()]).await;
    let lines = coordinator.lockstep(&["run", "watch", "-o", "jsonl"]).await;
    let kinds: Vec<String> = lines
        .out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|value| value["type"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["status", "line", "status"]);

    let document = coordinator.lockstep(&["run", "watch", "-o", "json"]).await;
    let value: serde_json::Value = serde_json::from_str(&document.out).unwrap();
    assert_eq!(
        (&value["outcome"], &value["exit_code"]),
        (&"completed".into(), &0.into())
    );
    assert_eq!((lines.code, document.code), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_host_prints_controls_no_terminal() {
    let hostile = "ok\u{1b}[2K\rall done \u{202e}txet\u{9b}31m\u{7}";
    let script = || {
        let mut status = run(RunOutcome::Completed);
        status.plan_name = hostile.to_owned();
        vec![
            Answer::Status(Box::new(run(RunOutcome::Running))),
            Answer::Line(line(hostile)),
            Answer::Status(Box::new(status)),
        ]
    };
    let coordinator = Scripted::start(vec![script(), script(), script()]).await;
    for format in ["table", "json", "jsonl"] {
        let watched = coordinator.lockstep(&["run", "watch", "-o", format]).await;
        let obeyed = |c: char| (c.is_control() && c != '\n' && c != '\t') || c == '\u{202e}';
        assert!(watched.out.contains("\\u001b[2K"), "{watched:?}");
        assert!(!watched.out.contains(obeyed), "{watched:?}");
        assert!(!watched.err.contains(obeyed), "{watched:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_reported_once_with_its_remedy() {
    let coordinator = Scripted::start(Vec::new()).await;
    let done = coordinator
        .lockstep(&["run", "abort", "r-1", "--reason", "a test", "--yes"])
        .await;
    assert_eq!(done.code, 2, "{done:?}");
    assert_eq!(
        done.err,
        "error[LS4101]: the run r-1 has ended\n  next: start another\n"
    );

    let plan = coordinator.plan();
    let approve = ["run", "approve", "r-1", "--phase", "open", "--plan", &plan];
    let done = coordinator.lockstep(&approve).await;
    assert_eq!(done.code, 2, "{done:?}");
    assert!(
        done.err
            .starts_with("error[LS5012]: the plan of the run has the digest"),
        "{done:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_at_its_timeout() {
    let coordinator = Scripted::start(vec![vec![
        Answer::Status(Box::new(run(RunOutcome::Running))),
        Answer::Silence,
    ]])
    .await;
    let done = coordinator
        .lockstep(&["run", "watch", "--timeout", "300ms"])
        .await;
    assert_eq!(done.code, 4, "{done:?}");
    assert!(done.err.starts_with("error[LS5008]: "), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_is_detected_without_a_journal_entry() {
    let coordinator = Scripted::start(vec![vec![
        Answer::Status(Box::new(run(RunOutcome::Running))),
        Answer::Silence,
    ]])
    .await;
    let done = coordinator.lockstep(&["run", "watch"]).await;
    assert_eq!(done.code, 6, "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unreachable_and_untrusted_coordinators_are_distinguished() {
    let coordinator = Scripted::start(Vec::new()).await;
    let done = coordinator
        .lockstep_at("https://127.0.0.1:1", &["run", "list"])
        .await;
    assert_eq!(done.code, 3, "{done:?}");
    assert!(
        done.err.starts_with("error[LS5001]: can't reach"),
        "{done:?}"
    );

    coordinator.revoke_operator();
    let done = coordinator.lockstep(&["run", "list", "-o", "json"]).await;
    assert_eq!(done.code, 3, "{done:?}");
    let value: serde_json::Value = serde_json::from_str(&done.err).unwrap();
    assert_eq!(value["error"]["code"], "LS5002", "{done:?}");
    assert_eq!(
        value["error"]["causes"][0], "it rejected this connection: CertificateRevoked",
        "{done:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_leaves_work_undone_is_not_sent_without_a_confirmation() {
    let coordinator = Scripted::start(Vec::new()).await;
    let task = ["--agent", "app-1", "--step", "stop-web"];
    for (verb, rest) in [("abort", &[][..]), ("skip", &[]), ("waive", &task)] {
        let mut arguments = vec!["run", verb, "r-1", "--reason", "a test"];
        arguments.extend(rest);
        let done = coordinator.lockstep(&arguments).await;
        assert_eq!(done.code, 2, "{verb}: {done:?}");
        // The scripted coordinator answers each of these verbs with another error.
        assert!(done.err.contains("error[LS5015]: "), "{verb}: {done:?}");
        assert!(done.err.contains("--yes"), "{verb}: {done:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verb_applies_to_the_state_in_which_the_run_is_found() {
    let coordinator = Scripted::start(Vec::new()).await;
    for arguments in [
        &["run", "retry", "r-1"][..],
        &["run", "retry", "latest"],
        &["run", "retry", "r-1", "--if-sequence", "5"],
    ] {
        let done = coordinator.lockstep(arguments).await;
        assert_eq!(done.code, 0, "{done:?}");
    }
    assert_eq!(coordinator.requested_retries(), [SEEN, SEEN, 5]);
}
