"""Traces pipelines: OTLP in and out by every transport, held on disk, cut and joined; spans and profiles
find each other."""
import concurrent.futures
import http.server
import json
import threading

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service_grpc

from harness import ROOT, capture_request, free_port, wait_for

CAPTURES = ROOT / "tests/data/captures/otel-traces"
BODIES = {name: (CAPTURES / f"{name}.body").read_bytes() for name in ("go", "java", "python")}
PATH = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class TraceSink:
    """An OTLP/gRPC traces server on the real protocol packages; keeps every request."""

    def __init__(self):
        self.requests, self.answers = [], []
        self.lock = threading.Lock()

    def __enter__(self):
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(8))
        service_grpc.add_TraceServiceServicer_to_server(self, self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()
        return self

    def __exit__(self, *_):
        self.server.stop(0)

    def Export(self, request, context):
        with self.lock:
            answer = self.answers.pop(0) if self.answers else None
            if callable(answer):
                answer(context)
            self.requests.append(request)
        return answer if answer and not callable(answer) else service.ExportTraceServiceResponse()

    def spans(self):
        with self.lock:
            return [span for request in self.requests for span in spans_of(request)]


def spans_of(request):
    return [span for r in request.resource_spans for s in r.scope_spans for span in s.spans]


def parsed(body):
    return service.ExportTraceServiceRequest.FromString(body)


@pytest.fixture
def sink():
    with TraceSink() as server:
        yield server


def daemon(flue, sink, exporter="", extra="", processors="[]", http_exporter=False, options=None):
    grpc_port, http_port = free_port(), free_port()
    out = "otlp_http" if http_exporter else "otlp_grpc"
    endpoint = f"http://127.0.0.1:{sink}" if http_exporter else f"127.0.0.1:{sink.port}"
    running = flue(f"""
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "127.0.0.1:{grpc_port}"}}
      http: {{endpoint: "127.0.0.1:{http_port}"}}
processors:
  resource: {{attributes: [{{key: cdn.region, value: eu-west, action: upsert}}]}}
  memory_limiter: {{limit_mib: 4000, check_interval: 1s}}
exporters:
  {out}:
    endpoint: "{endpoint}"
    tls: {{insecure: true}}
    {exporter}
{extra}
service:
  {"extensions: [file_storage]" if "file_storage" in extra else ""}
  pipelines:
    traces: {{receivers: [otlp], processors: {processors}, exporters: [{out}]}}
""", **(options or {}))
    running.grpc_port, running.http_port = grpc_port, http_port
    return running


def export(port, body):
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(PATH, request_serializer=bytes,
                                   response_deserializer=service.ExportTraceServiceResponse.FromString)
        return call(body, timeout=20)


def post(port, body, kind="application/x-protobuf", path="/v1/traces"):
    return httpx.post(f"http://127.0.0.1:{port}{path}", content=body, headers={"content-type": kind}, timeout=20)


DIRECT = "sending_queue: {enabled: false}"


def test_what_sdks_send_arrives_unchanged_by_every_transport(flue, sink):
    running = daemon(flue, sink, exporter=DIRECT)
    for name, body in BODIES.items():
        assert export(running.grpc_port, body) == service.ExportTraceServiceResponse()
        method, target, headers, captured = capture_request(CAPTURES, name)
        answer = httpx.request(method, f"http://127.0.0.1:{running.http_port}{target}", headers=headers,
                               content=captured, timeout=20)
        assert answer.status_code == 200 and answer.headers["content-type"] == "application/x-protobuf"
    wanted = [parsed(body) for body in BODIES.values() for _ in range(2)]
    assert sink.requests == wanted
    spans = sum(len(spans_of(r)) for r in wanted)
    assert running.total("otelcol_receiver_accepted_spans") == spans
    assert running.total("otelcol_exporter_sent_spans") == spans
    assert not running.total("otelcol_exporter_sent_profile_samples")
    assert export(running.grpc_port, b"") == service.ExportTraceServiceResponse()


def test_json_in_and_out(flue, sink):
    from google.protobuf import json_format
    received = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append((self.path, self.headers["content-type"], body))
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        running = daemon(flue, server.server_port, http_exporter=True,
                         exporter="encoding: json\n    compression: none\n    sending_queue: {enabled: false}\n"
                                  "    force_attempt_http2: false")
        request = parsed(BODIES["python"])
        # OTLP's mapping: ids in hex, not base64.
        tree = json_format.MessageToDict(request, use_integers_for_enums=True)
        for r, resource in zip(request.resource_spans, tree["resourceSpans"]):
            for s, scope in zip(r.scope_spans, resource["scopeSpans"]):
                for span, said in zip(s.spans, scope["spans"]):
                    said["traceId"], said["spanId"] = span.trace_id.hex(), span.span_id.hex()
                    if span.parent_span_id:
                        said["parentSpanId"] = span.parent_span_id.hex()
                    for link, told in zip(span.links, said.get("links", [])):
                        told["traceId"], told["spanId"] = link.trace_id.hex(), link.span_id.hex()
        answer = post(running.http_port, json.dumps(tree), "application/json")
        assert (answer.status_code, answer.json()) == (200, {})
        assert received[0][:2] == ("/v1/traces", "application/json")
        assert json.loads(received[0][2]) == tree
    finally:
        server.shutdown()


def test_a_span_with_a_bad_id_is_a_partial_success(flue, sink):
    running = daemon(flue, sink, exporter=DIRECT)
    request = parsed(BODIES["python"])
    spans = spans_of(request)
    good = len(spans) - 1
    spans[0].span_id = b"1234567"
    answer = export(running.grpc_port, request.SerializeToString())
    assert answer.partial_success.rejected_spans == 1
    assert "spans[0].span_id: an id of 7 bytes" in answer.partial_success.error_message
    assert len(sink.spans()) == good
    answer = post(running.http_port, BODIES["python"][:-1])
    assert answer.status_code == 400
    assert running.total("otelcol_receiver_rejected_spans") == 1
    # The next hop's partial success reaches the sender, too.
    sink.answers.append(service.ExportTraceServiceResponse(
        partial_success={"rejected_spans": 2, "error_message": "no room"}))
    answer = export(running.grpc_port, BODIES["go"])
    assert answer.partial_success.rejected_spans == 2


def test_resources_are_edited_and_spans_stay_as_they_are(flue, sink):
    running = daemon(flue, sink, exporter=DIRECT, processors="[memory_limiter, resource]")
    export(running.grpc_port, BODIES["java"])
    request, wanted = sink.requests[0], parsed(BODIES["java"])
    for r in request.resource_spans:
        region = [a for a in r.resource.attributes if a.key == "cdn.region"]
        assert [a.value.string_value for a in region] == ["eu-west"]
        r.resource.attributes.remove(region[0])
    assert request == wanted


def test_a_batch_is_joined_and_cut(flue, sink):
    running = daemon(flue, sink, exporter="sending_queue: {batch: {flush_timeout: 300ms, min_size: 1000, "
                                          "max_size: 7, sizer: items}}".replace("min_size: 1000", "min_size: 5"))
    for body in BODIES.values():
        export(running.grpc_port, body)
    wanted = sorted(s.SerializeToString() for b in BODIES.values() for s in spans_of(parsed(b)))
    wait_for(lambda: len(sink.spans()) >= len(wanted), what="all spans")
    assert sorted(s.SerializeToString() for s in sink.spans()) == wanted
    assert max(len(spans_of(r)) for r in sink.requests) <= 7
    running.wait_quiet()


def test_spans_on_disk_survive_a_kill(flue, sink, tmp_path):
    port = sink.port
    sink.server.stop(0).wait()
    extra = f"extensions:\n  file_storage: {{directory: {tmp_path / 'queue'}, create_directory: true}}"
    running = daemon(flue, sink, extra=extra, exporter="sending_queue: {storage: file_storage}")
    for body in BODIES.values():
        export(running.grpc_port, body)
    running.process.kill()
    running.process.wait()
    sink.server = grpc.server(concurrent.futures.ThreadPoolExecutor(8))
    service_grpc.add_TraceServiceServicer_to_server(sink, sink.server)
    sink.server.add_insecure_port(f"127.0.0.1:{port}")
    sink.server.start()
    again = daemon(flue, sink, extra=extra, exporter="sending_queue: {storage: file_storage}")
    wanted = sorted(s.SerializeToString() for b in BODIES.values() for s in spans_of(parsed(b)))
    wait_for(lambda: len(sink.spans()) >= len(wanted), what="all spans")
    assert sorted(s.SerializeToString() for s in sink.spans()) == wanted
    again.wait_quiet()


def test_real_sdks(flue, sink):
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    running = daemon(flue, sink)
    for exporter in (Grpc(endpoint=f"http://127.0.0.1:{running.grpc_port}", insecure=True),
                     Http(endpoint=f"http://127.0.0.1:{running.http_port}/v1/traces")):
        provider = TracerProvider(resource=Resource.create({"service.name": "packager"}))
        provider.add_span_processor(BatchSpanProcessor(exporter))
        tracer = provider.get_tracer("test")
        with tracer.start_as_current_span("segment") as span:
            span.set_attribute("cdn.pop", "ams3")
            span.add_event("cut")
            with tracer.start_as_current_span("encode"):
                pass
        assert provider.force_flush()
        provider.shutdown()
    wait_for(lambda: len(sink.spans()) == 4, what="four spans")
    assert sorted(s.name for s in sink.spans()) == ["encode", "encode", "segment", "segment"]


def test_a_signal_without_a_pipeline_is_not_served(flue, sink):
    running = daemon(flue, sink, exporter=DIRECT)
    assert post(running.http_port, b"", path="/v1development/profiles").status_code == 404
    with pytest.raises(grpc.RpcError) as error:
        with grpc.insecure_channel(f"127.0.0.1:{running.grpc_port}") as channel:
            channel.unary_unary("/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
                                request_serializer=bytes)(b"", timeout=10)
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


# ---- span_links ---------------------------------------------------------------------------------


def linking(flue, sink, window="30s", max_bytes="64MiB", profiles=True, queue=None, **options):
    from harness import free_port as port
    grpc_port, http_port, push_port = port(), port(), port()
    running = flue(f"""
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "127.0.0.1:{grpc_port}"}}
      http: {{endpoint: "127.0.0.1:{http_port}"}}
processors:
  span_links: {{window: {window}, max_bytes: {max_bytes}, service_names: {{packager-old: packager}}}}
exporters:
  otlp_grpc: {{endpoint: "127.0.0.1:{sink.port}", tls: {{insecure: true}}, sending_queue: {{{"storage: file_storage" if queue else ""}}}}}
  nop: {{}}
{f"extensions: {{file_storage: {{directory: {queue}, create_directory: true}}}}" if queue else ""}
service:
  {"extensions: [file_storage]" if queue else ""}
  pipelines:
    traces: {{receivers: [otlp], processors: [span_links], exporters: [otlp_grpc]}}
    {"profiles: {receivers: [otlp], processors: [span_links], exporters: [nop]}" if profiles else ""}
""", **options)
    running.grpc_port, running.http_port = grpc_port, http_port
    return running


def trace(ids, service_name="packager-old", attribute=None):
    request = service.ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = service_name
    scope = resource.scope_spans.add()
    for i, span_id in enumerate(ids):
        span = scope.spans.add(trace_id=b"T" * 16, span_id=span_id, name=f"span {i}")
        if attribute is not None and i == attribute:
            span.attributes.add(key="pyroscope.profile.id").value.string_value = span_id.hex()
    return request


def profile(labels):
    """An OTLP profile with a sample for each {key: value}."""
    from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as profiles
    request = profiles.ExportProfilesServiceRequest()
    d = request.dictionary
    for table in (d.mapping_table, d.location_table, d.function_table, d.link_table, d.attribute_table, d.stack_table):
        table.add()
    d.string_table.append("")
    text = lambda s: (d.string_table.append(s), len(d.string_table) - 1)[1]
    p = request.resource_profiles.add().scope_profiles.add().profiles.add(time_unix_nano=1, duration_nano=1)
    p.sample_type.type_strindex, p.sample_type.unit_strindex = text("cpu"), text("nanoseconds")
    for sample in labels:
        indices = []
        for key, value in sample.items():
            row = d.attribute_table.add(key_strindex=text(key))
            if isinstance(value, int):
                row.value.int_value = value
            else:
                row.value.string_value = value
            indices.append(len(d.attribute_table) - 1)
        p.samples.add(attribute_indices=indices, values=[1])
    return request.SerializeToString()


def marks(span):
    return [a.value.string_value for a in span.attributes if a.key == "pyroscope.profile.id"]


def test_spans_wait_for_their_profile(flue, sink):
    running = linking(flue, sink)
    ids = [b"\x00\x00\x00\x00\x00\x00\x12\x34", b"\xf0\x00\x00\x00\x00\x00\x00\x01"]
    export(running.grpc_port, trace(ids).SerializeToString())
    assert running.total("otelcol_span_links_held_spans") == 2
    assert not sink.spans()
    body = profile([{"span_id": ids[0].hex()}, {"span id": int.from_bytes(ids[1], "big", signed=True)}])
    assert post(running.http_port, body, path="/v1development/profiles").status_code == 200
    wait_for(lambda: len(sink.spans()) == 2, what="marked spans")
    assert [marks(s) for s in sink.spans()] == [[i.hex()] for i in ids]
    resource = sink.requests[0].resource_spans[0].resource
    assert [a.value.string_value for a in resource.attributes] == ["packager"]
    # Seen before the span: marked at once.
    export(running.grpc_port, trace(ids[:1], "other").SerializeToString())
    wait_for(lambda: len(sink.spans()) == 3, what="the span")
    assert marks(sink.spans()[2]) == [ids[0].hex()]
    running.wait_quiet()


def test_what_no_profile_came_for_goes_unmarked(flue, sink):
    running = linking(flue, sink, window="500ms")
    export(running.grpc_port, trace([b"A" * 8, b"B" * 8]).SerializeToString())
    wait_for(lambda: len(sink.spans()) == 2, what="unmarked spans")
    assert not any(marks(s) for s in sink.spans())
    assert running.total("otelcol_span_links_unmarked_spans") == 2
    running.wait_quiet()


def test_nothing_waits_where_the_sdk_marks(flue, sink):
    running = linking(flue, sink, window="10m")
    for body in BODIES.values():
        export(running.grpc_port, body)
    wanted = sum(len(spans_of(parsed(b))) for b in BODIES.values())
    wait_for(lambda: len(sink.spans()) == wanted, what="all spans at once")
    assert running.total("otelcol_span_links_held_spans") == 0


def test_no_room_to_wait(flue, sink):
    running = linking(flue, sink, window="10m", max_bytes="100")
    export(running.grpc_port, trace([bytes([i] * 8) for i in range(1, 9)]).SerializeToString())
    wait_for(lambda: len(sink.spans()) == 8, what="spans that found no room")
    assert running.total("otelcol_span_links_not_held_spans") == 8


def test_spans_that_wait_survive_a_kill(flue, sink, tmp_path):
    """They were acknowledged; after the start they go as they came."""
    ids = [bytes([i] * 8) for i in range(1, 9)]
    running = linking(flue, sink, window="10m", queue=tmp_path / "queue", balance=False)
    export(running.grpc_port, trace(ids).SerializeToString())
    assert running.total("otelcol_span_links_held_spans") == 8 and not sink.spans()
    running.process.kill()
    running.process.wait()
    running = linking(flue, sink, window="10m", queue=tmp_path / "queue")
    wait_for(lambda: len(sink.spans()) == 8, what="the spans")
    assert sorted(s.span_id for s in sink.spans()) == ids
    running.wait_quiet()


def test_a_drain_waits_for_no_profile(flue, sink):
    running = linking(flue, sink, window="10m")
    export(running.grpc_port, trace([b"A" * 8]).SerializeToString())
    assert running.stop() == 0
    assert len(sink.spans()) == 1


def test_validate_warns_of_traces_alone(binary, tmp_path):
    import subprocess
    path = tmp_path / "c.yaml"
    path.write_text("receivers: {otlp: {protocols: {grpc: }}}\nprocessors: {span_links: }\nexporters: {debug: }\n"
                    "service: {pipelines: {traces: {receivers: [otlp], processors: [span_links], exporters: [debug]}}}\n")
    out = subprocess.run([binary, "validate", "--config", path], capture_output=True, text=True)
    assert "span_links stands in pipelines of traces alone and finds no profiles" in out.stdout + out.stderr


def test_span_labels_become_links_and_nothing_else_changes(flue, otlp_sink):
    http_port = free_port()
    running = flue(f"""
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{http_port}"}}}}}}}}
processors: {{span_links: }}
exporters: {{otlp_grpc: {{endpoint: "127.0.0.1:{otlp_sink.port}", tls: {{insecure: true}}, sending_queue: {{enabled: false}}}}}}
service: {{pipelines: {{profiles: {{receivers: [otlp], processors: [span_links], exporters: [otlp_grpc]}}}}}}
""")
    labels = [{"span_id": "006550ebcf4dccbe", "trace_id": "000102030405060708090a0b0c0d0e0f", "thread.name": "t"},
              {"span id": -1, "local root span id": 7}, {"trace_id": "000102030405060708090a0b0c0d0e0f"},
              {"span_id": "no id"}, {"thread.name": "u"}]
    assert post(http_port, profile(labels), path="/v1development/profiles").status_code == 200
    request = otlp_sink.requests[0]
    d = request.dictionary
    samples = request.resource_profiles[0].scope_profiles[0].profiles[0].samples
    said = []
    for sample in samples:
        link = d.link_table[sample.link_index]
        keys = [d.string_table[d.attribute_table[i].key_strindex] for i in sample.attribute_indices]
        said.append((link.span_id.hex(), link.trace_id.hex(), keys, list(sample.values)))
    trace_id, zero = "000102030405060708090a0b0c0d0e0f", "0" * 32
    assert said == [("006550ebcf4dccbe", trace_id, ["thread.name"], [1]),
                    ("f" * 16, zero, ["local root span id"], [1]), ("0" * 16, trace_id, [], [1]),
                    ("", "", ["span_id"], [1]), ("", "", ["thread.name"], [1])]
    assert running.total("otelcol_span_links_linked_samples") == 3
    assert running.total("otelcol_span_links_impossible_ids") == 1
    for body in sorted((ROOT / "tests/data/otlp").glob("ebpf-*.otlp")):  # no labels of spans: byte for byte
        before = len(otlp_sink.requests)
        assert post(http_port, body.read_bytes(), path="/v1development/profiles").status_code == 200
        from harness import resolved
        assert resolved(otlp_sink.requests[before]) == resolved(type(request).FromString(body.read_bytes()))
