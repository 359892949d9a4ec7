"""Queues on disk in front of every kind of exporter: killed in the middle, nothing acknowledged is lost,
and what is sent again is what was sent before."""
import collections
import contextlib
import http.server
import json
import re
import socket
import subprocess
import threading
import time

import pytest
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service

from harness import Flue, free_port, wait_for
from test_archive import AWS, bucket, stored  # noqa: F401 (a fixture)
from test_durable import Numbers, Sender, arrived, expected, profile, said
from test_loadbalancing import Sink

KILLS = 4
MOMENT = 1_700_000_000_000_000_000


def config(port, folder, exporter, name):
    return f"""
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
extensions: {{file_storage: {{directory: "{folder}", create_directory: true}}}}
exporters:
  {name}: {{{exporter}}}
service:
  extensions: [file_storage]
  pipelines: {{profiles: {{receivers: [otlp], exporters: [{name}]}}}}
"""


QUEUE = ("sending_queue: {storage: file_storage, num_consumers: 4, queue_size: 100000}, "
         "retry_on_failure: {initial_interval: 50ms, max_interval: 500ms}")


class HttpSink:
    """OTLP/HTTP; keeps every request; every tenth one is told to come again."""

    def __enter__(self):
        sink = self
        self.requests, self.lock, self.count = [], threading.Lock(), 0

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with sink.lock:
                    sink.count += 1
                    away = sink.count % 10 == 0
                    if not away:
                        sink.requests.append(service.ExportProfilesServiceRequest.FromString(body))
                self.send_response(503 if away else 200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def test_a_dead_letter_of_traces_comes_again_as_traces(flue, binary, tmp_path):
    import httpx
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
    port, paths, codes = free_port(), [], [400]
    traces = trace_service_pb2.ExportTraceServiceRequest()
    resource = traces.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "packager"
    span = resource.scope_spans.add().spans.add(name="pack", trace_id=b"t" * 16, span_id=b"s" * 8)
    span.start_time_unix_nano, span.end_time_unix_nano = 1, 2

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_POST(self):
            paths.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(codes[0])
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        text = config(port, tmp_path / "queue", f'endpoint: "http://127.0.0.1:{server.server_address[1]}", '
                      f'compression: none, {QUEUE}', "otlp_http").replace("profiles:", "traces:")
        daemon = flue(text)
        url = f"http://127.0.0.1:{port}/v1/traces"
        assert httpx.post(url, content=traces.SerializeToString(),
                          headers={"content-type": "application/x-protobuf"}).status_code == 200
        folder = tmp_path / "queue" / "dead-letter"
        letter = wait_for(lambda: list(folder.glob("*.json")), what="the letter")[0]
        assert json.loads(letter.read_text())["signal"] == "traces"
        codes[0] = 200
        done = subprocess.run([binary, "queue", "replay", folder, "--to", f"http://127.0.0.1:{port}"],
                              capture_output=True, text=True, timeout=30)
        assert done.returncode == 0 and "1 sent" in done.stdout, done.stderr
        wait_for(lambda: len(paths) == 2, what="the traces again")
        assert {path for path, _ in paths} == {"/v1/traces"}
        assert [trace_service_pb2.ExportTraceServiceRequest.FromString(body) for _, body in paths] == [traces] * 2
        assert not list(folder.iterdir())
        daemon.wait_quiet()
    finally:
        server.shutdown()
        server.server_close()


class Swallower:
    """Between flue and a server: while `mute`, what is asked arrives and no answer comes back."""

    def __init__(self, port):
        self.to, self.mute, self.sockets = port, True, []

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.close()
        for s in self.sockets:
            with contextlib.suppress(OSError):
                s.close()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = socket.create_connection(("127.0.0.1", self.to))
                self.sockets += [client, server]
                threading.Thread(target=self.carry, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self.carry, args=(server, client, True), daemon=True).start()

    def carry(self, source, target, answers):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not (answers and self.mute):
                    target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


def killed_under_load(binary, tmp_path, text, port, work=None, **options):
    """The acknowledged numbers, after KILLS kills -9 and with the queue empty; and the daemon, running.
    Every kill waits until `work` has grown."""
    daemon = Flue(binary, text, tmp_path / "flue", **options)
    numbers, stop = Numbers(), threading.Event()
    senders = [Sender(port, numbers, stop) for _ in range(3)]
    for s in senders:
        s.start()
    try:
        for _ in range(KILLS):
            done = work and work()
            daemon.start()
            before = sum(len(s.acknowledged) for s in senders)
            wait_for(lambda: sum(len(s.acknowledged) for s in senders) > before + 10, 30)
            wait_for(lambda: not work or work() > done, 30, "something to be written")
            daemon.process.kill()
            daemon.process.wait()
        daemon.start()
    finally:
        stop.set()
        for s in senders:
            s.join()
    daemon.wait_quiet(60)
    daemon.wait_balance()
    assert daemon.total("otelcol_exporter_dropped_profiles") == 0, daemon.log()[-4000:]
    return sorted(n for s in senders for n in s.acknowledged), daemon


def check(acknowledged, got, in_flight):
    missing = [n for n in acknowledged if expected(n) not in got]
    assert len(acknowledged) > 10 * KILLS
    assert not missing, f"{len(missing)} of {len(acknowledged)} acknowledged are missing: {missing[:10]}"
    assert all(key == expected(key[0]) for key in got), "something arrived changed"
    # And at each kill one that had just ended: the log's own thread writes that down.
    assert sum(count - 1 for count in got.values()) <= (in_flight + 1) * KILLS


def test_otlp_http(binary, tmp_path):
    port = free_port()
    with HttpSink() as sink:
        text = config(port, tmp_path / "queue",
                      f'endpoint: "http://127.0.0.1:{sink.port}", compression: none, {QUEUE}', "otlp_http")
        acknowledged, daemon = killed_under_load(binary, tmp_path, text, port)
        check(acknowledged, arrived(sink), 4)
        daemon.finish()


def test_loadbalancing(binary, tmp_path):
    port = free_port()
    with contextlib.ExitStack() as stack:
        sinks = [stack.enter_context(Sink(free_port())) for _ in range(3)]
        nodes = ", ".join(f'"127.0.0.1:{s.port}"' for s in sinks)
        text = config(port, tmp_path / "queue",
                      f"routing_key: attributes, routing_attributes: [number], "
                      f"protocol: {{otlp: {{tls: {{insecure: true}}}}}}, "
                      f"resolver: {{static: {{hostnames: [{nodes}]}}}}, {QUEUE}", "loadbalancing")
        acknowledged, daemon = killed_under_load(binary, tmp_path, text, port)
        got = collections.Counter()
        for s in sinks:
            one = arrived(s)
            assert len(one) > len(acknowledged) // 10
            assert not set(one) & set(got)  # a retry goes where the first attempt went
            got.update(one)
        check(acknowledged, got, 4)
        daemon.finish()


@pytest.mark.slow
def test_rolled_up(binary, tmp_path, bucket):
    """Every profile is in one object and in no second one, whatever was killed: between PUT and finishing
    it is written again under its own name, with the same bytes."""
    port = free_port()
    text = config(port, tmp_path / "queue",
                  f"s3uploader: {{region: us-east-1, s3_bucket: bucket, s3_force_path_style: true, "
                  f"endpoint: 'http://127.0.0.1:{bucket.port}'}}, layout: otlp, writer: node-1, "
                  "sending_queue: {storage: file_storage, queue_size: 100000}, rollup: {max_age: 1s}", "awss3")
    acknowledged, daemon = killed_under_load(binary, tmp_path, text, port, environment=AWS,
                                             work=lambda: len(bucket.data()))
    got = collections.Counter()
    for _, body in bucket.data(list(bucket.objects.items())):
        for message in stored(body):
            got.update(said(message))
    check(acknowledged, got, 0)
    written = {}
    for key, body in bucket.data():
        assert written.setdefault(key, body) == body
    daemon.finish()


def guarded(number, at=MOMENT):
    request = profile(number)
    request.resource_profiles[0].scope_profiles[0].profiles[0].time_unix_nano = at
    return request.SerializeToString()


def numbers_of(profiles):
    """{number of the function that every stack has: how many profiles say so}"""
    return collections.Counter(int(re.search(r"function-(\d+)", str(p["samples"])).group(1)) for p in profiles)


@pytest.mark.parametrize("window", ["", "window: {older_than: 1h, outside: restamp}, "])
def test_pyroscope_gets_the_same_again(flue, pyroscope, tmp_path, window):
    """Times that were moved and labels that were guarded stay as they were sent, over a kill -9: the store
    has taken them, its answer was lost, and folds what comes again."""
    import httpx
    port = free_port()
    pyroscope.control(window="0s")
    with Swallower(int(pyroscope.address.rpartition(":")[2])) as between:
        text = config(port, tmp_path / "queue",
                      f'endpoint: "http://127.0.0.1:{between.port}", labels: {{cardinality: {{limit: 5}}}}, {window}'
                      "sending_queue: {storage: file_storage, num_consumers: 30}, timeout: 60s, "
                      "retry_on_failure: {initial_interval: 50ms, max_interval: 500ms}", "pyroscope")
        daemon = flue(text)
        for number in range(20):
            answer = httpx.post(f"http://127.0.0.1:{port}/v1development/profiles", content=guarded(number),
                                headers={"content-type": "application/x-protobuf"})
            assert answer.status_code == 200
        wait_for(lambda: len(pyroscope.profiles()) >= 15, what="pushes whose answer is lost")
        daemon.process.kill()
        daemon.process.wait()
        before = pyroscope.profiles(full=True)
        # What was received before the guard began keeps its label.
        assert 5 <= sum("number" in p["labels"] for p in before) < len(before)
        assert any(p["time_nanos"] != MOMENT for p in before)
        between.mute = False
        time.sleep(0.2)
        daemon.start()
        daemon.wait_quiet()
        daemon.wait_balance()
        state = pyroscope.received(full=True)
        assert numbers_of(state["profiles"]) == {n: 1 for n in range(20)}
        assert state["lost_duplicates"] == len(before)
        assert state["profiles"][:len(before)] == before
        assert daemon.total("otelcol_exporter_dropped_profiles") == 0


@pytest.mark.slow
def test_pyroscope_under_load(binary, pyroscope, tmp_path):
    port = free_port()
    pyroscope.control(window="0s")
    text = config(port, tmp_path / "queue",
                  f'endpoint: "{pyroscope.url}", labels: {{cardinality: {{limit: 20}}}}, {QUEUE}', "pyroscope")
    acknowledged, daemon = killed_under_load(binary, tmp_path, text, port)
    got = numbers_of(pyroscope.profiles(full=True))
    assert not [n for n in acknowledged if n not in got]
    assert set(got.values()) == {1}  # what came twice was folded
    daemon.finish()
