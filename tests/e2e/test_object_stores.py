"""Object stores: the clients of archive/object against real servers, and against doubles of what
exists nowhere (metadata services, token endpoints, servers that misbehave)."""
import base64
import binascii
import datetime
import hashlib
import hmac
import http.server
import json
import os
import pathlib
import subprocess
import threading
import time
import urllib.parse
import urllib.request

import pytest

from harness import free_port, listens, wait_for

CACHE = pathlib.Path(os.environ.get("FLUE_TEST_CACHE", pathlib.Path.home() / ".cache/flue"))
BIN = CACHE / "bin"
KEY, SECRET = "testkey", "testsecret/+="
REGION = "us-east-1"
# Every byte class that a vendor, a path or a URL could misread, as URLs escape them.
SPECIAL = ["a%20b", "a+b%2Bc", "date=2026-01-01/hour=10/x", "%E2%82%AC/%F0%9F%92%A9", "q%3Fx%3D1%26y%23z",
           "per%2525cent", "quote%22'%3C%3E", "semi%3B:@!$*(),~-_.", "%5Bb%5D%7Bc%7D%5C%5E%60%7C"]


class Tool:
    def __init__(self, tools, home):
        self.path, self.home = tools / "flue_tools_object", home

    def command(self, url, *words):
        return [str(self.path), url, *map(str, words)]

    def environment(self, extra):
        clean = {k: v for k, v in os.environ.items()
                 if not k.startswith(("AWS_", "AZURE_", "GOOGLE_", "IDENTITY_", "GCE_", "STORAGE_", "FLUE_OBJECT"))}
        clean.update(HOME=str(self.home), AWS_EC2_METADATA_DISABLED="true")
        clean.update(extra or {})
        return {k: v for k, v in clean.items() if v is not None}

    def __call__(self, url, *words, env=None, input=None):
        """(exit status, standard output, last line of standard error, all of it)"""
        p = subprocess.run(self.command(url, *words), env=self.environment(env), input=input, capture_output=True,
                           timeout=120)
        log = p.stderr.decode(errors="replace")
        assert p.returncode in (0, 1), f"exit status {p.returncode}: {log}"
        lines = [line for line in log.splitlines() if line] or [""]
        return p.returncode, p.stdout, lines[-1], log

    def good(self, *arguments, **options):
        code, out, last, log = self(*arguments, **options)
        assert code == 0, log
        return out

    def bad(self, *arguments, **options):
        """(code, retry_after_ms, existed, text) of a failure."""
        code, _, last, log = self(*arguments, **options)
        assert code == 1, log
        head, _, text = last.partition(": ")
        name, wait, existed = head.split(" ")
        return name, int(wait), existed == "1", text


@pytest.fixture(scope="module")
def tool(tools, tmp_path_factory):
    return Tool(tools, tmp_path_factory.mktemp("home"))


def serve(command, ready, folder, env=None):
    log = open(folder / "log", "wb")
    process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **(env or {})}, cwd=folder)

    def up():
        assert process.poll() is None, (folder / "log").read_text(errors="replace")
        if isinstance(ready, int):
            return listens(ready)
        try:
            urllib.request.urlopen(ready, timeout=2).close()
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    try:
        wait_for(up, timeout=60, what=ready)
    except AssertionError:
        stop(process)
        raise
    return process


def stop(process):
    process.terminate()
    process.wait(20)


def body(path, size=1000):
    path.write_bytes(bytes(i * 7 % 251 for i in range(size)))
    return path


def listed(out):
    return [line.split(" ") for line in out.decode().splitlines()]


def round_trip(tool, url, tmp_path, env, keys=SPECIAL):
    """What every vendor must do alike."""
    source = body(tmp_path / "source", 300_000)
    data = source.read_bytes()
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    lines = [f"put dir/one {source}", "get dir/one", "get dir/one 100 50", "get dir/one 299990 0", "get dir/one -20 20",
             f"put dir/empty {empty}", "get dir/empty", "get dir/empty -9 9"]
    out = tool.good(url, "several", input="\n".join(lines).encode() + b"\n", env=env)
    got = out.split(b"--\n")
    assert got[1] == data
    assert got[2] == data[100:150]
    assert got[3] == data[299990:]
    assert got[4] == data[-20:]
    assert got[6] == got[7] == b""
    for i, key in enumerate(keys):
        (tmp_path / f"special{i}").write_bytes(key.encode())
    puts = [f"put special/{key} {tmp_path / f'special{i}'}" for i, key in enumerate(keys)]
    gets = [f"get special/{key}" for key in keys]
    out = tool.good(url, "several", input="\n".join(puts + gets).encode() + b"\n", env=env)
    assert out.split(b"--\n")[len(keys):-1] == [key.encode() for key in keys]
    rows = listed(tool.good(url, "list", "special/", env=env))
    want = sorted(urllib.parse.unquote_to_bytes("special/" + key) for key in keys)
    assert [urllib.parse.unquote_to_bytes(row[0]) for row in rows] == want
    assert all(int(row[3]) > 1_600_000_000 for row in rows)
    # folders, pages, resuming
    assert [row[0] for row in listed(tool.good(url, "list", "", "", 0, "/", env=env))] == ["dir/", "special/"]
    first = listed(tool.good(url, "list", "dir/", "", 1, env=env))
    assert [row[:2] for row in first] == [["dir/empty", "0"]]
    second = listed(tool.good(url, "list", "dir/", "dir/empty", 1, env=env))
    assert [row[:2] for row in second] == [["dir/one", "300000"]]
    assert "truncated 1" in tool(url, "list", "dir/", "", 1, env=env)[3]
    assert "truncated 0" in tool(url, "list", "dir/", "dir/empty", 5, env=env)[3]
    # create-only, absence, deletion
    assert tool.bad(url, "put", "dir/one", empty, "create", env=env)[0:3:2] == ("refused", True)
    assert tool.good(url, "get", "dir/one", env=env) == data
    tool.good(url, "put", "dir/new", source, "create", env=env)
    tool.good(url, "put", "dir/new", empty, env=env)
    assert tool.bad(url, "get", "dir/none", env=env)[0] == "not_found"
    assert tool.bad(url, "get", "dir/one", 300_001, 5, env=env)[0] == "invalid"
    tool.good(url, "delete", "dir/one", env=env)
    tool.good(url, "delete", "dir/one", env=env)
    assert [row[0] for row in listed(tool.good(url, "list", "dir/", env=env))] == ["dir/empty", "dir/new"]
    assert tool.bad(url, "put", "bad%00key", source, env=env)[0] == "invalid"
    assert tool.bad(url, "put", "bad%ffkey", source, env=env)[0] == "invalid"
    assert tool.bad(url, "put", "k" * 1025, source, env=env)[0] == "invalid"


# ---- S3: versitygw ------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def versitygw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("versitygw")
    port = free_port()
    (folder / "data/bucket").mkdir(parents=True)
    (folder / "iam").mkdir()
    process = serve([BIN / "versitygw", "--port", f"127.0.0.1:{port}", "--region", REGION, "--iam-dir", folder / "iam",
                     "--health", "/healthz", "--keep-alive", "--quiet", "posix", folder / "data"],
                    f"http://127.0.0.1:{port}/healthz", folder,
                    {"ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET})
    yield f"s3://bucket/?endpoint=http://127.0.0.1:{port}&path_style=true", folder / "data/bucket"
    stop(process)


S3ENV = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}


def test_s3_round_trip(tool, versitygw, tmp_path):
    round_trip(tool, versitygw[0], tmp_path, S3ENV)


def test_s3_refuses_a_wrong_secret_and_keeps_what_is_written(tool, versitygw, tmp_path):
    env = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": "not-the-secret"}
    code, wait, _, text = tool.bad(versitygw[0], "put", "wrong", body(tmp_path / "x"), env=env)
    assert (code, wait) == ("unavailable", 30000) and "SignatureDoesNotMatch" in text
    code, _, _, log = tool(versitygw[0], "get", "wrong", env=env)
    assert code == 1 and "not-the-secret" not in log and "SignatureDoesNotMatch" in log
    assert not (versitygw[1] / "wrong").exists()


@pytest.mark.parametrize("hours", [-1, 1, 30])
def test_s3_follows_the_clock_of_the_server(tool, versitygw, tmp_path, hours):
    out = tool(versitygw[0], "several", env={**S3ENV, "FLUE_OBJECT_CLOCK": str(hours * 3600)},
               input=f"put clock {body(tmp_path / 'x')}\nget clock\n".encode())
    assert out[0] == 0 and out[3].count("the clocks differ") == 1


def test_s3_follows_the_region_once(tool, versitygw, tmp_path):
    out = tool(versitygw[0] + "&region=eu-central-1", "several", env=S3ENV,
               input=f"put region {body(tmp_path / 'x')}\nget region\n".encode())
    assert out[0] == 0 and out[3].count("another region") == 1


@pytest.mark.parametrize("checksum", ["md5", "crc32c", "crc64nvme"])
def test_s3_checksums(tool, versitygw, tmp_path, checksum):
    source = body(tmp_path / "x", 600_000)
    url = versitygw[0] + f"&checksum={checksum}"
    tool.good(url, "put", f"sums/{checksum}", source, env=S3ENV)
    assert tool.good(url, "get", f"sums/{checksum}", env=S3ENV) == source.read_bytes()


def test_s3_over_tls(tool, tmp_path):
    port = free_port()
    (tmp_path / "data/bucket").mkdir(parents=True)
    (tmp_path / "iam").mkdir()
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", tmp_path / "k.pem", "-out",
                    tmp_path / "c.pem", "-days", "2", "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    process = serve([BIN / "versitygw", "--port", f"127.0.0.1:{port}", "--region", REGION, "--iam-dir",
                     tmp_path / "iam", "--cert", tmp_path / "c.pem", "--key", tmp_path / "k.pem", "--quiet", "posix",
                     tmp_path / "data"], port, tmp_path,
                    {"ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET})
    try:
        source = body(tmp_path / "x", 400_000)
        url = f"s3://bucket/?endpoint=https://127.0.0.1:{port}&tls.ca_file={tmp_path}/c.pem"
        for checksum in ("none", "crc32c", "crc64nvme"):  # the last two leave the payload unsigned
            tool.good(url + f"&checksum={checksum}", "put", checksum, source, env=S3ENV)
            assert (tmp_path / "data/bucket" / checksum).read_bytes() == source.read_bytes()
        code, _, _, text = tool.bad(f"s3://bucket/?endpoint=https://127.0.0.1:{port}", "put", "a", source, env=S3ENV)
        assert code == "unavailable" and "ca_file" in text
    finally:
        stop(process)


@pytest.mark.slow
def test_s3_large_objects_go_up_in_parts(tool, versitygw):
    url, data = versitygw
    size = 105 * 1024 * 1024 + 17
    tool.good(url, "fill", "large/whole", size, env=S3ENV)
    assert (data / "large/whole").stat().st_size == size
    tail = (data / "large/whole").read_bytes()[-40_000:]
    assert tool.good(url, "get", "large/whole", -40_000, 40_000, env=S3ENV) == tail
    assert tool.bad(url, "get", "large/whole", 0, 300 * 1024 * 1024, env=S3ENV)[0] == "too_large"
    assert tool.bad(url, "cancel", "large/part", size * 3, env=S3ENV)[0] == "cancelled"
    assert not (data / "large/part").exists()


# ---- an S3 that verifies, remembers and misbehaves ------------------------------------------------


def quote(text, safe=""):
    return urllib.parse.quote(text, safe=safe + "-_.~")


def sign(secret, method, path, query, headers, names, payload, scope, date):
    """AWS Signature Version 4, written again."""
    pairs = sorted((quote(k), quote(v)) for k, v in urllib.parse.parse_qsl(query, keep_blank_values=True))
    canonical = "\n".join([method, path, "&".join(f"{k}={v}" for k, v in pairs),
                           *(f"{n}:{' '.join(headers[n].split())}" for n in names), "", ";".join(names), payload])
    day, region, service, _ = scope.split("/")
    text = "\n".join(["AWS4-HMAC-SHA256", date, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = ("AWS4" + secret).encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


class Double:
    """An HTTP server whose `answer(request)` gives (status, headers, body), None to hang up, or "hold"
    to say nothing until the end."""

    def __init__(self, answer):
        double = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self):
                try:
                    super().handle_one_request()
                except (ConnectionError, ValueError):
                    self.close_connection = True

            def any(self):
                size = int(self.headers.get("content-length") or 0)
                limit = double.read_limit
                if limit is not None and size > limit:
                    self.rfile.read(limit)
                    double.read_limit = None
                    self.close_connection = True
                    self.connection.close()
                    return
                path, _, query = self.path.partition("?")
                request = {"method": self.command, "path": path, "query": query, "body": self.rfile.read(size),
                           "headers": {k.lower(): v for k, v in self.headers.items()}}
                with double.lock:
                    double.requests.append(request)
                    given = answer(request)
                if given == "hold":
                    double.stopping.wait()
                if given is None or given == "hold":
                    self.close_connection = True
                    return
                status, headers, data = given
                self.send_response(status)
                headers = dict(headers)
                headers.setdefault("content-length", str(len(data)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)
                if int(headers["content-length"]) != len(data):
                    self.close_connection = True

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = any

            def log_message(self, *_):
                pass

        self.requests, self.lock, self.read_limit = [], threading.Lock(), None
        self.stopping = threading.Event()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.stopping.set()
        self.server.shutdown()
        self.server.server_close()


def error(status, code, message="", extra="", headers=()):
    return status, dict(headers), (f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message>{extra}"
                                   "</Error>").encode()


class S3Double(Double):
    """Buckets in the path unless virtual. `keys`: {id: (secret, token)}. `script`: answers that come
    before its own, each a function of the request that may return None to let it pass."""

    def __init__(self, keys=None, region=REGION, virtual=False):
        super().__init__(self.answer)
        self.keys, self.region, self.virtual = keys or {KEY: (SECRET, None)}, region, virtual
        self.objects, self.script, self.signed_by = {}, [], []
        self.endpoint = f"s3://bucket/?endpoint={self.url}&path_style=true"

    def verify(self, request):
        h = request["headers"]
        fields = dict(part.strip().split("=", 1) for part in h["authorization"].split(" ", 1)[1].split(","))
        key_id, scope = fields["Credential"].split("/", 1)
        names = fields["SignedHeaders"].split(";")
        if key_id not in self.keys:
            return error(403, "InvalidAccessKeyId")
        secret, token = self.keys[key_id]
        if h.get("x-amz-security-token") != token:
            return error(400, "InvalidToken")
        assert "host" in names and all(n in names for n in h if n.startswith("x-amz-"))
        region = scope.split("/")[1]
        if region != self.region:
            return error(400, "AuthorizationHeaderMalformed", "wrong region", f"<Region>{self.region}</Region>")
        payload = h["x-amz-content-sha256"]
        assert payload == hashlib.sha256(request["body"]).hexdigest()
        mac = sign(secret, request["method"], request["path"], request["query"], h, names, payload, scope,
                   h["x-amz-date"])
        if mac != fields["Signature"]:
            return error(403, "SignatureDoesNotMatch")
        self.signed_by.append(key_id)
        return None

    def answer(self, request):
        while self.script:
            step = self.script.pop(0)
            given = step(request) if callable(step) else step
            if given != "pass":
                return given
            break
        wrong = self.verify(request)
        if wrong:
            return wrong
        path = request["path"]
        key = path[1:] if self.virtual else path.removeprefix("/bucket").removeprefix("/")
        if request["method"] == "PUT":
            if request["headers"].get("if-none-match") and key in self.objects:
                return error(412, "PreconditionFailed")
            self.objects[key] = request["body"]
            return 200, {"etag": '"x"'}, b""
        if request["method"] == "DELETE":
            self.objects.pop(key, None)
            return 204, {}, b""
        if key not in self.objects:
            return error(404, "NoSuchKey")
        return 200, {}, self.objects[key]


@pytest.fixture
def s3(request):
    doubles = []

    def start(**options):
        doubles.append(S3Double(**options))
        return doubles[-1]

    yield start
    for double in doubles:
        double.stop()


@pytest.fixture
def double():
    doubles = []

    def start(answer):
        doubles.append(Double(answer))
        return doubles[-1]

    yield start
    for each in doubles:
        each.stop()


def test_s3_virtual_host_style(tool, s3, tmp_path):
    store = s3(virtual=True)
    url = f"s3://127/?endpoint=http://0.0.1:{store.port}"  # 127.0.0.1 is a bucket's host name, too
    tool.good(url, "put", "a/b%20c", body(tmp_path / "x"), env=S3ENV)
    assert store.requests[0]["path"] == "/a/b%20c"
    assert store.requests[0]["headers"]["host"] == f"127.0.0.1:{store.port}"
    assert list(store.objects) == ["a/b%20c"]


def test_s3_what_an_object_is_stored_with(tool, s3, tmp_path):
    store = s3()
    config = (f"{{region: {REGION}, s3_bucket: bucket, endpoint: '{store.url}', s3_force_path_style: true, acl: "
              "bucket-owner-full-control, storage_class: STANDARD_IA, server_side_encryption: 'aws:kms', "
              "sse_kms_key_id: k1}")
    tool.good("s3:", "put", "a", body(tmp_path / "x"), env={**S3ENV, "FLUE_OBJECT_CONFIG": config})
    h = store.requests[0]["headers"]
    assert h["x-amz-acl"] == "bucket-owner-full-control" and h["x-amz-storage-class"] == "STANDARD_IA"
    assert h["x-amz-server-side-encryption"] == "aws:kms"
    assert h["x-amz-server-side-encryption-aws-kms-key-id"] == "k1"
    assert h["content-type"] == "application/octet-stream" and "expect" not in h
    tool.good(store.endpoint, "put", "b", tmp_path / "x", env=S3ENV)
    assert not [n for n in store.requests[1]["headers"] if n in ("x-amz-acl", "x-amz-storage-class")]


@pytest.mark.parametrize("answer, code, wait", [
    (error(503, "SlowDown", headers={"retry-after": "7"}), "rate_limited", 7000),
    (error(503, "SlowDown"), "rate_limited", 2000),
    (error(500, "InternalError"), "unavailable", 0),
    (error(400, "RequestTimeout"), "unavailable", 0),
    (error(400, "BadDigest"), "unavailable", 0),
    (error(409, "ConditionalRequestConflict"), "unavailable", 0),
    (error(409, "OperationAborted"), "unavailable", 0),
    (error(403, "AccessDenied"), "unavailable", 30000),
    (error(404, "NoSuchBucket"), "unavailable", 30000),
    (error(400, "EntityTooLarge"), "too_large", 0),
    (error(400, "InvalidArgument", "no\x7f&lt;b&gt;"), "refused", 0),
    ((502, {}, b"<html>not xml"), "unavailable", 0),
    ((429, {"retry-after": "3"}, b""), "rate_limited", 3000),
    (None, "unavailable", 0)])
def test_s3_answers_mean(tool, s3, tmp_path, answer, code, wait):
    store = s3()
    store.script = [answer, answer]
    got = tool.bad(store.endpoint, "put", "a", body(tmp_path / "x"), env=S3ENV)
    assert got[:2] == (code, wait), got
    assert store.objects == {}


def test_s3_a_body_that_is_interrupted_is_an_error(tool, s3, tmp_path):
    store = s3()
    store.read_limit = 1_000_000
    code, _, _, text = tool.bad(store.endpoint, "put", "a", body(tmp_path / "x", 9_000_000), env=S3ENV)
    assert code == "unavailable" and store.objects == {}, text


def test_s3_truncated_and_damaged_downloads(tool, s3):
    store = s3()
    store.script = [(200, {"content-length": "1000"}, b"short")]
    assert tool.bad(store.endpoint, "get", "a", env=S3ENV)[0] == "unavailable"
    good = base64.b64encode(binascii.crc32(b"123456789").to_bytes(4, "big")).decode()
    for name, value in (("x-amz-checksum-crc32", good), ("x-amz-checksum-crc32c", "4waSgw=="),
                        ("x-amz-checksum-crc64nvme", base64.b64encode(bytes.fromhex("ae8b14860a799888")).decode()),
                        ("x-amz-checksum-sha256", base64.b64encode(hashlib.sha256(b"123456789").digest()).decode())):
        store.script = [(200, {name: value}, b"123456789")]
        assert tool.good(store.endpoint, "get", "a", env=S3ENV) == b"123456789"
        store.script = [(200, {name: value}, b"123456788")]
        code, _, _, text = tool.bad(store.endpoint, "get", "a", env=S3ENV)
        assert code == "unavailable" and "checksum" in text


def test_s3_create_only_where_it_is_unknown(tool, s3, tmp_path):
    store = s3()
    store.script = [error(501, "NotImplemented")]
    lines = f"put a {body(tmp_path / 'x')} create\nput a {tmp_path / 'x'} create\nput b {tmp_path / 'x'} create\n"
    code, _, _, log = tool(store.endpoint, "several", input=lines.encode(), env=S3ENV)
    assert code == 1 and log.count("refused 0 1:") == 1 and log.count("If-None-Match") == 1
    assert [r["method"] for r in store.requests] == ["PUT", "HEAD", "PUT", "HEAD", "HEAD", "PUT"]
    assert set(store.objects) == {"a", "b"}
    for answer in (error(409, "FileAlreadyExists"), (304, {}, b""), (412, {}, b"")):
        store = s3()
        store.script = [answer]
        assert tool.bad(store.endpoint, "put", "a", tmp_path / "x", "create", env=S3ENV)[0:3:2] == ("refused", True)


def test_s3_redirects(tool, s3, tmp_path):
    source = body(tmp_path / "x")
    for first in ([(301, {"x-amz-bucket-region": "eu-west-1"}, b"")],
                  [error(307, "TemporaryRedirect", extra="<Region>eu-west-1</Region>")],
                  [error(301, "PermanentRedirect"), (301, {"x-amz-bucket-region": "eu-west-1"}, b"")],
                  [error(301, "PermanentRedirect"), (403, {"x-amz-bucket-region": "eu-west-1"}, b"")]):
        store = s3(region="eu-west-1")
        store.script = list(first)
        tool.good(store.endpoint, "put", "a", source, env=S3ENV)
        assert len(store.requests) == len(first) + 1 and store.objects
    store = s3(region="nowhere-1")  # sent round in circles: followed once
    store.script = [(301, {"x-amz-bucket-region": f"r-{i}"}, b"") for i in range(9)]
    assert tool.bad(store.endpoint, "put", "a", source, env=S3ENV)[0] == "unavailable"
    assert len(store.requests) == 2
    store.script = [(301, {"x-amz-bucket-region": "x.evil.example/"}, b""), (301, {}, b"")]
    assert tool.bad(store.endpoint, "put", "a", source, env=S3ENV)[0] == "unavailable"


@pytest.mark.slow
def test_s3_multipart_is_aborted_or_completed_for_certain(tool, s3):
    created = b"<InitiateMultipartUploadResult><UploadId>u&amp;1/+</UploadId></InitiateMultipartUploadResult>"
    done = b"   <CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>"
    for final, parts_fail, good in ((done, 0, True), (done, 2, True), (done, 99, False), (done[:-9], 0, False),
                                    (error(200, "InternalError")[2], 0, False)):
        store = s3()
        failures = [parts_fail]

        def step(request, final=final, failures=failures, store=store):
            store.script.append(step)
            assert store.verify(request) is None
            if request["query"] == "uploads=":
                return 200, {}, created
            if request["method"] == "DELETE":
                assert request["query"] == "uploadId=u%261%2F%2B"
                return 204, {}, b""
            if request["method"] == "POST":
                assert request["body"].count(b"<Part>") == 7 and b"&#34;e1&#34;" in request["body"]
                return 200, {}, final
            number = urllib.parse.parse_qs(request["query"])["partNumber"][0]
            if number == "3" and failures[0]:
                failures[0] -= 1
                return error(503, "SlowDown")
            return 200, {"etag": f'"e{number}"'}, b""

        store.script = [step]
        size = 100 * 1024 * 1024 + 1
        code, _, last, log = tool(store.endpoint, "several", input=f"fill big {size}\nget none\n".encode(), env=S3ENV)
        aborted = [r for r in store.requests if r["method"] == "DELETE"]
        assert ("ok" in log.splitlines()[0]) == good or good == ("unavailable" not in log and "rate_limited" not in log)
        assert len(aborted) == (0 if good else 1), log
        if good:
            sizes = [len(r["body"]) for r in store.requests if r["method"] == "PUT" and r["query"]]
            assert len(sizes) == 7 + parts_fail


@pytest.mark.slow
def test_s3_parts_of_what_is_cancelled_are_aborted_before_the_end(tool, s3, tmp_path):
    """Whoever stops has cancelled what runs, and is gone as soon as that has ended."""
    store, begun = s3(), tmp_path / "begun"

    def step(request):
        store.script.append(step)
        assert store.verify(request) is None
        if request["query"] == "uploads=":
            return 200, {}, b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
        if request["method"] == "DELETE":
            return 204, {}, b""
        begun.touch()
        return "hold"

    store.script = [step]
    assert tool.bad(store.endpoint, "cancel", "big", 100 * 1024 * 1024 + 1, begun, env=S3ENV)[0] == "cancelled"
    assert [(r["path"], r["query"]) for r in store.requests if r["method"] == "DELETE"] == [("/bucket/big", "uploadId=u")]


# ---- AWS credentials --------------------------------------------------------------------------------

def later(seconds):
    at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def keys_json(key_id, secret, token, seconds=3600):
    return json.dumps({"Code": "Success", "AccessKeyId": key_id, "SecretAccessKey": secret, "Token": token,
                       "Expiration": later(seconds)}).encode()


def sts_xml(action, key_id, secret, token, seconds=3600):
    return (f"<{action}Response xmlns='https://sts.amazonaws.com/doc/2011-06-15/'><{action}Result><Credentials>"
            f"<AccessKeyId>{key_id}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{token}"
            f"</SessionToken><Expiration>{later(seconds)}</Expiration></Credentials></{action}Result></{action}Response>"
            ).encode()


def test_aws_files_and_profiles(tool, s3, tmp_path):
    store = s3(keys={"A": ("sa", None), "B": ("sb/+=", "tok"), "C": ("sc", None)})
    config, credentials = tmp_path / "config", tmp_path / "credentials"
    credentials.write_text("# comment\n[default]\naws_access_key_id = A ; really\naws_secret_access_key=sa\n"
                           "[other]\r\naws_access_key_id=B\r\naws_secret_access_key = sb/+=\r\naws_session_token=tok\r\n")
    config.write_text("[default]\nregion=x\ns3 =\n  max = 1\n[profile third]\naws_access_key_id=C\n"
                      "aws_secret_access_key=sc\n[profile p]\ncredential_process = /bin/true\n")
    env = {"AWS_CONFIG_FILE": str(config), "AWS_SHARED_CREDENTIALS_FILE": str(credentials)}
    source = body(tmp_path / "x")
    tool.good(store.endpoint, "put", "a", source, env=env)
    tool.good(store.endpoint, "put", "a", source, env={**env, "AWS_PROFILE": "other"})
    # an explicit profile stands before the environment
    tool.good(store.endpoint, "put", "a", source, env={**env, **S3ENV, "AWS_PROFILE": "third"})
    assert store.signed_by == ["A", "B", "C"]
    assert "nowhere" in tool.bad(store.endpoint, "put", "a", source, env={**env, "AWS_PROFILE": "nowhere"})[3]
    assert "credential_process" in tool.bad(store.endpoint, "put", "a", source, env={**env, "AWS_PROFILE": "p"})[3]
    code, wait, _, text = tool.bad(store.endpoint, "put", "a", source)
    assert code == "unavailable" and "no AWS credentials" in text


def test_aws_web_identity_and_roles(tool, s3, double, tmp_path):
    store = s3(keys={"WEB": ("websecret", "webtoken"), "ROLE": ("rolesecret", "roletoken")})
    token = tmp_path / "token"
    token.write_text("jwt.part/+one=\n")
    tries = []

    def sts(request):
        form = dict(urllib.parse.parse_qsl(request["body"].decode()))
        h = request["headers"]
        assert request["method"] == "POST" and form["Version"] == "2011-06-15"
        if form["Action"] == "AssumeRoleWithWebIdentity":
            assert "authorization" not in h and form["WebIdentityToken"] == "jwt.part/+one="
            assert form["RoleArn"] == "arn:aws:iam::1:role/web" and form["RoleSessionName"] == "me"
            tries.append(1)
            if len(tries) == 1:
                return error(400, "IDPCommunicationError")
            return 200, {}, sts_xml("AssumeRoleWithWebIdentity", "WEB", "websecret", "webtoken")
        fields = dict(p.strip().split("=", 1) for p in h["authorization"].split(" ", 1)[1].split(","))
        key_id, scope = fields["Credential"].split("/", 1)
        assert key_id in store.keys and scope.endswith(f"/{REGION}/sts/aws4_request")
        secret, want = store.keys[key_id]
        assert h.get("x-amz-security-token") == want
        assert fields["Signature"] == sign(secret, "POST", "/", "", h, fields["SignedHeaders"].split(";"),
                                           hashlib.sha256(request["body"]).hexdigest(), scope, h["x-amz-date"])
        assert form["RoleArn"] == "arn:aws:iam::1:role/on top"
        return 200, {}, sts_xml("AssumeRole", "ROLE", "rolesecret", "roletoken")

    server = double(sts)
    env = {"AWS_WEB_IDENTITY_TOKEN_FILE": str(token), "AWS_ROLE_ARN": "arn:aws:iam::1:role/web",
           "AWS_ROLE_SESSION_NAME": "me", "AWS_ENDPOINT_URL_STS": server.url}
    source = body(tmp_path / "x")
    tool.good(store.endpoint, "put", "a", source, env=env)
    tool.good(store.endpoint + "&role_arn=arn:aws:iam::1:role/on%20top", "put", "b", source, env=env)
    assert store.signed_by == ["WEB", "ROLE"]
    # the same by profiles: a role from a source profile
    store.keys["BASE"] = ("basesecret", None)
    (tmp_path / "config").write_text("[profile up]\nrole_arn=arn:aws:iam::1:role/on top\nsource_profile=base\n"
                                     "[profile base]\naws_access_key_id=BASE\naws_secret_access_key=basesecret\n"
                                     "[profile a]\nrole_arn=x\nsource_profile=b\n[profile b]\nrole_arn=x\n"
                                     "source_profile=a\n")
    env = {"AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_PROFILE": "up", "AWS_ENDPOINT_URL_STS": server.url}
    tool.good(store.endpoint, "put", "c", source, env=env)
    assert store.signed_by[-1] == "ROLE"
    assert tool.bad(store.endpoint, "put", "c", source, env={**env, "AWS_PROFILE": "a"})[0] == "unavailable"
    token.unlink()
    env = {"AWS_WEB_IDENTITY_TOKEN_FILE": str(token), "AWS_ROLE_ARN": "x", "AWS_ENDPOINT_URL_STS": server.url}
    assert "cannot be read" in tool.bad(store.endpoint, "put", "c", source, env=env)[3]


@pytest.mark.parametrize("hours", [-2, 2])
def test_aws_roles_are_assumed_by_the_clock_of_sts(tool, s3, double, tmp_path, hours):
    """The store's requests are signed by it, too, and the credentials end by it."""
    store = s3(keys={"ROLE": ("rolesecret", "roletoken")})
    signed = []

    def right(request):
        at = datetime.datetime.strptime(request["headers"]["x-amz-date"], "%Y%m%dT%H%M%SZ")
        signed.append(abs(at - datetime.datetime.utcnow()) < datetime.timedelta(minutes=15))
        return signed[-1]

    def sts(request):
        if not right(request):
            return error(403, "SignatureDoesNotMatch", "Signature expired")
        return 200, {}, sts_xml("AssumeRole", "ROLE", "rolesecret", "roletoken")

    server = double(sts)
    p = tool(store.endpoint + "&role_arn=arn:aws:iam::1:role/x", "several",
             env={**S3ENV, "AWS_ENDPOINT_URL_STS": server.url, "FLUE_OBJECT_CLOCK": str(hours * 3600)},
             input=f"put a {body(tmp_path / 'x')}\nget a\n".encode())
    assert p[0] == 0 and p[3].count("the clocks differ") == 1 and "ended already" not in p[3], p[3]
    assert signed == [False, True] and store.signed_by == ["ROLE", "ROLE"]
    assert all(right(request) for request in store.requests)


def test_aws_pod_identity(tool, s3, double, tmp_path):
    store = s3(keys={"POD": ("podsecret", "podtoken")})
    token = tmp_path / "token"
    token.write_text("pod-token")
    seen = []

    def agent(request):
        seen.append(request)
        assert request["method"] == "GET" and request["path"] == "/v1/credentials"
        if request["headers"].get("authorization") != "pod-token":
            return 400, {}, b"{}"
        return (500, {}, b"") if len(seen) == 1 else (200, {}, keys_json("POD", "podsecret", "podtoken"))

    server = double(agent)
    env = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": server.url + "/v1/credentials",
           "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(token)}
    source = body(tmp_path / "x")
    tool.good(store.endpoint, "put", "a", source, env=env)
    assert len(seen) == 2
    token.write_text("two\r\nlines")
    assert "line break" in tool.bad(store.endpoint, "put", "a", source, env=env)[3]
    env["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = "http://192.0.2.1/v1/credentials"
    assert tool.bad(store.endpoint, "put", "a", source, env=env)[0] == "unavailable"
    token.write_text("pod-token")
    assert "local address" in tool.bad(store.endpoint, "put", "a", source, env=env)[3]


def imds(state):
    def answer(request):
        h = request["headers"]
        if request["path"] == "/latest/api/token":
            assert request["method"] == "PUT" and h["x-aws-ec2-metadata-token-ttl-seconds"] == "21600"
            state["tokens"] = state.get("tokens", 0) + 1
            return state.get("token_answer") or (200, {}, b"imds-token")
        if h.get("x-aws-ec2-metadata-token") != "imds-token":
            return 401, {}, b""
        assert request["method"] == "GET"
        if request["path"] == "/latest/meta-data/iam/security-credentials/":
            return 200, {}, b"the role\n"
        assert request["path"] == "/latest/meta-data/iam/security-credentials/the%20role"
        state["given"] = state.get("given", 0) + 1
        return 200, {}, state["keys"](state["given"])
    return answer


def test_aws_instance_metadata(tool, s3, double, tmp_path):
    store = s3(keys={"I1": ("s1", "t1")})
    state = {"keys": lambda n: keys_json("I1", "s1", "t1")}
    server = double(imds(state))
    env = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": server.url, "AWS_EC2_METADATA_DISABLED": None}
    source = body(tmp_path / "x")
    lines = f"put a {source}\nput b {source}\n".encode()
    tool.good(store.endpoint, "several", input=lines, env=env)
    assert state["given"] == 1 and store.signed_by == ["I1", "I1"]
    state["keys"] = lambda n: json.dumps({"Code": "AssumeRoleUnauthorizedAccess", "Message": "no trust"}).encode()
    assert "no trust" in tool.bad(store.endpoint, "put", "a", source, env=env)[3]
    state["token_answer"] = (403, {}, b"")
    assert "version 2" in tool.bad(store.endpoint, "put", "a", source, env=env)[3]
    # handed out though they have ended: used all the same
    state.update(token_answer=None, keys=lambda n: keys_json("I1", "s1", "t1", -60))
    tool.good(store.endpoint, "put", "a", source, env=env)


def test_aws_credentials_are_renewed(tool, s3, double, tmp_path):
    store = s3(keys={"I1": ("s1", "t1")})
    state = {"keys": lambda n: keys_json(f"I{n}", f"s{n}", f"t{n}", 3600)}
    server = double(imds(state))
    env = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": server.url, "AWS_EC2_METADATA_DISABLED": None}
    source = body(tmp_path / "x")
    p = subprocess.Popen(tool.command(store.endpoint, "several"), env=tool.environment(env), stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def line(text):
        p.stdin.write(text.encode() + b"\n")
        p.stdin.flush()
        assert p.stdout.readline() == b"--\n"

    line(f"put a {source}")
    store.keys = {"I2": ("s2", "t2")}  # the first ones are refused from now on
    line(f"put b {source}")
    # the next is about to end: eight puts at once wait for one renewal
    store.keys = {"I3": ("s3", "t3")}
    p.stdin.write(b"bench c 1000 8\n")
    p.stdin.flush()
    assert b"MB/s" in p.stdout.readline()
    assert p.stdout.readline() == b"--\n"
    p.stdin.close()
    assert p.wait(30) == 0, p.stderr.read()
    log = p.stderr.read().decode()
    assert state["given"] == 3, log
    assert store.signed_by[0] == "I1" and "I2" in store.signed_by and store.signed_by[-1] == "I3"
    assert "s1" not in log and "t1" not in log.replace("test1", "")


# ---- S3: moto, which knows session tokens -------------------------------------------------------------

@pytest.fixture(scope="module")
def moto(tmp_path_factory):
    folder = tmp_path_factory.mktemp("moto")
    port = free_port()
    process = serve([CACHE / "moto/bin/moto_server", "-H", "127.0.0.1", "-p", str(port)],
                    f"http://127.0.0.1:{port}/moto-api/", folder, {"INITIAL_NO_AUTH_ACTION_COUNT": "1000000"})
    url = f"http://127.0.0.1:{port}"
    script = f"""
import boto3, json
def client(name): return boto3.client(name, endpoint_url='{url}', region_name='us-east-1',
                                      aws_access_key_id='x', aws_secret_access_key='y')
iam = client('iam')
anything = json.dumps(dict(Version='2012-10-17', Statement=[dict(Effect='Allow', Action='*', Resource='*')]))
iam.create_user(UserName='flue')
iam.put_user_policy(UserName='flue', PolicyName='all', PolicyDocument=anything)
key = iam.create_access_key(UserName='flue')['AccessKey']
role = iam.create_role(RoleName='writer', AssumeRolePolicyDocument=anything)['Role']['Arn']
iam.put_role_policy(RoleName='writer', PolicyName='all', PolicyDocument=anything)
client('s3').create_bucket(Bucket='bucket')
print(key['AccessKeyId'], key['SecretAccessKey'], role)
"""
    made = subprocess.run([CACHE / "moto/bin/python", "-c", script], capture_output=True, text=True, timeout=60)
    assert made.returncode == 0, made.stderr
    key, secret, role = made.stdout.split()
    urllib.request.urlopen(urllib.request.Request(url + "/moto-api/reset-auth", b"0",
                                                  {"content-type": "text/plain"})).close()
    yield url, {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_ENDPOINT_URL_STS": url}, role
    stop(process)


def test_s3_session_tokens_of_sts(tool, moto, tmp_path):
    url, env, role = moto
    source = body(tmp_path / "x")
    store = f"s3://bucket/?endpoint={url}&path_style=true"
    tool.good(store, "put", "plain", source, env=env)
    lines = f"put a%20b {source}\nget a%20b\n".encode()
    out = tool.good(f"{store}&role_arn={role}", "several", input=lines, env=env)
    assert out.split(b"--\n")[1] == source.read_bytes()
    wrong = {**env, "AWS_SECRET_ACCESS_KEY": "wrong"}
    assert tool.bad(f"{store}&role_arn={role}", "put", "c", source, env=wrong)[0] == "unavailable"


# ---- Azure ------------------------------------------------------------------------------------------

AZURE_ACCOUNT, AZURE_KEY = "testaccount", base64.b64encode(b"a key of some length 0123456789ab").decode()


@pytest.fixture(scope="module")
def azurite(tmp_path_factory, tool):
    folder = tmp_path_factory.mktemp("azurite")
    port = free_port()
    process = serve(["node", CACHE / "azurite/node_modules/azurite/dist/src/blob/main.js", "--blobHost", "127.0.0.1",
                     "--blobPort", str(port), "--inMemoryPersistence", "--disableTelemetry", "--silent"],
                    f"http://127.0.0.1:{port}/", folder, {"AZURITE_ACCOUNTS": f"{AZURE_ACCOUNT}:{AZURE_KEY}"})
    url = f"http://127.0.0.1:{port}/{AZURE_ACCOUNT}"
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%a, %d %b %Y %H:%M:%S GMT")
    text = ("PUT\n\n\n\n\n\n\n\n\n\n\n\n" + f"x-ms-date:{date}\nx-ms-version:2021-12-02\n"
            f"/{AZURE_ACCOUNT}/{AZURE_ACCOUNT}/profiles\nrestype:container")
    mac = base64.b64encode(hmac.new(base64.b64decode(AZURE_KEY), text.encode(), hashlib.sha256).digest()).decode()
    urllib.request.urlopen(urllib.request.Request(url + "/profiles?restype=container", b"", {
        "x-ms-date": date, "x-ms-version": "2021-12-02", "Authorization": f"SharedKey {AZURE_ACCOUNT}:{mac}",
        "Content-Type": ""}, method="PUT")).close()
    yield url
    stop(process)


def connection(url, **more):
    parts = {"AccountName": AZURE_ACCOUNT, "AccountKey": AZURE_KEY, "BlobEndpoint": url, **more}
    return {"AZURE_STORAGE_CONNECTION_STRING": ";".join(f"{k}={v}" for k, v in parts.items() if v)}


def test_azure_round_trip(tool, azurite, tmp_path):
    backslash = [key for key in SPECIAL if "%5C" in key]
    keys = [key.replace("%5C", "") for key in SPECIAL]
    round_trip(tool, "az:///profiles/", tmp_path, connection(azurite), keys)
    for key in backslash:  # the service takes it for a slash
        assert tool.bad("az:///profiles/", "put", key, tmp_path / "source", env=connection(azurite))[0] == "invalid"


def test_azure_wrong_key_container_and_sas(tool, azurite, tmp_path):
    source = body(tmp_path / "x")
    wrong = connection(azurite, AccountKey=base64.b64encode(b"another").decode())
    code, wait, _, text = tool.bad("az:///profiles/", "put", "a", source, env=wrong)
    assert (code, wait) == ("unavailable", 30000) and base64.b64encode(b"another").decode() not in text
    assert tool.bad("az:///profiles/", "get", "a", env=wrong)[0] == "forbidden"
    code, wait, _, text = tool.bad("az:///nocontainer/", "put", "a", source, env=connection(azurite))
    assert (code, wait) == ("unavailable", 30000) and "ContainerNotFound" in text
    assert tool.bad("az:///nocontainer/", "get", "a", env=connection(azurite))[0] == "not_found"
    for permissions, good in (("rwdl", True), ("r", False)):
        start, end = later(-600), later(3600)
        text = "\n".join([AZURE_ACCOUNT, permissions, "b", "sco", start, end, "", "http,https", "2021-12-02", "", ""])
        mac = hmac.new(base64.b64decode(AZURE_KEY), text.encode(), hashlib.sha256).digest()
        sas = urllib.parse.urlencode({"sv": "2021-12-02", "ss": "b", "srt": "sco", "sp": permissions, "st": start,
                                      "se": end, "spr": "http,https", "sig": base64.b64encode(mac).decode()})
        config = f"{{url: '{azurite}?{sas}', container: profiles}}"
        if good:
            tool.good("az:", "put", "by%20sas", source, env={"FLUE_OBJECT_CONFIG": config})
            tool.good("az:", "list", env={"FLUE_OBJECT_CONFIG": config})
        else:
            answer = tool.bad("az:", "put", "by-sas", source, env={"FLUE_OBJECT_CONFIG": config})
            assert answer[0] == "unavailable" and "sig" not in answer[3]


@pytest.mark.slow
def test_azure_blocks(tool, azurite):
    size = 101 * 1024 * 1024 + 3
    env = connection(azurite)
    tool.good("az:///profiles/", "fill", "big", size, env=env)
    rows = listed(tool.good("az:///profiles/", "list", "big", env=env))
    assert rows[0][:2] == ["big", str(size)]
    assert len(tool.good("az:///profiles/", "get", "big", -1000, 1000, env=env)) == 1000
    tool.good("az:///profiles/", "delete", "big", env=env)


class Bearer:
    """A blob store or bucket that wants a token of `give`, each good for `uses` requests."""

    def __init__(self, answer):
        self.tokens, self.given, self.inner = set(), 0, answer

    def give(self):
        self.given += 1
        self.tokens = {f"token-{self.given}"}
        return f"token-{self.given}"

    def __call__(self, request):
        token = request["headers"].get("authorization", "").removeprefix("Bearer ")
        if token not in self.tokens:
            return 401, {}, b"{}"
        return self.inner(request)


def test_azure_identities(tool, double, tmp_path):
    source = body(tmp_path / "x")
    objects = []

    def blob(request):
        assert request["headers"]["x-ms-version"] == "2021-12-02"
        objects.append(request["path"])
        return 201, {}, b""

    gate = Bearer(blob)
    store = double(gate)
    expect = {}

    def answer(request):
        query = dict(urllib.parse.parse_qsl(request["query"]))
        form = dict(urllib.parse.parse_qsl(request["body"].decode()))
        assert expect["check"](request, query, form), request
        if expect.get("busy"):
            return expect.pop("busy"), {}, b""
        return 200, {}, json.dumps({"access_token": gate.give(), expect.get("key", "expires_in"): expect.get(
            "value", 3600)}).encode()

    server = double(answer)
    url = f"az:///profiles/?url={store.url}/"
    resource = "https://storage.azure.com/"

    expect.update(check=lambda r, q, f: r["method"] == "GET" and r["path"] == "/metadata/identity/oauth2/token" and
                  r["headers"]["metadata"] == "true" and q == {"api-version": "2018-02-01", "resource": resource,
                                                               "client_id": "c 1"}, busy=410, value="3600")
    env = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": server.url, "AZURE_CLIENT_ID": "c 1"}
    tool.good(url, "put", "vm", source, env=env)

    expect.update(check=lambda r, q, f: r["path"] == "/msi/token" and r["headers"]["x-identity-header"] == "h" and
                  q == {"api-version": "2019-08-01", "resource": resource}, key="expires_on",
                  value=str(int(datetime.datetime.now().timestamp()) + 3600))
    env = {"IDENTITY_ENDPOINT": server.url + "/msi/token", "IDENTITY_HEADER": "h"}
    tool.good(url, "put", "service", source, env=env)

    token = tmp_path / "federated"
    token.write_text("a.b.c\n")
    expect.update(check=lambda r, q, f: r["method"] == "POST" and r["path"] == "/t-1/oauth2/v2.0/token" and
                  f == {"grant_type": "client_credentials", "client_id": "c1", "scope": resource + ".default",
                        "client_assertion": "a.b.c",
                        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
                  key="expires_in", value=3600)
    env = {"AZURE_CLIENT_ID": "c1", "AZURE_TENANT_ID": "t-1", "AZURE_FEDERATED_TOKEN_FILE": str(token),
           "AZURE_AUTHORITY_HOST": server.url + "/"}
    tool.good(url, "put", "workload", source, env=env)

    expect.update(check=lambda r, q, f: f.get("client_secret") == "s+/=" and f["client_id"] == "c2")
    config = (f"{{url: '{store.url}', container: profiles, auth: {{type: service_principal, tenant_id: t2, "
              "client_id: c2, client_secret: 's+/='}}")
    env = {"AZURE_AUTHORITY_HOST": server.url, "FLUE_OBJECT_CONFIG": config}
    # a token that is refused is renewed once
    lines = f"put a {source}\nput b {source}\n"
    before = gate.given
    tool.good("az:", "several", input=lines.encode(), env=env)
    assert gate.given == before + 1
    assert objects == ["/profiles/vm", "/profiles/service", "/profiles/workload", "/profiles/a", "/profiles/b"]
    expect.update(check=lambda r, q, f: False)


# ---- Google -----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def fakegcs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gcs")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = serve([BIN / "fake-gcs-server", "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend",
                     "memory", "-public-host", f"127.0.0.1:{port}", "-external-url", url],
                    url + "/_internal/healthcheck", folder)
    urllib.request.urlopen(urllib.request.Request(url + "/storage/v1/b", b'{"name":"bucket"}',
                                                  {"content-type": "application/json"})).close()
    yield url
    stop(process)


def test_gcs_round_trip(tool, fakegcs, tmp_path):
    round_trip(tool, "gs://bucket/", tmp_path, {"STORAGE_EMULATOR_HOST": fakegcs})


@pytest.mark.slow
def test_gcs_resumable(tool, fakegcs):
    size = 101 * 1024 * 1024 + 3
    env = {"STORAGE_EMULATOR_HOST": fakegcs}
    tool.good("gs://bucket/", "fill", "big one", size, env=env)
    assert listed(tool.good("gs://bucket/", "list", "big", env=env))[0][1] == str(size)
    tool.good("gs://bucket/", "delete", "big%20one", env=env)
    assert tool.bad("gs://nobucket/", "get", "a", env=env)[0] == "not_found"


@pytest.mark.slow
def test_gcs_a_session_goes_on_where_it_broke(tool, double):
    size = 100 * 1024 * 1024 + 5
    state = {"have": 0, "step": 0}

    def answer(request):
        h = request["headers"]
        if request["method"] == "POST":
            assert "uploadType=resumable" in request["query"] and json.loads(request["body"])["crc32c"]
            assert h["x-upload-content-length"] == str(size)
            return 200, {"location": f"https://elsewhere.example/upload/session?upload_id=a%2Fb"}, b""
        assert request["path"] == "/upload/session" and request["query"] == "upload_id=a%2Fb"
        if h["content-range"] == f"bytes */{size}":
            return 308, {"range": f"bytes=0-{state['have'] - 1}"}, b""
        start = int(h["content-range"].split(" ")[1].split("-")[0])
        assert start == state["have"]
        state["step"] += 1
        if state["step"] == 1:
            state["have"] = 30_000_000
            return 503, {}, b""
        if state["step"] == 2:
            state["have"] = 60_000_000
            return 308, {"range": "bytes=0-59999999"}, b""
        assert len(request["body"]) == size - 60_000_000
        return 200, {}, b"{}"

    server = double(answer)
    tool.good(f"gs://bucket/?endpoint={server.url}&anonymous=true", "fill", "big", size)
    assert state["step"] == 3


def test_gcs_damage_is_seen(tool, double, tmp_path):
    source = body(tmp_path / "x")
    answers = []
    server = double(lambda request: answers.pop(0))
    url = f"gs://bucket/?endpoint={server.url}&anonymous=true"
    answers.append((200, {}, b'{"crc32c":"AAAAAA=="}'))
    assert "checksum" in tool.bad(url, "put", "a", source)[3]
    answers.append((200, {"x-goog-hash": "md5=xx, crc32c=4waSgw=="}, b"123456788"))
    assert "checksum" in tool.bad(url, "get", "a")[3]
    answers.append((200, {"x-goog-hash": "crc32c=4waSgw=="}, b"123456789"))
    assert tool.good(url, "get", "a") == b"123456789"
    for status, text, code, wait in (
            (503, b"", "unavailable", 0), (408, b"", "unavailable", 0), (403, b"{}", "unavailable", 30000),
            (403, b'{"error":{"errors":[{"reason":"rateLimitExceeded"}]}}', "rate_limited", 2000),
            (404, b"{}", "unavailable", 30000), (400, b'{"error":{"message":"no"}}', "refused", 0)):
        answers.append((status, {}, text))
        assert tool.bad(url, "put", "a", source)[:2] == (code, wait)
    answers.append((412, {}, b""))
    assert tool.bad(url, "put", "a", source, "create")[0:3:2] == ("refused", True)


def rsa_key(folder):
    path = folder / "key.pem"
    subprocess.run(["openssl", "genrsa", "-out", path, "2048"], check=True, capture_output=True)
    subprocess.run(["openssl", "rsa", "-in", path, "-pubout", "-out", folder / "public.pem"], check=True,
                   capture_output=True)
    return path.read_text(), folder / "public.pem"


def unbase64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_gcs_credentials(tool, double, tmp_path):
    source = body(tmp_path / "x")
    gate = Bearer(lambda request: (200, {}, b"{}"))
    store = double(gate)
    expect = {}

    def tokens(request):
        good = expect["check"](request, dict(urllib.parse.parse_qsl(request["body"].decode())))
        assert good or "refusal" in expect, request
        if not good:
            return expect["refusal"]
        return 200, expect.get("headers", {}), json.dumps({"access_token": gate.give(), "expires_in": 3599}).encode()

    server = double(tokens)
    url = f"gs://bucket/?endpoint={store.url}"
    private, public = rsa_key(tmp_path)
    file = tmp_path / "credentials.json"
    env = {"GOOGLE_APPLICATION_CREDENTIALS": str(file)}

    def jwt(request, form):
        head, claims, signature = form["assertion"].split(".")
        (tmp_path / "signature").write_bytes(unbase64(signature))
        (tmp_path / "signed").write_text(f"{head}.{claims}")
        checked = subprocess.run(["openssl", "dgst", "-sha256", "-verify", public, "-signature", tmp_path / "signature",
                                  tmp_path / "signed"], capture_output=True)
        claims, head = json.loads(unbase64(claims)), json.loads(unbase64(head))
        return (checked.returncode == 0 and head == {"alg": "RS256", "typ": "JWT", "kid": "k1"} and
                form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer" and claims["iss"] == "me@x" and
                claims["aud"] == server.url + "/token" and claims["exp"] - claims["iat"] == 3600 and
                claims["scope"].endswith("devstorage.read_write"))

    file.write_text(json.dumps({"type": "service_account", "client_email": "me@x", "private_key": private,
                                "private_key_id": "k1", "token_uri": server.url + "/token"}))
    expect["check"] = jwt
    tool.good(url, "put", "a", source, env=env)
    # the token is refused: one more, then the request again
    p = tool(url, "several", input=f"put a {source}\nput b {source}\n".encode(), env=env)
    assert p[0] == 0 and gate.given == 2

    # an assertion of another time is refused; the next is of the server's
    sound = []

    def timely(request, form):
        claims = json.loads(unbase64(form["assertion"].split(".")[1]))
        sound.append(abs(claims["iat"] - time.time()) < 300)
        return sound[-1] and jwt(request, form)

    expect.update(check=timely, refusal=(400, {}, b'{"error": "invalid_grant"}'))
    for hours in (-2, 2):
        tool.good(url, "put", "a", source, env={**env, "FLUE_OBJECT_CLOCK": str(hours * 3600)})
    assert sound == [False, True] * 2
    del expect["refusal"]

    file.write_text(json.dumps({"type": "authorized_user", "client_id": "c", "client_secret": "s/+",
                                "refresh_token": "r", "token_uri": server.url}))
    expect["check"] = lambda r, f: f == {"grant_type": "refresh_token", "client_id": "c", "client_secret": "s/+",
                                         "refresh_token": "r"}
    tool.good(url, "put", "a", source, env=env)

    (tmp_path / "subject").write_text('{"t": "subject.token"}')
    file.write_text(json.dumps({"type": "external_account", "audience": "//iam/p", "token_url": server.url + "/sts",
                                "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
                                "credential_source": {"file": str(tmp_path / "subject"), "format": {
                                    "type": "json", "subject_token_field_name": "t"}}}))
    expect["check"] = lambda r, f: (r["path"] == "/sts" and f["subject_token"] == "subject.token" and
                                    f["audience"] == "//iam/p" and f["grant_type"].endswith("token-exchange"))
    tool.good(url, "put", "a", source, env=env)

    path = "/computeMetadata/v1/instance/service-accounts/default/token"
    expect["check"] = lambda r, f: r["path"] == path and r["headers"]["metadata-flavor"] == "Google"
    env = {"GCE_METADATA_HOST": server.url.removeprefix("http://")}
    assert "something else" in tool.bad(url, "put", "a", source, env=env)[3]
    expect["headers"] = {"metadata-flavor": "Google"}
    tool.good(url, "put", "a", source, env=env)
    file.write_text("{}")
    assert "service_account" in tool.bad(url, "put", "a", source, env={"GOOGLE_APPLICATION_CREDENTIALS": str(file)})[3]


# ---- a folder ---------------------------------------------------------------------------------------

def test_folder_round_trip(tool, tmp_path):
    folder = tmp_path / "folder"
    round_trip(tool, f"file://{folder}", tmp_path, {})
    assert not [p for p in folder.rglob(".flue-*")]
    for key in ("../x", "a/../../x", "a//b", "/a", "a/", ".", "a/.", ".flue-x", "a/.flue-1"):
        assert tool.bad(f"file://{folder}", "put", key, tmp_path / "source")[0] == "invalid", key
    assert not (tmp_path / "x").exists()
    tool.good(f"file://{folder}", "delete", "special/a%20b")
    tool.good(f"file://{folder}", "delete", "dir/empty")
    tool.good(f"file://{folder}", "delete", "dir/new")
    assert not (folder / "dir").exists() and (folder / "special").exists()


def test_folder_that_cannot_be_written(tool, tmp_path):
    (tmp_path / "file").write_text("x")
    assert tool.bad(f"file://{tmp_path}/file", "put", "a", body(tmp_path / "x"))[0] in ("unavailable", "refused")
    assert tool.bad(f"file://{tmp_path}", "put", "file/below", tmp_path / "x")[0] == "refused"
    assert tool.bad(f"file://{tmp_path}/none?create_directory=false", "put", "a", tmp_path / "x")[0] == "unavailable"
    assert tool.bad(f"file://{tmp_path}/none", "get", "a")[0] == "not_found"
