"""OTLP in by every transport and encoding, OTLP out: what was said arrives, with richer resources."""
import gzip
import zlib

import grpc
import httpx
import lz4.frame
import pytest
import snappy
import zstandard
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service

from harness import GRPC_PATH, ROOT, count_profiles, count_samples, free_port, resolved, wait_for, without_resource

BODIES = sorted((ROOT / "tests/data/otlp").glob("ebpf-*.otlp"))
PROTO = {"content-type": "application/x-protobuf"}


def config(sink, extra="", exporter=""):
    return f"""
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "127.0.0.1:{sink.flue_port}"}}
      http: {{endpoint: "127.0.0.1:{sink.http_port}"}}
processors:
  resource:
    attributes:
      - {{key: cdn.region, value: "${{env:CDN_REGION:-unknown}}", action: upsert}}
      - {{key: team, value: media, action: insert}}
exporters:
  otlp_grpc:
    endpoint: "127.0.0.1:{sink.port}"
    tls: {{insecure: true}}
    {exporter}
service:
  pipelines:
    profiles: {{receivers: [otlp], processors: [resource], exporters: [otlp_grpc]}}
{extra}
"""


@pytest.fixture
def daemon(flue, otlp_sink):
    """flue between an OTLP client and an OTLP server; `direct`: acknowledged by the server."""

    def start(direct=True, exporter=""):
        otlp_sink.flue_port, otlp_sink.http_port = free_port(), free_port()
        if direct:
            exporter = "sending_queue: {enabled: false}" + ("\n    " + exporter if exporter else "")
        return flue(config(otlp_sink, exporter=exporter), environment={"CDN_REGION": "eu-west"})

    return start


def export(port, body, path=GRPC_PATH, timeout=20, metadata=()):
    """A unary call with these bytes as the message; returns the response message."""
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.max_send_message_length", 256 << 20)]) as channel:
        call = channel.unary_unary(path, request_serializer=bytes, response_deserializer=service.ExportProfilesServiceResponse.FromString)
        return call(body, timeout=timeout, metadata=metadata)


def attributes(resource_profiles):
    return {a.key: a.value.string_value for a in resource_profiles.resource.attributes}


@pytest.mark.parametrize("body", BODIES, ids=lambda p: p.stem)
def test_everything_arrives_with_richer_resources(daemon, otlp_sink, body):
    daemon()
    sent = service.ExportProfilesServiceRequest.FromString(body.read_bytes())
    answer = export(otlp_sink.flue_port, body.read_bytes())
    assert not answer.HasField("partial_success")
    [got] = otlp_sink.requests
    assert without_resource(resolved(got)) == without_resource(resolved(sent))
    assert len(got.resource_profiles) == len(sent.resource_profiles)
    for before, after in zip(sent.resource_profiles, got.resource_profiles):
        assert attributes(after) == {**attributes(before), "cdn.region": "eu-west", "team": "media"}
        keys = [a.key for a in after.resource.attributes]
        assert len(keys) == len(set(keys))


def test_service_path_of_older_senders(daemon, otlp_sink):
    daemon()
    export(otlp_sink.flue_port, BODIES[0].read_bytes(), GRPC_PATH.replace("v1development", "v1experimental"))
    assert len(otlp_sink.requests) == 1


CODINGS = {
    "identity": lambda b: b, "gzip": gzip.compress, "deflate": zlib.compress, "zlib": zlib.compress,
    "zstd": zstandard.compress, "snappy": snappy.compress, "lz4": lz4.frame.compress,
}


@pytest.mark.parametrize("coding", CODINGS)
def test_http_codings(daemon, otlp_sink, coding):
    daemon()
    body = BODIES[0].read_bytes()
    answer = httpx.post(f"http://127.0.0.1:{otlp_sink.http_port}/v1development/profiles",
                        content=CODINGS[coding](body), headers={**PROTO, "content-encoding": coding})
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == "application/x-protobuf"
    assert without_resource(resolved(otlp_sink.requests[0])) == \
        without_resource(resolved(service.ExportProfilesServiceRequest.FromString(body)))


def to_json(request):
    """OTLP/JSON of a request: protobuf's mapping, but ids in hex."""
    import base64

    from google.protobuf import json_format
    tree = json_format.MessageToDict(request)
    for link in tree["dictionary"].get("linkTable", []):
        for key in ("traceId", "spanId"):
            if key in link:
                link[key] = base64.b64decode(link[key]).hex()
    return tree


def test_json(daemon, otlp_sink):
    daemon()
    sent = service.ExportProfilesServiceRequest.FromString(BODIES[0].read_bytes())
    answer = httpx.post(f"http://127.0.0.1:{otlp_sink.http_port}/v1development/profiles", json=to_json(sent))
    assert answer.status_code == 200 and answer.json() == {}
    assert answer.headers["content-type"] == "application/json"
    assert without_resource(resolved(otlp_sink.requests[0])) == without_resource(resolved(sent))


def test_http2_with_prior_knowledge(daemon, otlp_sink):
    daemon()
    with httpx.Client(http1=False, http2=True) as client:
        answer = client.post(f"http://127.0.0.1:{otlp_sink.http_port}/v1development/profiles",
                             content=BODIES[0].read_bytes(), headers=PROTO)
    assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
    assert len(otlp_sink.requests) == 1


def test_empty_requests_are_successes(daemon, otlp_sink):
    flue = daemon()
    assert not export(otlp_sink.flue_port, b"").HasField("partial_success")
    answer = httpx.post(f"http://127.0.0.1:{otlp_sink.http_port}/v1development/profiles", content=b"", headers=PROTO)
    assert answer.status_code == 200
    answer = httpx.post(f"http://127.0.0.1:{otlp_sink.http_port}/v1development/profiles", content=b"",
                        headers={"content-type": "application/json"})
    assert answer.status_code == 400 and "message" in answer.json()
    assert otlp_sink.requests == []
    assert flue.total("otelcol_exporter_received_profiles") == 0


def test_a_bad_profile_alone_is_refused(daemon, otlp_sink):
    daemon()
    request = service.ExportProfilesServiceRequest.FromString(BODIES[0].read_bytes())
    bad = request.resource_profiles[1].scope_profiles[0].profiles[0]
    bad.samples[0].stack_index = len(request.dictionary.stack_table)
    total, lost = count_profiles(request), len(bad.samples)
    answer = export(otlp_sink.flue_port, request.SerializeToString())
    assert answer.partial_success.rejected_profiles == 1
    assert "stack_index" in answer.partial_success.error_message
    assert str(len(request.dictionary.stack_table)) in answer.partial_success.error_message
    [got] = otlp_sink.requests
    assert count_profiles(got) == total - 1
    assert count_samples(got) == count_samples(request) - lost


def test_broken_wire_is_refused_in_every_protocol(daemon, otlp_sink):
    flue = daemon()
    body = BODIES[0].read_bytes()
    with pytest.raises(grpc.RpcError) as failure:
        export(otlp_sink.flue_port, body[:-1])
    assert failure.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    answer = httpx.post(f"http://127.0.0.1:{otlp_sink.http_port}/v1development/profiles", content=body[:-1], headers=PROTO)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/x-protobuf"
    from google.rpc import status_pb2
    assert status_pb2.Status.FromString(answer.content).message
    assert otlp_sink.requests == []
    assert flue.total("otelcol_receiver_refused_requests", reason="invalid") == 2


def test_the_next_hop_decides_when_there_is_no_queue(daemon, otlp_sink):
    daemon(exporter="retry_on_failure: {enabled: false}")

    def refuse(code, text):
        return lambda context: context.abort(code, text)

    otlp_sink.answers = [refuse(grpc.StatusCode.UNAVAILABLE, "later"), refuse(grpc.StatusCode.INVALID_ARGUMENT, "never")]
    with pytest.raises(grpc.RpcError) as failure:
        export(otlp_sink.flue_port, BODIES[0].read_bytes())
    assert failure.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "later" in failure.value.details()
    with pytest.raises(grpc.RpcError) as failure:
        export(otlp_sink.flue_port, BODIES[0].read_bytes())
    assert failure.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    export(otlp_sink.flue_port, BODIES[0].read_bytes())
    assert len(otlp_sink.requests) == 1


def test_a_queue_retries_until_it_is_taken(daemon, otlp_sink):
    flue = daemon(direct=False, exporter="retry_on_failure: {initial_interval: 20ms, max_interval: 50ms}")
    otlp_sink.answers = [lambda context: context.abort(grpc.StatusCode.UNAVAILABLE, "later")] * 3
    export(otlp_sink.flue_port, BODIES[0].read_bytes())
    wait_for(lambda: otlp_sink.requests, what="the retry")
    flue.wait_quiet()
    samples = count_samples(service.ExportProfilesServiceRequest.FromString(BODIES[0].read_bytes()))
    assert flue.total("otelcol_exporter_sent_samples") == samples
    assert flue.total("otelcol_exporter_sent_profile_samples") == samples


def test_partial_success_of_the_next_hop_is_counted_not_repeated(daemon, otlp_sink):
    flue = daemon(direct=False)
    partial = service.ExportProfilesServiceResponse()
    partial.partial_success.rejected_profiles = 1
    partial.partial_success.error_message = "too old"
    otlp_sink.answers = [partial]
    export(otlp_sink.flue_port, BODIES[0].read_bytes())
    wait_for(lambda: otlp_sink.requests, what="the request")
    flue.wait_quiet()
    assert len(otlp_sink.requests) == 1
    assert flue.total("otelcol_exporter_dropped_profiles", reason="rejected") == 1


def test_batches_are_merged_and_split(daemon, otlp_sink):
    flue = daemon(direct=False, exporter="sending_queue: {batch: {flush_timeout: 300ms, min_size: 1000, max_size: 1000}}")
    sent = {}
    for body in BODIES:
        export(otlp_sink.flue_port, body.read_bytes())
        for key, count in without_resource(resolved(service.ExportProfilesServiceRequest.FromString(body.read_bytes()))).items():
            sent[key] = sent.get(key, 0) + count
    total = sum(sent.values())
    wait_for(lambda: otlp_sink.samples() >= total, what="all samples")
    flue.wait_quiet()
    got = {}
    for request in otlp_sink.requests:
        assert count_samples(request) <= 1000
        used = {s.stack_index for r in request.resource_profiles for sc in r.scope_profiles for p in sc.profiles for s in p.samples}
        assert len(request.dictionary.stack_table) <= len(used) + 1, "the dictionary was not pruned"
        for key, count in without_resource(resolved(request)).items():
            got[key] = got.get(key, 0) + count
    assert got == sent


def test_grpc_deadline_is_passed_on(daemon, otlp_sink):
    daemon()
    otlp_sink.delay = 3
    with pytest.raises(grpc.RpcError) as failure:
        export(otlp_sink.flue_port, BODIES[0].read_bytes(), timeout=0.3)
    assert failure.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("body", sorted((ROOT / "tests/data/otlp").glob("async-profiler-*.otlp")),
                         ids=lambda p: p.stem)
def test_async_profiler_is_named_by_the_query(daemon, otlp_sink, body):
    """It writes no Resource: the service comes from the query or a header, else it is unknown_service."""
    daemon()
    url = f"http://127.0.0.1:{otlp_sink.http_port}/v1development/profiles"
    assert httpx.post(f"{url}?service.name=packager", content=body.read_bytes(), headers=PROTO).status_code == 200
    assert httpx.post(url, content=body.read_bytes(), headers=PROTO).status_code == 200
    first, second = otlp_sink.requests
    sent = service.ExportProfilesServiceRequest.FromString(body.read_bytes())
    assert without_resource(resolved(first)) == without_resource(resolved(sent))
    assert {attributes(r)["service.name"] for r in first.resource_profiles} == {"packager"}
    assert {attributes(r)["service.name"] for r in second.resource_profiles} == {"unknown_service"}
    assert all(attributes(r)["cdn.region"] == "eu-west" for r in first.resource_profiles)


def test_java_agent_in_otlp_mode(daemon, otlp_sink, captures):
    from harness import replay
    daemon()
    assert replay(otlp_sink.http_port, captures / "pyroscope-java", "otlp-cpu").status_code == 200
    [request] = otlp_sink.requests
    assert count_samples(request) > 0
