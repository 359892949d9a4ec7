"""basicauth and bearertokenauth: who may send to a receiver, and who an exporter says it is."""
import base64
import concurrent.futures
import contextlib
import os
import subprocess

import grpc
import httpx
import pytest

from harness import free_port, wait_for
from test_otlp import BODIES, PROTO, export

BODY = BODIES[0].read_bytes()


def hashed(password, method):
    """What htpasswd(1) would write."""
    if method == "bcrypt":
        import ctypes
        library = ctypes.CDLL("libcrypt.so.1")
        library.crypt.restype = ctypes.c_char_p
        return library.crypt(password.encode(), b"$2y$06$abcdefghijklmnopqrstuu").decode()
    if method == "sha":
        import hashlib
        return "{SHA}" + base64.b64encode(hashlib.sha1(password.encode()).digest()).decode()
    if method == "apr1":
        return subprocess.run(["openssl", "passwd", "-apr1", "-salt", "saltsalt", password],
                              check=True, capture_output=True, text=True).stdout.strip()
    if method == "sha512":
        return subprocess.run(["openssl", "passwd", "-6", "-salt", "saltsalt", password],
                              check=True, capture_output=True, text=True).stdout.strip()
    return password


def receivers(extensions, auth, ports, out):
    return f"""
extensions:
{extensions}
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "127.0.0.1:{ports[0]}", auth: {{authenticator: {auth}}}, include_metadata: true}}
      http: {{endpoint: "127.0.0.1:{ports[1]}", auth: {{authenticator: {auth}}}, include_metadata: true,
              cors: {{allowed_origins: ["*"]}}}}
  pyroscope: {{endpoint: "127.0.0.1:{ports[2]}", auth: {{authenticator: {auth}}}}}
  pprof: {{server: {{endpoint: "127.0.0.1:{ports[3]}", auth: {{authenticator: {auth}}}}}}}
exporters:
  otlp_grpc: {{endpoint: "127.0.0.1:{out}", tls: {{insecure: true}}, sending_queue: {{enabled: false}}}}
service:
  extensions: [{auth}]
  pipelines:
    profiles: {{receivers: [otlp, pyroscope, pprof], exporters: [otlp_grpc]}}
"""


@pytest.fixture
def guarded(flue, otlp_sink):
    def start(extensions, auth):
        ports = [free_port() for _ in range(4)]
        return flue(receivers(extensions, auth, ports, otlp_sink.port)), ports
    return start


def post(port, credentials=None, body=BODY, header="authorization", **more):
    headers = {**PROTO, **({header: credentials} if credentials else {}), **more}
    return httpx.post(f"http://127.0.0.1:{port}/v1development/profiles", content=body, headers=headers)


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize("method", ["plain", "sha", "apr1", "bcrypt", "sha512"])
def test_basic(guarded, otlp_sink, method):
    people = f"        # people\n        ada:{hashed('a:b', method).replace('$', '$$')}\n        bob:{hashed('other', 'sha')}"
    daemon, ports = guarded(f"  basicauth:\n    htpasswd:\n      inline: |\n{people}", "basicauth")
    challenge = 'Basic realm="flue", charset="UTF-8"'
    for _ in range(2):
        assert post(ports[1], basic("ada", "a:b")).status_code == 200
        export(ports[0], BODY, metadata=(("authorization", basic("ada", "a:b")),))
    assert post(ports[1], basic("bob", "other")).status_code == 200
    taken = len(otlp_sink.requests)
    assert taken == 5
    from google.rpc import status_pb2
    for wrong in (None, basic("ada", "b"), basic("ada", ""), basic("eve", "a:b"), basic("bob", "a:b"), "Basic !!!",
                  "Basic " + base64.b64encode(b"ada").decode(), "Bearer a:b", "basic", "Basic " + "A" * 5000):
        answer = post(ports[1], wrong)
        assert answer.status_code == 401, wrong
        assert answer.headers["www-authenticate"] == challenge
        assert answer.headers["content-type"] == "application/x-protobuf"
        status = status_pb2.Status.FromString(answer.content)
        assert status.code == 16 and status.message
        with pytest.raises(grpc.RpcError) as failure:
            export(ports[0], BODY, metadata=(("authorization", wrong),) if wrong else ())
        assert failure.value.code() == grpc.StatusCode.UNAUTHENTICATED
    push = f"http://127.0.0.1:{ports[2]}/push.v1.PusherService/Push"
    answer = httpx.post(push, content=b"{}", headers={"content-type": "application/json"})
    assert answer.status_code == 401 and answer.json()["code"] == "unauthenticated"
    assert answer.headers["www-authenticate"] == challenge
    assert httpx.post(f"http://127.0.0.1:{ports[2]}/ingest", content=b"x").status_code == 401
    assert httpx.post(f"http://127.0.0.1:{ports[3]}/v1/pprof", content=b"x").status_code == 401
    assert len(otlp_sink.requests) == taken, "nothing of a stranger is passed on"
    secret = basic("ada", "a:b")
    assert secret not in daemon.log() and "a:b" not in daemon.log().split("draining")[0]


def test_the_path_is_looked_for_first_and_a_preflight_passes(guarded):
    _, ports = guarded("  basicauth: {htpasswd: {inline: 'ada:x'}}", "basicauth")
    url = f"http://127.0.0.1:{ports[1]}"
    assert httpx.get(url + "/nothing").status_code == 404
    preflight = httpx.options(url + "/v1development/profiles", headers={
        "origin": "http://page", "access-control-request-method": "POST"})
    assert preflight.status_code == 204


def test_bcrypt_is_compared_once_and_large_bodies_wait(guarded, otlp_sink):
    """Many requests at a time with a hash that takes long, bodies of several MB behind the headers."""
    _, ports = guarded(f"  basicauth:\n    htpasswd:\n      inline: |\n        ada:{hashed('pw', 'bcrypt').replace('$', '$$')}", "basicauth")
    assert post(ports[1], basic("ada", "pw")).status_code == 200
    padding = b"\xfa\x3f" + bytes([0x80 | (3 << 20) & 0x7f, 0x80 | (3 << 20) >> 7 & 0x7f, 0x80 | (3 << 20) >> 14 & 0x7f,
                                   (3 << 20) >> 21]) + bytes(3 << 20)  # an unknown field of 3 MB
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        good = [pool.submit(post, ports[1], basic("ada", "pw"), BODY + padding) for _ in range(12)]
        bad = [pool.submit(post, ports[1], basic("ada", f"pw{i}"), BODY + padding) for i in range(12)]
    assert {g.result().status_code for g in good} == {200}
    assert {b.result().status_code for b in bad} <= {401, 503}
    assert 401 in {b.result().status_code for b in bad}
    assert len(otlp_sink.requests) == 13
    with httpx.Client(http1=False, http2=True) as client:
        for password, status, body in (("wrong", 401, BODY), ("pw", 200, BODY + padding)):
            for _ in range(100):
                # A refusal may come, with the end of its stream, before this client has sent its body (RFC 9113, 8.1),
                # of which it makes an error of its own.
                with contextlib.suppress(httpx.LocalProtocolError):
                    answer = client.post(f"http://127.0.0.1:{ports[1]}/v1development/profiles", content=body,
                                         headers={**PROTO, "authorization": basic("ada", password)})
                    break
            assert (answer.http_version, answer.status_code) == ("HTTP/2", status)


def test_a_client_that_leaves_while_it_is_looked_at(guarded):
    import socket
    daemon, ports = guarded(f"  basicauth:\n    htpasswd:\n      inline: |\n        ada:{hashed('pw', 'bcrypt').replace('$', '$$')}", "basicauth")
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", ports[1])) as leaver:
            leaver.sendall(f"POST /v1development/profiles HTTP/1.1\r\nhost: x\r\nauthorization: {basic('ada', 'no')}\r\n"
                           f"content-type: application/x-protobuf\r\ncontent-length: {len(BODY)}\r\n\r\n".encode() + BODY)
    wait_for(lambda: post(ports[1], basic("ada", "pw")).status_code == 200, what="an answer")
    assert daemon.process.poll() is None


def test_the_file_is_read_again(guarded, tmp_path):
    users = tmp_path / "htpasswd"
    users.write_text("ada:old\n")
    daemon, ports = guarded(f"  basicauth: {{htpasswd: {{file: '{users}', inline: 'bob:kept'}}}}", "basicauth")
    assert post(ports[1], basic("ada", "old")).status_code == 200
    fresh = tmp_path / "fresh"
    fresh.write_text("ada:new\nbob:file\n")
    os.replace(fresh, users)
    wait_for(lambda: post(ports[1], basic("ada", "new")).status_code == 200, 15, "the new password")
    assert post(ports[1], basic("ada", "old")).status_code == 401
    assert post(ports[1], basic("bob", "kept")).status_code == 200, "inline wins"
    users.write_text("no colon\n")
    wait_for(lambda: "read a file again" in daemon.log(), 15, "the complaint")
    assert post(ports[1], basic("ada", "new")).status_code == 200, "a broken file changes nothing"


def test_bearer(guarded, otlp_sink, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("first\n\n second \n")
    _, ports = guarded(f"  bearertokenauth/edge: {{filename: '{tokens}'}}", "bearertokenauth/edge")
    assert post(ports[1], "Bearer first").status_code == 200
    export(ports[0], BODY, metadata=(("authorization", "Bearer second"),))
    for wrong in (None, "Bearer third", "first", "Bearer first2", "bearer first"):
        answer = post(ports[1], wrong)
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    tokens.write_text("third\n")
    wait_for(lambda: post(ports[1], "Bearer third").status_code == 200, 15, "the new token")
    assert post(ports[1], "Bearer first").status_code == 401


def test_bearer_in_a_header_of_its_own(guarded, otlp_sink):
    _, ports = guarded("  bearertokenauth: {header: X-Api-Key, scheme: '', tokens: [k1, k2]}", "bearertokenauth")
    assert post(ports[1], "k2", header="x-api-key").status_code == 200
    assert post(ports[1], "k2").status_code == 401
    assert post(ports[1], "k3", header="x-api-key").status_code == 401


@pytest.mark.parametrize("exporter", ["otlp_grpc", "otlp_http/1", "otlp_http/2", "loadbalancing"])
@pytest.mark.parametrize("scheme", ["basic", "bearer"])
def test_one_flue_to_the_next(flue, otlp_sink, tmp_path, exporter, scheme):
    """Client and server side speak to each other; what a file says later is sent later."""
    ports = [free_port() for _ in range(4)]
    secret = tmp_path / "secret"
    secret.write_text("pass:word\n")
    if scheme == "basic":
        guard, auth = "  basicauth: {htpasswd: {inline: 'ada:pass:word'}}", "basicauth"
        client = f"  basicauth/client: {{client_auth: {{username: ada, password_file: '{secret}'}}}}"
    else:
        guard, auth = "  bearertokenauth: {token: 'pass:word'}", "bearertokenauth"
        client = f"  bearertokenauth/client: {{filename: '{secret}'}}"
    flue(receivers(guard, auth, ports, otlp_sink.port))
    port = free_port()
    to = {"otlp_grpc": f"{{endpoint: '127.0.0.1:{ports[0]}', tls: {{insecure: true}}, AUTH}}",
          "otlp_http/1": f"{{endpoint: 'http://127.0.0.1:{ports[1]}', force_attempt_http2: false, AUTH}}",
          "otlp_http/2": f"{{endpoint: 'http://127.0.0.1:{ports[1]}', AUTH}}",
          "loadbalancing": f"{{resolver: {{static: {{hostnames: ['127.0.0.1:{ports[0]}']}}}}, "
                           "protocol: {otlp: {tls: {insecure: true}, AUTH}}, EXTRA}"}[exporter]
    extra = "sending_queue: {enabled: false}, retry_on_failure: {enabled: false}"
    block = f"auth: {{authenticator: {auth}/client}}" + ("" if exporter == "loadbalancing" else f", {extra}")
    flue(f"""
extensions:
{client}
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{port}"}}}}}}
exporters:
  {exporter}: {to.replace("AUTH", block).replace("EXTRA", extra)}
service:
  extensions: [{auth}/client]
  pipelines:
    profiles: {{receivers: [otlp], exporters: [{exporter}]}}
""")
    export(port, BODY)
    assert len(otlp_sink.requests) == 1
    if exporter != "otlp_grpc":
        return
    secret.write_text("another\n")

    def refused():
        try:
            export(port, BODY)
        except grpc.RpcError as error:
            assert error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.INVALID_ARGUMENT)
            return True
    wait_for(refused, 15, "the new secret to be sent")


@pytest.mark.parametrize("extensions, auth, says", [
    ("  basicauth: {htpasswd: {inline: 'a:b'}, client_auth: {username: c}}", "basicauth", "only one of"),
    ("  basicauth: {}", "basicauth", "htpasswd"),
    ("  basicauth: {htpasswd: {}}", "basicauth", "file or inline"),
    ("  basicauth: {htpasswd: {inline: 'ab'}}", "basicauth", "line 1"),
    ("  basicauth: {client_auth: {username: a, password: b}}", "basicauth", "none to compare with"),
    ("  bearertokenauth: {}", "bearertokenauth", "no bearer token"),
    ("  bearertokenauth: {token: a, tokens: [b]}", "bearertokenauth", "either"),
    ("  health_check: {endpoint: '127.0.0.1:0'}", "health_check", "no authenticator"),
])
def test_mistakes_are_said(binary, tmp_path, extensions, auth, says):
    path = tmp_path / "c.yaml"
    path.write_text(receivers(extensions, auth, [1, 2, 3, 4], 5))
    answer = subprocess.run([binary, "validate", "--config", path], capture_output=True, text=True,
                            env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"})
    assert answer.returncode == 1 and says in answer.stderr + answer.stdout, answer.stderr


def test_an_authenticator_that_does_not_run_and_middlewares_are_said(binary, tmp_path):
    path = tmp_path / "c.yaml"
    text = receivers("  basicauth: {htpasswd: {inline: 'a:b'}}", "basicauth", [1, 2, 3, 4], 5)
    for wrong, says in ((text.replace("extensions: [basicauth]", "extensions: []"), "service.extensions"),
                        (text.replace("auth: {authenticator: basicauth}}}", "middlewares: [{id: memory_limiter}]}}", 1),
                         "memory_limiter")):
        assert wrong != text
        path.write_text(wrong)
        answer = subprocess.run([binary, "validate", "--config", path], capture_output=True, text=True,
                                env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"})
        assert answer.returncode == 1 and says in answer.stderr + answer.stdout, answer.stderr


def test_secrets_are_not_printed(binary, tmp_path):
    path = tmp_path / "c.yaml"
    text = receivers("  basicauth: {htpasswd: {inline: 'ada:geheim1'}}\n  bearertokenauth: {tokens: [geheim2]}\n"
                     "  bearertokenauth/b: {token: geheim3}\n  basicauth/c: {client_auth: {username: u, password: geheim4}}",
                     "basicauth", [1, 2, 3, 4], 5)
    path.write_text(text)
    answer = subprocess.run([binary, "print-config", "--config", path], capture_output=True, text=True,
                            env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"})
    assert answer.returncode == 0, answer.stderr
    assert "geheim" not in answer.stdout and "REDACTED" in answer.stdout


@pytest.mark.parametrize("key,block", [
    ("basic_auth", "basic_auth: {username: u, password: geheim}"), ("bearer_token", "bearer_token: geheim"),
    ("bearer_token_file", "bearer_token_file: /run/secrets/t"), ("headers", "headers: {Authorization: Bearer geheim}")])
def test_a_push_with_secrets_but_without_tls_is_a_warning(binary, tmp_path, key, block):
    def says(endpoint):
        path = tmp_path / "c.yaml"
        path.write_text(f"receivers: {{otlp: {{protocols: {{grpc: }}}}}}\nexporters: {{pyroscope: {{endpoint: '{endpoint}', {block}}}}}\n"
                        "service: {pipelines: {profiles: {receivers: [otlp], exporters: [pyroscope]}}}\n")
        answer = subprocess.run([binary, "validate", "--config", path], capture_output=True, text=True,
                                env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"})
        assert answer.returncode == 0 and "geheim" not in answer.stderr + answer.stdout, answer.stderr
        return answer.stderr
    assert f"{key}: the credentials go to \"http://pyroscope:4040\" without TLS" in says("http://pyroscope:4040")
    assert "without TLS" not in says("https://pyroscope:4040") + says("http://127.0.0.1:4040")
