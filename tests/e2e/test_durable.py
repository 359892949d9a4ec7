"""Queues on disk: what was acknowledged arrives, whatever happens to the daemon and to the disk."""
import collections
import http.client
import json
import os
import random
import subprocess
import threading
import time

import grpc
import pytest
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service

from harness import Flue, OtlpSink, free_port, wait_for

# FLUE_TEST_KILLS=100: as often as the promise says.
KILLS = int(os.environ.get("FLUE_TEST_KILLS", "30"))
CONSUMERS = 4


def profile(number, samples=3, padding=0):
    """An OTLP request of one profile that no other number has."""
    request = service.ExportProfilesServiceRequest()
    d = request.dictionary
    d.string_table.extend(["", "cpu", "nanoseconds", f"function-{number}", "x" * padding])
    d.mapping_table.add()
    d.function_table.add()
    d.function_table.add(name_strindex=3)
    d.location_table.add()
    d.location_table.add().lines.add(function_index=1, line=number)
    d.stack_table.add()
    d.stack_table.add(location_indices=[1])
    d.link_table.add()
    d.attribute_table.add()
    resource = request.resource_profiles.add()
    for key, value in (("service.name", "encoder"), ("number", str(number)), ("padding", "x" * padding)):
        attribute = resource.resource.attributes.add()
        attribute.key, attribute.value.string_value = key, value
    one = resource.scope_profiles.add().profiles.add()
    one.sample_type.type_strindex, one.sample_type.unit_strindex = 1, 2
    one.time_unix_nano = 1_700_000_000_000_000_000 + number
    for i in range(samples):
        one.samples.add(stack_index=1, values=[number * 10 + i])
    return request


def said(request):
    """What a received request says: {number: (values, line, function, time)}."""
    d = request.dictionary
    out = collections.Counter()
    for resource in request.resource_profiles:
        number = next(a.value.string_value for a in resource.resource.attributes if a.key == "number")
        for scope in resource.scope_profiles:
            for p in scope.profiles:
                values = tuple(sorted(v for s in p.samples for v in s.values))
                location = d.location_table[d.stack_table[p.samples[0].stack_index].location_indices[0]]
                function = d.string_table[d.function_table[location.lines[0].function_index].name_strindex]
                out[int(number), values, location.lines[0].line, function, p.time_unix_nano] += 1
    return out


def expected(number, samples=3):
    return (number, tuple(number * 10 + i for i in range(samples)), number, f"function-{number}",
            1_700_000_000_000_000_000 + number)


def arrived(sink):
    out = collections.Counter()
    with sink.lock:
        for request in sink.requests:
            out.update(said(request))
    return out


def config(port, sink, folder, storage="", exporter="", more_exporters="", names="otlp_grpc"):
    return f"""
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
extensions: {{file_storage: {{directory: "{folder}", create_directory: true, {storage}}}}}
exporters:
  otlp_grpc:
    endpoint: "127.0.0.1:{sink}"
    tls: {{insecure: true}}
    compression: none
    retry_on_failure: {{initial_interval: 50ms, max_interval: 500ms}}
    sending_queue: {{storage: file_storage, num_consumers: {CONSUMERS}, queue_size: 100000, {exporter}}}
{more_exporters}
service:
  extensions: [file_storage]
  pipelines: {{profiles: {{receivers: [otlp], exporters: [{names}]}}}}
"""


class Sender(threading.Thread):
    """Sends one profile after another; `acknowledged` are those for which it got a 200."""

    def __init__(self, port, numbers, stop, **options):
        super().__init__(daemon=True)
        self.port, self.numbers, self.ended, self.options = port, numbers, stop, options
        self.acknowledged, self.refused = [], []

    def run(self):
        connection = None
        while not self.ended.is_set():
            number = next(self.numbers)
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
                connection.request("POST", "/v1development/profiles", profile(number, **self.options).SerializeToString(),
                                   {"content-type": "application/x-protobuf"})
                answer = connection.getresponse()
                answer.read()
                (self.acknowledged if answer.status == 200 else self.refused).append(number)
            except (OSError, http.client.HTTPException):
                connection = None
                time.sleep(0.005)


class Numbers:
    def __init__(self):
        self.value, self.lock = 0, threading.Lock()

    def __next__(self):
        with self.lock:
            self.value += 1
            return self.value


def send(port, number, **options):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=40)
    connection.request("POST", "/v1development/profiles", profile(number, **options).SerializeToString(),
                       {"content-type": "application/x-protobuf"})
    answer = connection.getresponse()
    return answer.status, answer.read()


@pytest.mark.parametrize("kills", [4, pytest.param(KILLS, marks=pytest.mark.slow)])
def test_killed_at_any_moment(binary, tmp_path, otlp_sink, kills):
    """kill -9 under load, again and again: what was acknowledged arrives, by content; twice only what
    was in flight."""
    seed = int(os.environ.get("FLUE_TEST_SEED", time.time()))
    print(f"seed {seed}")
    dice = random.Random(seed)
    port = free_port()
    daemon = Flue(binary, config(port, otlp_sink.port, tmp_path / "queue"), tmp_path / "flue")
    numbers, stop = Numbers(), threading.Event()
    senders = [Sender(port, numbers, stop) for _ in range(3)]
    for s in senders:
        s.start()
    in_flight_bound = 0
    try:
        for kill in range(kills):
            # Now and then the destination is away or slow, so that there is a backlog.
            mood = dice.randrange(4)
            otlp_sink.delay = 0.02 if mood == 1 else 0
            with otlp_sink.lock:
                otlp_sink.answers[:] = [lambda context: context.abort(grpc.StatusCode.UNAVAILABLE, "away")] * (
                    40 if mood == 2 else 0)
            daemon.start()
            before = sum(len(s.acknowledged) for s in senders)
            wait_for(lambda: sum(len(s.acknowledged) for s in senders) > before or daemon.process.poll() is not None, 20)
            time.sleep(dice.uniform(0, 0.15))
            daemon.process.kill()
            daemon.process.wait()
            in_flight_bound += CONSUMERS
        otlp_sink.delay, otlp_sink.answers[:] = 0, []
        daemon.start()
        time.sleep(0.1)
    finally:
        stop.set()
        for s in senders:
            s.join()
    acknowledged = sorted(n for s in senders for n in s.acknowledged)
    daemon.wait_quiet(60)
    daemon.wait_balance()
    got = arrived(otlp_sink)
    missing = [n for n in acknowledged if expected(n) not in got]
    assert not missing, f"{len(missing)} of {len(acknowledged)} acknowledged are missing: {missing[:10]}"
    assert all(key == expected(key[0]) for key in got), "something arrived changed"
    twice = sum(count - 1 for count in got.values())
    print(f"{kills} kills, {len(acknowledged)} acknowledged, {len(got)} arrived, {twice} more than once")
    assert twice <= in_flight_bound, f"{twice} duplicates after {kills} kills with {CONSUMERS} in flight"
    assert daemon.total("otelcol_exporter_dropped_profiles") == 0
    daemon.finish()


def test_recovered_is_in_the_books(flue, tmp_path, otlp_sink):
    """received + recovered at start = sent + dropped + queued + in flight, over a drain and a restart."""
    port, away = free_port(), free_port()
    daemon = flue(config(port, away, tmp_path / "queue") + "  flue: {drain_timeout: 1h}\n")
    for number in range(20):
        assert send(port, number)[0] == 200
    assert daemon.total("otelcol_exporter_received_profiles", exporter="otlp_grpc") == 20
    wait_for(lambda: daemon.total("otelcol_exporter_circuit_state") > 0, what="the circuit to open")
    assert daemon.stop() == 0  # what is on disk is not waited for
    assert "left in the queue on disk" in daemon.log() and "profiles=20" in daemon.log()
    daemon.path.write_text(config(port, otlp_sink.port, tmp_path / "queue"))
    daemon.start()
    assert daemon.total("otelcol_exporter_recovered_profiles", exporter="otlp_grpc") == 20
    for number in range(20, 30):
        assert send(port, number)[0] == 200
    daemon.wait_quiet()
    daemon.wait_balance()
    assert arrived(otlp_sink) == collections.Counter({expected(n): 1 for n in range(30)})
    assert daemon.total("otelcol_exporter_sent_profiles", pipeline="recovered") == 20
    assert daemon.total("otelcol_exporter_sent_profiles", pipeline="profiles") == 10


def test_a_retry_after_a_restart_is_the_same(flue, tmp_path, otlp_sink):
    """Bit for bit, and the newest goes first."""
    port = free_port()
    refused = []

    def refuse(context):
        context.abort(grpc.StatusCode.UNAVAILABLE, "away")

    class Recorder(OtlpSink):
        def Export(self, request, context):
            if not self.taking:
                refused.append(request.SerializeToString(deterministic=True))
                refuse(context)
            return super().Export(request, context)

    with Recorder() as sink:
        sink.taking = False
        daemon = flue(config(port, sink.port, tmp_path / "queue", exporter="").replace(
            f"num_consumers: {CONSUMERS}", "num_consumers: 1"))
        for number in range(10):
            assert send(port, number)[0] == 200
        wait_for(lambda: refused, what="an attempt")
        daemon.process.kill()
        daemon.process.wait()
        sink.taking = True
        daemon.start()
        daemon.wait_quiet()
        with sink.lock:
            taken = [r.SerializeToString(deterministic=True) for r in sink.requests]
        assert set(refused) <= set(taken)
        order = [next(iter(said(r)))[0] for r in sink.requests]
        assert order == list(range(9, -1, -1))


def limited(binary, tmp_path, kilobytes):
    """The daemon with files of at most so many KiB: what a full disk says of one that grows."""
    script = tmp_path / "limited"
    script.write_text(f"#!/bin/bash\ntrap '' XFSZ\nulimit -f {kilobytes}\nexec {binary} \"$@\"\n")
    script.chmod(0o755)
    return script


def test_a_full_disk_is_said_to_the_sender(binary, tmp_path, otlp_sink):
    """No crash, no false acknowledgement, and what was acknowledged arrives."""
    port = free_port()
    daemon = Flue(limited(binary, tmp_path, 2048), config(port, free_port(), tmp_path / "queue"), tmp_path / "flue")
    daemon.start()
    answers = [send(port, number, padding=100_000) for number in range(40)]
    good = [n for n, (status, _) in enumerate(answers) if status == 200]
    bad = [(status, body) for status, body in answers if status != 200]
    assert bad, "40 requests of 200 kB found room in files of 2 MiB"
    for status, body in bad:
        assert status == 503 and b"otlp_grpc" in body, (status, body)
    daemon.wait_balance()
    assert daemon.process.poll() is None
    daemon.stop()
    daemon.path.write_text(config(port, otlp_sink.port, tmp_path / "queue"))
    daemon.command[0] = str(binary)
    daemon.start()
    daemon.wait_quiet()
    assert sorted(key[0] for key in arrived(otlp_sink)) == good
    assert send(port, 1000)[0] == 200
    daemon.finish()


def test_a_folder_that_cannot_be_used_is_said_at_start(binary, tmp_path):
    for folder in ("/proc/flue/queue", str(tmp_path / "c.yaml")):
        (tmp_path / "c.yaml").write_text(config(free_port(), free_port(), folder))
        result = subprocess.run([binary, "run", "--config", tmp_path / "c.yaml"], capture_output=True, text=True, timeout=30)
        assert result.returncode == 1 and folder in result.stderr, result.stderr


def test_storage_is_checked(binary, tmp_path):
    def validate(text):
        (tmp_path / "c.yaml").write_text(text)
        return subprocess.run([binary, "validate", "--config", tmp_path / "c.yaml"], capture_output=True, text=True)

    good = config(4318, 4317, "/var/lib/flue")
    assert validate(good).returncode == 0
    assert "does not run" in validate(good.replace("extensions: [file_storage]", "extensions: []")).stderr
    assert "not defined" in validate(good.replace("storage: file_storage,", "storage: file_storage/x,")).stderr
    assert "wait_for_result" in validate(good.replace("num_consumers", "wait_for_result: true, num_consumers")).stderr
    warned = validate(good.replace("initial_interval: 50ms", "max_elapsed_time: 5m"))
    assert warned.returncode == 0 and "max_elapsed_time" in warned.stderr


def test_one_exporter_overflows_alone(flue, tmp_path, otlp_sink):
    port = free_port()
    more = f"""
  otlp_grpc/away:
    endpoint: "127.0.0.1:{free_port()}"
    tls: {{insecure: true}}
    retry_on_failure: {{initial_interval: 50ms, max_interval: 500ms}}
    sending_queue: {{storage: file_storage, queue_size: 10, num_consumers: 2, on_overflow: drop}}
"""
    daemon = flue(config(port, otlp_sink.port, tmp_path / "queue", more_exporters=more, names="otlp_grpc, otlp_grpc/away"))
    for number in range(40):
        assert send(port, number)[0] == 200
    wait_for(lambda: daemon.total("otelcol_exporter_sent_profiles", exporter="otlp_grpc") == 40)
    wait_for(lambda: daemon.total("otelcol_exporter_dropped_profiles", exporter="otlp_grpc/away", reason="queue_full") == 30)
    assert daemon.total("otelcol_exporter_queue_size", exporter="otlp_grpc/away") == 10
    assert daemon.total("otelcol_exporter_dropped_profiles", exporter="otlp_grpc") == 0
    daemon.wait_balance()


def test_poison_is_set_aside_and_replayed(flue, binary, tmp_path):
    """Of a joined request one profile is refused: the others arrive, that one waits in a folder, and
    comes again when it is told to."""
    port = free_port()

    class Picky(OtlpSink):
        picky = True

        def Export(self, request, context):
            if self.picky and any(key[0] == 7 for key in said(request)):
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "seven is not taken")
            return super().Export(request, context)

    with Picky() as sink:
        daemon = flue(config(port, sink.port, tmp_path / "queue",
                             exporter="batch: {flush_timeout: 500ms, min_size: 20, max_size: 1000}"))
        for number in range(20):
            assert send(port, number, samples=1)[0] == 200
        wait_for(lambda: daemon.total("otelcol_exporter_dropped_profiles") == 1, what="the poison to be found")
        daemon.wait_quiet()
        assert arrived(sink) == collections.Counter({expected(n, 1): 1 for n in range(20) if n != 7})
        folder = tmp_path / "queue" / "dead-letter"
        letter = wait_for(lambda: list(folder.glob("*.json")), what="the letter")[0]
        about = json.loads(letter.read_text())
        assert about["exporter"] == "otlp_grpc" and about["pipeline"] == "profiles"
        assert "seven is not taken" in about["error"] and about["profiles"] == 1
        assert arrived_in(letter.with_suffix(".otlp")) == {expected(7, 1): 1}
        sink.picky = False
        result = subprocess.run([binary, "queue", "replay", folder, "--to", f"http://127.0.0.1:{port}"],
                                capture_output=True, text=True, timeout=30)
        assert result.returncode == 0, result.stderr
        assert "1 sent" in result.stdout
        wait_for(lambda: expected(7, 1) in arrived(sink), what="the replayed profile")
        assert not list(folder.iterdir())


def arrived_in(path):
    request = service.ExportProfilesServiceRequest()
    request.ParseFromString(path.read_bytes())
    return said(request)
