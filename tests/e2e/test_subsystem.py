"""Subsystems: counters on the page, marks on samples in both forms, sums into a metrics pipeline, the
dashboard."""
import concurrent.futures
import gzip
import http.server
import json
import re
import threading

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_service
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2_grpc as service_grpc

from harness import ROOT, OtlpSink, free_port, replay, wait_for

OTLP = ROOT / "tests/data/otlp/ebpf-v1.11-ascending.otlp"
CAPTURES = ROOT / "tests/data/captures"
SECONDS = "otelcol_processor_subsystem_seconds"


class MetricsSink:
    """An OTLP/gRPC metrics server on the real protocol packages; keeps every request."""

    def __init__(self):
        self.requests, self.refuse = [], 0

    def __enter__(self):
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
        metrics_grpc.add_MetricsServiceServicer_to_server(self, self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()
        return self

    def __exit__(self, *_):
        self.server.stop(0)

    def Export(self, request, context):
        self.requests.append(request)
        if self.refuse:
            self.refuse -= 1
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not now")
        return metrics_service.ExportMetricsServiceResponse()


class HttpMetrics(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.requests.append((self.path, self.headers["content-type"], body))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def daemon(flue, sink, exporter="debug: {}", extra="", settings="", **options):
    ports = free_port(), free_port()
    running = flue(f"""
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{ports[0]}"}}}}}}
  pyroscope: {{endpoint: "127.0.0.1:{ports[1]}"}}
processors:
  resource: {{attributes: [{{key: cdn.region, value: eu-west, action: insert}}]}}
  subsystem:
    sample_attribute: subsystem
    {settings}
connectors:
  profiles_to_metrics: {{flush_interval: 200ms}}
exporters:
  otlp_grpc: {{endpoint: "127.0.0.1:{sink.port}", tls: {{insecure: true}}}}
  {exporter}
service:
  pipelines:
    profiles:
      receivers: [otlp, pyroscope]
      processors: [resource, subsystem]
      exporters: [otlp_grpc, profiles_to_metrics]
    metrics: {{receivers: [profiles_to_metrics], exporters: [{exporter.split(":")[0]}]}}
  {extra}
""", **options)
    return running, ports


def export(port, request):
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        return service_grpc.ProfilesServiceStub(channel).Export(request, timeout=20)


def parsed(path=OTLP):
    return service.ExportProfilesServiceRequest.FromString(path.read_bytes())


def marks(request, key="subsystem"):
    """{subsystem: samples}, and every sample with exactly one mark."""
    d, found = request.dictionary, {}
    for r in request.resource_profiles:
        for s in r.scope_profiles:
            for p in s.profiles:
                for sample in p.samples:
                    own = [d.attribute_table[i] for i in sample.attribute_indices
                           if d.string_table[d.attribute_table[i].key_strindex] == key]
                    assert len(own) == 1
                    name = own[0].value.string_value or d.string_table[own[0].value.string_value_strindex]
                    found[name] = found.get(name, 0) + 1
    return found


def points(requests):
    """{(metric, frozenset of attributes): value} of the last request that has them."""
    out = {}
    for request in requests:
        for r in request.resource_metrics:
            for s in r.scope_metrics:
                for m in s.metrics:
                    assert m.sum.is_monotonic and m.sum.aggregation_temporality == 2
                    for p in m.sum.data_points:
                        assert p.start_time_unix_nano <= p.time_unix_nano
                        pairs = frozenset((a.key, a.value.string_value) for a in p.attributes)
                        out[m.name, pairs] = p.as_double
    return out


def cpu_seconds(request):
    """What the samples of an eBPF request stand for: one period for every timestamp."""
    return sum(p.period / 1e9 * len(sample.timestamps_unix_nano)
               for r in request.resource_profiles for s in r.scope_profiles for p in s.profiles
               for sample in p.samples)


def test_otlp(flue, otlp_sink):
    """Counters and marks of an eBPF request agree with each other and with the request."""
    running, ports = daemon(flue, otlp_sink)
    sent = parsed()
    export(ports[0], sent)
    running.wait_quiet()
    wait_for(lambda: otlp_sink.requests, what="the request")
    found = marks(otlp_sink.requests[0])
    assert {"encoding", "tls", "kernel"} <= set(found)
    counted = {dict(pairs)["subsystem"]: value for (name, pairs), value in running.metrics().items()
               if name == SECONDS + "_total"}
    assert set(counted) == set(found)
    assert sum(counted.values()) == pytest.approx(cpu_seconds(sent), rel=1e-9)
    assert counted.get("unmatched", 0) < 0.05 * sum(counted.values())
    assert running.total(SECONDS, region="eu-west", sample_type="cpu") == pytest.approx(cpu_seconds(sent))
    # Everything else of the samples is as it was.
    got = otlp_sink.requests[0]
    for a, b in zip((s for r in sent.resource_profiles for c in r.scope_profiles for p in c.profiles
                     for s in p.samples),
                    (s for r in got.resource_profiles for c in r.scope_profiles for p in c.profiles
                     for s in p.samples), strict=True):
        assert list(b.attribute_indices)[:-1] == list(a.attribute_indices)
        assert (a.stack_index, a.timestamps_unix_nano, a.values) == \
            (b.stack_index, b.timestamps_unix_nano, b.values)


def test_a_mark_stays(flue, otlp_sink):
    """What was marked before comes through as it is, and is counted by its mark."""
    running, ports = daemon(flue, otlp_sink)
    export(ports[0], parsed())
    running.wait_quiet()
    wait_for(lambda: otlp_sink.requests, what="the request")
    again = otlp_sink.requests[0]
    with OtlpSink() as second:
        other, other_ports = daemon(flue, second, settings="""
    builtin_rules: false
    rules: [{subsystem: tls, function: ["*"]}, {subsystem: encoding, mapping: ["*"]}]""")
        export(other_ports[0], again)
        other.wait_quiet()
        wait_for(lambda: second.requests, what="the second request")
        assert marks(second.requests[0]) == marks(again)
        assert other.total(SECONDS, subsystem="other") > 0  # "kernel" is no name that it knows
        assert other.total(SECONDS, subsystem="tls") == pytest.approx(
            running.total(SECONDS, subsystem="tls"))


def test_pprof(flue, otlp_sink):
    """A pprof gets a label, which is a sample attribute once it leaves as OTLP."""
    running, ports = daemon(flue, otlp_sink)
    replay(ports[1], CAPTURES / "pyroscope-go", "cpu-spans").raise_for_status()
    replay(ports[1], CAPTURES / "pyroscope-python", "cpu-tags").raise_for_status()
    running.wait_quiet()
    wait_for(lambda: len(otlp_sink.requests) == 2, what="both requests")
    for request in otlp_sink.requests:
        assert sum(marks(request).values()) > 0
    assert running.total(SECONDS) > 0


def test_metrics_pipeline(flue, otlp_sink):
    """Sums over gRPC are those of the page; a refusal loses nothing, as sums are cumulative."""
    with MetricsSink() as sink:
        sink.refuse = 1
        running, ports = daemon(
            flue, otlp_sink,
            f'otlp_grpc/metrics: {{endpoint: "127.0.0.1:{sink.port}", tls: {{insecure: true}}, compression: none}}')
        sent = parsed()
        for _ in range(3):
            export(ports[0], sent)
        total = 3 * cpu_seconds(sent)

        def arrived():
            got = points(sink.requests[1:])
            return got if sum(got.values()) == pytest.approx(total) else None
        got = wait_for(arrived, what="the sums")
        assert {name for name, _ in got} == {"profiles.time"}
        for (_, pairs), value in got.items():
            labels = dict(pairs)
            assert labels["cdn.region"] == "eu-west" and labels["sample_type"] == "cpu"
            on_page = running.total(SECONDS, subsystem=labels["subsystem"],
                                    service=labels.get("service.name", ""))
            assert value == pytest.approx(on_page)
        # What came since the last flush leaves when flue is stopped.
        export(ports[0], sent)
        assert running.stop() == 0
        assert sum(points(sink.requests).values()) == pytest.approx(4 * cpu_seconds(sent))


@pytest.mark.parametrize("encoding", ["proto", "json"])
def test_metrics_over_http(flue, otlp_sink, encoding):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), HttpMetrics)
    server.requests = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        running, ports = daemon(
            flue, otlp_sink,
            f'otlp_http: {{endpoint: "http://127.0.0.1:{server.server_port}", encoding: {encoding}, '
            'force_attempt_http2: false}')
        export(ports[0], parsed())
        wait_for(lambda: server.requests, what="metrics")
        path, kind, body = server.requests[0]
        assert (path, kind) == ("/v1/metrics", "application/x-protobuf")
        got = points([metrics_service.ExportMetricsServiceRequest.FromString(body)])
        assert sum(got.values()) == pytest.approx(cpu_seconds(parsed()))
        running.wait_quiet()
        assert running.total("otelcol_exporter_sent_metric_points", exporter="otlp_http") >= len(got)
    finally:
        server.shutdown()
        server.server_close()


def test_series_are_bounded(flue, otlp_sink):
    """Names from the network cannot make the page grow."""
    running, ports = daemon(flue, otlp_sink, settings="max_series: 10")
    for i in range(40):
        request = parsed()
        for j, r in enumerate(request.resource_profiles):
            r.resource.attributes.add(key="service.name").value.string_value = f"service-{i}-{j}-" + "x" * 70000
        export(ports[0], request)
    running.wait_quiet()
    series = [dict(pairs) for (name, pairs) in running.metrics() if name == SECONDS + "_total"]
    own = [s for s in series if s["service"] != "other"]
    assert len(own) <= 10 and all(len(s["service"]) <= 256 for s in own)
    assert len(series) - len(own) <= 128
    assert running.total(SECONDS) == pytest.approx(40 * cpu_seconds(parsed()))


def test_region_is_the_one_that_cdn_gives(flue, otlp_sink):
    """The page and the sums are by cdn.region as `cdn` sets it; other attributes where they are named."""
    with MetricsSink() as sink:
        ports = free_port(), free_port()
        running = flue(f"""
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{ports[0]}"}}}}}}}}
processors:
  resource: {{attributes: [{{key: host.name, value: edge-ams3-17.example.net, action: upsert}}, {{key: zone, value: z-1, action: insert}}]}}
  cdn:
    patterns: [{{host: "edge-{{pop:alpha3}}{{site:digits?}}-{{node}}.example.net", set: {{cdn.tier: edge}}}}]
    pops: [{{pop: AMS, set: {{cdn.region: eu-west}}}}]
  subsystem: {{sample_attribute: subsystem}}
  subsystem/zone: {{region_attributes: [no.such, zone]}}
connectors:
  profiles_to_metrics: {{flush_interval: 200ms}}
  profiles_to_metrics/zone: {{flush_interval: 200ms, resource_attributes: [zone], namespace: by_zone}}
exporters: {{otlp_grpc: {{endpoint: "127.0.0.1:{sink.port}", tls: {{insecure: true}}, compression: none}}}}
service:
  pipelines:
    profiles:
      receivers: [otlp]
      processors: [resource, cdn, subsystem, subsystem/zone]
      exporters: [profiles_to_metrics, profiles_to_metrics/zone]
    metrics: {{receivers: [profiles_to_metrics, profiles_to_metrics/zone], exporters: [otlp_grpc]}}
""")
        sent = parsed()
        export(ports[0], sent)
        wanted = cpu_seconds(sent)
        assert running.total(SECONDS, processor="subsystem", region="eu-west") == pytest.approx(wanted)
        assert running.total(SECONDS, processor="subsystem/zone", region="z-1") == pytest.approx(wanted)

        def arrived():
            got = points(sink.requests)
            return got if {name for name, _ in got} == {"profiles.time", "by_zone.time"} else None
        got = wait_for(arrived, what="both sums")
        for namespace, pair in (("profiles", ("cdn.region", "eu-west")), ("by_zone", ("zone", "z-1"))):
            own = {pairs: value for (name, pairs), value in got.items() if name == namespace + ".time"}
            assert sum(own.values()) == pytest.approx(wanted) and all(pair in pairs for pairs in own)
        # Two writers are two instances.
        ids = {a.value.string_value for r in sink.requests for m in r.resource_metrics
               for a in m.resource.attributes if a.key == "service.instance.id"}
        assert len(ids) == 2 and sum(i.endswith("/zone") for i in ids) == 1


def test_connector_needs_both_sides(binary, tmp_path):
    import subprocess
    config = tmp_path / "config.yaml"
    config.write_text("""
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:0"}}}}
connectors: {profiles_to_metrics: {}}
exporters: {debug: {}}
service:
  pipelines:
    profiles: {receivers: [otlp], exporters: [profiles_to_metrics]}
""")
    out = subprocess.run([binary, "validate", "--config", config], capture_output=True, text=True)
    assert out.returncode != 0 and "no pipeline's receivers" in out.stderr + out.stdout
    config.write_text(config.read_text().replace("exporters: [profiles_to_metrics]", "exporters: [debug]") + """
    metrics: {receivers: [otlp], exporters: [debug]}
""")
    out = subprocess.run([binary, "validate", "--config", config], capture_output=True, text=True)
    assert out.returncode != 0 and 'the receiver "otlp" does not take metrics' in out.stderr + out.stdout


def test_dashboard(flue, otlp_sink):
    """It has the form that Grafana imports, and every metric of flue's that it draws is exported."""
    board = json.loads((ROOT / "deploy/grafana/subsystems.json").read_text())
    assert board["id"] is None and board["uid"] and board["title"] and board["schemaVersion"] >= 36
    names = {v["name"] for v in board["templating"]["list"]}
    ids, queries = [], [v["definition"] for v in board["templating"]["list"] if "definition" in v]
    cells = set()
    for panel in board["panels"]:
        ids.append(panel["id"])
        g = panel["gridPos"]
        assert 0 <= g["x"] and g["x"] + g["w"] <= 24
        own = {(x, y) for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])}
        assert not own & cells, panel["title"]
        cells |= own
        if panel["type"] == "row":
            continue
        assert panel["type"] in {r["id"] for r in board["__requires"]}
        assert panel["targets"] and panel["datasource"]["uid"] == "${datasource}"
        queries += [t["expr"] for t in panel["targets"]]
    assert len(ids) == len(set(ids))
    for variable in re.findall(r"\$\{?([a-z_]+)", " ".join(queries)):
        assert variable in names or variable.startswith("__"), variable
    used = set(re.findall(r"\botelcol_\w+", " ".join(queries)))
    assert used
    running, ports = daemon(flue, otlp_sink)
    export(ports[0], parsed())
    replay(ports[1], CAPTURES / "pyroscope-go", "memory").raise_for_status()
    exported_rows = list(running.metrics())
    exported = {name for name, _ in exported_rows}
    assert used <= exported, used - exported
    # Every label that a query selects or sums by is one of its metric's; every fixed value is possible.
    for query in queries:
        metric = re.search(r"otelcol_\w+", query)
        if not metric or query.startswith("label_values"):
            continue
        keys = {key for (name, pairs) in exported_rows if name == metric[0] for key, _ in pairs}
        asked = re.findall(r'(\w+)(?:=~?|!=|!~)"', query)
        by = [key for keys_of in re.findall(r"(?:by|ignoring) \(([^)]*)\)", query) for key in keys_of.split(", ")]
        assert set(asked + by) <= keys | {"le"}, (query, keys)
    for variable in board["templating"]["list"]:
        wanted = re.match(r"label_values\((\w+), (\w+)\)", variable.get("definition", ""))
        if wanted:
            assert any(name == wanted[1] and wanted[2] in dict(pairs) for name, pairs in exported_rows), wanted[0]
    # What is not there counts as nothing: no unmatched samples are a share of 0, not a hole.
    share = next(p for p in board["panels"] if p["title"] == "Unmatched share of CPU")["targets"][0]["expr"]
    assert 'subsystem="unmatched"' in share and "or vector(0)" in share
