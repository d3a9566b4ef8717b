//! The unmodified AWS SDK against the double's interface. The engine is replaced
//! by one in memory: what really moves rows is tested in `postgres.rs`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types as cw;
use aws_sdk_databasemigration::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_databasemigration::error::ProvideErrorMetadata;
use aws_sdk_databasemigration::types::{Filter, MigrationTypeValue, StartReplicationTaskTypeValue};
use dms_double::api::{App, router};
use dms_double::config::{Config, EndpointConfig};
use dms_double::metrics::Metrics;
use dms_double::replicate::change::{Operation, TableName};
use dms_double::replicate::{BoxFuture, Engine, Job};
use dms_double::task::faults::FaultSpec;
use dms_double::task::progress::Effect;
use dms_double::task::registry::Registry;
use dms_double::task::state::{Definition, Ending};
use std::sync::Arc;
use std::time::Duration;

/// A guard against waiting for ever; no test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// Applies one insert, then waits to be stopped.
struct InMemory;

impl Engine for InMemory {
    fn run(&self, job: Job) -> BoxFuture<Ending> {
        Box::pin(async move {
            job.progress.transaction_read(1);
            let insert = Effect::Applied(TableName::new("SHOP", "ORDERS"), Operation::Insert);
            job.progress
                .transaction_applied(1, &[insert], "4711".into());
            loop {
                if let Some(ending) = job.ending() {
                    return ending;
                }
                job.pause(Duration::from_millis(5)).await;
            }
        })
    }

    fn discard(&self, _: Arc<Definition>, _: Arc<EndpointConfig>) -> BoxFuture<Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    fn test(&self, endpoint: Arc<EndpointConfig>) -> BoxFuture<Result<(), String>> {
        Box::pin(async move {
            match &*endpoint {
                EndpointConfig::Oracle(_) => Ok(()),
                EndpointConfig::Postgres(_) => Err("Test Endpoint failed: nobody answers".into()),
            }
        })
    }
}

const CONFIG: &str = r#"
    listen = "127.0.0.1:0"
    [timing]
    creating_ms = 20
    starting_ms = 20
    stopping_ms = 20
    modifying_ms = 20
    deleting_ms = 20
    testing_ms = 20
    metrics_ms = 20
    [[endpoint]]
    engine = "oracle"
    identifier = "oracle-source"
    type = "source"
    host = "127.0.0.1"
    port = 15212
    service = "ORCL"
    user = "DMS_USER"
    password = "hidden-password"
    [[endpoint]]
    engine = "postgres"
    identifier = "postgres-target"
    type = "target"
    host = "127.0.0.1"
    port = 15432
    dbname = "shop"
    user = "dms_user"
    password = "hidden-password"
    ca_file = "ca.pem"
    [[task]]
    identifier = "forward"
    source = "oracle-source"
    target = "postgres-target"
    migration_type = "full-load-and-cdc"
    table_mappings = '''MAPPINGS'''
    running = true
"#;

const MAPPINGS: &str = r#"{"rules":[{"rule-type":"selection","rule-id":"1","rule-name":"1",
    "rule-action":"include","object-locator":{"schema-name":"SHOP","table-name":"%"}}]}"#;

struct Double {
    dms: aws_sdk_databasemigration::Client,
    cloudwatch: aws_sdk_cloudwatch::Client,
    registry: Arc<Registry>,
}

impl Double {
    async fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("dms.toml");
        std::fs::write(&path, CONFIG.replace("MAPPINGS", MAPPINGS)).unwrap();
        let config = Config::load(&path).unwrap();
        let registry = Registry::new(&config, Arc::new(InMemory));
        registry.create_configured(&config.tasks).unwrap();
        let metrics = Arc::new(Metrics::default());
        let app = App {
            registry: Arc::clone(&registry),
            metrics: Arc::clone(&metrics),
        };
        let publisher = Arc::clone(&registry);
        tokio::spawn(async move { metrics.publish_tasks(&publisher).await });
        let listener = tokio::net::TcpListener::bind(config.listen).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router(app)).await });
        let credentials = Credentials::new("test", "test", None, None, "static");
        let dms = aws_sdk_databasemigration::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"))
            .credentials_provider(credentials.clone())
            .endpoint_url(&url)
            .build();
        let cloudwatch = aws_sdk_cloudwatch::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"))
            .credentials_provider(credentials)
            .endpoint_url(&url)
            .build();
        Self {
            dms: aws_sdk_databasemigration::Client::from_conf(dms),
            cloudwatch: aws_sdk_cloudwatch::Client::from_conf(cloudwatch),
            registry,
        }
    }

    async fn task(
        &self,
        identifier: &str,
    ) -> Option<aws_sdk_databasemigration::types::ReplicationTask> {
        let filter = Filter::builder()
            .name("replication-task-id")
            .values(identifier)
            .build()
            .unwrap();
        match self
            .dms
            .describe_replication_tasks()
            .filters(filter)
            .send()
            .await
        {
            Ok(found) => found.replication_tasks.unwrap_or_default().pop(),
            Err(e) if e.code() == Some("ResourceNotFoundFault") => None,
            Err(e) => panic!("{e:?}"),
        }
    }

    async fn until(
        &self,
        identifier: &str,
        status: &str,
    ) -> aws_sdk_databasemigration::types::ReplicationTask {
        let waiting = async {
            loop {
                if let Some(task) = self.task(identifier).await
                    && task.status() == Some(status)
                {
                    return task;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .unwrap_or_else(|_| panic!("{identifier} never became {status}"))
    }

    fn endpoint(&self, identifier: &str) -> String {
        self.registry
            .resources
            .endpoint_arn(identifier)
            .unwrap()
            .to_owned()
    }

    fn create(&self, identifier: &str) -> aws_sdk_databasemigration::operation::create_replication_task::builders::CreateReplicationTaskFluentBuilder{
        self.dms
            .create_replication_task()
            .replication_task_identifier(identifier)
            .source_endpoint_arn(self.endpoint("oracle-source"))
            .target_endpoint_arn(self.endpoint("postgres-target"))
            .replication_instance_arn(&self.registry.resources.instance_arn)
            .migration_type(MigrationTypeValue::Cdc)
            .table_mappings(MAPPINGS)
    }
}

#[tokio::test]
async fn a_task_goes_through_its_states() {
    let double = Double::start().await;
    let running = double.until("forward", "running").await;
    let arn = running.replication_task_arn().unwrap().to_owned();
    assert_eq!(running.recovery_checkpoint(), Some("checkpoint:V1#4711"));
    assert_eq!(running.stop_reason(), None);

    let refused = double
        .dms
        .delete_replication_task()
        .replication_task_arn(&arn)
        .send()
        .await
        .unwrap_err();
    assert!(
        refused
            .into_service_error()
            .is_invalid_resource_state_fault()
    );

    let stopping = double
        .dms
        .stop_replication_task()
        .replication_task_arn(&arn)
        .send()
        .await
        .unwrap();
    assert_eq!(
        stopping.replication_task().unwrap().status(),
        Some("stopping")
    );
    let stopped = double.until("forward", "stopped").await;
    assert_eq!(stopped.stop_reason(), Some("Stop Reason NORMAL"));
    assert!(stopped.last_failure_message().is_none());
    assert!(
        stopped
            .replication_task_stats()
            .unwrap()
            .stop_date()
            .is_some()
    );

    let again = double
        .dms
        .stop_replication_task()
        .replication_task_arn(&arn)
        .send()
        .await
        .unwrap_err();
    assert!(again.into_service_error().is_invalid_resource_state_fault());

    double
        .dms
        .start_replication_task()
        .replication_task_arn(&arn)
        .start_replication_task_type(StartReplicationTaskTypeValue::ResumeProcessing)
        .send()
        .await
        .unwrap();
    double.until("forward", "running").await;
    let statistics = double
        .dms
        .describe_table_statistics()
        .replication_task_arn(&arn)
        .send()
        .await
        .unwrap();
    let orders = &statistics.table_statistics()[0];
    assert_eq!(
        (orders.schema_name(), orders.table_name()),
        (Some("SHOP"), Some("ORDERS"))
    );
    assert_eq!(orders.table_state(), Some("Table completed"));
    assert_eq!(orders.inserts(), 2);
}

#[tokio::test]
async fn a_task_is_created_modified_and_deleted() {
    let double = Double::start().await;
    let created = double
        .create("second")
        .cdc_start_position("4711")
        .send()
        .await
        .unwrap();
    let task = created.replication_task().unwrap();
    assert_eq!(task.status(), Some("creating"));
    let arn = task.replication_task_arn().unwrap().to_owned();
    double.until("second", "ready").await;

    let taken = double.create("second").send().await.unwrap_err();
    assert!(
        taken
            .into_service_error()
            .is_resource_already_exists_fault()
    );
    let resumed = double
        .dms
        .start_replication_task()
        .replication_task_arn(&arn)
        .start_replication_task_type(StartReplicationTaskTypeValue::ResumeProcessing)
        .send()
        .await
        .unwrap_err();
    assert!(
        resumed
            .into_service_error()
            .is_invalid_resource_state_fault()
    );

    let modified = double
        .dms
        .modify_replication_task()
        .replication_task_arn(&arn)
        .replication_task_identifier("renamed")
        .send()
        .await
        .unwrap();
    assert_eq!(
        modified.replication_task().unwrap().status(),
        Some("modifying")
    );
    double.until("renamed", "ready").await;

    double
        .dms
        .delete_replication_task()
        .replication_task_arn(&arn)
        .send()
        .await
        .unwrap();
    tokio::time::timeout(PATIENCE, async {
        while double.task("renamed").await.is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let double = Double::start().await;
    for (wrong, code) in [
        (double.create("2nd"), "InvalidParameterValueException"),
        (
            double.create("t").table_mappings("{}"),
            "InvalidParameterValueException",
        ),
        (
            double.create("t").source_endpoint_arn("arn:aws:dms:x"),
            "ResourceNotFoundFault",
        ),
        (
            double
                .create("t")
                .source_endpoint_arn(double.endpoint("postgres-target")),
            "InvalidParameterValueException",
        ),
        (
            double
                .create("t")
                .cdc_start_time(aws_sdk_databasemigration::primitives::DateTime::from_secs(
                    1,
                ))
                .cdc_start_position("1"),
            "InvalidParameterCombinationException",
        ),
        (
            double.create("t").cdc_start_position("soon"),
            "InvalidParameterValueException",
        ),
    ] {
        assert_eq!(wrong.send().await.unwrap_err().code(), Some(code));
    }
    let unknown = Filter::builder()
        .name("colour")
        .values("red")
        .build()
        .unwrap();
    let error = double
        .dms
        .describe_replication_tasks()
        .filters(unknown)
        .send()
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some("InvalidParameterValueException"));
}

#[tokio::test]
async fn tasks_come_in_pages() {
    let double = Double::start().await;
    for n in 0..24 {
        double.create(&format!("task-{n}")).send().await.unwrap();
    }
    let pages = double
        .dms
        .describe_replication_tasks()
        .max_records(20)
        .into_paginator()
        .send();
    let pages: Result<Vec<_>, _> = pages.collect().await;
    let sizes: Vec<_> = pages
        .unwrap()
        .iter()
        .map(|p| p.replication_tasks().len())
        .collect();
    assert_eq!(sizes, [20, 5]);
}

#[tokio::test]
async fn connections_are_tested_and_passwords_never_shown() {
    let double = Double::start().await;
    for endpoint in ["oracle-source", "postgres-target"] {
        let testing = double
            .dms
            .test_connection()
            .replication_instance_arn(&double.registry.resources.instance_arn)
            .endpoint_arn(double.endpoint(endpoint))
            .send()
            .await
            .unwrap();
        assert_eq!(testing.connection().unwrap().status(), Some("testing"));
    }
    let tested = tokio::time::timeout(PATIENCE, async {
        loop {
            let all = double
                .dms
                .describe_connections()
                .send()
                .await
                .unwrap()
                .connections
                .unwrap();
            if all.iter().all(|c| c.status() != Some("testing")) {
                return all;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    for connection in tested {
        match connection.endpoint_identifier().unwrap() {
            "oracle-source" => assert_eq!(connection.status(), Some("successful")),
            _ => assert_eq!(
                (connection.status(), connection.last_failure_message()),
                (Some("failed"), Some("Test Endpoint failed: nobody answers"))
            ),
        }
    }
    let endpoints = double.dms.describe_endpoints().send().await.unwrap();
    assert_eq!(endpoints.endpoints().len(), 2);
    assert!(!format!("{endpoints:?}").contains("hidden-password"));
}

#[tokio::test]
async fn faults_of_the_range_reach_the_caller_and_the_log() {
    let double = Double::start().await;
    let running = double.until("forward", "running").await;
    let arn = running.replication_task_arn().unwrap();
    let arm = |text: &str| {
        let fault: FaultSpec = serde_json::from_str(text).unwrap();
        double.registry.faults.arm(fault).unwrap();
    };
    arm(r#"{"kind":"access_denied","operation":"StopReplicationTask","times":1}"#);
    let denied = double
        .dms
        .stop_replication_task()
        .replication_task_arn(arn)
        .send()
        .await
        .unwrap_err();
    assert_eq!(denied.code(), Some("AccessDeniedException"));

    // The SDK retries a throttled call by itself.
    arm(r#"{"kind":"throttling","operation":"DescribeTableStatistics","times":1}"#);
    double
        .dms
        .describe_table_statistics()
        .replication_task_arn(arn)
        .send()
        .await
        .unwrap();
    let log = double.registry.faults.calls();
    let errors: Vec<_> = log
        .calls
        .iter()
        .filter(|c| c.operation == "DescribeTableStatistics")
        .map(|c| c.error.as_deref())
        .collect();
    assert_eq!(errors, [Some("ThrottlingException"), None]);

    arm(r#"{"kind":"task_failed","task":"forward","message":"ORA-01555: snapshot too old"}"#);
    let failed = double.until("forward", "failed").await;
    assert_eq!(failed.stop_reason(), Some("Stop Reason FATAL_ERROR"));
    assert_eq!(
        failed.last_failure_message(),
        Some("ORA-01555: snapshot too old")
    );
    let events = double.dms.describe_events().send().await.unwrap();
    assert!(
        events
            .events()
            .iter()
            .any(|e| e.message().unwrap_or_default().contains("ORA-01555"))
    );
}

#[tokio::test]
async fn metrics_come_from_the_running_task() {
    let double = Double::start().await;
    double.until("forward", "running").await;
    let metrics = tokio::time::timeout(PATIENCE, async {
        loop {
            let found = double
                .cloudwatch
                .list_metrics()
                .namespace("AWS/DMS")
                .metric_name("CDCLatencySource")
                .send()
                .await
                .unwrap()
                .metrics
                .unwrap_or_default();
            if !found.is_empty() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    let names: Vec<_> = metrics[0]
        .dimensions()
        .iter()
        .filter_map(|d| d.name())
        .collect();
    assert_eq!(
        names,
        ["ReplicationInstanceIdentifier", "ReplicationTaskIdentifier"]
    );

    let stat = cw::MetricStat::builder()
        .metric(metrics[0].clone())
        .period(60)
        .stat("Maximum")
        .build();
    let query = cw::MetricDataQuery::builder()
        .id("latency")
        .metric_stat(stat)
        .build();
    let now = jiff::Timestamp::now().as_second();
    let data = double
        .cloudwatch
        .get_metric_data()
        .metric_data_queries(query)
        .start_time(DateTime::from_secs(now - 300))
        .end_time(DateTime::from_secs(now + 60))
        .send()
        .await
        .unwrap();
    let result = &data.metric_data_results()[0];
    assert!(!result.values().is_empty());
    assert_eq!(result.values().len(), result.timestamps().len());
}

#[tokio::test]
async fn an_alarm_is_judged_when_it_is_asked_for() {
    let double = Double::start().await;
    let client = &double.cloudwatch;
    let datum = cw::MetricDatum::builder()
        .metric_name("SlotLagBytes")
        .value(2e9)
        .build();
    client
        .put_metric_data()
        .namespace("Lockstep")
        .metric_data(datum)
        .send()
        .await
        .unwrap();
    let put = client
        .put_metric_alarm()
        .alarm_name("slot-lag")
        .namespace("Lockstep")
        .metric_name("SlotLagBytes")
        .statistic(cw::Statistic::Maximum)
        .comparison_operator(cw::ComparisonOperator::GreaterThanThreshold)
        .threshold(1e9)
        .period(60)
        .evaluation_periods(5)
        .datapoints_to_alarm(1)
        .treat_missing_data("notBreaching");
    put.send().await.unwrap();
    let alarms = client
        .describe_alarms()
        .alarm_name_prefix("slot")
        .send()
        .await
        .unwrap();
    let alarm = &alarms.metric_alarms()[0];
    assert_eq!(alarm.state_value(), Some(&cw::StateValue::Alarm));
    assert_eq!(alarm.threshold(), Some(1e9));
    assert!(alarm.alarm_arn().unwrap().ends_with(":alarm:slot-lag"));

    let unknown = client
        .delete_alarms()
        .alarm_names("slot-lag")
        .alarm_names("other")
        .send()
        .await;
    assert!(
        unknown
            .unwrap_err()
            .into_service_error()
            .is_resource_not_found()
    );
    client
        .delete_alarms()
        .alarm_names("slot-lag")
        .send()
        .await
        .unwrap();
    assert!(
        client
            .describe_alarms()
            .send()
            .await
            .unwrap()
            .metric_alarms()
            .is_empty()
    );
}

#[tokio::test]
async fn a_dashboard_is_returned_as_it_was_put() {
    let double = Double::start().await;
    let client = &double.cloudwatch;
    let invalid = client
        .put_dashboard()
        .dashboard_name("night")
        .dashboard_body("[]")
        .send()
        .await;
    assert!(
        invalid
            .unwrap_err()
            .into_service_error()
            .is_dashboard_invalid_input_error()
    );
    let body = r#"{"widgets":[]}"#;
    client
        .put_dashboard()
        .dashboard_name("night")
        .dashboard_body(body)
        .send()
        .await
        .unwrap();
    let dashboard = client
        .get_dashboard()
        .dashboard_name("night")
        .send()
        .await
        .unwrap();
    assert_eq!(dashboard.dashboard_body(), Some(body));
    let missing = client
        .get_dashboard()
        .dashboard_name("day")
        .send()
        .await
        .unwrap_err();
    assert!(missing.into_service_error().is_dashboard_not_found_error());
}
