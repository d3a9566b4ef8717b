"""The double of DMS and CloudWatch, seen by botocore.

botocore is AWS's own client, with AWS's own models. Every operation of the double
is called through it, and every answer is checked against the operation's output
shape: members the model doesn't have, members it requires, types, and the values
of closed enumerations. The raw answers are checked, before botocore's parser drops
what it doesn't know.

The double is started as a program: DMS_DOUBLE names it, by default
target/debug/dms-double. No database is needed: the endpoints' ports are closed.
"""

import datetime
import json
import os
import pathlib
import socket
import subprocess
import time
import urllib.request

import botocore
import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("DMS_DOUBLE", ROOT / "target/debug/dms-double"))

# A guard against waiting for ever; no test waits for it.
PATIENCE_S = 20

# AWS documents `replication-task` as a source type of events and sends it; the
# model lists `replication-instance` only.
DOCUMENTED_BEYOND_THE_MODEL = {("SourceType", "replication-task")}

MAPPINGS = json.dumps(
    {
        "rules": [
            {
                "rule-type": "selection",
                "rule-id": "1",
                "rule-name": "1",
                "rule-action": "include",
                "object-locator": {"schema-name": "SHOP", "table-name": "%"},
            }
        ]
    }
)

CONFIG = """
listen = "127.0.0.1:{port}"
[timing]
creating_ms = 10
starting_ms = 10
stopping_ms = 10
deleting_ms = 10
testing_ms = 10
retry_base_ms = 10
metrics_ms = 20
[[endpoint]]
engine = "oracle"
identifier = "oracle-source"
type = "source"
host = "127.0.0.1"
port = 1
service = "ORCL"
user = "DMS_USER"
password = "hidden-password"
[[endpoint]]
engine = "postgres"
identifier = "postgres-target"
type = "target"
host = "127.0.0.1"
port = 1
dbname = "shop"
user = "dms_user"
password = "hidden-password"
ca_file = "{authorities}"
slot_name = "way_back"
"""

# Any authority will do: nothing answers at the endpoint's port.
AUTHORITIES = pathlib.Path(botocore.__file__).parent / "cacert.pem"


class Mismatch(Exception):
    """An answer that the model does not allow."""


def validate(shape, value, path):
    """Checks a value as parsed by botocore against its shape."""
    kind = shape.type_name
    if kind == "structure":
        expect(isinstance(value, dict), path, "is no structure")
        for name in shape.required_members:
            expect(name in value, path, f"lacks the required member {name}")
        for name, member in value.items():
            expect(name in shape.members, path, f"has the unknown member {name}")
            validate(shape.members[name], member, f"{path}.{name}")
    elif kind == "list":
        expect(isinstance(value, list), path, "is no list")
        for index, element in enumerate(value):
            validate(shape.member, element, f"{path}[{index}]")
    elif kind == "map":
        expect(isinstance(value, dict), path, "is no map")
        for key, element in value.items():
            validate(shape.key, key, f"{path} key")
            validate(shape.value, element, f"{path}[{key!r}]")
    elif kind == "string":
        expect(isinstance(value, str), path, f"is no string but {value!r}")
        if shape.enum:
            known = value in shape.enum or (path.rsplit(".", 1)[-1], value) in DOCUMENTED_BEYOND_THE_MODEL
            expect(known, path, f"is {value!r}, none of {shape.enum}")
    elif kind in ("integer", "long"):
        whole = isinstance(value, int) and not isinstance(value, bool)
        expect(whole, path, f"is no whole number but {value!r}")
    elif kind in ("double", "float"):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        expect(number, path, f"is no number but {value!r}")
    elif kind == "boolean":
        expect(isinstance(value, bool), path, f"is no boolean but {value!r}")
    elif kind == "timestamp":
        moment = isinstance(value, (int, float, datetime.datetime)) and not isinstance(value, bool)
        expect(moment, path, f"is no timestamp but {value!r}")
    else:
        raise Mismatch(f"{path} has the type {kind}, which this validator does not know")


def expect(holds, path, what):
    if not holds:
        raise Mismatch(f"{path} {what}")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(what, ready):
    deadline = time.monotonic() + PATIENCE_S
    while True:
        answer = ready()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)


def speak_cbor_only(session):
    """botocore prefers CloudWatch's JSON protocol; the Rust SDK and the double speak
    CBOR only."""
    loader = session.get_component("data_loader")
    load = loader.load_service_model

    def load_for_cbor(service_name, type_name, api_version=None):
        model = load(service_name, type_name, api_version)
        if (service_name, type_name) == ("cloudwatch", "service-2"):
            model["metadata"]["protocols"] = ["smithy-rpc-v2-cbor"]
        return model

    loader.load_service_model = load_for_cbor


class Double:
    """The running program and a strict client for each service."""

    def __init__(self, url):
        self.url = url
        session = botocore.session.get_session()
        speak_cbor_only(session)
        self.clients = {}
        self.seen = set()
        for service in ("dms", "cloudwatch"):
            client = session.create_client(
                service,
                region_name="eu-central-1",
                endpoint_url=url,
                aws_access_key_id="test",
                aws_secret_access_key="test",
                config=Config(retries={"max_attempts": 1}),
            )
            client.meta.events.register(f"before-parse.{service}.*", self.check_raw)
            self.clients[service] = client

    def check_raw(self, operation_model, response_dict, **_):
        """Sees DMS's JSON before it is parsed; CBOR is checked after parsing."""
        if operation_model.service_model.service_name != "dms" or response_dict["status_code"] != 200:
            return
        raw = json.loads(response_dict["body"])
        self.check(operation_model, raw, "raw")

    def check(self, operation_model, answer, stage):
        if operation_model.output_shape is not None:
            validate(operation_model.output_shape, answer, f"{operation_model.name} ({stage})")

    def call(self, service, operation, **parameters):
        client = self.clients[service]
        method = botocore.xform_name(operation)
        answer = getattr(client, method)(**parameters)
        answer.pop("ResponseMetadata")
        self.check(client.meta.service_model.operation_model(operation), answer, "parsed")
        self.seen.add((service, operation))
        return answer

    def dms(self, operation, **parameters):
        return self.call("dms", operation, **parameters)

    def cloudwatch(self, operation, **parameters):
        return self.call("cloudwatch", operation, **parameters)

    def control(self, path):
        with urllib.request.urlopen(f"{self.url}/control/{path}") as answer:
            return json.load(answer)

    def status(self, arn):
        found = self.dms("DescribeReplicationTasks", Filters=[{"Name": "replication-task-arn", "Values": [arn]}])
        return found["ReplicationTasks"][0]

    def refused(self, service, operation, **parameters):
        with pytest.raises(ClientError) as error:
            self.call(service, operation, **parameters)
        return error.value.response["Error"]["Code"]


@pytest.fixture(scope="module")
def double(tmp_path_factory):
    if not PROGRAM.exists():
        pytest.fail(f"{PROGRAM} is missing: cargo build -p dms-double, or set DMS_DOUBLE")
    directory = tmp_path_factory.mktemp("dms")
    port = free_port()
    config = directory / "dms.toml"
    config.write_text(CONFIG.format(port=port, authorities=AUTHORITIES))
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen([PROGRAM, "--config", config], stderr=log)
    try:
        double = Double(f"http://127.0.0.1:{port}")
        until("the double", lambda: answers(double, process))
        yield double
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def answers(double, process):
    assert process.poll() is None, "the double has ended"
    try:
        return double.control("health")["status"] == "ok"
    except OSError:
        return False


@pytest.fixture(scope="module")
def endpoints(double):
    return double.control("endpoints")


def create(double, endpoints, identifier):
    answer = double.dms(
        "CreateReplicationTask",
        ReplicationTaskIdentifier=identifier,
        SourceEndpointArn=endpoints["endpoints"]["oracle-source"],
        TargetEndpointArn=endpoints["endpoints"]["postgres-target"],
        ReplicationInstanceArn=endpoints["instance_arn"],
        MigrationType="cdc",
        TableMappings=MAPPINGS,
        Tags=[{"Key": "run", "Value": "rehearsal"}],
    )
    return answer["ReplicationTask"]["ReplicationTaskArn"]


def test_a_task_through_its_life(double, endpoints):
    arn = create(double, endpoints, "model")
    until("ready", lambda: double.status(arn)["Status"] == "ready")
    tags = double.dms("ListTagsForResource", ResourceArn=arn)["TagList"]
    assert [(tag["Key"], tag["Value"]) for tag in tags] == [("run", "rehearsal")]
    double.dms("ModifyReplicationTask", ReplicationTaskArn=arn, TaskData="{}")
    until("ready again", lambda: double.status(arn)["Status"] == "ready")
    assert double.refused("dms", "StopReplicationTask", ReplicationTaskArn=arn) == "InvalidResourceStateFault"
    double.dms("StartReplicationTask", ReplicationTaskArn=arn, StartReplicationTaskType="start-replication")
    until("an end", lambda: double.status(arn)["Status"] in ("running", "failed"))
    double.dms("DescribeTableStatistics", ReplicationTaskArn=arn)
    if double.status(arn)["Status"] == "running":
        double.dms("StopReplicationTask", ReplicationTaskArn=arn)
    until("rest", lambda: double.status(arn)["Status"] in ("stopped", "failed"))
    assert double.status(arn)["StopReason"].startswith("Stop Reason ")
    double.dms("DeleteReplicationTask", ReplicationTaskArn=arn)

    def gone():
        found = double.dms("DescribeReplicationTasks")["ReplicationTasks"]
        return all(task["ReplicationTaskArn"] != arn for task in found)

    until("the task to be gone", gone)
    filters = [{"Name": "replication-task-arn", "Values": [arn]}]
    assert double.refused("dms", "DescribeReplicationTasks", Filters=filters) == "ResourceNotFoundFault"


def test_what_the_account_holds(double, endpoints):
    instances = double.dms("DescribeReplicationInstances")["ReplicationInstances"]
    assert instances[0]["ReplicationInstanceArn"] == endpoints["instance_arn"]
    shown = double.dms("DescribeEndpoints")["Endpoints"]
    assert "hidden-password" not in repr(shown)
    oracle = endpoints["endpoints"]["oracle-source"]
    double.dms("TestConnection", ReplicationInstanceArn=endpoints["instance_arn"], EndpointArn=oracle)
    filters = [{"Name": "endpoint-arn", "Values": [oracle]}]

    def tested():
        connections = double.dms("DescribeConnections", Filters=filters)["Connections"]
        return connections if connections[0]["Status"] != "testing" else None

    assert until("the connection's test", tested)[0]["Status"] == "failed"
    create(double, endpoints, "eventful")
    assert double.dms("DescribeEvents", SourceType="replication-instance")["Events"]


def test_cloudwatch(double):
    now = datetime.datetime.now(datetime.timezone.utc)
    dimensions = [{"Name": "Slot", "Value": "way_back"}]
    double.cloudwatch(
        "PutMetricData",
        Namespace="Lockstep",
        MetricData=[{"MetricName": "SlotLagBytes", "Dimensions": dimensions, "Value": 5.0, "Timestamp": now}],
    )
    metrics = double.cloudwatch("ListMetrics", Namespace="Lockstep")["Metrics"]
    assert metrics == [{"Namespace": "Lockstep", "MetricName": "SlotLagBytes", "Dimensions": dimensions}]
    data = double.cloudwatch(
        "GetMetricData",
        StartTime=now - datetime.timedelta(minutes=5),
        EndTime=now + datetime.timedelta(minutes=1),
        MetricDataQueries=[{"Id": "lag", "MetricStat": {"Metric": metrics[0], "Period": 60, "Stat": "Maximum"}}],
    )
    assert data["MetricDataResults"][0]["Values"] == [5.0]
    assert isinstance(data["MetricDataResults"][0]["Timestamps"][0], datetime.datetime)
    alarm = {
        "AlarmName": "slot-lag",
        "Namespace": "Lockstep",
        "MetricName": "SlotLagBytes",
        "Dimensions": dimensions,
        "Statistic": "Maximum",
        "Period": 60,
        "EvaluationPeriods": 1,
        "Threshold": 1.0,
        "ComparisonOperator": "GreaterThanThreshold",
        "TreatMissingData": "breaching",
        "Tags": [{"Key": "run", "Value": "rehearsal"}],
    }
    double.cloudwatch("PutMetricAlarm", **alarm)
    described = double.cloudwatch("DescribeAlarms", AlarmNames=["slot-lag"])["MetricAlarms"][0]
    assert described["StateValue"] == "ALARM"
    assert {k: described[k] for k in alarm if k != "Tags"} == {k: v for k, v in alarm.items() if k != "Tags"}
    assert double.refused("cloudwatch", "DeleteAlarms", AlarmNames=["nobody"]) == "ResourceNotFound"
    double.cloudwatch("DeleteAlarms", AlarmNames=["slot-lag"])
    double.cloudwatch("PutDashboard", DashboardName="night", DashboardBody='{"widgets":[]}')
    assert double.cloudwatch("GetDashboard", DashboardName="night")["DashboardBody"] == '{"widgets":[]}'


def test_every_operation_was_called(double):
    """The double's own list, so that a new operation can't go unchecked."""
    sources = {
        "dms": ROOT / "tests/doubles/dms/src/api/dms/mod.rs",
        "cloudwatch": ROOT / "tests/doubles/dms/src/api/cloudwatch/mod.rs",
    }
    for service, source in sources.items():
        model = double.clients[service].meta.service_model
        text = source.read_text()
        served = {name for name in model.operation_names if f'"{name}" =>' in text}
        called = {operation for seen, operation in double.seen if seen == service}
        assert served and served == called


@pytest.mark.parametrize(
    ("operation", "answer", "complaint"),
    [
        ("DescribeReplicationTasks", {"Tasks": []}, "unknown member Tasks"),
        ("DescribeReplicationTasks", {"ReplicationTasks": [{"Status": 1}]}, "is no string"),
        ("DescribeReplicationTasks", {"ReplicationTasks": [{"MigrationType": "both"}]}, "none of"),
        ("DescribeReplicationTasks", {"ReplicationTasks": [{"ReplicationTaskStats": {"TablesLoaded": "1"}}]}, "whole"),
        (
            "DescribeReplicationTasks",
            {"ReplicationTasks": [{"ReplicationTaskCreationDate": "2026-11-23T00:00:00Z"}]},
            "no timestamp",
        ),
        ("DescribeEndpoints", {"Endpoints": [{"RedisSettings": {"Port": 1}}]}, "required member ServerName"),
    ],
)
def test_the_validator_finds_what_is_wrong(operation, answer, complaint):
    model = botocore.session.get_session().get_service_model("dms").operation_model(operation)
    with pytest.raises(Mismatch, match=complaint):
        validate(model.output_shape, answer, operation)
