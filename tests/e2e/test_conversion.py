"""pprof to OTLP and OTLP to pprof through the daemon, value by value, read by google/pprof and by
protobuf's Python: neither knows flue."""
import json

import httpx
import pytest
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service

from harness import ROOT, free_port, pprof_dump, replay, wait_for
from test_otlp import export

CAPTURES = ROOT / "tests/data/captures"


@pytest.fixture
def daemon(flue, otlp_sink, tmp_path):
    ports = {name: free_port() for name in ("otlp", "pyroscope", "pprof")}
    started = flue(f"""
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{ports['otlp']}"}}}}}}
  pyroscope: {{endpoint: "127.0.0.1:{ports['pyroscope']}"}}
  pprof: {{server: {{endpoint: "127.0.0.1:{ports['pprof']}"}}}}
exporters:
  otlp_grpc: {{endpoint: "127.0.0.1:{otlp_sink.port}", tls: {{insecure: true}}, sending_queue: {{enabled: false}}}}
  file: {{path: {tmp_path}/archive, layout: pprof, create_directory: true}}
service: {{pipelines: {{profiles: {{receivers: [otlp, pyroscope, pprof], exporters: [otlp_grpc, file]}}}}}}
""")
    started.ports, started.archive = ports, tmp_path / "archive"
    return started


def text_of(request, index):
    return request.dictionary.string_table[index] if request.dictionary.string_table else ""


def functions(request, stack_index):
    """Leaf first: every line's function name, or the address where there is none."""
    d, out = request.dictionary, []
    for i in (d.stack_table[stack_index].location_indices if d.stack_table else []):
        location = d.location_table[i]
        if not location.lines:
            out.append("0x%x" % location.address)
        for line in location.lines:
            out.append(text_of(request, d.function_table[line.function_index].name_strindex) + ":%d" % line.line)
    return tuple(out)


def says(request):
    """{(sample type, stack): sum of values or events} of an OTLP request."""
    out = {}
    for r in request.resource_profiles:
        for s in r.scope_profiles:
            for p in s.profiles:
                kind = text_of(request, p.sample_type.type_strindex)
                for sample in p.samples:
                    key = (kind, functions(request, sample.stack_index))
                    value = sum(sample.values) if sample.values else len(sample.timestamps_unix_nano)
                    out[key] = out.get(key, 0) + value
    return {k: v for k, v in out.items() if v}


def pprof_says(dump):
    """The same of google/pprof's reading."""
    out = {}
    for sample in dump.get("samples") or []:
        stack = []
        for frame in sample.get("stack") or []:
            if frame.startswith("0x"):
                stack.append(frame.split(" ")[0])
            else:
                name, _, place = frame.split("|")[:3]
                stack.append(name + ":" + place.rsplit(":", 1)[1])
        for kind, value in sample["values"].items():
            key = (kind.split("/")[0], tuple(stack))
            out[key] = out.get(key, 0) + value
    return {k: v for k, v in out.items() if v}


PPROFS = sorted(p for p in (CAPTURES / "go-net-http-pprof").glob("*.body")
                if p.stem in ("profile", "heap", "allocs", "goroutine", "mutex", "block", "threadcreate",
                              "delta-heap", "delta-goroutine", "delta-mutex", "delta-block"))


@pytest.mark.parametrize("body", PPROFS, ids=lambda p: p.stem)
def test_pprof_to_otlp(daemon, otlp_sink, body, tmp_path):
    url = f"http://127.0.0.1:{daemon.ports['pprof']}/v1/pprof?service.name=a"
    assert httpx.post(url, content=body.read_bytes()).status_code == 204
    [request] = otlp_sink.requests
    dump = pprof_dump(body)
    assert says(request) == pprof_says(dump)
    kinds = [text_of(request, p.sample_type.type_strindex) for r in request.resource_profiles for s in r.scope_profiles for p in s.profiles]
    assert sorted(kinds) == sorted(t.split("/")[0] for t in dump["sample_types"])
    # and the archive has the very bytes
    [stored] = daemon.archive.rglob("*.pb.gz")
    assert pprof_dump(stored) == dump


@pytest.mark.parametrize("folder,name", [
    ("pyroscope-python", "cpu-otel-spans"), ("pyroscope-go", "cpu-spans"), ("pyroscope-rust", "memory-jemalloc"),
    ("pyroscope-nodejs", "wall-cpu-labels"), ("pyroscope-go", "mutex")])
def test_uploads_to_otlp_and_back(daemon, otlp_sink, folder, name, tmp_path):
    """pprof -> OTLP -> pprof: what google/pprof reads afterwards is what it read before."""
    assert replay(daemon.ports["pyroscope"], CAPTURES / folder, name).status_code == 200
    [request] = otlp_sink.requests
    before = {p.relative_to(daemon.archive).parts[2]: pprof_dump(p) for p in daemon.archive.rglob("*.pb.gz")}
    assert says(request) == {k: v for d in before.values() for k, v in pprof_says(d).items()}
    known = set(daemon.archive.rglob("*.pb.gz"))
    export(daemon.ports["otlp"], request.SerializeToString())
    after = {p.relative_to(daemon.archive).parts[2]: pprof_dump(p) for p in daemon.archive.rglob("*.pb.gz") if p not in known}
    assert after.keys() == before.keys() or not after  # an equal object replaces itself
    for kind, dump in after.items():
        expected = before[kind]
        assert dump["samples"] == expected["samples"]
        for field in ("sample_types", "period_type", "period", "time_nanos", "duration_nanos", "totals"):
            assert dump[field] == expected[field], field


@pytest.mark.parametrize("body", sorted((ROOT / "tests/data/otlp").glob("ebpf-*.otlp")), ids=lambda p: p.stem)
def test_otlp_to_pprof(daemon, otlp_sink, body):
    export(daemon.ports["otlp"], body.read_bytes())
    request = service.ExportProfilesServiceRequest.FromString(body.read_bytes())
    got = {}
    for stored in daemon.archive.rglob("*.pb.gz"):
        dump = pprof_dump(stored)
        assert dump["sample_types"] == ["cpu/nanoseconds"]
        for key, value in pprof_says(dump).items():
            got[key] = got.get(key, 0) + value
    period = request.resource_profiles[0].scope_profiles[0].profiles[0].period
    sent = {("cpu", stack): value * period for (_, stack), value in says(request).items()}
    assert got == sent
