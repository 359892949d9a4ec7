"""What stands between flue and its neighbours: certificates both ways, proxies, addresses, too many connections."""
import http.server
import os
import resource
import socket
import stat
import subprocess
import threading

import grpc
import httpx
import pytest

from harness import Flue, free_port, wait_for
from test_otlp import BODIES, PROTO, export

BODY = BODIES[0].read_bytes()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """ca.pem; server.pem, client.pem and their keys, signed by it; stranger.pem signed by itself."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    for name in ("ca", "stranger"):
        openssl("req", "-x509", *key, "-subj", f"/CN={name}", "-days", "2", "-keyout", f"{name}.key", "-out", f"{name}.pem")
    for name in ("server", "client"):
        openssl("req", *key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (folder / "ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
                "-extfile", "ext", "-out", f"{name}.pem")
    return folder


def hop(port, exporter, block):
    return f"""
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{port}"}}}}}}
exporters:
  {exporter}: {{{block}, sending_queue: {{enabled: false}}, retry_on_failure: {{enabled: false}}}}
service:
  pipelines:
    profiles: {{receivers: [otlp], exporters: [{exporter}]}}
"""


@pytest.mark.parametrize("transport", ["grpc", "http/1", "http/2"])
def test_client_certificates(flue, otlp_sink, authority, transport):
    ports = free_port(), free_port()
    tls = f"{{cert_file: {authority}/server.pem, key_file: {authority}/server.key, client_ca_file: {authority}/ca.pem}}"
    flue(f"""
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{ports[0]}", tls: {tls}}},
                       http: {{endpoint: "127.0.0.1:{ports[1]}", tls: {tls}}}}}}}
exporters:
  otlp_grpc: {{endpoint: "127.0.0.1:{otlp_sink.port}", tls: {{insecure: true}}, sending_queue: {{enabled: false}}}}
service:
  pipelines:
    profiles: {{receivers: [otlp], exporters: [otlp_grpc]}}
""")

    def send(own):
        port = free_port()
        certificate = f", cert_file: {authority}/{own}.pem, key_file: {authority}/{own}.key" if own else ""
        tls_block = f"tls: {{ca_file: {authority}/ca.pem{certificate}}}"
        if transport == "grpc":
            flue(hop(port, "otlp_grpc", f'endpoint: "127.0.0.1:{ports[0]}", {tls_block}'))
        else:
            two = str(transport == "http/2").lower()
            flue(hop(port, "otlp_http", f'endpoint: "https://127.0.0.1:{ports[1]}", force_attempt_http2: {two}, {tls_block}'))
        export(port, BODY)

    send("client")
    assert len(otlp_sink.requests) == 1
    for stranger in (None, "stranger"):
        with pytest.raises(grpc.RpcError) as failure:
            send(stranger)
        assert failure.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "deadline" not in failure.value.details(), "refused, not waited for"
    assert len(otlp_sink.requests) == 1


class Proxy(http.server.ThreadingHTTPServer):
    """Forwards requests with an absolute URL, and tunnels CONNECT; remembers what it was asked."""
    daemon_threads = True

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            self.server.asked.append(("POST", self.path))
            headers = {k: v for k, v in self.headers.items() if k.lower() not in ("proxy-connection", "host", "content-length")}
            answer = httpx.post(self.path, content=body, headers=headers)
            self.send_response(answer.status_code)
            self.send_header("content-length", str(len(answer.content)))
            self.send_header("content-type", answer.headers["content-type"])
            self.end_headers()
            self.wfile.write(answer.content)

        def do_CONNECT(self):
            self.server.asked.append(("CONNECT", self.path))
            host, port = self.path.rsplit(":", 1)
            there = socket.create_connection((host, int(port)))
            self.send_response(200)
            self.end_headers()

            def pump(a, b):
                while data := a.recv(65536):
                    b.sendall(data)
                b.close()
            back = threading.Thread(target=pump, args=(there, self.connection), daemon=True)
            back.start()
            try:
                pump(self.connection, there)
            except OSError:
                pass

        def log_message(self, *_):
            pass


@pytest.fixture
def proxy():
    server = Proxy(("127.0.0.1", 0), Proxy.Handler)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_proxy(flue, otlp_sink, proxy, authority, scheme):
    next_port, port = free_port(), free_port()
    tls = f", tls: {{cert_file: {authority}/server.pem, key_file: {authority}/server.key}}" if scheme == "https" else ""
    flue(f"""
receivers:
  otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{next_port}"{tls}}}}}}}
exporters:
  otlp_grpc: {{endpoint: "127.0.0.1:{otlp_sink.port}", tls: {{insecure: true}}, sending_queue: {{enabled: false}}}}
service:
  pipelines:
    profiles: {{receivers: [otlp], exporters: [otlp_grpc]}}
""")
    flue(hop(port, "otlp_http", f'endpoint: "{scheme}://127.0.0.1:{next_port}", tls: {{ca_file: {authority}/ca.pem}}, '
                                f'proxy_url: "http://127.0.0.1:{proxy.server_address[1]}"'))
    export(port, BODY)
    export(port, BODY)
    assert len(otlp_sink.requests) == 2
    if scheme == "http":
        assert proxy.asked == [("POST", f"http://127.0.0.1:{next_port}/v1development/profiles")] * 2
    else:
        assert set(proxy.asked) == {("CONNECT", f"127.0.0.1:{next_port}")}, "a tunnel for each loop at most"


def test_a_proxy_that_is_not_there_is_said(flue):
    port, dead = free_port(), free_port()
    flue(hop(port, "otlp_http", f'endpoint: "http://127.0.0.1:{free_port()}", proxy_url: "http://127.0.0.1:{dead}"'))
    with pytest.raises(grpc.RpcError) as failure:
        export(port, BODY)
    assert failure.value.code() == grpc.StatusCode.UNAVAILABLE


def listening(port, host="127.0.0.1"):
    return f"""
receivers:
  otlp: {{protocols: {{http: {{endpoint: "{host}:{port}"}}}}}}
exporters:
  nop:
service:
  pipelines:
    profiles: {{receivers: [otlp], exporters: [nop]}}
"""


def post(port, host="127.0.0.1", timeout=5):
    return httpx.post(f"http://{host}:{port}/v1development/profiles", content=BODY, headers=PROTO, timeout=timeout)


def test_every_address_of_both_families(flue):
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    port = free_port()
    flue(listening(port, "[::]"))
    assert post(port, "[::1]").status_code == 200
    assert post(port).status_code == 200, "[::] takes IPv4 too"


def limited(binary, tmp_path, files):
    """The daemon with so many file descriptors."""
    script = tmp_path / f"limited-{files}"
    script.write_text(f'#!/bin/sh\nulimit -n {files}\nexec "{binary}" "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script


def refused(daemon, reason):
    return daemon.total("otelcol_server_connections_refused", reason=reason)


def test_too_many_connections_are_closed_and_counted(binary, tmp_path):
    port = free_port()
    daemon = Flue(limited(binary, tmp_path, 400), listening(port), tmp_path / "flue")
    daemon.start()
    try:
        crowd = [socket.create_connection(("127.0.0.1", port)) for _ in range(260)]
        wait_for(lambda: refused(daemon, "connection_limit") >= 40, what="the limit of 200")
        assert daemon.total("otelcol_server_connections_open") <= 200 + 1
        for one in crowd:
            one.close()
        wait_for(lambda: daemon.total("otelcol_server_connections_open") < 5, what="the crowd to go")
        assert post(port).status_code == 200
    finally:
        daemon.finish()


def test_no_descriptors_left(binary, tmp_path):
    """accept() fails: it is tried again when there is room, and no core spins meanwhile."""
    port = free_port()
    daemon = Flue(binary, listening(port), tmp_path / "flue")
    daemon.start()
    room = len(os.listdir(f"/proc/{daemon.process.pid}/fd")) + 20
    resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (room, room))
    page = socket.create_connection(("127.0.0.1", daemon.metrics_port))  # kept, so that it can be asked
    page.settimeout(10)

    def metrics():
        page.sendall(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
        text = b""
        while b"\r\n\r\n" not in text:
            text += page.recv(65536)
        head, _, body = text.partition(b"\r\n\r\n")
        length = int(next(line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")))
        while len(body) < length:
            body += page.recv(65536)
        return body.decode()

    def failed():
        return sum(float(line.rsplit(" ", 1)[1]) for line in metrics().splitlines()
                   if "server_connections_refused" in line and 'reason="accept_failed"' in line)

    try:
        crowd = [socket.create_connection(("127.0.0.1", port)) for _ in range(60)]
        wait_for(lambda: failed() > 0, what="accept to fail")

        def ticks():
            fields = open(f"/proc/{daemon.process.pid}/stat").read().rsplit(")", 1)[1].split()
            return int(fields[11]) + int(fields[12])
        before = ticks()
        threading.Event().wait(1)
        assert ticks() - before < 50, "half a core is spent on waiting"
        for one in crowd:
            one.close()
        wait_for(lambda: post(port).status_code == 200, what="an answer")
    finally:
        page.close()
        daemon.finish()
