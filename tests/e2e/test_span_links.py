"""span_links: labels of every form to links and back, by every way in and out; real SDKs whose spans and
profiles pass through one daemon and find each other."""
import base64
import collections
import gzip
import random
import subprocess
import sys

import httpx
import pytest
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as profiles

from harness import BIN, ROOT, capture_request, free_port, replay, resolved, wait_for, without_resource
from test_otlp import export as export_profiles
from test_traces import PATH as TRACES, TraceSink, marks, parsed, post, profile, spans_of
from test_traces import export as export_traces

TRACE = "000102030405060708090a0b0c0d0e0f"
HIGH, LOW = 0x0001020304050607, 0x08090A0B0C0D0E0F
ROOT_ID = "local root span id"
NONE = ("", "")


@pytest.fixture
def sink():
    with TraceSink() as server:
        yield server


@pytest.fixture
def daemon(flue, otlp_sink, pyroscope, sink):
    """Every receiver of profiles with span labels, and of traces; OTLP and Pyroscope push out."""

    def start(settings="", processors="[span_links]"):
        ports = {name: free_port() for name in ("grpc", "http", "pyroscope", "pprof")}
        pyroscope.control(window="0s")
        started = flue(f"""
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "127.0.0.1:{ports['grpc']}"}}
      http: {{endpoint: "127.0.0.1:{ports['http']}"}}
  pyroscope: {{endpoint: "127.0.0.1:{ports['pyroscope']}"}}
  pprof: {{server: {{endpoint: "127.0.0.1:{ports['pprof']}"}}}}
processors:
  span_links: {{{settings}}}
exporters:
  otlp_grpc: {{endpoint: "127.0.0.1:{otlp_sink.port}", tls: {{insecure: true}}}}
  otlp_grpc/traces: {{endpoint: "127.0.0.1:{sink.port}", tls: {{insecure: true}}}}
  pyroscope: {{endpoint: "{pyroscope.url}"}}
service:
  pipelines:
    profiles: {{receivers: [otlp, pyroscope, pprof], processors: {processors}, exporters: [otlp_grpc, pyroscope]}}
    traces: {{receivers: [otlp], processors: [span_links], exporters: [otlp_grpc/traces]}}
""")
        started.ports = ports
        return started

    return start


# ---- every form ---------------------------------------------------------------------------------

# Labels of a sample: the span and the trace that they tell, and what stays beside the link.
FORMS = {
    "leading zeros": ({"span_id": "006550ebcf4dccbe"}, ("006550ebcf4dccbe", ""), {}),
    "span and trace": ({"span_id": "9a517183f26a089d", "trace_id": TRACE}, ("9a517183f26a089d", TRACE), {}),
    "upper case": ({"span_id": "AB517183F26A089D"}, ("ab517183f26a089d", ""), {}),
    "profile_id": ({"profile_id": "1b517183f26a089d"}, ("1b517183f26a089d", ""), {}),
    "profile_id of JFR": ({"profile_id": 28517946373295295}, ("006550ebcf4dccbf", ""), {}),
    "span_id as a number": ({"span_id": -5}, ("fffffffffffffffb", ""), {}),
    "a negative number": ({"span id": -1}, ("f" * 16, ""), {}),
    "a root beside its span": ({"span id": -2, ROOT_ID: -3}, ("fffffffffffffffe", ""), {ROOT_ID: -3}),
    "a root that is the span": ({"span id": 77, ROOT_ID: 77}, ("000000000000004d", ""), {ROOT_ID: 77}),
    "decimal": ({"span id": "18446744073709551612"}, ("fffffffffffffffc", ""), {}),
    "decimal with its root": ({"span id": "1234605616436508552", ROOT_ID: "7"}, ("1122334455667788", ""), {ROOT_ID: 7}),
    "a root alone": ({ROOT_ID: 8}, ("0000000000000008", ""), {ROOT_ID: 8}),
    "a trace alone": ({"trace_id": TRACE}, ("", TRACE), {}),
    "a trace in numbers": ({"trace_id_hi": HIGH, "trace_id_lo": -1}, ("", "0001020304050607" + "f" * 16), {}),
    "a trace in halves": ({"span id": 9, "traceIdHi": "1" * 16, "traceIdLo": "2" * 16},
                          ("0000000000000009", "1" * 16 + "2" * 16), {}),
    "one span in two forms": ({"span_id": "000000000000000a", "span id": 10}, ("000000000000000a", ""), {}),
    "two spans": ({"span_id": "000000000000000b", "span id": 12}, ("000000000000000b", ""), {"span id": 12}),
    "half a trace": ({"trace_id_hi": 5}, NONE, {"trace_id_hi": 5}),
    "others": ({"thread.name": "encoder", "bytes": 4096}, NONE, {"thread.name": "encoder", "bytes": 4096}),
    "nothing": ({}, NONE, {}),
}
IMPOSSIBLE = [{"span_id": "no id"}, {"span_id": "6550ebcf4dccbe"}, {"span_id": "0" * 16}, {"span_id": ""},
              {"span id": "0x12"}, {"span id": "18446744073709551616"}, {"trace_id": "0" * 32}, {"trace_id": TRACE[:30]},
              {"trace_id": 5}]


def varint(value):
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def number(field, value):
    return varint(field << 3) + varint(value)


def part(field, content):
    content = content.encode() if isinstance(content, str) else content
    return varint(field << 3 | 2) + varint(len(content)) + content


def pprof(labels):
    """A profile with a sample for each {key: value}; values are 1, 2, 3 ..."""
    strings = {"": 0}
    text = lambda s: strings.setdefault(s, len(strings))
    out = part(1, number(1, text("cpu")) + number(2, text("nanoseconds")))
    for i, sample in enumerate(labels):
        content = number(1, 1) + number(2, i + 1)
        for key, value in sample.items():
            of = number(3, value) if isinstance(value, int) else number(2, text(value))
            content += part(3, number(1, text(key)) + of)
        out += part(2, content)
    out += part(4, number(1, 1) + part(4, number(1, 1))) + part(5, number(1, 1) + number(2, text("encode")))
    out += part(11, number(1, 1) + number(2, 2)) + number(12, 1) + number(9, 10 ** 18) + number(10, 10 ** 9)
    return out + b"".join(part(6, s) for s in strings)


def send(running, way, labels):
    ports = running.ports
    if way == "otlp":
        request = profiles.ExportProfilesServiceRequest.FromString(profile(labels))
        for i, sample in enumerate(request.resource_profiles[0].scope_profiles[0].profiles[0].samples):
            sample.values[0] = i + 1
        request.resource_profiles[0].resource.attributes.add(key="service.name").value.string_value = "encoder"
        answer = post(ports["http"], request.SerializeToString(), path="/v1development/profiles")
    elif way == "push":
        series = part(1, part(1, "__name__") + part(2, "process_cpu")) + part(1, part(1, "service_name") + part(2, "encoder"))
        body = part(1, series + part(2, part(1, pprof(labels))))
        answer = httpx.post(f"http://127.0.0.1:{ports['pyroscope']}/push.v1.PusherService/Push", content=body,
                            headers={"content-type": "application/proto"}, timeout=20)
    elif way == "ingest":
        answer = httpx.post(f"http://127.0.0.1:{ports['pyroscope']}/ingest?name=encoder&format=pprof", content=pprof(labels), timeout=20)
    else:
        answer = httpx.post(f"http://127.0.0.1:{ports['pprof']}/v1/pprof?service.name=encoder", content=pprof(labels), timeout=20)
    assert answer.status_code in (200, 204), answer.text


def plain(value):
    return value.int_value if value.HasField("int_value") else value.string_value


def links_of(request):
    """[(span, trace, {label: value}, value)] of every sample; hex, empty where there is none."""
    d, out = request.dictionary, []
    hexed = lambda b: b.hex() if any(b) else ""
    for r in request.resource_profiles:
        for s in r.scope_profiles:
            for p in s.profiles:
                for sample in p.samples:
                    link = d.link_table[sample.link_index] if sample.link_index else None
                    rows = [d.attribute_table[i] for i in sample.attribute_indices]
                    out.append((hexed(link.span_id) if link else "", hexed(link.trace_id) if link else "",
                                {d.string_table[a.key_strindex]: plain(a.value) for a in rows}, sample.values[0]))
    return out


def labels_of(sample):
    """{key: value} of a sample as the Pyroscope stand-in shows it; numbers as int."""
    out = {}
    for label in sample.get("labels") or []:
        key, _, value = label.partition("=")
        assert key not in out, label
        out[key] = int(value[1:].split(" ")[0]) if value.startswith("#") else value
    return out


def pushed(pyroscope, count):
    wait_for(lambda: len(pyroscope.profiles()) >= count, 60, f"{count} profiles")
    return pyroscope.profiles(full=True)


def told(samples):
    """{(span, trace): sum of values} of what Pyroscope was sent."""
    out = collections.Counter()
    for sample in samples:
        labels = labels_of(sample)
        out[labels.get("span_id", "").lower(), labels.get("trace_id", "").lower()] += sum(sample["values"].values())
    return out


WANTED = collections.Counter()
for _i, (_labels, _ids, _stays) in enumerate(FORMS.values()):
    WANTED[_ids] += _i + 1


@pytest.mark.parametrize("way", ["otlp", "push", "ingest", "pprof"])
def test_every_form_becomes_a_link_and_comes_back(daemon, otlp_sink, pyroscope, way):
    running = daemon()
    send(running, way, [labels for labels, _, _ in FORMS.values()])
    wait_for(lambda: otlp_sink.requests, 60, "the profile as OTLP")
    got = {value: (span, trace, stays) for span, trace, stays, value in links_of(otlp_sink.requests[0])}
    for i, (name, (labels, ids, stays)) in enumerate(FORMS.items()):
        if way == "otlp":  # a root's own form is not touched where it costs nothing
            stays = {key: labels[key] for key in stays}
        elif name == "upper case":  # nor is a text that Pyroscope knows
            stays = labels
        elif f"{stays.get(ROOT_ID, 0):016x}" == ids[0]:  # a root of that number would hide it on the way back
            stays = {**stays, "span_id": ids[0]}
        assert got[i + 1] == (*ids, stays), name
    assert len(got) == len(FORMS)
    # To Pyroscope: the same ids as text, and no other text than was there of another kind.
    [p] = pushed(pyroscope, 1)
    assert told(p["samples"]) == WANTED
    texts = {key for s in p["samples"] for key, value in labels_of(s).items() if isinstance(value, str)}
    assert texts == {"span_id", "trace_id"} | ({"thread.name"} if way != "otlp" else set())
    assert running.total("otelcol_span_links_impossible_ids") == 0
    # What went out comes back in by OTLP: nothing is left to do, and it says the same.
    first = otlp_sink.requests[0]
    linked = running.total("otelcol_span_links_linked_samples")
    export_profiles(running.ports["grpc"], first.SerializeToString())
    wait_for(lambda: len(otlp_sink.requests) == 2, 60, "the profile again")
    assert resolved(otlp_sink.requests[1]) == resolved(first)
    assert running.total("otelcol_span_links_linked_samples") == linked
    running.wait_quiet(60)


def test_a_span_is_no_series(daemon, pyroscope):
    """Many spans, one series; the sums are whole."""
    running = daemon()
    labels = [{"span id": i + 1, ROOT_ID: str(i + 1)} for i in range(500)]
    for way in ("push", "otlp"):
        send(running, way, labels)
    got = pushed(pyroscope, 2)
    assert len(got) == 2
    for p in got:
        assert not {"span_id", "trace_id", "span id", ROOT_ID} & set(p["labels"])
        assert told(p["samples"]) == {(f"{i + 1:016x}", ""): i + 1 for i in range(500)}
        texts = {k for s in p["samples"] for k, v in labels_of(s).items() if isinstance(v, str)}
        assert texts == {"span_id"}
    running.wait_quiet(60)


@pytest.mark.parametrize("way", ["otlp", "push"])
def test_impossible_ids_stay_and_are_counted(daemon, otlp_sink, way):
    running = daemon()
    good = [{"span id": 3}, {"thread.name": "t"}]
    send(running, way, IMPOSSIBLE + good)
    wait_for(lambda: otlp_sink.requests, 60, "the profile")
    got = {value: (span, trace, stays) for span, trace, stays, value in links_of(otlp_sink.requests[0])}
    for i, labels in enumerate(IMPOSSIBLE):
        if way == "push" and labels == {"span_id": ""}:
            continue  # pprof says the same of no label at all
        assert got[i + 1] == ("", "", labels)
    assert got[len(IMPOSSIBLE) + 1] == (f"{3:016x}", "", {})
    assert got[len(IMPOSSIBLE) + 2] == ("", "", {"thread.name": "t"})
    assert running.total("otelcol_span_links_impossible_ids") in (len(IMPOSSIBLE), len(IMPOSSIBLE) - (way == "push"))
    running.wait_quiet(60)


def test_labels_stay_where_they_are_asked_to(daemon, otlp_sink):
    running = daemon("keep_labels: true")
    send(running, "otlp", [labels for labels, _, _ in FORMS.values()])
    wait_for(lambda: otlp_sink.requests, 60, "the profile")
    got = {value: (span, trace, stays) for span, trace, stays, value in links_of(otlp_sink.requests[0])}
    for i, (labels, ids, _) in enumerate(FORMS.values()):
        assert got[i + 1] == (*ids, labels)
    running.wait_quiet(60)


def test_links_that_came_are_kept(daemon, otlp_sink, pyroscope):
    """An eBPF profiler's link beside labels of others; a link of a trace alone."""
    running = daemon()
    request = profiles.ExportProfilesServiceRequest.FromString(profile([{"span_id": "00000000000000aa"}] * 4))
    d = request.dictionary
    d.link_table.add(trace_id=bytes.fromhex(TRACE), span_id=bytes(range(8, 16)))
    d.link_table.add(trace_id=bytes.fromhex(TRACE), span_id=bytes(8))
    samples = request.resource_profiles[0].scope_profiles[0].profiles[0].samples
    samples[1].link_index, samples[2].link_index = 1, 2
    export_profiles(running.ports["grpc"], request.SerializeToString())
    wait_for(lambda: otlp_sink.requests, 60, "the profile")
    own = {"span_id": "00000000000000aa"}
    assert [link[:3] for link in links_of(otlp_sink.requests[0])] == [
        ("00000000000000aa", "", {}), ("08090a0b0c0d0e0f", TRACE, own), ("", TRACE, own), ("00000000000000aa", "", {})]
    running.wait_quiet(60)


def test_what_is_not_understood_passes_byte_for_byte(daemon, otlp_sink, pyroscope, captures):
    running = daemon()
    body = pprof([{"thread": "a", "bytes": 5}, {"span_id": "9a517183f26a089d", "trace_id": TRACE}])
    answer = httpx.post(f"http://127.0.0.1:{running.ports['pprof']}/v1/pprof?service.name=encoder", content=body)
    assert answer.status_code == 204
    wait_for(lambda: pyroscope.profiles(), 60, "the profile")
    [p] = pyroscope.profiles(raw=True)
    assert gzip.decompress(base64.b64decode(p["raw"])) == body, p
    for path in sorted((ROOT / "tests/data/otlp").glob("*.otlp")):
        before = len(otlp_sink.requests)
        assert post(running.ports["http"], path.read_bytes(), path="/v1development/profiles").status_code == 200
        wait_for(lambda: len(otlp_sink.requests) > before, 60, path.name)
        sent = profiles.ExportProfilesServiceRequest.FromString(path.read_bytes())
        said = [without_resource(resolved(r)) for r in (otlp_sink.requests[before], sent)]
        assert said[0] == said[1], path.name
    running.wait_quiet(60)


def test_hostile_profiles(daemon):
    """Cut and flipped profiles with span labels are refused or pass; the daemon goes on."""
    running = daemon()
    dice = random.Random(5)
    labels = [labels for labels, _, _ in FORMS.values()] + IMPOSSIBLE
    bodies = {"http": (profile(labels), "/v1development/profiles"), "pprof": (pprof(labels), "/v1/pprof?service.name=a")}
    for kind, (body, path) in bodies.items():
        with httpx.Client(timeout=60) as client:
            for i in range(150):
                damaged = bytearray(body)
                if i % 3 == 0:
                    del damaged[dice.randrange(len(damaged)):]
                else:
                    for _ in range(1 + i % 4):
                        damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
                answer = client.post(f"http://127.0.0.1:{running.ports[kind]}{path}", content=bytes(damaged),
                                     headers={"content-type": "application/x-protobuf"})
                assert answer.status_code in (200, 204, 400), answer.text
    # Twenty thousand spans, each an attribute of its own under a name of its own.
    many = profile([{"span_id": f"{i + 1:016x}"} for i in range(20000)])
    answer = post(running.ports["http"], many, path="/v1development/profiles")
    assert answer.status_code == 200, answer.text
    wait_for(lambda: running.total("otelcol_span_links_linked_samples") >= 20000, 60, "all samples")
    running.wait_quiet(60)


# ---- real clients -------------------------------------------------------------------------------


def unmarked(body):
    """The traces as from an SDK that does not mark, and the ids that it marked."""
    request, ids = parsed(body), set()
    for span in spans_of(request):
        for attribute in [a for a in span.attributes if a.key == "pyroscope.profile.id"]:
            ids.add(attribute.value.string_value)
            span.attributes.remove(attribute)
    return request, ids


@pytest.mark.parametrize("client,name,trace", [("pyroscope-python", "cpu-otel-spans", "python"),
                                               ("pyroscope-go", "cpu-spans", "go"), ("pyroscope-go", "goroutines", "go")])
def test_captured_pairs(daemon, otlp_sink, pyroscope, sink, captures, client, name, trace):
    """What a client sent in one run: spans are marked for which a sample is there, and no others."""
    running = daemon("window: 2s")
    assert replay(running.ports["pyroscope"], captures / client, name).status_code == 200
    wait_for(lambda: otlp_sink.requests and pyroscope.profiles(), 60, "the profile")
    seen = {span for span, _, _, _ in links_of(otlp_sink.requests[0])} - {""}
    assert seen == {span for span, _ in told(pyroscope.profiles(full=True)[0]["samples"])} - {""}
    request, by_sdk = unmarked((captures / "otel-traces" / f"{trace}.body").read_bytes())
    export_traces(running.ports["grpc"], request.SerializeToString())
    wait_for(lambda: len(sink.spans()) == len(spans_of(request)), 60, "all spans")
    got = {span.span_id.hex(): marks(span) for span in sink.spans()}
    assert got == {span.span_id.hex(): [span.span_id.hex()] if span.span_id.hex() in seen else []
                   for span in spans_of(request)}
    if name != "goroutines":  # those are of one moment
        assert {id for id, mark in got.items() if mark} & by_sdk
    running.wait_quiet(60)


PYTHON = """
import sys, time
import pyroscope
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from pyroscope.otel import PyroscopeSpanProcessor

class Unmarked(PyroscopeSpanProcessor):
    def on_start(self, span, parent_context=None):
        attribute, span.set_attribute = span.set_attribute, lambda *_: None
        super().on_start(span, parent_context)
        span.set_attribute = attribute

profiles, traces, kind = sys.argv[1:]
pyroscope.configure(application_name="abr.packager", server_address=profiles, upload_interval=1, sample_rate=100)
provider = TracerProvider(resource=Resource.create({"service.name": "abr.packager"}))
provider.add_span_processor(PyroscopeSpanProcessor() if kind == "marked" else Unmarked())
# Spans leave at the end, when the profiles have been sent.
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=traces), schedule_delay_millis=600000))
tracer = provider.get_tracer("segments")
for _ in range(4):
    with tracer.start_as_current_span("segment") as root:
        with tracer.start_as_current_span("encode") as child:
            end = time.time() + 1
            while time.time() < end: sum(i * i for i in range(10000))
        print(f"{root.context.trace_id:032x} {root.context.span_id:016x} {child.context.span_id:016x}")
pyroscope.shutdown()
provider.shutdown()
"""


def names_of(request_resources):
    return {a.value.string_value for r in request_resources for a in r.resource.attributes if a.key == "service.name"}


def pairs_find_each_other(running, sink, otlp_sink, pyroscope, output):
    """The program printed trace, root and child; the root is what Pyroscope's processors label."""
    printed = [line.split() for line in output.splitlines()]
    assert printed
    wait_for(lambda: len(sink.spans()) == 2 * len(printed), 90, "all spans")
    running.wait_quiet(60)
    links = {(span, trace) for request in otlp_sink.requests for span, trace, _, _ in links_of(request)} - {NONE}
    roots, children = {(root, trace) for trace, root, _ in printed}, {child for _, _, child in printed}
    assert links and links <= roots
    in_store = {ids for p in pyroscope.profiles(full=True) for ids in told(p["samples"])} - {NONE}
    assert in_store == links
    got = {span.span_id.hex(): marks(span) for span in sink.spans()}
    assert all(got[span] == [span] for span, _ in links)
    assert not any(got[child] for child in children)
    # Grafana asks the store for the service of the span.
    assert names_of(r for q in sink.requests for r in q.resource_spans) == {"abr.packager"}
    assert {p["labels"]["service_name"] for p in pyroscope.profiles()} == {"abr.packager"}
    return {root for root, _ in links}, {root for root, _ in roots}, got


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["marked", "unmarked"])
def test_python_sdks(daemon, otlp_sink, pyroscope, sink, kind):
    running = daemon("window: 2s")
    done = subprocess.run([sys.executable, "-c", PYTHON, f"http://127.0.0.1:{running.ports['pyroscope']}",
                           f"http://127.0.0.1:{running.ports['http']}/v1/traces", kind],
                          check=True, timeout=180, capture_output=True, text=True)
    linked, roots, got = pairs_find_each_other(running, sink, otlp_sink, pyroscope, done.stdout)
    if kind == "marked":  # by the SDK, sampled or not
        assert all(got[root] == [root] for root in roots)
        assert running.total("otelcol_span_links_marked_spans") == 0
    else:
        assert running.total("otelcol_span_links_marked_spans") == len(linked)


@pytest.mark.slow
def test_go_sdks(daemon, otlp_sink, pyroscope, sink):
    running = daemon("window: 2s")
    done = subprocess.run([BIN / "spans", "-profiles", f"http://127.0.0.1:{running.ports['pyroscope']}",
                           "-traces", f"127.0.0.1:{running.ports['http']}"],
                          check=True, timeout=180, capture_output=True, text=True)
    _, roots, got = pairs_find_each_other(running, sink, otlp_sink, pyroscope, done.stdout)
    assert all(got[root] == [root] for root in roots)
