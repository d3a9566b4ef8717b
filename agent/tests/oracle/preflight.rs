//! What a preflight has to find: no parameter file, a standby that may open,
//! transactions in doubt, neighbours, logs that a rollback would need.

use crate::range::{Range, action, shop};
use lockstep_agent::action::Description;
use lockstep_api::Code;
use lockstep_barrier::message::Finding;
use serde_json::{Value, json};

fn ready() -> Value {
    json!({
        "resource": "orcl",
        "marker_table": "LOCKSTEP.LOCKSTEP_MARKER",
        "exempt": {"users": ["DMS_USER"], "machines": []},
        "accounts": ["SHOP"],
    })
}

fn logs(checkpoint: &Value) -> Value {
    json!({"resource": "orcl", "checkpoint": checkpoint})
}

async fn described(range: &Range, name: &str, params: &Value) -> Description {
    let cx = range.context();
    action(name).describe(&cx, params).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_without_a_parameter_file_is_refused_while_it_can_be_helped() {
    let range = Range::start_as("", "spfile = false").await;
    let error = range.probe("oracle.ready", &ready()).await.unwrap_err();
    assert_eq!(error.code(), Code::LS2223);
    let story = error.report();
    assert!(
        story.contains("the instance ORCL1 runs without a server parameter file"),
        "{story}"
    );
    assert!(!story.contains("ORCL2"), "{story}");
    // What would happen otherwise, past the point of no return.
    let keep = json!({"resource": "clustered", "jobs": true});
    let error = range.execute("oracle.freeze.persist", &keep).await;
    let story = error.unwrap_err().report();
    assert!(story.contains("ORA-32001"), "{story}");
    // A plan that leaves jobs on writes nothing there.
    let mut params = ready();
    params["durable"] = json!(false);
    assert_eq!(
        range.finding("oracle.ready", &params).await,
        Finding::Pending
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_and_transactions_in_doubt_are_refused() {
    let range = Range::start("").await;
    range.control(&json!({"op": "surround", "with": {
        "failover": "SYNCHRONIZED",
        "in_doubt": [{"id": "4.7.1201", "state": "prepared"}],
    }}));
    let error = range.probe("oracle.ready", &ready()).await.unwrap_err();
    assert_eq!(error.code(), Code::LS2223);
    let story = error.report();
    for obstacle in [
        "fast-start failover is SYNCHRONIZED",
        "the distributed transaction 4.7.1201 is in doubt (prepared)",
    ] {
        assert!(story.contains(obstacle), "{obstacle}: {story}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_in_doubt_breaks_the_fence_until_its_end_is_known() {
    let range = Range::start("").await;
    let fence = json!({"resource": "orcl", "exempt": {"users": [], "machines": []},
        "keep": ["LISTENER", "LISTENER_DMS"], "accounts": [], "jobs_off": false,
        "window_secs": 0});
    let in_doubt = |state: &str| {
        let with = json!({"in_doubt": [{"id": "4.7.1201", "state": state}]});
        range.control(&json!({"op": "surround", "with": with}));
    };
    in_doubt("prepared");
    let error = range.execute("oracle.fence.watch", &fence).await;
    let error = error.unwrap_err();
    assert_eq!(error.code(), Code::LS2250);
    assert!(
        error
            .report()
            .contains("4.7.1201 is in doubt (prepared) and may yet commit"),
        "{}",
        error.report()
    );
    in_doubt("forced rollback");
    range.execute("oracle.fence.watch", &fence).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_are_named_both_ways() {
    let range = Range::start("CREATE USER CRM IDENTIFIED BY crm;\nGRANT CONNECT TO CRM;\n").await;
    range.control(&json!({"op": "surround", "with": {
        "links": [{"owner": "SHOP", "name": "STOCK", "username": "REPORTS", "host": "stock-db"},
                  {"owner": "PUBLIC", "name": "HR", "host": "hr-db"}],
        "link_sources": [{"database": "DWH", "host": "dwh-1", "username": "SHOP"}],
    }}));
    range.sys().await;
    let _shop = shop(&range.listener()).unwrap();
    let _crm = oracle::Connection::connect("crm", "crm", range.second_listener()).unwrap();
    let description = described(&range, "oracle.ready", &ready()).await;
    assert_eq!(description.obstacles, Vec::<String>::new());
    let remarks = description.remarks.join("\n");
    for remark in [
        "the database link HR of PUBLIC leads to hr-db\n",
        "the database link STOCK of SHOP leads to stock-db as REPORTS\n",
        "the database DWH on dwh-1 opens database links to this one as SHOP, last at ",
        "1 session of SHOP from ",
        "through the service orcl",
        "the plan doesn't lock this account",
    ] {
        assert!(remarks.contains(remark), "{remark}: {remarks}");
    }
    let line = |user: &str| {
        let of = format!("session of {user} from ");
        remarks.lines().find(|line| line.contains(&of)).unwrap()
    };
    assert!(line("CRM").contains("doesn't lock"), "{remarks}");
    assert!(!line("SHOP").contains("doesn't lock"), "{remarks}");
    let outputs = range.execute("oracle.ready", &ready()).await.unwrap();
    assert_eq!(outputs["clients"][0]["service"], "orcl");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_since_the_checkpoint_must_be_there_in_every_thread() {
    let range = Range::start("").await;
    let sys = range.sys().await;
    let scn = async || -> u64 {
        let text: String = sys
            .row("SELECT TO_CHAR(CURRENT_SCN) FROM V$DATABASE", &[])
            .await
            .unwrap();
        text.parse().unwrap()
    };
    let switch = async |statement: &str| {
        sys.execute(&format!("ALTER SYSTEM {statement}"), &[])
            .await
            .unwrap();
    };
    switch("ARCHIVE LOG CURRENT").await;
    let checkpoint = scn().await;
    for statement in [
        "ARCHIVE LOG CURRENT",
        "SWITCH LOGFILE",
        "ARCHIVE LOG CURRENT",
    ] {
        switch(statement).await;
    }
    let name = "oracle.logs.ready";
    let params = logs(&json!(format!("checkpoint:V1#{checkpoint}")));
    assert_eq!(range.finding(name, &params).await, Finding::Pending);
    range.execute(name, &params).await.unwrap();
    let remark = format!("every log since the forward task's checkpoint at SCN {checkpoint}");
    assert!(range.said().iter().any(|line| line.starts_with(&remark)));

    // What lies before the checkpoint may go.
    let delete = |thread: u32, sequence: u32| {
        range.control(&json!({"op": "delete_archived", "thread": thread, "sequence": sequence}));
    };
    delete(1, 101);
    delete(2, 101);
    assert_eq!(range.finding(name, &params).await, Finding::Pending);

    delete(1, 103);
    delete(2, 102);
    let error = range.probe(name, &params).await.unwrap_err();
    assert_eq!(error.code(), Code::LS2225);
    let story = error.report();
    for gap in [
        "the log of thread 1 with sequence 103",
        "the logs of thread 2 before sequence 103",
    ] {
        assert!(story.contains(gap), "{gap}: {story}");
    }
    let error = range.execute(name, &params).await.unwrap_err();
    assert_eq!(error.code(), Code::LS2225);
    let description = described(&range, name, &params).await;
    assert_eq!(description.obstacles.len(), 1);
    let now = logs(&json!(scn().await.to_string()));
    assert_eq!(range.finding(name, &now).await, Finding::Pending);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_tells_no_scn_is_a_remark_and_no_refusal() {
    let range = Range::start("").await;
    for (checkpoint, why) in [
        (Value::Null, "DMS names no checkpoint yet"),
        (json!("checkpoint:V9#x"), "is of a form that tells no SCN"),
        (
            json!("checkpoint:V1#99999999999"),
            "is none of this database",
        ),
    ] {
        let description = described(&range, "oracle.logs.ready", &logs(&checkpoint)).await;
        assert_eq!(description.obstacles, Vec::<String>::new());
        assert!(
            description.remarks[0].contains(why),
            "{why}: {:?}",
            description.remarks
        );
        range
            .execute("oracle.logs.ready", &logs(&checkpoint))
            .await
            .unwrap();
        assert!(range.said().iter().any(|line| line.contains(why)), "{why}");
    }
    let before = logs(&json!("0"));
    let description = described(&range, "oracle.logs.ready", &before).await;
    assert!(description.remarks[0].contains("is none of this database"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_for_dms_is_registered_statically_where_that_matters() {
    let range = Range::start("").await;
    let dynamic = "LISTENER offers no service registered statically";
    let mut params = ready();
    params["dms_listener"] = json!("LISTENER");
    let description = described(&range, "oracle.ready", &params).await;
    assert_eq!(description.obstacles, Vec::<String>::new());
    assert!(
        description
            .remarks
            .iter()
            .any(|line| line.starts_with(dynamic))
    );

    params["canary_table"] = json!("LOCKSTEP.LOCKSTEP_CANARY");
    let description = described(&range, "oracle.ready", &params).await;
    assert!(
        description.obstacles[0].starts_with(dynamic),
        "{:?}",
        description.obstacles
    );
    params["dms_listener"] = json!("LISTENER_DMS");
    let description = described(&range, "oracle.ready", &params).await;
    assert_eq!(description.obstacles, Vec::<String>::new());
    // Neither listener's sqlnet.ora restricts anybody.
    let unseen = "nothing shows that LISTENER_DMS lets in DMS alone";
    assert!(
        description
            .remarks
            .iter()
            .any(|line| line.starts_with(unseen))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_whose_nodes_are_checked_gets_no_remark() {
    let range = Range::start("").await;
    let mut params = ready();
    params["resource"] = json!("grid");
    params["dms_listener"] = json!("LISTENER");
    let unseen = async || {
        let description = described(&range, "oracle.ready", &params).await;
        let mut lines = description.remarks.into_iter();
        lines.any(|line| line.starts_with("nothing shows that"))
    };
    assert!(unseen().await);
    let text = "TCP.VALIDNODE_CHECKING = YES\nTCP.INVITED_NODES = (10.20.0.17)\n";
    std::fs::write(range.directory().join("net/sqlnet.ora"), text).unwrap();
    assert!(!unseen().await);
    // The file is that of the applications' listeners too, read at their next start.
    let description = described(&range, "oracle.ready", &params).await;
    let shared = "applies to LISTENER_DMS as well as to LISTENER";
    assert!(
        description.remarks.iter().any(|line| line.contains(shared)),
        "{:?}",
        description.remarks
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn where_logins_are_restricted_dms_needs_the_privilege_and_a_static_service() {
    let range = Range::start("CREATE ROLE REPLICATION;\n").await;
    let mut params = ready();
    params["restrict_logins"] = json!(true);
    params["dms_listener"] = json!("LISTENER");
    let description = described(&range, "oracle.ready", &params).await;
    let [listener, privilege] = description.obstacles.as_slice() else {
        panic!("{:?}", description.obstacles);
    };
    assert!(listener.contains("ORA-12526"), "{listener}");
    assert!(privilege.contains("DMS_USER lacks the privilege RESTRICTED SESSION"));

    params["dms_listener"] = json!("LISTENER_DMS");
    let sys = range.sys().await;
    for (grant, obstacles) in [
        ("GRANT RESTRICTED SESSION TO REPLICATION", 1),
        ("GRANT REPLICATION TO DMS_USER", 0),
        ("REVOKE REPLICATION FROM DMS_USER", 1),
        ("GRANT RESTRICTED SESSION TO DMS_USER", 0),
    ] {
        sys.execute(grant, &[]).await.unwrap();
        let description = described(&range, "oracle.ready", &params).await;
        assert_eq!(
            description.obstacles.len(),
            obstacles,
            "{grant}: {:?}",
            description.obstacles
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_no_machine_named_every_machine_of_a_spared_user_is_told() {
    let range = Range::start("").await;
    range.sys().await;
    let _dms = oracle::Connection::connect("dms_user", "dms", range.listener()).unwrap();
    let from = |description: &Description| {
        let lines = description.remarks.iter();
        lines
            .filter(|line| line.starts_with("DMS_USER is logged in from "))
            .count()
    };
    let mut params = ready();
    let description = described(&range, "oracle.ready", &params).await;
    assert_eq!(from(&description), 1, "{:?}", description.remarks);
    let machine: String = range
        .sys()
        .await
        .row(
            "SELECT MACHINE FROM GV$SESSION WHERE USERNAME = 'DMS_USER'",
            &[],
        )
        .await
        .unwrap();
    params["exempt"]["machines"] = json!([machine]);
    let description = described(&range, "oracle.ready", &params).await;
    assert_eq!(from(&description), 0, "{:?}", description.remarks);
}
