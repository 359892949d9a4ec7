"""`loadbalancing`: every key to one node, whichever flue decides; a lost node moves only its own share."""
import contextlib
import os
import subprocess

import grpc
import pytest
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service

from harness import OtlpSink, count_profiles, count_samples, free_port, resolved, wait_for
from test_otlp import BODIES, attributes, export

SERVICES = [f"service-{i}" for i in range(60)]


def fleet(services=SERVICES, linked=False, samples=3):
    """A request with a resource for each service, from one of a real one; `linked`: every sample has one of
    twenty traces, which services share."""
    source = service.ExportProfilesServiceRequest.FromString(BODIES[0].read_bytes())
    request = service.ExportProfilesServiceRequest(dictionary=source.dictionary)
    if not request.dictionary.link_table:
        request.dictionary.link_table.add()
    first = len(request.dictionary.link_table)
    if linked:
        for i in range(20):
            request.dictionary.link_table.add(trace_id=bytes([i + 1]) * 16, span_id=bytes([i + 1]) * 8)
    for number, name in enumerate(services):
        resource = request.resource_profiles.add()
        resource.CopyFrom(source.resource_profiles[number % len(source.resource_profiles)])
        for profile in (p for sc in resource.scope_profiles for p in sc.profiles):
            del profile.samples[samples:]
        del resource.resource.attributes[:]
        resource.resource.attributes.add(key="service.name").value.string_value = name
        resource.resource.attributes.add(key="zone").value.string_value = f"z{number % 7}"
        if linked:
            for i, sample in enumerate(s for sc in resource.scope_profiles for p in sc.profiles for s in p.samples):
                sample.link_index = first + (number + i) % 20
    return request


class Sink(OtlpSink):
    """On a port that is known before, so that it can come back."""

    def __init__(self, port):
        super().__init__()
        self.fixed = port

    def __enter__(self):
        from concurrent.futures import ThreadPoolExecutor
        from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2_grpc
        self.server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", 256 << 20)])
        profiles_service_pb2_grpc.add_ProfilesServiceServicer_to_server(self, self.server)
        self.port = self.server.add_insecure_port(f"127.0.0.1:{self.fixed}")
        self.server.start()
        return self

    def __exit__(self, *_):
        self.server.stop(0).wait()

    def services(self):
        with self.lock:
            return {attributes(r)["service.name"] for q in self.requests for r in q.resource_profiles}


@pytest.fixture
def sinks():
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Sink(free_port())) for _ in range(3)]


def config(port, resolver, more="", otlp="", queue="sending_queue: {enabled: false}"):
    return f"""
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{port}", include_metadata: true}}}}}}
exporters:
  loadbalancing:
    {more}
    {queue}
    protocol: {{otlp: {{tls: {{insecure: true}}{otlp}}}}}
    resolver: {resolver}
service:
  pipelines:
    profiles: {{receivers: [otlp], exporters: [loadbalancing]}}
"""


def static(sinks):
    return "{static: {hostnames: [%s]}}" % ", ".join(f'"127.0.0.1:{s.port}"' for s in sinks)


def total(sinks):
    out = {}
    for sink in sinks:
        for request in sink.requests:
            for key, count in resolved(request).items():
                out[key] = out.get(key, 0) + count
    return out


def test_every_service_has_its_node(flue, sinks):
    port = free_port()
    daemon = flue(config(port, static(sinks)))
    request = fleet()
    for _ in range(2):
        export(port, request.SerializeToString())
    homes = [s.services() for s in sinks]
    assert sorted(sum(map(sorted, homes), [])) == sorted(SERVICES), "each service is on one node"
    assert all(8 <= len(home) for home in homes), [len(home) for home in homes]
    assert all(len(s.requests) == 2 for s in sinks), "one request to each node for each batch"
    assert total(sinks) == {key: 2 * count for key, count in resolved(request).items()}
    assert daemon.total("otelcol_loadbalancer_num_backends", resolver="static") == 3
    assert daemon.total("otelcol_exporter_sent_samples") == 2 * count_samples(request)


def test_another_flue_decides_alike(flue, sinks):
    ports = free_port(), free_port()
    flue(config(ports[0], static(sinks)))
    flue(config(ports[1], static(list(reversed(sinks)))))
    export(ports[0], fleet().SerializeToString())
    homes = [s.services() for s in sinks]
    for sink in sinks:
        sink.requests.clear()
    export(ports[1], fleet().SerializeToString())
    assert [s.services() for s in sinks] == homes


@pytest.mark.parametrize("lost", range(3))
def test_a_lost_node_moves_only_its_own_share(flue, sinks, lost):
    port = free_port()
    daemon = flue(config(port, static(sinks)))
    request = fleet()
    export(port, request.SerializeToString())
    before = [s.services() for s in sinks]
    sinks[lost].__exit__()
    for sink in sinks:
        sink.requests.clear()
    # The caller waits for all parts: that of the lost node is cut again over those that are left.
    export(port, request.SerializeToString())
    after = [s.services() for s in sinks]
    left = [i for i in range(3) if i != lost]
    assert after[lost] == set()
    for i in left:
        assert before[i] < after[i] and after[i] - before[i] <= before[lost], "it keeps its own, and takes of the lost"
    assert set().union(*after) == set(SERVICES)
    assert total(sinks) == resolved(request)
    daemon.wait_quiet()


def test_a_batch_is_acknowledged_when_all_its_parts_are(flue, sinks):
    """One node says later: only its part is sent again."""
    port = free_port()
    daemon = flue(config(port, static(sinks), queue="retry_on_failure: {initial_interval: 20ms, max_interval: 50ms}"))
    request = fleet()
    sinks[1].answers = [lambda context: context.abort(grpc.StatusCode.UNAVAILABLE, "later")] * 3
    export(port, request.SerializeToString())
    wait_for(lambda: sum(s.samples() for s in sinks) == count_samples(request), what="all parts")
    daemon.wait_quiet()
    assert [len(s.requests) for s in sinks] == [1, 1, 1], "nobody gets his part twice"
    assert total(sinks) == resolved(request)
    assert daemon.total("otelcol_exporter_sent_samples") == count_samples(request)


def test_without_a_queue_the_sender_hears_of_a_part_that_failed(flue, sinks):
    port = free_port()
    flue(config(port, static(sinks), queue="sending_queue: {enabled: false}\n    retry_on_failure: {enabled: false}"))
    sinks[2].answers = [lambda context: context.abort(grpc.StatusCode.UNAVAILABLE, "no room")]
    with pytest.raises(grpc.RpcError) as failure:
        export(port, fleet().SerializeToString())
    assert failure.value.code() == grpc.StatusCode.UNAVAILABLE and "no room" in failure.value.details()


def test_a_part_refused_for_good_is_counted_and_the_rest_is_sent(flue, sinks):
    port = free_port()
    daemon = flue(config(port, static(sinks), queue=""))
    request = fleet()
    sinks[0].answers = [lambda context: context.abort(grpc.StatusCode.INVALID_ARGUMENT, "never")]
    partial = service.ExportProfilesServiceResponse()
    partial.partial_success.rejected_profiles = 1
    partial.partial_success.error_message = "too old"
    sinks[1].answers = [partial]
    export(port, request.SerializeToString())
    wait_for(lambda: sinks[1].requests and sinks[2].requests, what="the other parts")
    daemon.wait_quiet()
    assert [len(s.requests) for s in sinks] == [0, 1, 1]
    lost = count_samples(request) - sum(s.samples() for s in sinks)
    dropped = daemon.total("otelcol_exporter_dropped_samples")
    assert lost <= dropped <= lost + count_samples(request) / count_profiles(request) * 2
    assert "never" in daemon.log() and "too old" in daemon.log()


def test_by_trace(flue, sinks):
    port = free_port()
    flue(config(port, static(sinks), "routing_key: traceID"))
    request = fleet(linked=True)
    export(port, request.SerializeToString())
    homes = []
    for sink in sinks:
        homes.append({q.dictionary.link_table[s.link_index].trace_id for q in sink.requests
                      for r in q.resource_profiles for sc in r.scope_profiles for p in sc.profiles for s in p.samples})
    assert sum(map(len, homes)) == len(set().union(*homes)) == 20, "a trace is on one node"
    assert all(homes)
    assert total(sinks) == resolved(request), "the sum of the parts is the whole"


def test_by_attributes_and_by_resource(flue, sinks):
    ports = free_port(), free_port()
    flue(config(ports[0], static(sinks), "routing_key: attributes\n    routing_attributes: [zone]"))
    flue(config(ports[1], static(sinks), "routing_key: resource"))
    export(ports[0], fleet().SerializeToString())
    zones = [{attributes(r)["zone"] for q in s.requests for r in q.resource_profiles} for s in sinks]
    assert sum(map(len, zones)) == len(set().union(*zones)) == 7
    for sink in sinks:
        sink.requests.clear()
    request = fleet()
    for resource in request.resource_profiles[30:]:
        resource.resource.attributes.reverse()
        resource.resource.attributes[1].value.string_value = "service-1"
        resource.resource.attributes[0].value.string_value = "z1"
    request.resource_profiles[1].resource.attributes[1].value.string_value = "z1"
    export(ports[1], request.SerializeToString())
    equal = [s for s in sinks if "service-1" in s.services()]
    assert len(equal) == 1, "equal attributes in another order are the same resource"


def test_by_tenant(flue, sinks):
    port = free_port()
    flue(config(port, static(sinks), "routing_key: tenant"))
    homes = set()
    for tenant in (f"team-{i}" for i in range(12)):
        for _ in range(2):
            export(port, fleet(SERVICES[:3]).SerializeToString(), metadata=(("x-scope-orgid", tenant),))
        homes.add(tuple(len(s.requests) for s in sinks))
        assert all(len(s.requests) % 2 == 0 for s in sinks), "both of a tenant went to one node"
    assert all(s.requests for s in sinks)


def test_dns_finds_the_nodes_and_a_name_without_them_is_said(flue, sinks):
    port = free_port()
    daemon = flue(config(port, f"{{dns: {{hostname: localhost, port: \"{sinks[0].port}\", interval: 100ms}}}}"))
    request = fleet(SERVICES[:5])
    export(port, request.SerializeToString())
    assert total(sinks) == resolved(request)
    wait_for(lambda: daemon.total("otelcol_loadbalancer_num_resolutions", resolver="dns", success="true") > 2,
             what="the name to be resolved again")
    assert daemon.total("otelcol_loadbalancer_num_backend_updates", resolver="dns") == 1
    other = free_port()
    lost = flue(config(other, "{dns: {hostname: nobody.invalid, timeout: 3s}}",
                       queue="sending_queue: {enabled: false}\n    retry_on_failure: {enabled: false}"))
    with pytest.raises(grpc.RpcError) as failure:
        export(other, request.SerializeToString())
    assert failure.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "nobody.invalid" in failure.value.details()
    assert lost.total("otelcol_loadbalancer_num_resolutions", resolver="dns", success="false") >= 1


def test_what_is_too_large_for_a_node_is_split(flue, sinks):
    port = free_port()
    daemon = flue(config(port, static(sinks), otlp=", max_request_size: 100KiB", queue=""))
    request = fleet(SERVICES * 4, samples=100)
    assert len(request.SerializeToString()) > 3 * 100 * 1024
    export(port, request.SerializeToString())
    wait_for(lambda: sum(s.samples() for s in sinks) == count_samples(request), what="all parts")
    daemon.wait_quiet()
    assert all(q.ByteSize() <= 100 * 1024 for s in sinks for q in s.requests)
    assert daemon.total("otelcol_exporter_dropped_samples") == 0


@pytest.mark.parametrize("text, says", [
    ("{k8s: {service: lb.ns, ports: [4317]}}", "headless"),
    ("{aws_cloud_map: {namespace: a, service_name: b}}", "Cloud Map"),
    ("{static: {hostnames: [a]}, dns: {hostname: b}}", "one of static and dns"),
    ("{}", "one of static and dns"),
    ("{static: {hostnames: []}}", "1 to 256"),
    ('{static: {hostnames: ["a:b"]}}', "port"),
    ("{dns: {hostname: a, port: http}}", "no port"),
])
def test_mistakes_are_said(binary, tmp_path, text, says):
    path = tmp_path / "c.yaml"
    path.write_text(config(4317, text))
    answer = subprocess.run([binary, "validate", "--config", path], capture_output=True, text=True,
                            env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"})
    assert answer.returncode == 1 and says in answer.stderr + answer.stdout, answer.stderr
