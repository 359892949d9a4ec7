"""Kafka between two tiers of flue: a real broker, real records, nothing lost, order for each service."""
import collections
import functools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

import grpc
import pytest
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service
from opentelemetry.proto.common.v1 import common_pb2

from harness import GRPC_PATH, free_port, listens, pprof_dump, resolved, wait_for
from test_otlp import BODIES
from test_otlp import export as export_once

pytestmark = pytest.mark.slow
export = functools.partial(export_once, timeout=120)

JARS = pathlib.Path(os.environ.get("FLUE_TEST_KAFKA", pathlib.Path.home() / ".cache/flue/kafka/lib"))
PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},SASL_SSL://127.0.0.1:{login}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SASL_SSL://127.0.0.1:{login}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL
ssl.keystore.type=PEM
ssl.keystore.location={folder}/keystore.pem
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_flue="right";
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
log.dirs={folder}/data
num.partitions=4
message.max.bytes=150000
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=true
"""


class Broker:
    def __init__(self, folder):
        self.folder = folder
        self.port, self.login, self.controller = free_port(), free_port(), free_port()
        self.address = f"127.0.0.1:{self.port}"
        run = lambda *command: subprocess.run(command, check=True, capture_output=True, cwd=folder)
        run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "ca.pem")
        (folder / "keystore.pem").write_text((folder / "key.pem").read_text() + (folder / "ca.pem").read_text())
        self.properties = folder / "server.properties"
        self.properties.write_text(PROPERTIES.format(port=self.port, login=self.login, controller=self.controller, folder=folder))
        self.java("kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", str(self.properties)).wait(300)
        self.start()

    def java(self, *arguments):
        return subprocess.Popen(["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
                                 "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{JARS}/*", *arguments],
                                stdout=(self.folder / "log").open("ab"), stderr=subprocess.STDOUT)

    def start(self):
        self.process = self.java("kafka.Kafka", str(self.properties))
        wait_for(self.ready, 300, "the broker")

    def ready(self):
        assert self.process.poll() is None, (self.folder / "log").read_text()[-4000:]
        return listens(self.port) and subprocess.run(["kcat", "-b", self.address, "-L", "-m", "2"], capture_output=True).returncode == 0

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait(120)

    def records(self, topic):
        """[(partition, offset, key, value, {header: value})] of all that a topic has."""
        form = "%p %o %K %S\n%k%s\n%h\n"
        out = subprocess.run(["kcat", "-m", "60", "-b", self.address, "-C", "-t", topic, "-e", "-q", "-o", "beginning", "-f", form],
                             capture_output=True, check=True).stdout
        rows = []
        while out:
            head, out = out.split(b"\n", 1)
            partition, offset, key_size, size = (int(n) for n in head.split())
            has_key = max(key_size, 0)
            key, value, out = out[:has_key], out[has_key:has_key + size], out[has_key + size + 1:]
            headers, out = out.split(b"\n", 1)
            pairs = dict(h.split("=", 1) for h in headers.decode().split(",") if "=" in h)
            rows.append((partition, offset, key if key_size >= 0 else None, value, pairs))
        return rows

    def write(self, topic, *values, headers=(), key=None):
        for value in values:
            command = ["kcat", "-m", "60", "-b", self.address, "-P", "-t", topic, "-p", "0", *(a for h in headers for a in ("-H", h))]
            path = self.folder / "value"
            path.write_bytes(value)
            subprocess.run([*command, str(path)], check=True, capture_output=True)


@pytest.fixture(scope="session")
def broker(tmp_path_factory):
    if not JARS.is_dir() or not shutil.which("java") or not shutil.which("kcat"):
        pytest.skip("no Kafka broker here (scripts/test-clients)")
    broker = Broker(tmp_path_factory.mktemp("kafka"))
    yield broker
    broker.stop(signal.SIGKILL)


@pytest.fixture
def topic(request):
    return f"t-{request.node.name.split('[')[0][5:40]}-{time.monotonic_ns()}"


def request_of(number, name, copies=1, samples=None):
    """A real request, cut short, as the `number`th of a service."""
    request = service.ExportProfilesServiceRequest.FromString(BODIES[0].read_bytes())
    del request.resource_profiles[1:]
    first = request.resource_profiles[0]
    del first.resource.attributes[:]
    first.resource.attributes.append(text("service.name", name))
    first.resource.attributes.append(text("number", str(number)))
    for scope in first.scope_profiles:
        for profile in scope.profiles:
            if samples:
                del profile.samples[samples:]
    for i in range(1, copies):
        more = request.resource_profiles.add()
        more.CopyFrom(first)
        more.resource.attributes[0].value.string_value = f"{name}-{i}"
    return request


def text(key, value):
    return common_pb2.KeyValue(key=key, value=common_pb2.AnyValue(string_value=value))


def attribute(resource_profiles, key):
    return next((a.value.string_value for a in resource_profiles.resource.attributes if a.key == key), None)


def first_tier(flue, broker, topic, exporter="", queue="sending_queue: {enabled: false}", metadata=False, service="",
               **options):
    port = free_port()
    daemon = flue(f"""
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{port}", include_metadata: {str(metadata).lower()}}}}}}}}}
exporters:
  kafka:
    brokers: ["{broker.address}"]
    {queue}
    profiles: {{topic: {topic}}}
    {exporter}
service: {{pipelines: {{profiles: {{receivers: [otlp], exporters: [kafka]}}}}{service}}}
""", **options)
    daemon.port = port
    return daemon


def second_tier(flue, broker, topic, sink, receiver="", encoding="otlp_proto", queue="sending_queue: {enabled: false}", commit="100ms",
                **options):
    return flue(f"""
receivers:
  kafka:
    brokers: ["{broker.address}"]
    initial_offset: earliest
    group_id: "{topic}"
    profiles: {{topics: ["{topic}"], encoding: {encoding}}}
    error_backoff: {{initial_interval: 100ms, max_interval: 500ms}}
    autocommit: {{interval: {commit}}}
    session_timeout: 3s
    heartbeat_interval: 300ms
    {receiver}
exporters:
  otlp_grpc:
    endpoint: "127.0.0.1:{sink.port}"
    tls: {{insecure: true}}
    retry_on_failure: {{initial_interval: 50ms, max_interval: 200ms}}
    {queue}
service: {{pipelines: {{profiles: {{receivers: [kafka], exporters: [otlp_grpc]}}}}}}
""", **options)


def arrived(sink):
    """{service: [numbers in order of arrival]}"""
    out = collections.defaultdict(list)
    with sink.lock:
        for request in sink.requests:
            for r in request.resource_profiles:
                out[attribute(r, "service.name")].append(int(attribute(r, "number")))
    return out


def first_times(numbers):
    return list(dict.fromkeys(numbers))


# ---- what is written ---------------------------------------------------------------------------------


def test_records_have_key_headers_and_content(flue, broker, topic):
    daemon = first_tier(flue, broker, topic, "include_metadata_keys: [X-Region]\n    record_headers: {tier: edge}", metadata=True)
    sent = request_of(1, "encoder", copies=3, samples=20)
    export(daemon.port, sent.SerializeToString(), metadata=(("x-scope-orgid", "media"), ("x-region", "eu")))
    records = broker.records(topic)
    assert sorted(key for _, _, key, _, _ in records) == [b"encoder", b"encoder-1", b"encoder-2"]
    content = {}
    for _, _, key, value, headers in records:
        request = service.ExportProfilesServiceRequest.FromString(value)
        assert {attribute(r, "service.name") for r in request.resource_profiles} == {key.decode()}
        assert headers == {"X-Scope-OrgID": "media", "tier": "edge", "X-Region": "eu", "service.name": key.decode()}
        content |= resolved(request)
    assert content == resolved(sent)
    assert daemon.total("otelcol_kafka_exporter_messages") == 3


def test_a_key_is_one_partition_in_order(flue, broker, topic):
    daemon = first_tier(flue, broker, topic)
    for number in range(12):
        export(daemon.port, request_of(number, f"s{number % 3}", samples=5).SerializeToString())
    records = broker.records(topic)
    for name in (b"s0", b"s1", b"s2"):
        own = [(p, o, v) for p, o, key, v, _ in records if key == name]
        assert len({p for p, _, _ in own}) == 1
        numbers = [int(attribute(service.ExportProfilesServiceRequest.FromString(v).resource_profiles[0], "number"))
                   for _, _, v in sorted(own)]
        assert numbers == sorted(numbers) and len(numbers) == 4


@pytest.mark.parametrize("limit", [20000, 1000000], ids=["ours", "the-brokers"])
def test_a_batch_is_cut_to_fit(flue, broker, topic, limit):
    """By max_message_bytes; and by the broker's own limit of 150000, which only its refusal tells."""
    daemon = first_tier(flue, broker, topic, f"producer: {{max_message_bytes: {limit}}}")
    sent = request_of(1, "encoder")
    body = sent
    while len(body.SerializeToString()) < 400000:  # strings make it large without more samples
        body.dictionary.string_table.append("x" * 1000 + str(len(body.dictionary.string_table)))
        body.dictionary.function_table.add(name_strindex=len(body.dictionary.string_table) - 1)
        body.dictionary.location_table.add().lines.add(function_index=len(body.dictionary.function_table) - 1)
        body.dictionary.stack_table.add(location_indices=[len(body.dictionary.location_table) - 1])
        sample = body.resource_profiles[0].scope_profiles[0].profiles[0].samples.add()
        sample.CopyFrom(body.resource_profiles[0].scope_profiles[0].profiles[0].samples[0])
        sample.stack_index = len(body.dictionary.stack_table) - 1
    assert not export(daemon.port, body.SerializeToString()).partial_success.rejected_profiles
    records = broker.records(topic)
    assert len(records) > 2 and all(len(v) <= min(limit, 150000) for _, _, _, v, _ in records)
    content = collections.Counter()
    for _, _, key, value, _ in records:
        assert key == b"encoder"
        content += collections.Counter(resolved(service.ExportProfilesServiceRequest.FromString(value)))
    assert content == collections.Counter(resolved(body))
    if limit > 150000:
        assert daemon.total("otelcol_kafka_exporter_oversized_messages") >= 1


def test_json_and_pprof_there_and_back(flue, broker, topic, otlp_sink, tmp_path):
    sent = {name: request_of(7, name, samples=30) for name in ("json", "pprof")}
    for name, encoding in (("json", "otlp_json"), ("pprof", "pprof")):
        first = first_tier(flue, broker, f"{topic}-{name}", f"encoding: {encoding}\n    producer: {{max_message_bytes: 120000}}")
        export(first.port, sent[name].SerializeToString(), metadata=(("x-scope-orgid", "media"),))
        records = broker.records(f"{topic}-{name}")
        assert records and all(key == name.encode() for _, _, key, _, _ in records)
        if encoding == "otlp_json":
            assert json.loads(records[0][3])["resourceProfiles"]
        else:
            (tmp_path / "p").write_bytes(records[0][3])
            assert pprof_dump(tmp_path / "p")
            assert records[0][4]["flue.label.service_name"] == "pprof"
            # One that somebody else wrote: no labels, a name for the service.
            broker.write(f"{topic}-bare", records[0][3], headers=("service.name=packager",))
    for name, encoding in (("json", "otlp_json"), ("pprof", "pprof"), ("bare", "pprof")):
        second_tier(flue, broker, f"{topic}-{name}", otlp_sink, encoding=encoding)

    def came():
        with otlp_sink.lock:
            return {attribute(r.resource_profiles[0], "service.name"): r for r in otlp_sink.requests}

    wait_for(lambda: {"json", "pprof", "packager"} <= came().keys(), 180, "the second tiers")
    assert resolved(came()["json"]) == resolved(sent["json"])


# ---- what is read ------------------------------------------------------------------------------------


def test_poison_is_set_past_and_headers_become_metadata(flue, broker, topic, otlp_sink):
    good = request_of(1, "encoder", samples=3).SerializeToString()
    broker.write(topic, good, headers=("X-Scope-OrgID=media", "Region=eu"))
    broker.write(topic, b"this is no profile", good[:-3])
    broker.write(topic, good, headers=("X-Scope-OrgID=no tenant/at all",))
    broker.write(topic, request_of(2, "encoder", samples=3).SerializeToString())
    daemon = second_tier(flue, broker, topic, otlp_sink, "max_in_flight_messages: 1\n    "
                         "header_extraction: {extract_headers: true, headers: [Region]}")
    wait_for(lambda: 2 in arrived(otlp_sink)["encoder"], 180, "the record behind the poison")
    assert "CONFWARN" not in daemon.log()
    assert arrived(otlp_sink)["encoder"] == [1, 2]
    assert attribute(otlp_sink.requests[0].resource_profiles[0], "kafka.header.Region") == "eu"
    assert daemon.total("otelcol_kafka_receiver_poison_messages") == 3
    assert daemon.log().count("set past a record that can never be taken") == 3


def test_a_refusal_holds_the_partition_and_nothing_is_committed(flue, broker, topic, otlp_sink):
    """The next hop says no for a while: order stays, and a kill in between loses nothing."""
    refused = lambda context: context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
    otlp_sink.answers = [refused] * 10_000
    broker.write(topic, *(request_of(n, "encoder", samples=2).SerializeToString() for n in range(5)))
    daemon = second_tier(flue, broker, topic, otlp_sink, "max_in_flight_messages: 1", balance=False,
                         queue="sending_queue: {enabled: false}\n    timeout: 1s")
    wait_for(lambda: len(otlp_sink.answers) < 9_990, 180, "refusals")
    daemon.process.kill()
    daemon.process.wait()
    otlp_sink.answers = []
    second_tier(flue, broker, topic, otlp_sink, "max_in_flight_messages: 1")
    wait_for(lambda: len(set(arrived(otlp_sink)["encoder"])) == 5, 180, "all records")
    assert first_times(arrived(otlp_sink)["encoder"]) == [0, 1, 2, 3, 4]


# ---- two tiers ---------------------------------------------------------------------------------------


def test_two_tiers_lose_nothing(flue, broker, topic, otlp_sink):
    """Eight services, two consumers that share the partitions; one is killed under load and comes back,
    the broker is killed and comes back; whatever was acknowledged arrives, with its content, and in
    the order in which one connection sent it, service by service."""
    names = [f"service-{i}" for i in range(8)]
    first = first_tier(flue, broker, topic, "timeout: 1s",
                       queue="sending_queue: {num_consumers: 20}\n    retry_on_failure: {initial_interval: 100ms, max_interval: 500ms}")
    group = lambda **options: second_tier(flue, broker, topic, otlp_sink, "max_in_flight_messages: 1", **options)
    numbers = collections.Counter()
    content = collections.Counter()

    # One connection: what comes over several has no order to keep.
    channel = grpc.insecure_channel(f"127.0.0.1:{first.port}")
    call = channel.unary_unary(GRPC_PATH, request_serializer=bytes,
                               response_deserializer=service.ExportProfilesServiceResponse.FromString)

    def send(rounds):
        for _ in range(rounds):
            for name in names:
                request = request_of(numbers[name], name, samples=4)
                call(request.SerializeToString(), timeout=120)
                numbers[name] += 1
                content.update(resolved(request))

    def all_there():
        have = arrived(otlp_sink)
        return all(set(have[name]) == set(range(numbers[name])) for name in names)

    def partitions(daemon):
        return daemon.total("otelcol_kafka_receiver_partitions")

    send(1)
    one = group(balance=False)
    wait_for(lambda: partitions(one) == 4, 180, "four partitions")
    two = group()
    wait_for(lambda: partitions(two) == 2 and partitions(one) == 2, 180, "two partitions each")
    send(5)
    one.process.kill()
    one.process.wait()
    send(5)
    three = group()
    broker.stop(signal.SIGKILL)
    send(3)  # into the queue of the first tier
    broker.start()
    send(3)
    wait_for(all_there, 180, "everything that was acknowledged")
    wait_for(lambda: partitions(two) + partitions(three) == 4, 180, "the group")
    written = collections.defaultdict(list)
    for partition, offset, key, value, _ in sorted(broker.records(topic), key=lambda r: r[:2]):
        request = service.ExportProfilesServiceRequest.FromString(value)
        written[key.decode()] += [int(attribute(r, "number")) for r in request.resource_profiles]
    have = arrived(otlp_sink)
    for name in names:
        assert first_times(written[name]) == list(range(numbers[name])), (name, "in the topic", written[name])
        assert first_times(have[name]) == list(range(numbers[name])), (name, have[name], written[name])
    got = collections.Counter()
    for request in otlp_sink.requests:
        got |= collections.Counter(resolved(request))
    assert got == content
    channel.close()
    first.wait_quiet()
    first.wait_balance()
    for daemon in (first, two, three):
        assert daemon.total("otelcol_exporter_dropped_samples") == 0


def test_a_queue_on_disk_keeps_the_order_of_keys(flue, broker, topic, tmp_path):
    """The broker is down and the daemon is killed, twice: what was acknowledged is written once all is
    back, key by key as it was sent."""
    names, numbers = ["s0", "s1", "s2"], collections.Counter()
    queue = ("sending_queue: {storage: file_storage}\n"
             "    retry_on_failure: {initial_interval: 100ms, max_interval: 500ms}")
    # Of the configuration's last line: the extension, and the service that names it.
    storage = f", extensions: [file_storage]}}\nextensions: {{file_storage: {{directory: {tmp_path / 'queue'}, create_directory: true}}"

    def tier(**options):
        return first_tier(flue, broker, topic, "timeout: 5s", queue=queue, service=storage, **options)

    def send(daemon, rounds):
        with grpc.insecure_channel(f"127.0.0.1:{daemon.port}") as channel:
            call = channel.unary_unary(GRPC_PATH, request_serializer=bytes,
                                       response_deserializer=service.ExportProfilesServiceResponse.FromString)
            for _ in range(rounds):
                for name in names:
                    call(request_of(numbers[name], name, samples=4).SerializeToString(), timeout=60)
                    numbers[name] += 1

    def written():
        out = collections.defaultdict(list)
        for _, _, key, value, _ in sorted(broker.records(topic), key=lambda r: r[:2]):
            request = service.ExportProfilesServiceRequest.FromString(value)
            out[key.decode()] += [int(attribute(r, "number")) for r in request.resource_profiles]
        return out

    daemon = tier(balance=False)
    send(daemon, 3)
    broker.stop(signal.SIGKILL)
    try:
        for _ in range(2):
            send(daemon, 5)
            daemon.process.kill()
            daemon.process.wait()
            daemon = tier(balance=False)
        send(daemon, 3)
    finally:
        broker.start()
    send(daemon, 3)

    def all_there():
        try:
            have = written()
        except subprocess.CalledProcessError:  # the topic has no leader yet
            return None
        return have if all(set(have[name]) == set(range(numbers[name])) for name in names) else None

    for name, have in wait_for(all_there, 60, "all in the topic").items():
        assert first_times(have) == list(range(numbers[name])), (name, have)


def test_a_group_is_left_in_order(flue, broker, topic, otlp_sink):
    """A drained consumer has committed all that it pushed: the next one gets nothing twice. One record
    on its way at a time, so that all arrive as they were written."""
    broker.write(topic, *(request_of(n, "encoder", samples=2).SerializeToString() for n in range(4)))
    daemon = second_tier(flue, broker, topic, otlp_sink, "max_in_flight_messages: 1", commit="1h")
    wait_for(lambda: len(arrived(otlp_sink)["encoder"]) == 4, 180, "the records")
    assert daemon.stop() == 0
    broker.write(topic, request_of(4, "encoder", samples=2).SerializeToString())
    second_tier(flue, broker, topic, otlp_sink, "max_in_flight_messages: 1")
    wait_for(lambda: 4 in arrived(otlp_sink)["encoder"], 180, "the next record")
    assert arrived(otlp_sink)["encoder"] == [0, 1, 2, 3, 4]


# ---- security, mistakes ------------------------------------------------------------------------------


def login(broker, mechanism, password):
    return (f'tls: {{ca_file: "{broker.folder}/ca.pem"}}\n    '
            f"auth: {{sasl: {{mechanism: {mechanism}, username: flue, password: {password}}}}}")


def test_login_by_plain_over_tls(flue, broker, topic):
    class At:
        address = f"127.0.0.1:{broker.login}"
    daemon = first_tier(flue, At, topic, login(broker, "PLAIN", "right"))
    export(daemon.port, request_of(1, "encoder", samples=2).SerializeToString())
    assert len(broker.records(topic)) == 1


def test_a_refused_login_is_named_and_scram_is_warned_of(flue, broker, topic):
    class At:
        address = f"127.0.0.1:{broker.login}"
    queue = "sending_queue: {enabled: true}\n    retry_on_failure: {initial_interval: 100ms}"
    wrong = first_tier(flue, At, topic, login(broker, "PLAIN", "wrong") + "\n    timeout: 1s", queue=queue)
    wait_for(lambda: "Authentication failed" in wrong.log(), 180, "the refusal")
    scram = first_tier(flue, At, topic, login(broker, "SCRAM-SHA-256", "right") + "\n    timeout: 1s", queue=queue)
    version = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", "librdkafka1"], capture_output=True, text=True).stdout
    if version.startswith("2.0."):
        assert "what works: PLAIN over TLS" in scram.log()


def test_a_missing_library_is_an_error_at_start(binary, tmp_path):
    (tmp_path / "librdkafka.so.1").write_bytes(b"")
    path = tmp_path / "c.yaml"
    path.write_text("receivers: {kafka: {}}\nexporters: {nop: {}}\n"
                    "service: {pipelines: {profiles: {receivers: [kafka], exporters: [nop]}}}\n")
    answer = subprocess.run([binary, "run", "--config", path], capture_output=True, text=True, timeout=30,
                            env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)})
    assert answer.returncode == 1
    assert "install librdkafka1" in answer.stderr
    # Not configured, not loaded.
    path.write_text("receivers: {otlp: {protocols: {grpc: {endpoint: '127.0.0.1:0'}}}}\nexporters: {kafka: {producer: {required_acks: 0}}}\n"
                    "service: {pipelines: {profiles: {receivers: [otlp], exporters: [kafka]}}}\n")
    answer = subprocess.run([binary, "validate", "--config", path], capture_output=True, text=True, timeout=30,
                            env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)})
    assert answer.returncode == 1 and "required_acks" in answer.stderr and "librdkafka" not in answer.stderr
