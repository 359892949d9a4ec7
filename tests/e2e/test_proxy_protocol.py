"""The PROXY protocol in front of the listeners: by a real haproxy, and by bytes of our own."""
import shutil
import socket
import struct
import subprocess

import httpx
import pytest

from harness import free_port, listens, wait_for
from test_cdn import places, request_of
from test_otlp import PROTO, export

HAPROXY = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")


@pytest.fixture
def behind(flue, otlp_sink, tmp_path):
    """flue whose CIDR table tells by the attribute cdn.pop which address it took for the sender."""
    networks = tmp_path / "networks.csv"
    networks.write_text("network,cdn_pop\n192.0.2.0/24,SOURCE\n2001:db8::/32,SIX\n127.0.0.2/32,CLIENT\n127.0.0.1/32,BALANCER\n")

    def start(peers):
        grpc_port, http_port = free_port(), free_port()
        proxy = f"proxy_protocol: {{from: [{peers}]}}"
        daemon = flue(f"""
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "127.0.0.1:{grpc_port}", {proxy}}}
      http: {{endpoint: "127.0.0.1:{http_port}", {proxy}}}
processors: {{cdn: {{networks: [{{path: {networks}}}]}}}}
exporters: {{otlp_grpc: {{endpoint: "127.0.0.1:{otlp_sink.port}", tls: {{insecure: true}}, sending_queue: {{enabled: false}}}}}}
service: {{pipelines: {{profiles: {{receivers: [otlp], processors: [cdn], exporters: [otlp_grpc]}}}}}}
""")
        daemon.grpc_port, daemon.http_port, daemon.sink = grpc_port, http_port, otlp_sink
        return daemon

    return start


def last_pop(daemon, before):
    wait_for(lambda: len(daemon.sink.requests) > before, what="the request")
    return places(daemon.sink.requests[-1])[0].get("cdn.pop")


def raw(port, header, cut=None):
    """One upload behind `header`; the answer's first line, empty when closed without one."""
    body = request_of(None).SerializeToString()
    head = (f"POST /v1development/profiles HTTP/1.1\r\nhost: flue\r\ncontent-type: {PROTO['content-type']}\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n").encode()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
        try:
            if cut is not None:
                s.sendall(header[:cut])
                header = header[cut:]
            s.sendall(header + head + body)
            answer = b""
            while piece := s.recv(65536):
                answer += piece
        except ConnectionError:
            answer = b""
    return answer.split(b"\r\n")[0].decode()


def v2(family, addresses, command=0x21, tlvs=b""):
    return b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", command, family, len(addresses + tlvs)) + addresses + tlvs


V2_4 = v2(0x11, socket.inet_aton("192.0.2.7") + socket.inet_aton("10.0.0.1") + struct.pack("!HH", 1234, 443))
V2_6 = v2(0x21, socket.inet_pton(socket.AF_INET6, "2001:db8::7") + bytes(16) + struct.pack("!HH", 1234, 443))


@pytest.mark.parametrize("header,pop", [
    (b"PROXY TCP4 192.0.2.7 10.0.0.1 1234 443\r\n", "SOURCE"),
    (b"PROXY TCP6 2001:db8::7 ::1 1234 443\r\n", "SIX"),
    (b"PROXY UNKNOWN\r\n", "BALANCER"),
    (V2_4, "SOURCE"),
    (V2_6, "SIX"),
    (v2(0, b"", command=0x20), "BALANCER"),
])
def test_source_is_the_sender(behind, header, pop):
    daemon = behind("127.0.0.1")
    for cut in (None, 1, len(header) - 1):
        before = len(daemon.sink.requests)
        assert raw(daemon.http_port, header, cut) == "HTTP/1.1 200 OK"
        assert last_pop(daemon, before) == pop
    assert daemon.total("otelcol_server_connections_refused", reason="proxy_protocol") == 0


def test_missing_or_wrong_is_closed_and_counted(behind):
    daemon = behind("127.0.0.0/8")
    wrong = [b"", b"PROXY TCP4 192.0.2.7 10.0.0.1 1234\r\n", b"PROXY TCP4 192.0.2.7\n", V2_4[:13] + b"\x41" + V2_4[14:]]
    for header in wrong:
        assert raw(daemon.http_port, header) == ""
    assert not daemon.sink.requests
    assert daemon.total("otelcol_server_connections_refused", reason="proxy_protocol") == len(wrong)


def test_others_are_not_believed(behind):
    daemon = behind("192.0.2.1")
    assert raw(daemon.http_port, b"PROXY TCP4 192.0.2.7 10.0.0.1 1234 443\r\n") == "HTTP/1.1 400 Bad Request"
    assert not raw(daemon.http_port, V2_4).startswith("HTTP/1.1 200")
    assert not daemon.sink.requests
    export(daemon.grpc_port, request_of(None).SerializeToString())
    assert last_pop(daemon, 0) == "BALANCER"


@pytest.mark.skipif(not HAPROXY, reason="haproxy is not installed")
@pytest.mark.parametrize("send", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"])
def test_haproxy(behind, tmp_path, send):
    daemon = behind("127.0.0.1")
    grpc_port, http_port = free_port(), free_port()
    path = tmp_path / "haproxy.cfg"
    unique = "unique-id-format %[rand]" if "unique-id" in send else ""
    path.write_text(f"""
defaults
  mode tcp
  timeout connect 5s
  timeout client 20s
  timeout server 20s
listen grpc
  bind 127.0.0.1:{grpc_port}
  {unique}
  server flue 127.0.0.1:{daemon.grpc_port} source 127.0.0.1 {send}
listen http
  bind 127.0.0.1:{http_port}
  {unique}
  server flue 127.0.0.1:{daemon.http_port} source 127.0.0.1 {send}
""")
    process = subprocess.Popen([HAPROXY, "-db", "-f", str(path)], stdin=subprocess.DEVNULL)
    try:
        wait_for(lambda: listens(http_port), what="haproxy")
        body = request_of(None).SerializeToString()
        transport = httpx.HTTPTransport(local_address="127.0.0.2")
        with httpx.Client(transport=transport) as client:
            for _ in range(2):
                before = len(daemon.sink.requests)
                assert client.post(f"http://127.0.0.1:{http_port}/v1development/profiles", content=body,
                                   headers=PROTO).status_code == 200
                assert last_pop(daemon, before) == "CLIENT"
        before = len(daemon.sink.requests)
        export(grpc_port, body)  # HTTP/2: its preface comes behind the header
        assert last_pop(daemon, before) == "BALANCER"  # the client's address is the same here
        assert daemon.total("otelcol_server_connections_refused", reason="proxy_protocol") == 0
    finally:
        process.terminate()
        process.wait(20)
