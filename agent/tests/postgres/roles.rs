//! Application roles: closed, looked at, opened.

use crate::site::Site;
use lockstep_agent::action::Undone;
use lockstep_api::Code;
use lockstep_barrier::message::Finding;
use serde_json::json;

#[tokio::test]
async fn roles_close_and_open_with_their_sessions() {
    let site = Site::new("roles", "", "").await;
    let params = json!({"resource": "shop", "roles": ["roles_app"]});
    let idle = site.cluster.login("roles_app", "roles").await.unwrap();
    idle.run("BEGIN; SELECT 1").await;

    let before_image = site.perform_once("postgres.roles.close", &params).await;
    assert!(
        idle.0.batch_execute("COMMIT").await.is_err(),
        "the session lives on"
    );
    assert!(site.cluster.login("roles_app", "roles").await.is_err());

    let open = site.perform_once("postgres.roles.open", &params).await;
    let session = site.cluster.login("roles_app", "roles").await.unwrap();
    site.undo_once("postgres.roles.open", &params, open).await;
    assert!(
        session.0.batch_execute("SELECT 1").await.is_err(),
        "the session lives on"
    );
    site.undo_once("postgres.roles.close", &params, before_image)
        .await;
    assert!(site.cluster.login("roles_app", "roles").await.is_ok());
}

/// It would show after the point of no return only.
#[tokio::test]
async fn what_keeps_an_open_role_from_working_is_told_before_the_run() {
    let site = Site::new("limited", "", "").await;
    let params = json!({"resource": "shop", "roles": ["limited_app"]});
    let open = "postgres.roles.open";
    assert_eq!(site.remarks(open, &params).await, Vec::<String>::new());
    site.sql
        .run(
            "ALTER ROLE limited_app VALID UNTIL '2020-01-01' CONNECTION LIMIT 0; \
             ALTER ROLE limited_app SET default_transaction_read_only = on; \
             ALTER DATABASE limited SET default_transaction_read_only = true",
        )
        .await;
    let remarks = site.remarks(open, &params).await.join("\n");
    for named in [
        "limited_app has expired (VALID UNTIL 2020-01-01",
        "limited_app has CONNECTION LIMIT 0",
        "sessions of every role are read-only",
        "sessions of limited_app are read-only",
    ] {
        assert!(remarks.contains(named), "{named}: {remarks}");
    }
}

#[tokio::test]
async fn roles_that_somebody_has_opened_meanwhile_are_found() {
    let site = Site::new("rolesmean", "CREATE TABLE public.t (a int)", "").await;
    let params = json!({"resource": "shop", "roles": ["rolesmean_app"]});
    let refused = async |says: &str| {
        let verify = "postgres.roles.verify";
        let error = site.try_probe(verify, &params).await.unwrap_err();
        assert_eq!(error.code(), Code::LS2319, "{}", error.report());
        assert!(error.report().contains(says), "{}", error.report());
        assert!(site.try_execute(verify, &params).await.is_err());
    };
    refused("the role rolesmean_app may log in").await;
    // What a preflight says before the run has closed them.
    let obstacles = site.obstacles("postgres.roles.verify", &params).await;
    assert_eq!(obstacles, Vec::<String>::new());

    site.perform_once("postgres.roles.close", &params).await;
    let probe = site.probe("postgres.roles.verify", &params).await;
    assert_eq!(probe.finding, Finding::Satisfied);

    site.sql
        .run("GRANT INSERT ON public.t TO rolesmean_app; ALTER ROLE rolesmean_app LOGIN")
        .await;
    refused("the role rolesmean_app may log in").await;
    let app = site.cluster.login("rolesmean_app", "rolesmean").await;
    site.sql.run("ALTER ROLE rolesmean_app NOLOGIN").await;
    refused("session").await;
    let app = app.unwrap();
    app.run("BEGIN; INSERT INTO public.t VALUES (1); PREPARE TRANSACTION 'limbo'")
        .await;
    drop(app);
    refused("limbo").await;
    site.sql.run("ROLLBACK PREPARED 'limbo'").await;
    site.try_execute("postgres.roles.close", &params)
        .await
        .unwrap();
    site.try_execute("postgres.roles.verify", &params)
        .await
        .unwrap();
}

#[tokio::test]
async fn roles_are_closed_all_or_none() {
    let site = Site::new("rolesall", "", "").await;
    site.sql
        .run("CREATE ROLE rolesall_super LOGIN SUPERUSER")
        .await;
    let params = json!({"resource": "shop", "roles": ["rolesall_app", "rolesall_super"]});
    let error = site
        .try_execute("postgres.roles.close", &params)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::LS2303, "{}", error.report());
    assert!(site.cluster.login("rolesall_app", "rolesall").await.is_ok());
    // Which the probe would have said.
    let error = site
        .try_probe("postgres.roles.close", &params)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::LS2312, "{}", error.report());
    assert!(
        error.report().contains("rolesall_super"),
        "{}",
        error.report()
    );

    let unknown = json!({"resource": "shop", "roles": ["rolesall_app", "nobody"]});
    let error = site
        .try_probe("postgres.roles.close", &unknown)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::LS2311);
    let own = json!({"resource": "shop", "roles": ["rolesall_agent"]});
    let error = site
        .try_probe("postgres.roles.close", &own)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::LS2312);
}

#[tokio::test]
async fn what_the_agents_role_lacks_to_close_roles_is_told() {
    let site = Site::new("powers", "", "").await;
    let params = json!({"resource": "shop", "roles": ["powers_app"]});
    let told = async || site.obstacles("postgres.roles.close", &params).await;
    assert_eq!(told().await, Vec::<String>::new());
    // A member, but not with its privileges: it couldn't end a session.
    site.sql.run("ALTER ROLE powers_agent NOINHERIT").await;
    let obstacles = told().await.join("\n");
    assert!(obstacles.contains("doesn't inherit"), "{obstacles}");
    // The privileges of the role itself are as good.
    site.sql
        .run(
            "ALTER ROLE powers_agent INHERIT; REVOKE pg_signal_backend FROM powers_agent; \
             GRANT powers_app TO powers_agent",
        )
        .await;
    assert_eq!(told().await, Vec::<String>::new());
    site.sql.run("ALTER ROLE powers_app REPLICATION").await;
    let obstacles = told().await.join("\n");
    assert!(obstacles.contains("NOREPLICATION"), "{obstacles}");
}

#[tokio::test]
async fn a_prepared_transaction_keeps_roles_from_being_closed() {
    let site = Site::new("prepared", "CREATE TABLE public.t (a int)", "").await;
    site.sql
        .run("GRANT INSERT ON public.t TO prepared_app")
        .await;
    let app = site
        .cluster
        .login("prepared_app", "prepared")
        .await
        .unwrap();
    app.run("BEGIN; INSERT INTO public.t VALUES (1); PREPARE TRANSACTION 'limbo'")
        .await;
    let params = json!({"resource": "shop", "roles": ["prepared_app"]});
    let error = site
        .try_execute("postgres.roles.close", &params)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::LS2314, "{}", error.report());
    assert!(error.report().contains("limbo"));
    site.sql.run("ROLLBACK PREPARED 'limbo'").await;
    site.try_execute("postgres.roles.close", &params)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_role_that_somebody_else_has_opened_is_left_alone() {
    let site = Site::new("rolesdrift", "", "").await;
    let params = json!({"resource": "shop", "roles": ["rolesdrift_app"]});
    site.sql.run("ALTER ROLE rolesdrift_app NOLOGIN").await;
    let probe = site.probe("postgres.roles.close", &params).await;
    assert_eq!(probe.finding, Finding::Satisfied);
    site.sql.run("ALTER ROLE rolesdrift_app LOGIN").await;
    let undone = site
        .undo(
            "postgres.roles.close",
            &params,
            &probe.before_image.unwrap(),
        )
        .await;
    assert!(matches!(undone, Undone::Drifted(_)), "{undone:?}");
}
