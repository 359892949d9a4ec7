"""`loadbalancing`: every key to one node, whichever flue decides; a lost node moves only its own share."""
import contextlib
import os
import subprocess

import grpc
import pytest
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_service

from harness import OtlpSink, count_profiles, count_samples, free_port, resolved, wait_for
from test_otlp import BODIES, attributes, export
from test_traces import TraceSink, export as export_spans, marks, profile

SERVICES = [f"service-{i}" for i in range(60)]


def fleet(services=SERVICES, linked=False, samples=3):
    """A request with a resource for each service, from one of a real one; `linked`: every sample has one of
    sixty traces, which services share."""
    source = service.ExportProfilesServiceRequest.FromString(BODIES[0].read_bytes())
    request = service.ExportProfilesServiceRequest(dictionary=source.dictionary)
    if not request.dictionary.link_table:
        request.dictionary.link_table.add()
    first = len(request.dictionary.link_table)
    if linked:
        for i in range(60):
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
                sample.link_index = first + (number + i) % 60
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
    many = [f"service-{i}" for i in range(300)]  # the nodes' ports are chance, and so are their shares
    request = fleet(many, samples=1)
    for _ in range(2):
        export(port, request.SerializeToString())
    homes = [s.services() for s in sinks]
    assert sorted(sum(map(sorted, homes), [])) == sorted(many), "each service is on one node"
    assert all(50 <= len(home) <= 150 for home in homes), [len(home) for home in homes]
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
    assert sum(map(len, homes)) == len(set().union(*homes)) == 60, "a trace is on one node"
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
    for tenant in (f"team-{i}" for i in range(50)):
        for _ in range(2):
            export(port, fleet(SERVICES[:3]).SerializeToString(), metadata=(("x-scope-orgid", tenant),))
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


# ---- traces ---------------------------------------------------------------------------------------


def spans(services, traces=5, each=6):
    """A request with a resource for each service, whose spans belong to traces that services share."""
    request = trace_service.ExportTraceServiceRequest()
    for number, name in enumerate(services):
        resource = request.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = name
        scope = resource.scope_spans.add()
        for i in range(each):
            scope.spans.add(trace_id=bytes([(number + i) % traces + 1]) * 16,
                            span_id=(number * each + i + 1).to_bytes(8, "big"), name=f"{name} {i}")
    return request


class Gateway:
    """A flue with span_links, and what it sends on: traces with their marks, and profiles."""

    def __init__(self, flue, stack):
        self.traces, self.profiles = stack.enter_context(TraceSink()), stack.enter_context(Sink(free_port()))
        self.port = free_port()
        self.daemon = flue(f"""
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{self.port}"}}}}}}}}
processors: {{span_links: {{window: 10m}}}}
exporters:
  otlp_grpc/traces: {{endpoint: "127.0.0.1:{self.traces.port}", tls: {{insecure: true}}}}
  otlp_grpc/profiles: {{endpoint: "127.0.0.1:{self.profiles.port}", tls: {{insecure: true}}}}
service:
  pipelines:
    traces: {{receivers: [otlp], processors: [span_links], exporters: [otlp_grpc/traces]}}
    profiles: {{receivers: [otlp], processors: [span_links], exporters: [otlp_grpc/profiles]}}
""")

    def services_of_spans(self):
        with self.traces.lock:
            return {attributes(r)["service.name"] for q in self.traces.requests for r in q.resource_spans}


def both_signals(gateways, key="service"):
    """An agent that spreads both signals over the gateways."""
    text = config(free_port(), static(gateways), f"routing_key: {key}")
    port = int(text.split("127.0.0.1:")[1].split('"')[0])
    return port, text + "    traces: {receivers: [otlp], exporters: [loadbalancing]}\n"


def test_spans_and_profiles_of_a_service_meet_at_one_gateway(flue):
    """Two real gateways hold spans for ten minutes, unless a profile of them comes to the same one."""
    with contextlib.ExitStack() as stack:
        gateways = [Gateway(flue, stack) for _ in range(2)]
        port, text = both_signals(gateways)
        agent = flue(text)
        sent = spans(SERVICES)
        export_spans(port, sent.SerializeToString())
        profiles = service.ExportProfilesServiceRequest()
        for resource in sent.resource_spans:
            one = service.ExportProfilesServiceRequest.FromString(
                profile([{"span_id": span.span_id.hex()} for span in resource.scope_spans[0].spans]))
            one.resource_profiles[0].resource.CopyFrom(resource.resource)
            export(port, one.SerializeToString())
        wanted = sum(len(r.scope_spans[0].spans) for r in sent.resource_spans)
        wait_for(lambda: sum(len(g.traces.spans()) for g in gateways) == wanted, timeout=60, what="every span")
        arrived = [span for g in gateways for span in g.traces.spans()]
        assert all(marks(span) == [span.span_id.hex()] for span in arrived), "each met its profile"
        assert len({span.span_id for span in arrived}) == wanted, "none came twice"
        homes = [g.services_of_spans() for g in gateways]
        assert all(homes) and not homes[0] & homes[1] and homes[0] | homes[1] == set(SERVICES)
        wait_for(lambda: set().union(*(g.profiles.services() for g in gateways)) == set(SERVICES), what="every profile")
        assert [g.profiles.services() for g in gateways] == homes
        agent.wait_quiet()
        assert agent.total("otelcol_exporter_sent_spans") == wanted


def test_spans_by_trace(flue):
    with contextlib.ExitStack() as stack:
        sinks = [stack.enter_context(TraceSink()) for _ in range(3)]
        port, text = both_signals(sinks, "traceID")
        flue(text)
        sent = spans(SERVICES, traces=60)
        export_spans(port, sent.SerializeToString())
        homes = [{span.trace_id for span in s.spans()} for s in sinks]
        assert sum(map(len, homes)) == len(set().union(*homes)) == 60 and all(homes), "a trace is on one node"
        said = sorted((attributes(r)["service.name"], span.SerializeToString())
                      for s in sinks for q in s.requests for r in q.resource_spans for sc in r.scope_spans for span in sc.spans)
        assert said == sorted((attributes(r)["service.name"], span.SerializeToString())
                              for r in sent.resource_spans for span in r.scope_spans[0].spans), "nothing lost or twice"
        # A node that refuses some of its spans, and one that refuses all: each loses its own share.
        partial = trace_service.ExportTraceServiceResponse()
        partial.partial_success.rejected_spans = 2
        sinks[0].answers.append(partial)
        sinks[1].answers.append(lambda context: context.abort(grpc.StatusCode.INVALID_ARGUMENT, "never"))
        before = [len(s.spans()) for s in sinks]
        answer = export_spans(port, sent.SerializeToString())
        assert len(sinks[1].spans()) == before[1]
        assert abs(answer.partial_success.rejected_spans - (before[1] + 2)) <= 1, "the sender hears of both"


@pytest.mark.parametrize("key, warns", [("service", False), ("tenant", False), ("traceID", True), ("resource", True)])
def test_validate_warns_where_the_signals_part(binary, tmp_path, key, warns):
    path = tmp_path / "c.yaml"

    class Node:
        port = 4317

    path.write_text(both_signals([Node, Node], key)[1])
    answer = subprocess.run([binary, "validate", "--config", path], capture_output=True, text=True,
                            env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"})
    assert answer.returncode == 0, answer.stderr
    assert ("may reach different nodes" in answer.stderr + answer.stdout) == warns
    path.write_text(config(4317, static([Node]), f"routing_key: {key}"))
    answer = subprocess.run([binary, "validate", "--config", path], capture_output=True, text=True,
                            env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"})
    assert "may reach different nodes" not in answer.stderr + answer.stdout, "one signal has nothing to meet"


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
