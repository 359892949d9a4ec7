"""Destinations that are slow, cut, wrong or away: nothing is lost, the others do not notice, memory
stays where it is, and what comes back gets everything."""
import contextlib
import http.server
import socket
import ssl
import subprocess
import threading
import time

import httpx
import pytest
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service

from harness import BIN, OtlpSink, free_port, listens, wait_for
from test_durable import arrived, expected, send

RETRY = "retry_on_failure: {initial_interval: 50ms, max_interval: 400ms}"
REQUESTS = 60


def config(port, good, bad, folder, kind="otlp_grpc", tls="{insecure: true}", timeout="1s"):
    endpoint = f"http://127.0.0.1:{bad}" if kind == "otlp_http" and isinstance(bad, int) else f"127.0.0.1:{bad}" if isinstance(bad, int) else bad
    return f"""
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
extensions: {{file_storage: {{directory: "{folder}", create_directory: true}}}}
exporters:
  otlp_grpc/good: {{endpoint: "127.0.0.1:{good}", tls: {{insecure: true}}, sending_queue: {{storage: file_storage}}}}
  {kind}/bad:
    endpoint: "{endpoint}"
    tls: {tls}
    compression: none
    timeout: {timeout}
    {RETRY}
    sending_queue: {{storage: file_storage, num_consumers: 4}}
service:
  extensions: [file_storage]
  pipelines: {{profiles: {{receivers: [otlp], exporters: [otlp_grpc/good, {kind}/bad]}}}}
"""


def fill(daemon, port, sink, kind, first=0, **options):
    """Everybody is acknowledged, the good destination has it all, the bad one still owes it."""
    for number in range(first, first + REQUESTS):
        assert send(port, number, **options)[0] == 200
    wait_for(lambda: daemon.total("otelcol_exporter_sent_profiles", exporter="otlp_grpc/good") == first + REQUESTS)
    assert all(arrived(sink)[expected(n)] == 1 for n in range(first, first + REQUESTS))
    assert daemon.total("otelcol_exporter_dropped_profiles", exporter=f"{kind}/bad") == 0


def all_of(sink, count=REQUESTS):
    got = arrived(sink)
    return all(expected(n) in got for n in range(count)) and len(got) == count


@contextlib.contextmanager
def speaker(answer):
    """A TCP server that reads what comes and says `answer`, or resets when it is None."""
    server = socket.create_server(("127.0.0.1", 0))
    connections = []
    stop = threading.Event()

    def serve():
        while not stop.is_set():
            try:
                connection, _ = server.accept()
            except OSError:
                return
            connections.append(connection)
            if answer is None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                connection.close()
                continue
            with contextlib.suppress(OSError):
                connection.settimeout(0.2)
                connection.recv(65536)
                connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        stop.set()
        server.close()
        for connection in connections:
            connection.close()


@pytest.mark.parametrize("answer", [None, b"HTTP/1.1 999 what\r\n\r\n", b"\x00\xff" * 400, b"SSH-2.0-x\r\n", b""],
                         ids=["resets", "status", "garbage", "other protocol", "silent"])
def test_a_destination_that_talks_nonsense(flue, tmp_path, otlp_sink, port, answer):
    with speaker(answer) as bad:
        daemon = flue(config(port, otlp_sink.port, bad, tmp_path / "q"))
        fill(daemon, port, otlp_sink, "otlp_grpc")
        wait_for(lambda: daemon.total("otelcol_exporter_circuit_opened", exporter="otlp_grpc/bad") >= 1)
        assert daemon.total("otelcol_exporter_circuit_opened", exporter="otlp_grpc/good") == 0
        daemon.wait_balance()
        daemon.stop()
    with OtlpSink() as healed:
        daemon.path.write_text(config(port, otlp_sink.port, healed.port, tmp_path / "q"))
        daemon.start()
        wait_for(lambda: all_of(healed), what="everything, after it was healed")
        daemon.wait_quiet()


class OkWithError(http.server.BaseHTTPRequestHandler):
    body, content = b"<html>please log in</html>", "text/html"
    protocol_version = "HTTP/1.1"
    asked = 0

    def do_POST(self):
        type(self).asked += 1
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", self.content)
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def web(handler, context=None):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


class Busy(OkWithError):
    """An OTLP server that answers `status` while `full`."""
    full, status, asked, requests = True, 429, 0, []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        type(self).asked += 1
        if not self.full:
            type(self).requests.append(service.ExportProfilesServiceRequest.FromString(body))
        self.send_response(self.status if self.full else 200)
        self.send_header("content-length", "0")
        self.send_header("content-type", "application/x-protobuf")
        self.end_headers()


@pytest.mark.parametrize("status", [429, 503])
def test_a_destination_that_never_takes(flue, tmp_path, otlp_sink, port, status):
    """429 for ever, or 503 for ever: asked less and less, and all of it once it takes."""
    bad = type("Bad", (Busy,), {"status": status, "requests": [], "lock": threading.Lock()})
    with web(bad) as address:
        daemon = flue(config(port, otlp_sink.port, address, tmp_path / "q", kind="otlp_http"))
        fill(daemon, port, otlp_sink, "otlp_http")
        time.sleep(1)
        asked = bad.asked
        time.sleep(2)
        # Four places with 200 to 600 ms between, or one probe.
        assert bad.asked - asked <= (45 if status == 429 else 15)
        bad.full = False
        wait_for(lambda: all_of(bad))
        daemon.wait_quiet()


def test_a_200_with_a_partial_success_is_counted(flue, tmp_path, otlp_sink, port):
    """200 with an error in its body: what it says was rejected is dropped and counted, not repeated."""
    answer = service.ExportProfilesServiceResponse()
    answer.partial_success.rejected_profiles = 1
    answer.partial_success.error_message = "not this one"

    class Partial(OkWithError):
        body, content = answer.SerializeToString(), "application/x-protobuf"

    with web(Partial) as bad:
        daemon = flue(config(port, otlp_sink.port, bad, tmp_path / "q", kind="otlp_http"))
        for number in range(10):
            assert send(port, number)[0] == 200
        daemon.wait_quiet()
        assert daemon.total("otelcol_exporter_dropped_profiles", exporter="otlp_http/bad", reason="rejected") == 10
        assert Partial.asked == 10
        daemon.wait_balance()


def expired_certificate(folder):
    """One for 127.0.0.1 that ended years ago; only `openssl ca` lets its dates be told."""
    folder.mkdir()
    (folder / "index").write_text("")
    (folder / "serial").write_text("01\n")
    (folder / "ca").write_text(f"""[ca]
default_ca = this
[this]
database = {folder}/index
serial = {folder}/serial
new_certs_dir = {folder}
default_md = sha256
policy = any
copy_extensions = copy
[any]
commonName = supplied
""")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "key", "-out", "csr", "-subj", "/CN=127.0.0.1",
            "-addext", "subjectAltName=IP:127.0.0.1")
    openssl("ca", "-batch", "-notext", "-selfsign", "-config", "ca", "-in", "csr", "-keyfile", "key", "-out", "pem",
            "-startdate", "20200101000000Z", "-enddate", "20210101000000Z")
    return folder / "key", folder / "pem"


def test_an_expired_certificate(flue, tmp_path, otlp_sink, port):
    key, pem = expired_certificate(tmp_path / "tls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    with web(OkWithError, context) as bad:
        daemon = flue(config(port, otlp_sink.port, f"https://127.0.0.1:{bad}", tmp_path / "q", kind="otlp_http",
                             tls=f'{{ca_file: "{pem}"}}'))
        fill(daemon, port, otlp_sink, "otlp_http")
        wait_for(lambda: "expired" in daemon.log(), what="the reason in the log")
        assert daemon.total("otelcol_exporter_queued_profiles", exporter="otlp_http/bad") + \
            daemon.total("otelcol_exporter_in_flight_profiles", exporter="otlp_http/bad") == REQUESTS
        daemon.wait_balance()


def test_a_name_that_is_gone(flue, tmp_path, otlp_sink, port):
    daemon = flue(config(port, otlp_sink.port, "gone.invalid:4317", tmp_path / "q"))
    fill(daemon, port, otlp_sink, "otlp_grpc")
    assert daemon.total("otelcol_exporter_queued_profiles", exporter="otlp_grpc/bad") + \
        daemon.total("otelcol_exporter_in_flight_profiles", exporter="otlp_grpc/bad") == REQUESTS
    daemon.wait_balance()


@pytest.fixture
def toxiproxy():
    """A proxy whose connections are made bad."""
    if not (BIN / "toxiproxy").exists():
        pytest.skip("toxiproxy is not built")
    control = free_port()
    process = subprocess.Popen([BIN / "toxiproxy", "-host", "127.0.0.1", "-port", str(control)],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: listens(control))

    class Proxy:
        def __init__(self):
            self.url = f"http://127.0.0.1:{control}/proxies"

        def open(self, upstream):
            self.port = free_port()
            httpx.post(self.url, json={"name": "x", "listen": f"127.0.0.1:{self.port}", "enabled": True,
                                       "upstream": f"127.0.0.1:{upstream}"}).raise_for_status()
            return self.port

        def add(self, kind, stream="upstream", **attributes):
            httpx.post(f"{self.url}/x/toxics", json={"name": kind, "type": kind, "stream": stream,
                                                     "attributes": attributes}).raise_for_status()

        def remove(self, kind):
            httpx.delete(f"{self.url}/x/toxics/{kind}").raise_for_status()

    yield Proxy()
    process.terminate()
    process.wait(10)


@pytest.mark.parametrize("toxic", ["slicer", "reset_peer", "timeout", "latency"])
def test_a_network_that_is_bad(flue, tmp_path, otlp_sink, port, toxiproxy, toxic):
    """1 byte a second, resets, silence, seconds of delay: by a proxy that does it to real connections."""
    attributes = {"slicer": {"average_size": 1, "size_variation": 0, "delay": 1_000_000}, "reset_peer": {"timeout": 20},
                  "timeout": {"timeout": 0}, "latency": {"latency": 3000}}[toxic]
    with OtlpSink() as far:
        bad = toxiproxy.open(far.port)
        toxiproxy.add(toxic, **attributes)
        daemon = flue(config(port, otlp_sink.port, bad, tmp_path / "q"))
        fill(daemon, port, otlp_sink, "otlp_grpc")
        wait_for(lambda: daemon.total("otelcol_exporter_circuit_opened", exporter="otlp_grpc/bad") >= 1, 30)
        toxiproxy.remove(toxic)
        wait_for(lambda: all_of(far), 40, "everything, after it was healed")
        daemon.wait_quiet(40)
        daemon.wait_balance()


@pytest.mark.resident
@pytest.mark.slow
def test_memory_stays_while_the_disk_fills(flue, tmp_path, otlp_sink, port):
    """60 MB for a destination that is away, with a limit of 48 MiB: on disk, not in memory."""
    text = config(port, otlp_sink.port, free_port(), tmp_path / "q") + "  flue: {memory: {limit_mib: 48}}\n"
    daemon = flue(text)
    for number in range(300):
        assert send(port, number, padding=100_000)[0] == 200
    assert daemon.total("otelcol_exporter_queue_held_bytes", exporter="otlp_grpc/bad") <= 6 << 20
    with open(f"/proc/{daemon.process.pid}/status") as status:
        resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    assert resident < 64 << 10, f"{resident} KiB"
    wait_for(lambda: daemon.total("otelcol_exporter_sent_profiles", exporter="otlp_grpc/good") == 300)
    daemon.wait_balance()
