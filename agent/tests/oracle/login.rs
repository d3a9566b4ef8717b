//! Logging in, and the homes and directories with which tools are run.

use crate::range::{Range, action};
use lockstep_agent::action::ActionError;
use lockstep_agent::config::Config;
use lockstep_agent::host::oracle as session;
use lockstep_api::Code;
use lockstep_barrier::message::Finding;
use serde_json::json;
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_hangs_is_an_error_and_holds_up_nobody() {
    let range = Range::start("").await;
    range.sys().await;
    range.signal(libc::SIGSTOP);
    let params = json!({"resource": "orcl"});
    let mut hanging = JoinSet::new();
    for _ in 0..16 {
        let (cx, params) = (range.context(), params.clone());
        let probe = action("oracle.logins.restrict");
        hanging.spawn(async move { probe.probe(&cx, &params).await });
    }
    // What blocks otherwise has its threads, all the while.
    tokio::task::spawn_blocking(|| ()).await.unwrap();
    let told = |error: ActionError, what: &str| {
        assert_eq!(error.code(), Code::LS2208, "{}", error.report());
        assert!(error.report().contains(what), "{}", error.report());
    };
    while let Some(ended) = hanging.join_next().await {
        told(
            ended.unwrap().unwrap_err(),
            "has not come to an end within 20 s",
        );
    }
    let one_more = range.probe("oracle.logins.restrict", &params).await;
    told(one_more.unwrap_err(), "16 earlier ones have not ended");

    range.signal(libc::SIGCONT);
    let mut found = range.probe("oracle.logins.restrict", &params).await;
    while found.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        found = range.probe("oracle.logins.restrict", &params).await;
    }
    assert_eq!(found.unwrap().finding, Finding::Pending);
    let agents = || {
        let seen = range.observe();
        let sessions = seen["sessions"].as_array().unwrap().iter();
        sessions.filter(|one| one["user"] == "SYS").count()
    };
    // But for those that are kept for the next task.
    crate::range::until("late sessions stay", || agents() <= 3).await;
}

/// Whether a login's thread exists in this process.
fn login_under_way() -> bool {
    std::fs::read_dir("/proc/self/task").unwrap().any(|thread| {
        // A thread may end while the directory is read.
        let name = std::fs::read_to_string(thread.unwrap().path().join("comm"));
        name.is_ok_and(|name| name.trim_end() == "oracle-login")
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_whose_task_is_cancelled_is_left_behind() {
    let range = Range::start("").await;
    // Held, so that the task can't reuse this login and needs its own.
    let _sys = range.sys().await;
    crate::range::until("an earlier login has ended", || !login_under_way()).await;
    range.signal(libc::SIGSTOP);
    let cx = range.context();
    let cancel = cx.cancel.clone();
    let params = json!({"resource": "orcl"});
    let probe = action("oracle.logins.restrict").probe(&cx, &params);
    let later = async {
        crate::range::until("the login has begun", login_under_way).await;
        cancel.cancel();
    };
    let (error, ()) = tokio::join!(probe, later);
    let error = error.unwrap_err();
    assert_eq!(error.code(), Code::LS2206, "{}", error.report());
    range.signal(libc::SIGCONT);
}

/// A local login of Oracle's client changes the process's handling of SIGCHLD.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_takes_no_exit_status_away() {
    let range = Range::start("").await;
    let before = range.world();
    for way in ["handler", "nocldwait"] {
        // SAFETY: tests take turns, and nobody else reads the environment.
        unsafe { std::env::set_var("LOCKSTEP_CLNTSH_SIGCHLD", way) };
        drop(range.fresh_sys().await);
        let params = json!({"resource": "orcl", "keep": ["LISTENER_DMS"]});
        let name = "oracle.listener.stop";
        for _ in 0..20 {
            let probe = range.probe(name, &params).await;
            let probe = probe.unwrap_or_else(|e| panic!("{way}: {}", e.report()));
            assert_eq!(probe.finding, Finding::Pending);
        }
        let probe = range.probe(name, &params).await.unwrap();
        range.execute(name, &params).await.unwrap();
        let before_image = probe.before_image.unwrap();
        range.undo(name, &params, &before_image).await.unwrap();
        assert_eq!(range.world(), before, "{way}");
    }
    // SAFETY: as before.
    unsafe { std::env::remove_var("LOCKSTEP_CLNTSH_SIGCHLD") };
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_of_a_grid_home_are_controlled_from_there() {
    let range = Range::start("").await;
    let before = range.world();
    let (grid, net) = (
        range.directory().join("grid").display().to_string(),
        range.directory().join("net").display().to_string(),
    );
    let params = json!({"resource": "grid", "keep": ["LISTENER_DMS"]});
    let name = "oracle.listener.stop";
    let before_image = range
        .probe(name, &params)
        .await
        .unwrap()
        .before_image
        .unwrap();
    range.execute(name, &params).await.unwrap();
    range.undo(name, &params, &before_image).await.unwrap();
    assert_eq!(range.world(), before);
    let ran = range.grid_ran();
    for verb in ["status", "stop", "start"] {
        let line = format!("lsnrctl {grid} {net} {verb} LISTENER");
        assert!(ran.contains(&line), "{line}: {ran:#?}");
    }
    assert!(
        ran.iter()
            .all(|line| line.starts_with(&format!("lsnrctl {grid} {net} ")))
    );

    let params = json!({"resource": "grid_clustered"});
    let before_image = range
        .probe(name, &params)
        .await
        .unwrap()
        .before_image
        .unwrap();
    range.execute(name, &params).await.unwrap();
    range.undo(name, &params, &before_image).await.unwrap();
    assert_eq!(range.world(), before);
    let line = format!("srvctl {grid}  stop listener -listener LISTENER_CRS -node ora-1");
    assert!(range.grid_ran().contains(&line), "{:#?}", range.grid_ran());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_its_listener_ora_does_not_name_is_told() {
    let range = Range::start("").await;
    let params = json!({"resource": "grid", "keep": ["LISTENER"]});
    let error = range
        .probe("oracle.listener.stop", &params)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::LS2211);
    assert!(error.report().contains("TNS-01101"), "{}", error.report());
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_read_the_sqlnet_ora_of_the_database_home_s_own_directory() {
    let range = Range::start("").await;
    let net = range.directory().join("net");
    let config = |more: &str| -> Config {
        let text = format!(
            "name='a'\ncoordinator='c'\nstate_dir='/s'\n[tls]\nca='a'\ncert='b'\nkey='c'\n\
             trust_domain='t'\n[oracle.o]\nhome={:?}\nsid='ORCL1'\ntns_admin={net:?}\n{more}",
            std::env::var("ORACLE_HOME").unwrap(),
        );
        let path = range.directory().join("other.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path).unwrap()
    };
    let grid = format!("grid_home={:?}\n", range.directory().join("grid"));
    for (more, wanted) in [(grid.as_str(), None), ("", Some(net.as_os_str()))] {
        // SAFETY: tests take turns, and nobody else reads the environment.
        unsafe { session::set_environment(&config(more)) };
        assert_eq!(std::env::var_os("TNS_ADMIN").as_deref(), wanted, "{more}");
    }
    range.sys().await;
    // SAFETY: as before.
    unsafe { std::env::remove_var("TNS_ADMIN") };
}
