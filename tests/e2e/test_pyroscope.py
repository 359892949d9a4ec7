"""Pyroscope's own clients in, a Pyroscope server out."""
import json
import subprocess
import sys
import time

import httpx
import pytest
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service

from harness import BIN, ROOT, capture_request, free_port, pprof_dump, replay, wait_for
from test_otlp import export

OTLP = ROOT / "tests/data/otlp/ebpf-v1.11-ascending.otlp"


@pytest.fixture
def daemon(flue, pyroscope):
    """flue in front of the stand-in, which takes profiles of any age."""

    def start(exporter="", receiver=""):
        ports = {"otlp": free_port(), "pyroscope": free_port(), "pprof": free_port()}
        pyroscope.control(window="0s")
        started = flue(f"""
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{ports['otlp']}"}}}}}}
  pyroscope: {{endpoint: "127.0.0.1:{ports['pyroscope']}"{receiver}}}
  pprof: {{server: {{endpoint: "127.0.0.1:{ports['pprof']}"}}}}
processors:
  resource: {{attributes: [{{key: cdn.region, value: eu-west, action: upsert}}]}}
exporters:
  pyroscope:
    endpoint: "{pyroscope.url}"
    retry_on_failure: {{initial_interval: 20ms, max_interval: 100ms}}
    {exporter}
service:
  pipelines:
    profiles: {{receivers: [otlp, pyroscope, pprof], processors: [resource], exporters: [pyroscope]}}
""")
        started.ports = ports
        return started

    return start


def received(pyroscope, count, **options):
    wait_for(lambda: len(pyroscope.profiles()) >= count, what=f"{count} profiles")
    return pyroscope.profiles(**options)


PUSHES = [("pyroscope-python", "cpu-tags", 1), ("pyroscope-python", "cpu-and-memory", 2),
          ("pyroscope-python", "stack-cpu-and-memory", 2), ("pyroscope-python", "cpu-otel-spans", 1),
          ("pyroscope-rust", "cpu-tags", 1), ("pyroscope-rust", "memory-jemalloc", 1)]
INGESTS = [("pyroscope-go", name) for name in ("cpu-spans", "memory", "mutex", "block", "goroutines")] + \
          [("pyroscope-nodejs", name) for name in ("wall-cpu-labels", "heap")]


@pytest.mark.parametrize("client,name,count", PUSHES)
def test_captured_pushes(daemon, pyroscope, captures, client, name, count):
    flue = daemon()
    assert replay(flue.ports["pyroscope"], captures / client, name).status_code == 200
    direct = replay(int(pyroscope.address.split(":")[1]), captures / client, name)
    assert direct.status_code == 200
    profiles = received(pyroscope, 2 * count, full=True)
    ours = [p for p in profiles if p["labels"].get("cdn_region") == "eu-west"]
    theirs = [p for p in profiles if "cdn_region" not in p["labels"]]
    assert len(ours) == len(theirs) == count
    underscored = lambda labels: {k.replace(".", "_"): v for k, v in labels.items()}
    for p in ours:
        twin = [t for t in theirs if t["labels"]["__name__"] == p["labels"]["__name__"]][0]
        assert p["samples"] == twin["samples"] and p["time_nanos"] == twin["time_nanos"]
        assert underscored(twin["labels"]).items() <= underscored(p["labels"]).items()


@pytest.mark.parametrize("client,name", INGESTS)
def test_captured_ingests(daemon, pyroscope, captures, client, name):
    flue = daemon()
    answer = replay(flue.ports["pyroscope"], captures / client, name)
    assert (answer.status_code, answer.content) == (200, b"")
    [p] = received(pyroscope, 1, full=True)
    assert p["labels"]["service_name"] == "abr.packager" or p["labels"]["service_name"]
    assert p["labels"]["cdn_region"] == "eu-west"
    assert p["sample_count"] > 0
    if client == "pyroscope-go":
        expected = {"cpu-spans": "process_cpu", "memory": "memory", "mutex": "mutex", "block": "block", "goroutines": "goroutines"}
        assert p["labels"]["__name__"] == expected[name]


def test_python_sdk(daemon, pyroscope):
    flue = daemon()
    program = """
import sys, time, pyroscope
pyroscope.configure(application_name="encoder", server_address=sys.argv[1], tags={"region": "eu"}, upload_interval=1)
end = time.time() + 2.5
while time.time() < end: sum(i * i for i in range(10000))
pyroscope.shutdown()
"""
    subprocess.run([sys.executable, "-c", program, f"http://127.0.0.1:{flue.ports['pyroscope']}"], check=True, timeout=60)
    profiles = received(pyroscope, 1, full=True)
    assert {p["labels"]["service_name"] for p in profiles} == {"encoder"}
    assert profiles[0]["labels"]["region"] == "eu" and profiles[0]["labels"]["cdn_region"] == "eu-west"
    assert any("<genexpr>" in frame for p in profiles for s in p["samples"] for frame in s["stack"])


def test_go_sdk(daemon, pyroscope):
    flue = daemon()
    subprocess.run([BIN / "sdk", "-address", f"http://127.0.0.1:{flue.ports['pyroscope']}", "-seconds", "3"], check=True, timeout=60)
    profiles = received(pyroscope, 2, full=True)
    names = {p["labels"]["__name__"] for p in profiles}
    assert {"process_cpu", "memory"} <= names
    assert any("burnEncoder" in frame for p in profiles for s in p["samples"] for frame in s["stack"])
    assert all(p["labels"]["service_name"] == "abr.packager" for p in profiles)


def test_node_sdk(daemon, pyroscope):
    import os
    flue = daemon()
    program = """
const Pyroscope = require('@pyroscope/nodejs');
Pyroscope.init({serverAddress: process.argv[1], appName: 'session', flushIntervalMs: 1000, tags: {region: 'eu'}});
Pyroscope.start();
function burnSession() { let x = 0; for (let i = 0; i < 1e6; i++) x += i % 7; return x; }
const end = Date.now() + 2500;
(function turn() { burnSession(); if (Date.now() < end) setImmediate(turn); else Pyroscope.stop().then(() => process.exit(0)); })();
"""
    folder = os.environ.get("FLUE_TEST_NODE", str(BIN.parent / "node"))
    subprocess.run(["node", "-e", program, f"http://127.0.0.1:{flue.ports['pyroscope']}"], cwd=folder, check=True, timeout=60)
    profiles = received(pyroscope, 1, full=True)
    assert {p["labels"]["service_name"] for p in profiles} == {"session"}
    assert any("burnSession" in frame for p in profiles for s in p["samples"] for frame in s["stack"])


def test_otlp_comes_out_as_the_same_flame_graph(daemon, pyroscope):
    flue = daemon()
    request = service.ExportProfilesServiceRequest.FromString(OTLP.read_bytes())
    export(flue.ports["otlp"], OTLP.read_bytes())
    flue.wait_quiet()
    profiles = pyroscope.profiles(full=True)
    events = sum(len(s.timestamps_unix_nano) or sum(s.values) for r in request.resource_profiles
                 for sc in r.scope_profiles for p in sc.profiles for s in p.samples)
    period = request.resource_profiles[0].scope_profiles[0].profiles[0].period
    assert sum(p["totals"]["cpu/nanoseconds"] for p in profiles) == events * period
    for p in profiles:
        assert p["labels"]["__name__"] == "process_cpu" and p["labels"]["cdn_region"] == "eu-west"
        assert "process_pid" not in p["labels"]
        assert not any(l.startswith(("thread", "cpu.")) for s in p["samples"] for l in s.get("labels", []))


def test_eight_processes_of_one_container(daemon, pyroscope):
    """Equal labels and equal time: one profile in the store, so one is sent, with everything in it."""
    flue = daemon()
    request = service.ExportProfilesServiceRequest.FromString(OTLP.read_bytes())
    one = request.resource_profiles[0]
    while len(request.resource_profiles) > 1:
        request.resource_profiles.pop()
    for pid in range(7):
        copy = request.resource_profiles.add()
        copy.CopyFrom(one)
        for a in copy.resource.attributes:
            if a.key == "process.pid":
                a.value.int_value = 5000 + pid
    export(flue.ports["otlp"], request.SerializeToString())
    export(flue.ports["otlp"], request.SerializeToString())
    flue.wait_quiet()
    state = pyroscope.received()
    assert state["lost_duplicates"] == 0
    assert len(state["profiles"]) == 2
    first, second = state["profiles"]
    assert first["labels"] == second["labels"]
    assert abs(first["time_nanos"] - second["time_nanos"]) == 1
    assert first["totals"] == second["totals"]
    samples = one.scope_profiles[0].profiles[0].samples
    events = sum(len(s.timestamps_unix_nano) or sum(s.values) for s in samples)
    assert first["totals"]["cpu/nanoseconds"] == 8 * events * one.scope_profiles[0].profiles[0].period


def test_a_time_of_zero_is_stamped_once(daemon, pyroscope):
    flue = daemon()
    pyroscope.control(fail=2)
    request = service.ExportProfilesServiceRequest.FromString(OTLP.read_bytes())
    for r in request.resource_profiles:
        for s in r.scope_profiles:
            for p in s.profiles:
                p.time_unix_nano = 0
    before = time.time_ns()
    export(flue.ports["otlp"], request.SerializeToString())
    flue.wait_quiet()
    assert pyroscope.profiles()
    for p in pyroscope.profiles():
        assert before <= p["time_nanos"] <= time.time_ns()


def test_refusals_and_retries(daemon, pyroscope):
    flue = daemon()
    pyroscope.control(fail=2, code="resource_exhausted")
    export(flue.ports["otlp"], OTLP.read_bytes())
    flue.wait_quiet()
    profiles = len(pyroscope.profiles())
    assert profiles >= 1
    assert flue.total("otelcol_exporter_dropped_profiles") == 0
    pyroscope.control(fail=1000, code="invalid_argument")
    export(flue.ports["otlp"], OTLP.read_bytes())
    flue.wait_quiet()
    assert len(pyroscope.profiles()) == profiles
    assert flue.total("otelcol_exporter_dropped_profiles") > 0
    assert "told to fail" in flue.log()


def test_very_many_in_flight_on_few_connections(daemon, pyroscope):
    flue = daemon()
    pyroscope.control(delay="500ms")
    profile = (ROOT / "examples/go-cpu.pb.gz").read_bytes()
    began = time.monotonic()
    with httpx.Client(limits=httpx.Limits(max_connections=16)) as client:
        for i in range(1000):
            url = f"http://127.0.0.1:{flue.ports['pprof']}/v1/pprof?service.name=s{i}"
            assert client.post(url, content=profile).status_code == 204
    flue.wait_quiet(60)
    state = pyroscope.received()
    assert len(state["profiles"]) == 1000
    assert state["max_in_flight"] > 50
    assert state["connections"] <= 20


def test_a_server_that_fails_is_not_asked_by_the_whole_queue(daemon, pyroscope):
    flue = daemon(exporter="sending_queue: {num_consumers: 7}\n    timeout: 10m")
    pyroscope.control(fail=100000, code="unavailable", retry_after=250, hold="true")
    profile = (ROOT / "examples/go-cpu.pb.gz").read_bytes()
    for i in range(40):
        url = f"http://127.0.0.1:{flue.ports['pprof']}/v1/pprof?service.name=s{i}"
        assert httpx.post(url, content=profile).status_code == 204
    # All seven are asked before the first answer: five failures would keep the rest from asking.
    wait_for(lambda: pyroscope.received()["requests"] >= 7, timeout=60, what="the first attempts")
    assert flue.total("otelcol_exporter_queued_profiles") == 33
    pyroscope.control(hold="false")
    wait_for(lambda: flue.total("otelcol_exporter_circuit_opened"), timeout=60, what="the circuit to open")
    assert pyroscope.received()["requests"] == 7


def test_pprof_goes_out_byte_for_byte(daemon, pyroscope):
    import base64
    flue = daemon()
    profile = (ROOT / "examples/go-cpu.pb.gz").read_bytes()
    url = f"http://127.0.0.1:{flue.ports['pprof']}/v1/pprof?service.name=encoder&deployment.environment.name=prod"
    assert httpx.post(url, content=profile).status_code == 204
    [p] = received(pyroscope, 1, raw=True)
    assert base64.b64decode(p["raw"]) == profile
    assert p["labels"]["service_name"] == "encoder" and p["labels"]["deployment_environment_name"] == "prod"


def test_tenants(daemon, pyroscope, captures):
    pyroscope.control(multitenancy="true")
    flue = daemon(exporter="tenant_from_origin: true")
    method, target, headers, body = capture_request(captures / "pyroscope-python", "cpu-tags")
    headers = [(k, v) for k, v in headers if k.lower() != "x-scope-orgid"]
    url = f"http://127.0.0.1:{flue.ports['pyroscope']}{target}"
    assert httpx.post(url, content=body, headers=headers + [("X-Scope-OrgID", "team-a")]).status_code == 200
    [p] = received(pyroscope, 1)
    assert p["tenant"] == "team-a"
    assert httpx.post(url, content=body, headers=headers + [("X-Scope-OrgID", "../x")]).status_code == 400


def test_folded_text(daemon, pyroscope):
    flue = daemon()
    url = f"http://127.0.0.1:{flue.ports['pyroscope']}/ingest?name=packager%7Bpop%3Dams1%7D&sampleRate=100&from=1795219899&until=1795219909"
    assert httpx.post(url, content=b"main;mux;write 7\nmain;abr select 3\n").status_code == 200
    [p] = received(pyroscope, 1, full=True)
    assert p["labels"]["service_name"] == "packager" and p["labels"]["pop"] == "ams1"
    assert p["labels"]["__name__"] == "process_cpu"
    assert p["totals"] == {"cpu/nanoseconds": 10 * 10_000_000}
    assert [s["stack"][0].split("|")[0] for s in p["samples"]] == ["abr select", "write"]


@pytest.mark.parametrize("name", ["jfr-cpu-alloc-lock-labels", "jfr-otel-spans"])
def test_jfr_is_refused_by_name(daemon, pyroscope, captures, name):
    flue = daemon()
    answer = replay(flue.ports["pyroscope"], captures / "pyroscope-java", name)
    assert answer.status_code == 422 and "jfr" in answer.json()["message"]
    assert flue.total("otelcol_receiver_refused_requests", reason="unprocessable") == 1
    assert pyroscope.profiles() == []


def test_what_a_trusted_hop_sends_goes_out_as_it_is(daemon, pyroscope, captures):
    """Only the envelope is looked at: even a profile that would be refused, dated or merged."""
    import base64
    flue = daemon(receiver=', trusted: ["127.0.0.0/8"]')
    from_push = lambda raw: b"".join((
        b"\x0a", bytes([len(labels) + 2 + len(raw) + 2]), labels, b"\x12", bytes([len(raw) + 2]), b"\x0a", bytes([len(raw)]), raw))
    pair = lambda k, v: b"\x0a" + bytes([len(k) + len(v) + 4]) + b"\x0a" + bytes([len(k)]) + k + b"\x12" + bytes([len(v)]) + v
    labels = pair(b"__name__", b"process_cpu") + pair(b"service_name", b"e")
    raw = bytes.fromhex("0a04080110022a00") + b"2\x002\x01a2\x01b"  # time 0, no sample
    url = f"http://127.0.0.1:{flue.ports['pyroscope']}/push.v1.PusherService/Push"
    for _ in range(2):
        assert httpx.post(url, content=from_push(raw), headers={"content-type": "application/proto"}).status_code == 200
    wait_for(lambda: pyroscope.received()["requests"] >= 2, what="both")
    flue.wait_quiet()
    kept = pyroscope.profiles(raw=True)
    assert all(base64.b64decode(p["raw"]) == raw for p in kept)
    assert pyroscope.received()["requests"] == 2
