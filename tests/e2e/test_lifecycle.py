"""Command line, start, several teams, drain."""
import json
import signal
import subprocess
import time

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service

from harness import ROOT, count_samples, free_port, wait_for
from test_otlp import BODIES, export


def run(binary, *arguments, **options):
    return subprocess.run([binary, *arguments], capture_output=True, text=True, timeout=60, **options)


COLLECTOR = """
receivers: {otlp: {protocols: {grpc: {endpoint: 127.0.0.1:4317, max_recv_msg_size_mib: 64}, http: {endpoint: 127.0.0.1:4318, max_request_body_size: 67108864}}}}
processors: {memory_limiter: {check_interval: 1s, limit_mib: 1024}}
exporters: {otlp_grpc: {endpoint: 127.0.0.1:14317, tls: {insecure: true}, sending_queue: {batch: {}}}, nop: {}}
service: {pipelines: {profiles: {receivers: [otlp], processors: [memory_limiter], exporters: [otlp_grpc]}}, telemetry: {metrics: {level: none, readers: []}}}
"""
FIRST = """
receivers:
  otlp: {protocols: {grpc: {endpoint: 0.0.0.0:4317}, http: {endpoint: 0.0.0.0:4318}}}
  pyroscope: {endpoint: 0.0.0.0:4040}
  pprof: {server: {endpoint: 0.0.0.0:4041}}
processors:
  memory_limiter: {check_interval: 1s, limit_mib: 256}
  resource: {attributes: [{key: cdn.region, value: "${env:CDN_REGION:-unknown}", action: upsert}]}
exporters:
  pyroscope: {endpoint: "http://pyroscope:4040", headers: {X-Scope-OrgID: media}}
  file/archive: {path: /var/lib/flue/archive, layout: pprof}
service:
  pipelines:
    profiles: {receivers: [otlp, pyroscope, pprof], processors: [memory_limiter, resource], exporters: [pyroscope, file/archive]}
"""


@pytest.mark.parametrize("config", [COLLECTOR, FIRST], ids=["collector", "first"])
def test_files_that_people_start_from(binary, tmp_path, config):
    path = tmp_path / "c.yaml"
    path.write_text(config)
    result = run(binary, "validate", "--config", path, "--feature-gates=service.profilesSupport")
    assert result.returncode == 0, result.stderr


def test_validate_prints_every_mistake(binary, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("""receivers:
  otlp: {protocols: {grpc: {endpont: 127.0.0.1:1}}}
exporters:
  otlp_grpc: {endpoint: 127.0.0.1:1, timeout: 5, compression: gzp}
service:
  pipelines:
    profiles: {receivers: [otlp, pprof], exporters: [otlp_grpc]}
""")
    result = run(binary, "validate", "--config", path)
    assert result.returncode == 1
    lines = result.stderr.splitlines()
    assert any(l.startswith(f"{path}:2:29:") and "endpoint" in l for l in lines), result.stderr
    assert any(l.startswith(f"{path}:4:") and "timeout" in l for l in lines), result.stderr
    assert any(l.startswith(f"{path}:4:") and '"gzip"' in l for l in lines), result.stderr
    assert any(l.startswith(f"{path}:7:") and "pprof" in l for l in lines), result.stderr


def test_commands(binary, tmp_path):
    assert run(binary, "version").stdout.startswith("flue")
    assert "pyroscope" in run(binary, "components").stdout
    helped = run(binary, "components", "--help", "pyroscope")
    assert helped.returncode == 0 and "max_concurrency" in helped.stdout
    path = tmp_path / "c.yaml"
    path.write_text(FIRST)
    printed = run(binary, "print-config", "--config", path, "--set", "processors.memory_limiter.limit_mib=99")
    assert printed.returncode == 0 and "limit_mib: 99" in printed.stdout
    assert "media" not in printed.stdout and "REDACTED" in printed.stdout
    assert run(binary, "nonsense").returncode != 0


def test_two_teams_do_not_hurt_each_other(flue, otlp_sink):
    ports = free_port(), free_port()
    dead = free_port()
    daemon = flue(f"""
receivers:
  otlp/a: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{ports[0]}"}}}}}}
  otlp/b: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{ports[1]}"}}}}}}
processors:
  resource/a: {{attributes: [{{key: team, value: a, action: upsert}}]}}
  resource/b: {{attributes: [{{key: team, value: b, action: upsert}}]}}
exporters:
  otlp_grpc/a: {{endpoint: "127.0.0.1:{otlp_sink.port}", tls: {{insecure: true}}}}
  otlp_grpc/dead: {{endpoint: "127.0.0.1:{dead}", tls: {{insecure: true}}, sending_queue: {{queue_size: 3}}, retry_on_failure: {{initial_interval: 50ms}}}}
service:
  flue: {{drain_timeout: 1s}}
  pipelines:
    profiles/team-a: {{receivers: [otlp/a], processors: [resource/a], exporters: [otlp_grpc/a]}}
    profiles/team-b: {{receivers: [otlp/b], processors: [resource/b], exporters: [otlp_grpc/dead]}}
""")
    body = BODIES[0].read_bytes()
    refused = 0
    for _ in range(10):
        export(ports[0], body)
        try:
            export(ports[1], body)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            refused += 1
    assert refused > 0
    wait_for(lambda: len(otlp_sink.requests) == 10, what="team a's ten")
    assert all(a.value.string_value == "a" for r in otlp_sink.requests for p in r.resource_profiles
               for a in p.resource.attributes if a.key == "team")
    daemon.balance()


def test_one_receiver_for_several_pipelines(flue, otlp_sink, tmp_path):
    port = free_port()
    daemon = flue(f"""
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
processors: {{resource: {{attributes: [{{key: team, value: a, action: upsert}}]}}}}
exporters:
  otlp_grpc: {{endpoint: "127.0.0.1:{otlp_sink.port}", tls: {{insecure: true}}}}
  file: {{path: {tmp_path}/archive, layout: pprof, create_directory: true}}
service:
  pipelines:
    profiles/one: {{receivers: [otlp], processors: [resource], exporters: [otlp_grpc]}}
    profiles/two: {{receivers: [otlp], exporters: [file]}}
""")
    export(port, BODIES[0].read_bytes())
    daemon.wait_quiet()
    [request] = otlp_sink.requests
    assert all(any(a.key == "team" for a in r.resource.attributes) for r in request.resource_profiles)
    manifests = [json.loads(p.read_text()) for p in (tmp_path / "archive").rglob("*.json")]
    assert manifests and not any("team" in m["labels"] for m in manifests)


def test_sigterm_drains(flue, otlp_sink):
    port = free_port()
    daemon = flue(f"""
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
exporters: {{otlp_grpc: {{endpoint: "127.0.0.1:{otlp_sink.port}", tls: {{insecure: true}}, sending_queue: {{num_consumers: 1}}}}}}
service: {{pipelines: {{profiles: {{receivers: [otlp], exporters: [otlp_grpc]}}}}}}
""")
    otlp_sink.delay = 0.1
    for _ in range(10):
        export(port, BODIES[0].read_bytes())
    assert daemon.stop() == 0
    assert len(otlp_sink.requests) == 10


def test_a_drain_ends_at_its_deadline_and_says_what_was_left(flue):
    port, dead = free_port(), free_port()
    daemon = flue(f"""
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
exporters: {{otlp_grpc: {{endpoint: "127.0.0.1:{dead}", tls: {{insecure: true}}}}}}
service: {{flue: {{drain_timeout: 500ms}}, pipelines: {{profiles: {{receivers: [otlp], exporters: [otlp_grpc]}}}}}}
""")
    export(port, BODIES[0].read_bytes())
    samples = count_samples(service.ExportProfilesServiceRequest.FromString(BODIES[0].read_bytes()))
    daemon.stop()
    assert str(samples) in daemon.log().splitlines()[-1] or any(
        str(samples) in line and "otlp_grpc" in line for line in daemon.log().splitlines()), daemon.log()


def test_health(flue):
    port, health = free_port(), free_port()
    daemon = flue(f"""
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
exporters: {{nop: {{}}}}
extensions: {{health_check: {{endpoint: "127.0.0.1:{health}"}}}}
service: {{extensions: [health_check], pipelines: {{profiles: {{receivers: [otlp], exporters: [nop]}}}}}}
""")
    wait_for(lambda: httpx.get(f"http://127.0.0.1:{health}/").status_code == 200, what="health")


def test_unix_socket(flue, tmp_path):
    path = tmp_path / "otlp.sock"
    daemon = flue(f"""
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "{path}", transport: unix}}}}}}}}
exporters: {{nop: {{}}}}
service: {{pipelines: {{profiles: {{receivers: [otlp], exporters: [nop]}}}}}}
""")
    wait_for(path.exists, what="the socket")
    with grpc.insecure_channel(f"unix:{path}") as channel:
        call = channel.unary_unary("/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
                                   request_serializer=bytes, response_deserializer=bytes)
        assert call(BODIES[0].read_bytes(), timeout=10) == b""
    assert daemon.total("otelcol_receiver_accepted_profile_samples") > 0


def resident_kb(daemon):
    for line in open(f"/proc/{daemon.process.pid}/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1])


@pytest.mark.slow
@pytest.mark.resident
def test_memory_goes_back_when_it_is_over(flue):
    port = free_port()
    daemon = flue(f"""
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
exporters: {{nop: {{}}}}
service: {{pipelines: {{profiles: {{receivers: [otlp], exporters: [nop]}}}}}}
""")
    before = resident_kb(daemon)
    # Bodies that are read whole and then refused: 12 MB each, at once on several connections.
    import concurrent.futures
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        def send(_):
            return httpx.post(f"http://127.0.0.1:{port}/v1development/profiles", content=b"\\xff" * (12 << 20),
                              headers={"content-type": "application/x-protobuf"}, timeout=60).status_code
        assert set(pool.map(send, range(16))) == {400}
    wait_for(lambda: resident_kb(daemon) < before + 12_000, 40, "memory to go back")
