//! One trace for each run, with spans of every process: the run, its phases,
//! the agents' tasks.

use crate::fleet::{Fleet, Plan, until};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// A span as a viewer would show it.
#[derive(Debug, Clone)]
struct Seen {
    process: String,
    name: String,
    trace: String,
    id: String,
    parent: String,
    attributes: BTreeMap<String, String>,
}

/// Takes spans in over OTLP/gRPC and keeps them.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Seen>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut seen = self.0.lock().unwrap();
        for resource in request.into_inner().resource_spans {
            let of_resource = resource.resource.unwrap_or_default().attributes;
            let process = attributes(&of_resource).remove("service.name");
            for span in resource
                .scope_spans
                .into_iter()
                .flat_map(|scope| scope.spans)
            {
                seen.push(Seen {
                    process: process.clone().unwrap_or_default(),
                    name: span.name,
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    attributes: attributes(&span.attributes),
                });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attributes(list: &[KeyValue]) -> BTreeMap<String, String> {
    list.iter()
        .filter_map(|pair| match pair.value.as_ref()?.value.as_ref()? {
            Value::StringValue(text) => Some((pair.key.clone(), text.clone())),
            _ => None,
        })
        .collect()
}

const PLAN: &str = r"
kind: Plan
name: traced
parties:
  apps: { labels: { role: app }, expected: 2 }
phases:
  - name: one
    on_failure: rollback
    steps:
      - id: report
        party: apps
        action: cron.disable
        params: { files: ['@DIR@/${agent.name}/etc/report'] }
  - name: two
    on_failure: rollback
    steps:
      - { id: second, party: apps, action: command.run, params: { command: second } }
";

const BOTH: [&str; 2] = ["app-1", "app-2"];

#[test]
fn a_run_is_one_trace_through_all_processes() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let collector = Collector::default();
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let otlp = format!("http://{}", listener.local_addr().unwrap());
    let service = TraceServiceServer::new(collector.clone());
    let serving = Server::builder().add_service(service);
    runtime.spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));

    let mut fleet = Fleet::start(&Plan {
        agents: &BOTH,
        agent_extra: "",
        otlp: &otlp,
    });
    let plan = fleet.plan("traced", PLAN);
    let completed = fleet.then_watch(&["run", "start", &plan]).json;
    for agent in BOTH {
        fleet
            .host(agent)
            .write("etc/report", "* * * * * shop true\n");
        std::fs::remove_file(fleet.host(agent).path("etc/.report.lockstep-disabled")).unwrap();
    }
    fleet.host("app-2").spoil("second");
    let rolled_back = fleet.then_watch(&["run", "start", &plan]).json;
    assert_eq!(completed["outcome"], "completed");
    assert_eq!(rolled_back["outcome"], "rolled-back");
    until("both runs to be drawn", || {
        let seen = collector.0.lock().unwrap();
        let runs = seen.iter().filter(|span| span.name == "run");
        (runs.count() >= 2).then_some(())
    });
    // A restart must not draw what is over again.
    fleet.restart_coordinator();
    fleet.wait_connected(&BOTH);
    fleet.stop();

    let seen = collector.0.lock().unwrap().clone();
    judge(&seen, &completed, &["one", "two"]);
    judge(&seen, &rolled_back, &["one", "two", "undo-one"]);
    assert_ne!(completed["trace_id"], rolled_back["trace_id"]);
}

/// Everything about one run's trace.
fn judge(seen: &[Seen], run: &serde_json::Value, phases: &[&str]) {
    let trace = run["trace_id"].as_str().unwrap();
    let id = run["id"].as_str().unwrap();
    for span in seen {
        let names_it = span
            .attributes
            .get("lockstep.run")
            .is_some_and(|run| run == id);
        assert!(
            !names_it || span.trace == trace,
            "in another trace: {span:?}"
        );
    }
    let of_trace: Vec<&Seen> = seen.iter().filter(|span| span.trace == trace).collect();

    let runs: Vec<&&Seen> = of_trace.iter().filter(|span| span.name == "run").collect();
    assert_eq!(runs.len(), 1, "{of_trace:#?}");
    let root = runs[0];
    assert_eq!(root.process, "lockstep-coordinator");
    assert_eq!(root.attributes["lockstep.run"], id);

    let is_phase = |span: &&&Seen| span.attributes.contains_key("lockstep.phase");
    let drawn: BTreeMap<&str, &Seen> = of_trace
        .iter()
        .filter(is_phase)
        .map(|span| (span.name.as_str(), *span))
        .collect();
    assert_eq!(
        drawn.keys().copied().collect::<Vec<_>>(),
        phases,
        "{of_trace:#?}"
    );
    assert_eq!(of_trace.iter().filter(is_phase).count(), phases.len());
    for phase in drawn.values() {
        assert_eq!((&phase.parent, &phase.process), (&root.id, &root.process));
    }
    tasks(&of_trace, &drawn, run);
}

/// Each task that was carried out has one span, below its phase.
fn tasks(of_trace: &[&Seen], drawn: &BTreeMap<&str, &Seen>, run: &serde_json::Value) {
    let mut wanted = BTreeSet::new();
    for phase in run["phases"].as_array().unwrap() {
        for task in phase["tasks"].as_array().unwrap() {
            let text = |name: &str| task[name].as_str().unwrap().to_owned();
            let below = drawn[phase["name"].as_str().unwrap()].id.clone();
            wanted.insert((text("agent"), text("step"), text("action"), below));
        }
    }
    let found: Vec<(String, String, String, String)> = of_trace
        .iter()
        .filter(|span| span.process == "lockstep-agent" && span.name != "probe")
        .map(|span| {
            let attribute = |name: &str| span.attributes[name].clone();
            let (agent, step) = (attribute("lockstep.agent"), attribute("lockstep.step"));
            (agent, step, span.name.clone(), span.parent.clone())
        })
        .collect();
    assert_eq!(found.iter().cloned().collect::<BTreeSet<_>>(), wanted);
    assert_eq!(found.len(), wanted.len(), "one each");
    for span in of_trace.iter().filter(|span| span.name == "probe") {
        assert!(
            drawn.values().any(|phase| phase.id == span.parent),
            "{span:?}"
        );
    }
}
