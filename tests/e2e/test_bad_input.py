"""Hostile and broken input: refused in the sender's own protocol, counted, and nobody else notices."""
import gzip
import json
import socket
import zlib

import httpx
import pytest
import zstandard

from harness import GRPC_PATH, ROOT, free_port, wait_for

BODY = (ROOT / "tests/data/otlp/ebpf-v1.11-ascending.otlp").read_bytes()
PROTO = {"content-type": "application/x-protobuf"}


@pytest.fixture
def daemon(flue):
    ports = {"grpc": free_port(), "http": free_port(), "pyroscope": free_port(), "pprof": free_port()}
    started = flue(f"""
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "127.0.0.1:{ports['grpc']}", max_recv_msg_size_mib: 1}}
      http: {{endpoint: "127.0.0.1:{ports['http']}", max_request_body_size: 1048576, read_header_timeout: 500ms}}
  pyroscope: {{endpoint: "127.0.0.1:{ports['pyroscope']}", max_request_body_size: 1048576}}
  pprof: {{server: {{endpoint: "127.0.0.1:{ports['pprof']}", max_request_body_size: 1048576}}}}
exporters: {{nop: {{}}}}
service: {{pipelines: {{profiles: {{receivers: [otlp, pyroscope, pprof], exporters: [nop]}}}}}}
""")
    started.ports = ports
    started.http = f"http://127.0.0.1:{ports['http']}/v1development/profiles"
    yield started
    # Whatever happened: a good request still passes.
    assert httpx.post(started.http, content=BODY, headers=PROTO).status_code == 200


def raw(port, data, timeout=5.0, finish=False):
    """Everything that comes back for these bytes until the server closes or says nothing more."""
    out = b""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as s:
        s.sendall(data)
        if finish:
            s.shutdown(socket.SHUT_WR)
        try:
            while chunk := s.recv(65536):
                out += chunk
                if not finish and b"\r\n\r\n" in out:
                    break
        except (TimeoutError, ConnectionResetError):
            pass
    return out


def head(*lines, path="/v1development/profiles", version="HTTP/1.1"):
    return "\r\n".join((f"POST {path} {version}", "Host: x", "Content-Type: application/x-protobuf", *lines, "", "")).encode()


FORMS = [
    ("two lengths", head("Content-Length: 3", "Content-Length: 4") + b"abcd"),
    ("length with chunked", head("Content-Length: 3", "Transfer-Encoding: chunked") + b"0\r\n\r\n"),
    ("bare LF", b"POST /v1development/profiles HTTP/1.1\nHost: x\n\n"),
    ("space before colon", head("Content-Length : 3") + b"abc"),
    ("folded header", head("X-A: b\r\n c", "Content-Length: 0")),
    ("no host", b"POST /v1development/profiles HTTP/1.1\r\nContent-Length: 0\r\n\r\n"),
    ("other coding", head("Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n"),
    ("chunked twice", head("Transfer-Encoding: chunked, chunked") + b"0\r\n\r\n"),
    ("negative length", head("Content-Length: -1")),
    ("bad chunk size", head("Transfer-Encoding: chunked") + b"xyz\r\n"),
    ("NUL in header", head("X-A: a\0b", "Content-Length: 0")),
]


@pytest.mark.parametrize("name,data", FORMS, ids=[name for name, _ in FORMS])
def test_smuggling_forms(daemon, name, data):
    answer = raw(daemon.ports["http"], data)
    # RFC 9112 6.1: a transfer coding that is not understood is 501; all else is 400.
    status = b"501" if name in ("other coding", "chunked twice") else b"400"
    assert answer.startswith(b"HTTP/1.1 " + status + b" "), (name, answer[:200])
    assert b"connection: close" in answer.lower()


def test_a_megabyte_of_headers(daemon):
    answer = raw(daemon.ports["http"], head(*(f"X-{i}: {'a' * 1000}" for i in range(1000))))
    assert answer.startswith(b"HTTP/1.1 431 "), answer[:200]


def test_one_header_byte_a_second(daemon):
    with socket.create_connection(("127.0.0.1", daemon.ports["http"]), timeout=60) as s:
        s.sendall(b"POST /v1development/profiles HTTP/1.1\r\n")
        answer = s.recv(4096)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 408 ")


def test_a_client_that_stops_in_the_middle(daemon):
    for cut in (1, 100, len(BODY) // 2):
        with socket.create_connection(("127.0.0.1", daemon.ports["http"])) as s:
            s.sendall(head(f"Content-Length: {len(BODY)}") + BODY[:cut])
    wait_for(lambda: daemon.total("otelcol_receiver_accepted_profile_samples") == 0, what="nothing accepted")


def test_bodies_over_the_limit_are_refused_early(daemon):
    answer = raw(daemon.ports["http"], head(f"Content-Length: {64 << 20}"))
    assert answer.startswith(b"HTTP/1.1 413 "), answer[:200]
    assert httpx.post(daemon.http, content=b"\0" * (1 << 20 | 1), headers=PROTO).status_code == 413
    chunked = httpx.post(daemon.http, content=(b"\0" * 65536 for _ in range(17)), headers=PROTO)
    assert chunked.status_code == 413
    assert b"1048576" in chunked.content


@pytest.mark.parametrize("coding,bomb", [
    ("gzip", gzip.compress(b"\0" * (64 << 20))), ("zlib", zlib.compress(b"\0" * (64 << 20))),
    ("zstd", zstandard.compress(b"\0" * (64 << 20)))],
    ids=["gzip", "zlib", "zstd"])
def test_bombs(daemon, coding, bomb):
    answer = httpx.post(daemon.http, content=bomb, headers={**PROTO, "content-encoding": coding})
    assert answer.status_code == 413, answer.text
    assert daemon.total("otelcol_receiver_refused_requests", reason="too_large") >= 1


@pytest.mark.parametrize("method,path,headers,content,status", [
    ("GET", "/v1development/profiles", {}, None, 405),
    ("POST", "/v1/nothing", PROTO, BODY, 404),
    ("POST", "/v1development/profiles", {"content-type": "text/plain"}, BODY, 415),
    ("POST", "/v1development/profiles", {**PROTO, "content-encoding": "br"}, BODY, 415),
    ("POST", "/v1development/profiles", {**PROTO, "content-encoding": "gzip"}, BODY, 400),
    ("POST", "/v1development/profiles", {"content-type": "application/json"}, b"{", 400),
    ("POST", "/v1development/profiles", {"content-type": "application/json; charset=utf-8"}, b"{}", 200),
], ids=["method", "path", "content type", "content encoding", "not gzip", "not json", "charset"])
def test_wrong_requests(daemon, method, path, headers, content, status):
    answer = httpx.request(method, f"http://127.0.0.1:{daemon.ports['http']}{path}", headers=headers, content=content)
    assert answer.status_code == status, answer.text
    if status in (400, 405, 415):
        from google.rpc import status_pb2
        if "json" in headers.get("content-type", ""):
            assert answer.json()["message"]
        else:
            assert status_pb2.Status.FromString(answer.content).message


def test_pyroscope_refusals(daemon):
    base = f"http://127.0.0.1:{daemon.ports['pyroscope']}"
    for form in ("jfr", "speedscope", "tree", "trie"):
        answer = httpx.post(f"{base}/ingest?name=a&format={form}", content=b"x")
        assert answer.status_code == 422 and form in answer.json()["message"], answer.text
    assert httpx.post(f"{base}/ingest?format=pprof", content=b"x").status_code == 400
    assert httpx.get(f"{base}/ingest?name=a").status_code == 405
    assert httpx.post(f"{base}/ingest?name=a&format=pprof", content=b"\x0a\xff").status_code == 422
    push = f"{base}/push.v1.PusherService/Push"
    answer = httpx.post(push, content=b"", headers={"content-type": "application/proto"})
    assert answer.status_code == 400 and answer.json()["code"] == "invalid_argument"
    answer = httpx.post(push, content=b"\xff", headers={"content-type": "application/proto"})
    assert answer.status_code == 400 and answer.json()["code"] == "invalid_argument"
    assert httpx.post(push, content=b"", headers={"content-type": "text/plain"}).status_code == 415
    answer = httpx.post(push, content=b"x", headers={"content-type": "application/proto", "content-encoding": "br"})
    assert answer.json()["code"] == "unimplemented"


def test_pprof_refusals(daemon):
    url = f"http://127.0.0.1:{daemon.ports['pprof']}/v1/pprof"
    assert httpx.post(url, content=b"").status_code == 400
    assert httpx.post(url, content=b"not a profile").status_code == 400
    assert httpx.get(url).status_code == 405


def test_a_length_prefix_of_4_gib(daemon):
    with httpx.Client(http1=False, http2=True) as client:
        answer = client.post(f"http://127.0.0.1:{daemon.ports['grpc']}{GRPC_PATH}", content=b"\0\xff\xff\xff\xff" + b"x" * 100,
                             headers={"content-type": "application/grpc", "te": "trailers"})
    assert answer.headers.get("grpc-status") == "8", answer.headers
