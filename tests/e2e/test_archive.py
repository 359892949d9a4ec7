"""Archives: what object stores and the file exporter keep, read back by flue and by zstd and protobuf alone."""
import gzip
import json
import os
import struct
import subprocess
import sys
import time
import urllib.parse

import httpx
import pytest
import zstandard
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service

from harness import ROOT, free_port, pprof_dump, resolved, wait_for
from test_object_stores import AZURE_ACCOUNT, AZURE_KEY, azurite, connection, fakegcs, listed, tool, versitygw

SECOND = 10**9
INDEX_FRAME, SEEK_FRAME, SEEK_MAGIC = 0x184D2A50, 0x184D2A5E, 0x8F92EAB1


@pytest.fixture
def daemon(flue, tmp_path):
    def start(exporter, extra="", drain="10s", **options):
        port = free_port()
        started = flue(f"""
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
exporters: {{{exporter}}}
{extra}
service:
  {"extensions: [file_storage]" if "file_storage" in extra else ""}
  flue: {{drain_timeout: {drain}}}
  pipelines: {{profiles: {{receivers: [otlp], exporters: [{exporter.split(":")[0].strip()}]}}}}
""", **options)
        started.otlp = port
        return started

    return start


def request(service_name="encoder", at=None, samples=3, value=10, function="encode", attributes=None):
    """One profile of one service: `samples` stacks main;function;leaf-i of cpu nanoseconds."""
    at = at or time.time_ns()
    r = service.ExportProfilesServiceRequest()
    d = r.dictionary
    strings = ["", "cpu", "nanoseconds", "main", function] + [f"leaf-{i}" for i in range(samples)]
    d.string_table.extend(strings)
    d.mapping_table.add()
    d.attribute_table.add()
    d.link_table.add()
    d.function_table.add()
    for i in range(3, len(strings)):
        d.function_table.add(name_strindex=i)
    d.location_table.add()
    for i in range(1, len(d.function_table)):
        d.location_table.add(address=i).lines.add(function_index=i, line=i)
    d.stack_table.add()
    for i in range(samples):
        d.stack_table.add(location_indices=[3 + i, 2, 1])
    resource = r.resource_profiles.add()
    for key, text in {"service.name": service_name, **(attributes or {})}.items():
        resource.resource.attributes.add(key=key).value.string_value = text
    profile = resource.scope_profiles.add().profiles.add(time_unix_nano=at, duration_nano=SECOND, period=1)
    profile.sample_type.type_strindex, profile.sample_type.unit_strindex = 1, 2
    profile.period_type.type_strindex, profile.period_type.unit_strindex = 1, 2
    for i in range(samples):
        profile.samples.add(stack_index=1 + i, values=[value * (i + 1)])
    return r


def send(flue, body, tenant=None):
    import grpc
    from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2_grpc as service_grpc
    with grpc.insecure_channel(f"127.0.0.1:{flue.otlp}") as channel:
        stub = service_grpc.ProfilesServiceStub(channel)
        return stub.Export(body, timeout=30, metadata=[("x-scope-orgid", tenant)] if tenant else None)


def messages(raw):
    at = 0
    while at < len(raw):
        [size] = struct.unpack_from(">I", raw, at)
        yield service.ExportProfilesServiceRequest.FromString(raw[at + 4:at + 4 + size])
        at += 4 + size


def unzstd(path):
    """What `zstd -d` makes of it: frames one behind the other, skippable ones left out."""
    return subprocess.run(["zstd", "-dc", str(path)], check=True, capture_output=True).stdout


class Index:
    """archive/layout/index.proto as protoc reads it."""

    def __init__(self, folder):
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
        subprocess.run(["protoc", f"-I{ROOT}/archive/layout", f"--descriptor_set_out={folder}/index.bin", "index.proto"],
                       check=True)
        pool = descriptor_pool.DescriptorPool()
        for file in descriptor_pb2.FileDescriptorSet.FromString((folder / "index.bin").read_bytes()).file:
            pool.Add(file)
        self.read = message_factory.GetMessageClass(pool.FindMessageTypeByName("flue.archive.v1.Index")).FromString


def seek_table(data):
    """[(compressed, raw)] of zstd's seekable format, and where its frame begins."""
    count, descriptor, magic = struct.unpack_from("<IBI", data, len(data) - 9)
    assert (descriptor, magic) == (0, SEEK_MAGIC)
    start = len(data) - 9 - 8 * count - 8
    assert struct.unpack_from("<II", data, start) == (SEEK_FRAME, 8 * count + 9)
    return [struct.unpack_from("<II", data, start + 8 + 8 * i) for i in range(count)], start


def fetch(binary, *arguments, environment=None, code=0):
    done = subprocess.run([str(binary), "fetch", *map(str, arguments)], capture_output=True,
                          env={**os.environ, **(environment or {})}, timeout=60)
    assert code is None or done.returncode == code, done.stderr.decode()
    done.requests = done.stderr.decode().splitlines()[-1] if done.stderr else ""
    return done


def folded(binary, *arguments, **options):
    text = fetch(binary, *arguments, "--format", "folded", **options).stdout.decode()
    return {line.rpartition(" ")[0]: int(line.rpartition(" ")[2]) for line in text.splitlines()}


def expected(*requests):
    out = {}
    for r in requests:
        d = r.dictionary
        for sample in r.resource_profiles[0].scope_profiles[0].profiles[0].samples:
            names = [d.string_table[d.function_table[d.location_table[i].lines[0].function_index].name_strindex]
                     for i in reversed(d.stack_table[sample.stack_index].location_indices)]
            out[";".join(names)] = out.get(";".join(names), 0) + sample.values[0]
    return out


def test_layout_otlp_of_the_file_exporter(daemon, binary, tmp_path):
    archive = tmp_path / "archive"
    flue = daemon(f"file: {{path: {archive}, layout: otlp, create_directory: true, writer: node-1}}")
    sent = [request(value=10), request(value=7, function="mux"), request(service_name="packager")]
    for r in sent:
        send(flue, r)
    data = sorted(archive.rglob("*.otlp.zst"))
    assert len(data) == 3 and all("/v1/tenant=anonymous/dt=" in str(p) and "-node-1" in p.name for p in data)
    got = {}
    for path in data:
        for message in messages(unzstd(path)):
            for key, count in resolved(message).items():
                got[key] = got.get(key, 0) + count
    want = {}
    for r in sent:
        for key, count in resolved(r).items():
            want[key] = want.get(key, 0) + count
    assert got == want
    assert folded(binary, archive, "--service", "encoder", "--type", "cpu", "--from", "-10m") == expected(*sent[:2])
    assert folded(binary, f"file://{archive}", "--service", "packager") == expected(sent[2])


def test_index_and_seek_table(daemon, binary, tmp_path):
    archive = tmp_path / "archive"
    flue = daemon(f"file: {{path: {archive}, layout: otlp, create_directory: true, writer: node-1}}")
    both = request(service_name="zeta")
    other = request(service_name="alpha", function="other")
    merged = service.ExportProfilesServiceRequest()
    merged.CopyFrom(both)
    resource = merged.resource_profiles.add()
    resource.CopyFrom(both.resource_profiles[0])
    resource.resource.attributes[0].value.string_value = "alpha"
    send(flue, merged)
    send(flue, other)
    schema = Index(tmp_path)
    named, services = [], []
    for index_path in archive.rglob("*.idx"):  # one for each loop
        assert index_path.parent.name == "index" and index_path.name.startswith("node-1")
        index = schema.read(unzstd(index_path))
        assert index.version == 1 and index.writer == index_path.stem
        for stored in index.objects:
            named.append(stored.key)
            services.append([f.service for f in stored.frames])
            check_object(schema, stored, (index_path.parent.parent / stored.key).read_bytes())
    assert sorted(named) == sorted(p.name for p in archive.rglob("*.otlp.zst"))
    assert sorted(services) == [["alpha"], ["alpha", "zeta"]]


def check_object(schema, stored, data):
    assert stored.size == len(data)
    seek, seek_at = seek_table(data)
    assert [(f.size, f.raw_size) for f in stored.frames] == seek
    at = 0
    for frame in stored.frames:  # each can be read alone
        assert frame.offset == at
        at += frame.size
        raw = zstandard.ZstdDecompressor().decompress(data[frame.offset:frame.offset + frame.size])
        assert len(raw) == frame.raw_size
        [message] = messages(raw)
        assert {a.value.string_value for r in message.resource_profiles for a in r.resource.attributes
                if a.key == "service.name"} == {frame.service}
        profiles = [p for r in message.resource_profiles for s in r.scope_profiles for p in s.profiles]
        assert frame.profiles == len(profiles) and frame.samples == sum(len(p.samples) for p in profiles)
        assert frame.min_time_unix_nano == min(p.time_unix_nano for p in profiles)
        assert frame.max_time_unix_nano == max(p.time_unix_nano for p in profiles)
        assert {"cpu", "process_cpu"} <= set(frame.types)
    magic, size = struct.unpack_from("<II", data, at)
    assert magic == INDEX_FRAME and at + 8 + size == seek_at
    assert data[seek_at - 8:seek_at] == b"flueidx1"
    [length] = struct.unpack_from("<I", data, seek_at - 12)
    tail = schema.read(data[seek_at - 12 - length:seek_at - 12])
    assert list(tail.objects[0].frames) == list(stored.frames)


def test_zstd_and_protoc_alone_read_it(daemon, tmp_path):
    archive = tmp_path / "archive"
    flue = daemon(f"file: {{path: {archive}, layout: otlp, create_directory: true}}")
    send(flue, request(function="decode_me"))
    [path] = archive.rglob("*.otlp.zst")
    raw = unzstd(path)
    [size] = struct.unpack_from(">I", raw)
    text = subprocess.run(["protoc", f"-I{ROOT}/proto", "--decode=otlp.ExportProfilesServiceRequest",
                           "profiles_service.proto"], input=raw[4:4 + size], check=True, capture_output=True).stdout
    assert b'"decode_me"' in text and b'"encoder"' in text and b"values: 30" in text
    [path] = archive.rglob("*.idx")
    text = subprocess.run(["protoc", f"-I{ROOT}/archive/layout", "--decode=flue.archive.v1.Index", "index.proto"],
                          input=unzstd(path), check=True, capture_output=True).stdout
    assert b'service: "encoder"' in text and b'types: "process_cpu"' in text


def test_two_gets_find_a_service(daemon, binary, tmp_path):
    archive = tmp_path / "archive"
    flue = daemon(f"file: {{path: {archive}, layout: otlp, create_directory: true, writer: node-1}}")
    ago = time.time_ns() - 600 * SECOND
    r = request(at=ago)
    send(flue, r)
    [index] = archive.rglob("*.idx")
    around = [f"{ago // SECOND - 1}", f"{ago // SECOND + 1}"]
    if around[0][:-4] != around[1][:-4] and int(around[0]) // 3600 != int(around[1]) // 3600:
        pytest.skip("the second lies in two hours")
    question = [archive, "--service", "encoder", "--type", "cpu", "--from", around[0], "--to", around[1]]
    done = fetch(binary, *question, "--writer", index.stem, "--format", "folded")
    assert "2 GETs" in done.requests and "0 LISTs" in done.requests
    done = fetch(binary, *question, "--format", "folded")
    assert "2 GETs" in done.requests and "1 LISTs" in done.requests
    done = fetch(binary, *question, "--layout", "scan", "--format", "folded")
    assert done.stdout.decode().splitlines() == [f"{k} {v}" for k, v in expected(r).items()]


def test_fetch_filters(daemon, binary, tmp_path):
    archive = tmp_path / "archive"
    flue = daemon(f"file: {{path: {archive}, layout: otlp, create_directory: true}}")
    now = time.time_ns()
    old, new = request(at=now - 3 * 3600 * SECOND, function="old"), request(at=now, function="new")
    labelled = request(at=now, function="labelled", attributes={"cdn.region": "eu"})
    for r in (old, new, labelled):
        send(flue, r)
    send(flue, request(at=now, function="theirs"), tenant="media")
    assert folded(binary, archive, "--service", "encoder", "--from", "-1h") == expected(new, labelled)
    assert folded(binary, archive, "--from", "-4h", "--to", "-2h") == expected(old)
    assert folded(binary, archive, "--label", "cdn_region=eu") == expected(labelled)
    assert folded(binary, archive, "--label", "cdn.region=eu") == expected(labelled)
    assert list(folded(binary, archive, "--tenant", "media")) == [f"main;theirs;leaf-{i}" for i in range(3)]
    for nothing in (["--service", "x"], ["--type", "wall"], ["--label", "cdn_region=us"], ["--tenant", "x"]):
        assert b"no profile was found" in fetch(binary, archive, *nothing, code=1).stderr
    out = tmp_path / "out.pb.gz"
    fetch(binary, archive, "--type", "process_cpu", "-o", out)
    assert pprof_dump(out)["totals"]["cpu/nanoseconds"] == sum(expected(new, labelled).values())
    assert gzip.decompress(out.read_bytes())


def test_fetch_of_layout_pprof(daemon, binary, tmp_path):
    archive = tmp_path / "archive"
    flue = daemon(f"file: {{path: {archive}, layout: pprof, create_directory: true}}")
    now = time.time_ns()
    sent = [request(at=now - i * SECOND, value=1 + i) for i in range(5)]
    for r in sent:
        send(flue, r)
    send(flue, request(at=now, function="labelled", attributes={"cdn.region": "eu"}))
    got = folded(binary, archive, "--service", "encoder", "--type", "cpu", "--label", "service_name=encoder")
    assert {k: v for k, v in got.items() if "labelled" not in k} == expected(*sent)
    assert all("labelled" in k for k in folded(binary, archive, "--label", "cdn_region=eu"))
    assert b"no profile was found" in fetch(binary, archive, "--type", "wall", code=1).stderr


def test_fetch_of_any_span_asks_for_what_exists(daemon, binary, tmp_path):
    now = time.time_ns()
    days = [0, 2, 40, 400, 3000]
    sent = [request(at=now - day * 86400 * SECOND, function=f"day-{day}") for day in days]
    for layout in ("otlp", "pprof"):
        archive = tmp_path / layout
        flue = daemon(f"file: {{path: {archive}, layout: {layout}, create_directory: true, writer: node-1}}")
        for r in sent:
            send(flue, r)
        flue.finish()
        # What does not belong there is no day and no hour.
        root = next(archive.rglob("dt=*")).parent
        for stray in ("dt=2025-13-01", "dt=2025-02-30", "dt=x", "other"):
            (root / stray / "hour=00").mkdir(parents=True)
        (next(root.glob("dt=20*-*-*/")) / "hour=24").mkdir()
        question = ["--layout", layout, "--service", "encoder", "--type", "cpu"]
        assert folded(binary, archive, *question, "--from", "-87600h") == expected(*sent)
        assert folded(binary, archive, *question, "--from", "1971-01-01") == expected(*sent)
        assert folded(binary, archive, *question, "--from", "-1000h", "--to", "-47h") == expected(*sent[1:3])
        assert b"no profile was found" in fetch(binary, archive, *question, "--from", "-2000h", "--to", "-1000h",
                                                code=1).stderr
        done = fetch(binary, archive, *question, "--from", "-87600h", "--format", "folded")
        lists = int(done.requests.rpartition(" LISTs")[0].rpartition(" ")[2])
        assert lists <= 2 + 2 * len(days) + 1, done.requests  # folders, days, hours: not 87,600
        # Without a queue on disk every loop is a writer of its own, named after the one.
        done = fetch(binary, archive, *question, "--writer", "node-1", "--from", "-87600h", "--format", "folded")
        assert len(done.stdout.splitlines()) == 3 * len(days)


def test_folded_text_has_one_line_per_text(daemon, binary, tmp_path):
    """Stacks that differ by line and address only."""
    archive = tmp_path / "archive"
    flue = daemon(f"file: {{path: {archive}, layout: otlp, create_directory: true}}")
    r = request(samples=1, value=3)
    d, profile = r.dictionary, r.resource_profiles[0].scope_profiles[0].profiles[0]
    for line in range(50, 60):
        d.location_table.add(address=1000 + line).lines.add(function_index=3, line=line)
        d.stack_table.add(location_indices=[len(d.location_table) - 1, 2, 1])
        profile.samples.add(stack_index=len(d.stack_table) - 1, values=[1])
    send(flue, r)
    lines = fetch(binary, archive, "--service", "encoder", "--format", "folded").stdout.decode().splitlines()
    assert lines == ["main;encode;leaf-0 13"]


def test_hostile_names(daemon, binary, tmp_path):
    for layout in ("otlp", "pprof"):
        archive = tmp_path / layout
        flue = daemon(f"file: {{path: {archive}, layout: {layout}, create_directory: true}}")
        names = ["../../etc/passwd", ".", "..", "a/b", "%2e%2e/", "x" * 400, "\n\"<script>&'", "é\u202e"]
        for i, name in enumerate(names):
            send(flue, request(service_name=name, function=f"f{i}"), tenant="..team!*'()" if i % 2 else None)
        inside = {p for p in archive.rglob("*")}
        assert all(p.resolve().is_relative_to(archive.resolve()) for p in inside)
        assert not (tmp_path / "etc").exists() and len(list(tmp_path.iterdir())) <= 5
        for i, name in enumerate(names):
            tenant = ["--tenant", "..team!*'()"] if i % 2 else []
            assert folded(binary, archive, "--service", name, *tenant) == expected(request(function=f"f{i}"))
        flue.finish()


def test_flame_graph_is_one_safe_file(daemon, binary, tmp_path):
    import xml.etree.ElementTree as tree
    archive = tmp_path / "archive"
    flue = daemon(f"file: {{path: {archive}, layout: otlp, create_directory: true}}")
    name = "</title><script>alert(1)</script>&\"'\x01]]>"
    send(flue, request(function=name, samples=20))
    picture = tmp_path / "out.svg"
    fetch(binary, archive, "--service", "encoder", "--format", "svg", "-o", picture)
    root = tree.parse(picture).getroot()
    titles = [t.text for t in root.iter("{http://www.w3.org/2000/svg}title")]
    assert any(t.startswith(name.replace("\x01", " ")) for t in titles)
    assert len(list(root.iter("{http://www.w3.org/2000/svg}script"))) == 1
    assert "href" not in picture.read_text()
    total = sum(10 * (i + 1) for i in range(20))
    assert titles[0].startswith("all (") and len(titles) == 3 + 20 and f"{total / 1000:.2f}" in titles[0]


def test_damaged_objects_are_said_and_left_out(daemon, binary, tmp_path):
    archive = tmp_path / "archive"
    flue = daemon(f"file: {{path: {archive}, layout: otlp, create_directory: true}}")
    good, bad = request(function="good"), request(function="bad")
    send(flue, good)
    first = set(archive.rglob("*.otlp.zst"))
    send(flue, bad)
    [damaged] = set(archive.rglob("*.otlp.zst")) - first
    data = bytearray(damaged.read_bytes())
    data[20] ^= 0xFF
    damaged.write_bytes(data)
    done = fetch(binary, archive, "--format", "folded")
    assert b"left out" in done.stderr and damaged.name.encode() in done.stderr
    assert done.stdout.decode().splitlines() == [f"{k} {v}" for k, v in expected(good).items()]
    for index in archive.rglob("*.idx"):
        index.write_bytes(b"garbage")
    assert b"left out" in fetch(binary, archive, code=1).stderr
    # the writer begins its index anew, and listing finds what it does not name
    again = request(function="again")
    flue.finish()
    flue = daemon(f"file: {{path: {archive}, layout: otlp}}")
    send(flue, again)
    assert folded(binary, archive, "--layout", "scan") == expected(good, again)


def test_an_index_of_an_earlier_life_is_kept(daemon, binary, tmp_path):
    archive = tmp_path / "archive"
    archive.mkdir()
    sent = []
    for life in range(3):
        flue = daemon(f"file: {{path: {archive}, layout: otlp, writer: node-1}}")
        sent.append(request(function=f"life{life}"))
        send(flue, sent[-1])
        flue.finish()
    assert folded(binary, archive, "--service", "encoder") == expected(*sent)


# ---- object stores -------------------------------------------------------------------------------


class Bucket:
    """What a test needs of S3: keys and bytes, every PUT in order; data objects from `hold` on are not answered."""

    def __init__(self):
        import http.server
        import threading
        import urllib.parse
        bucket = self
        self.objects, self.puts, self.gets, self.hold, self.refuse = {}, [], [], None, 0
        self.lock = threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self, status, body=b""):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def key(self):
                return urllib.parse.unquote(urllib.parse.urlsplit(self.path).path).removeprefix("/bucket/")

            def do_PUT(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with bucket.lock:
                    if bucket.refuse:
                        bucket.refuse -= 1
                        return self.answer(503, b"<Error><Code>SlowDown</Code></Error>")
                    bucket.objects[self.key()] = body
                    bucket.puts.append((self.key(), body))
                    number = len(bucket.data())
                while bucket.hold and number >= bucket.hold and not self.key().endswith(".idx"):
                    time.sleep(0.05)
                self.answer(200)

            def do_GET(self):
                with bucket.lock:
                    bucket.gets.append(self.key())
                    body = bucket.objects.get(self.key())
                self.answer(200 if body is not None else 404, body or b"<Error><Code>NoSuchKey</Code></Error>")

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def data(self, puts=None):
        return [(k, b) for k, b in (self.puts if puts is None else puts) if k.endswith(".otlp.zst")]

    def stop(self):
        self.hold = None
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def bucket():
    b = Bucket()
    yield b
    b.stop()


AWS = {"AWS_ACCESS_KEY_ID": "testkey", "AWS_SECRET_ACCESS_KEY": "testsecret/+=", "AWS_EC2_METADATA_DISABLED": "true"}


def s3(port, layout="otlp", more="", uploader=""):
    return (f"awss3: {{s3uploader: {{region: us-east-1, s3_bucket: bucket, endpoint: 'http://127.0.0.1:{port}', "
            f"s3_force_path_style: true{uploader}}}, layout: {layout}, writer: node-1{more}}}")


def durable(folder):
    return f"extensions: {{file_storage: {{directory: {folder}, create_directory: true}}}}"


ROLLUP = ", sending_queue: {storage: file_storage}, rollup: {max_age: 2s}"


def stored(body):
    raw = zstandard.ZstdDecompressor().decompressobj()
    out, data = b"", body
    while data:
        one = zstandard.ZstdDecompressor().decompressobj()
        try:
            out += one.decompress(data)
        except zstandard.ZstdError:
            break  # the skippable frames
        data = one.unused_data
    return list(messages(out))


def test_many_requests_become_one_object(daemon, binary, bucket, tmp_path):
    flue = daemon(s3(bucket.port, more=ROLLUP), durable(tmp_path / "queue"), environment=AWS)
    now = time.time_ns()
    sent = [request(service_name=f"service-{i % 5}", at=now - i, value=1 + i) for i in range(40)]
    for r in sent:
        send(flue, r)
    wait_for(lambda: flue.total("otelcol_exporter_sent_profiles") == 40, 30, "the object")
    flue.wait_quiet()
    data = bucket.data()
    assert len(data) == 1 or len({k.rpartition("/")[0] for k, _ in data}) == len(data)  # one an hour
    got = {}
    for _, body in data:
        parts = stored(body)
        assert len(parts) == 5  # a frame for every service, with one dictionary
        for part in parts:
            assert len(part.dictionary.stack_table) == 4
            for key, count in resolved(part).items():
                got[key] = got.get(key, 0) + count
    want = {}
    for r in sent:
        for key, count in resolved(r).items():
            want[key] = want.get(key, 0) + count
    assert got == want
    assert [k for k in bucket.objects if k.endswith(".idx")]
    key = data[0][0]
    assert key.startswith("v1/tenant=anonymous/dt=") and "-node-1" in key


def test_a_kill_after_the_put_writes_the_same_key_and_bytes(daemon, bucket, tmp_path):
    import signal
    bucket.hold = 1
    config = s3(bucket.port, more=ROLLUP), durable(tmp_path / "queue")
    flue = daemon(*config, environment=AWS, balance=False)
    now = time.time_ns() // (3600 * SECOND) * 3600 * SECOND + 5 * SECOND  # one hour, whatever the time
    sent = [request(service_name=f"service-{i}", at=now + i, value=1 + i) for i in range(10)]
    for r in sent:
        send(flue, r)
    wait_for(bucket.data, 30, "the first PUT")
    flue.process.send_signal(signal.SIGKILL)
    flue.process.wait(10)
    first = bucket.data()[0]
    bucket.hold = None
    late = request(service_name="late", at=now + 99)
    flue = daemon(*config, environment=AWS)
    send(flue, late)  # not of the cut that was logged
    wait_for(lambda: flue.total("otelcol_exporter_sent_profiles") == 11, 60, "all to be written")
    puts = bucket.data()
    again = [p for p in puts if p[0] == first[0]]
    assert len(again) >= 2 and all(p == first for p in again)
    assert len({k for k, _ in puts}) == 2  # nothing else but the late one
    got = [resolved(part) for k, body in bucket.data(list(bucket.objects.items())) for part in stored(body)]
    assert sum(len(g) for g in got) == 33
    flue.finish()
    before = len(bucket.puts)
    flue = daemon(*config, environment=AWS)  # nothing is left
    time.sleep(3)
    assert len(bucket.puts) == before


def test_a_kill_after_the_object_was_noted_writes_nothing_twice(daemon, bucket, tmp_path):
    """Two places: one is written, the other hangs; after the kill only the other is written again."""
    import signal
    config = s3(bucket.port, more=ROLLUP), durable(tmp_path / "queue")
    bucket.hold = 2
    flue = daemon(*config, environment=AWS, balance=False)
    hour = 3600 * SECOND
    now = time.time_ns() // hour * hour + SECOND
    both = request(at=now)
    second = both.resource_profiles.add()
    second.CopyFrom(both.resource_profiles[0])
    second.scope_profiles[0].profiles[0].time_unix_nano = now - hour
    send(flue, both)
    wait_for(lambda: len(bucket.data()) == 2 and len(bucket.puts) == 3, 30, "one object with its index, and another")
    time.sleep(0.5)  # the note of it, which nobody outside sees
    flue.process.send_signal(signal.SIGKILL)
    flue.process.wait(10)
    bucket.hold = None
    written = bucket.data()[0][0]
    flue = daemon(*config, environment=AWS)
    wait_for(lambda: flue.total("otelcol_exporter_sent_profiles") == 2, 60, "the record to end")
    for key, body in bucket.data():
        assert body == bucket.objects[key]
    assert len({k for k, _ in bucket.data()}) == 2
    assert [k for k, _ in bucket.data()].count(written) == 1


def test_a_store_that_is_down_loses_nothing(daemon, bucket, tmp_path):
    bucket.refuse = 5
    flue = daemon(s3(bucket.port, more=ROLLUP), durable(tmp_path / "queue"), environment=AWS)
    for i in range(3):
        send(flue, request(service_name=f"s{i}"))
    wait_for(lambda: flue.total("otelcol_exporter_sent_profiles") == 3, 60, "the object")
    assert bucket.refuse == 0
    assert {a.value.string_value for _, body in bucket.data() for part in stored(body)
            for r in part.resource_profiles for a in r.resource.attributes} == {"s0", "s1", "s2"}


def test_a_stop_leaves_what_is_gathered_in_the_queue(daemon, bucket, tmp_path):
    more = ", sending_queue: {storage: file_storage}, rollup: {max_age: 1h}"
    flue = daemon(s3(bucket.port, more=more), durable(tmp_path / "queue"), drain="1h", environment=AWS)
    for i in range(5):
        send(flue, request(service_name=f"s{i}"))
    flue.finish()  # long before the drain's end
    assert not bucket.puts
    flue = daemon(s3(bucket.port, more=ROLLUP), durable(tmp_path / "queue"), environment=AWS)
    wait_for(lambda: flue.total("otelcol_exporter_sent_profiles") == 5, 30, "the object")


def test_objects_of_the_collector(daemon, bucket, tmp_path):
    flue = daemon(
        f"awss3: {{s3uploader: {{region: us-east-1, s3_bucket: bucket, endpoint: 'http://127.0.0.1:{bucket.port}', "
        "s3_force_path_style: true, s3_base_prefix: /base/, s3_prefix: in, file_prefix: p-, compression: gzip, "
        "s3_partition_timezone: UTC, unique_key_func_name: uuidv7}, marshaler: otlp_proto, "
        "resource_attrs_to_s3: {s3_prefix: team}}", environment=AWS)
    at = 1795000000 * SECOND
    send(flue, request(at=at))
    send(flue, request(at=at, attributes={"team": "../media/x"}))
    wait_for(lambda: len(bucket.puts) == 2, 20, "two objects")
    import re
    folder = time.strftime("year=%Y/month=%m/day=%d/hour=%H/minute=%M", time.gmtime(1795000000))
    keys = sorted(k for k, _ in bucket.puts)
    unique = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
    assert re.fullmatch(f"base/%2E./media/x/{folder}/p-profiles_{unique}\\.binpb\\.gz", keys[0]), keys[0]
    assert re.fullmatch(f"base/in/{folder}/p-profiles_{unique}\\.binpb\\.gz", keys[1]), keys[1]
    got = service.ExportProfilesServiceRequest.FromString(gzip.decompress(dict(bucket.puts)[keys[1]]))
    assert resolved(got) == resolved(request(at=at))


def test_one_request_of_several_minutes_is_several_objects(daemon, bucket):
    flue = daemon(s3(bucket.port, layout="otlp_json"), environment=AWS)
    r = request(at=1795000000 * SECOND)
    for i in range(3):
        extra = r.resource_profiles.add()
        extra.CopyFrom(r.resource_profiles[0])
        extra.scope_profiles[0].profiles[0].time_unix_nano += (i + 1) * 60 * SECOND
    send(flue, r)
    wait_for(lambda: len(bucket.puts) == 4, 20, "four objects")
    assert len({k.rpartition("/")[0] for k, _ in bucket.puts}) == 4
    for _, body in bucket.puts:
        tree = json.loads(body)
        assert len(tree["resourceProfiles"]) == 1 and len(tree["dictionary"]["stackTable"]) == 4


def test_unsupported_marshalers_are_said(binary, tmp_path):
    for key, text in (("marshaler: sumo_ic", "cannot carry profiles"), ("marshaler: body", "cannot carry profiles"),
                      ("encoding: text_encoding", "no encoding extension"),
                      ("s3uploader: {s3_bucket: b, s3_partition_timezone: Nowhere/Land}", "no time zone")):
        block = f"{{s3uploader: {{s3_bucket: b}}, {key}}}" if "s3uploader" not in key else f"{{{key}}}"
        config = tmp_path / "c.yaml"
        config.write_text(f"receivers: {{otlp: {{protocols: {{grpc: {{}}}}}}}}\nexporters: {{awss3: {block}}}\n"
                          "service: {pipelines: {profiles: {receivers: [otlp], exporters: [awss3]}}}\n")
        done = subprocess.run([str(binary), "validate", "--config", str(config)], capture_output=True, text=True)
        assert done.returncode == 1 and text in done.stderr, done.stderr


# ---- real stores ---------------------------------------------------------------------------------


def test_real_stores(daemon, binary, tmp_path, request):
    """Rolled up into each of them, and read back by flue."""
    gateway = request.getfixturevalue("versitygw")[0]
    blobs, google = request.getfixturevalue("azurite"), request.getfixturevalue("fakegcs")
    s3_port = gateway.rpartition(":")[2].partition("&")[0]
    azure = connection(blobs)
    stores = {
        "awss3": (s3(s3_port, more=ROLLUP, uploader=", s3_base_prefix: teams/"),
                  gateway.replace("bucket/?", "bucket/teams?"), AWS),
        "azureblob": ("azureblob: {auth: {type: connection_string, connection_string: '%s'}, layout: otlp, "
                      "prefix: teams, writer: node-1%s}" % (azure["AZURE_STORAGE_CONNECTION_STRING"], ROLLUP),
                      "az:///profiles/teams", azure),
        "googlecloudstorage": ("googlecloudstorage: {bucket: {name: bucket, partition: {prefix: teams}}, layout: otlp, "
                               "writer: node-1%s}" % ROLLUP, "gs://bucket/teams", {"STORAGE_EMULATOR_HOST": google}),
    }
    for name, (exporter, url, environment) in stores.items():
        flue = daemon(exporter, durable(tmp_path / name), environment=environment)
        sent = [profile_request(value=1 + i) for i in range(10)]
        for r in sent:
            send(flue, r, tenant="media")
        wait_for(lambda: flue.total("otelcol_exporter_sent_profiles") == 10, 30, f"the object in {name}")
        question = [url, "--tenant", "media", "--service", "encoder", "--type", "cpu"]
        assert folded(binary, *question, environment=environment) == expected(*sent)
        done = fetch(binary, *question, "--layout", "scan", "--format", "svg", environment=environment)
        assert b"</svg>" in done.stdout


def test_layout_pprof_in_a_real_store(daemon, binary, versitygw):
    gateway = versitygw[0]
    port = gateway.rpartition(":")[2].partition("&")[0]
    flue = daemon(s3(port, layout="pprof", uploader=", s3_base_prefix: single"), environment=AWS)
    sent = [profile_request(value=1 + i, at=time.time_ns() - i * 1000) for i in range(5)]
    for r in sent:
        send(flue, r)
    wait_for(lambda: flue.total("otelcol_exporter_sent_profiles") == 5, 30, "the objects")
    [path] = {p.parent for p in versitygw[1].rglob("single/anonymous/encoder/process_cpu/dt=*/hour=*/*.pb.gz")}
    assert len(list(path.glob("*.pb.gz"))) == len(list(path.glob("*.json"))) == 5
    url = gateway.replace("bucket/?", "bucket/single?")
    assert folded(binary, url, "--service", "encoder", "--type", "cpu", environment=AWS) == expected(*sent)


def test_buckets_by_attribute(daemon, versitygw):
    gateway, folder = versitygw
    port = gateway.rpartition(":")[2].partition("&")[0]
    for name in ("team-a", "team-b"):
        (folder.parent / name).mkdir(exist_ok=True)
    flue = daemon(s3(port, layout="otlp_proto", more=", resource_attrs_to_s3: {s3_bucket: team.bucket}",
                     uploader=", s3_base_prefix: routed"), environment=AWS)
    both = profile_request(function="a", attributes={"team.bucket": "team-a"})
    other = profile_request(function="b", attributes={"team.bucket": "team-b"})
    both.MergeFrom(service.ExportProfilesServiceRequest(resource_profiles=[both.resource_profiles[0]]))
    both.resource_profiles[1].resource.attributes[1].value.string_value = "team-b"  # one request, two buckets
    for r in (both, other, profile_request(function="c")):
        send(flue, r)
    want = {"team-a": 1, "team-b": 2, "bucket": 1}
    wait_for(lambda: {b: len(list((folder.parent / b).rglob("routed/**/*.binpb"))) for b in want} == want, 20, "objects")
    for name in ("team-a", "team-b"):
        for path in (folder.parent / name).rglob("routed/**/*.binpb"):
            got = service.ExportProfilesServiceRequest.FromString(path.read_bytes())
            [resource] = got.resource_profiles
            attributes = {a.key: a.value.string_value for a in resource.resource.attributes}
            assert attributes["team.bucket"] == name


@pytest.mark.parametrize("layout", ["otlp_proto", "otlp_json"])
def test_objects_of_the_collector_in_azure_and_gcs(daemon, tool, azurite, fakegcs, layout):
    from google.protobuf import json_format
    environment = {"azureblob": connection(azurite), "googlecloudstorage": {"STORAGE_EMULATOR_HOST": fakegcs}}
    prefix = f"of-the-collector-{layout}"
    exporters = {
        "azureblob": "azureblob: {auth: {type: connection_string, connection_string: '%s'}, prefix: %s, partition_format: 'year=%%Y', layout: %s}"
                     % (environment["azureblob"]["AZURE_STORAGE_CONNECTION_STRING"], prefix, layout),
        "googlecloudstorage": "googlecloudstorage: {bucket: {name: bucket, partition: {prefix: %s, format: 'year=%%Y'}}, layout: %s}"
                              % (prefix, layout)}
    urls = {"azureblob": "az:///profiles/", "googlecloudstorage": "gs://bucket/"}
    for name, exporter in exporters.items():
        flue = daemon(exporter, environment=environment[name])
        sent = profile_request(service_name="a\\b", at=1795000000 * SECOND)
        send(flue, sent)
        wait_for(lambda: flue.total("otelcol_exporter_sent_profiles") == 1, 20, f"the object in {name}")
        [(key, *_)] = listed(tool.good(urls[name], "list", prefix, env=environment[name]))
        key = urllib.parse.unquote(key)
        assert key.startswith(f"{prefix}/year=2026/") and "\\" not in key
        body = tool.good(urls[name], "get", key, env=environment[name])
        got = (service.ExportProfilesServiceRequest.FromString(body) if layout == "otlp_proto" else None)
        if got is None:
            tree = json.loads(body)
            [attribute] = [a for a in tree["resourceProfiles"][0]["resource"]["attributes"] if a["key"] == "service.name"]
            assert attribute["value"]["stringValue"] == "a\\b"
        else:
            assert resolved(got) == resolved(sent)


def test_azure_never_sees_a_backslash(daemon, binary, azurite):
    """Azure takes it for a slash: the layouts escape it."""
    environment = connection(azurite)
    for layout in ("pprof", "otlp"):
        flue = daemon("azureblob: {auth: {type: connection_string, connection_string: '%s'}, prefix: slash-%s, layout: %s}"
                      % (environment["AZURE_STORAGE_CONNECTION_STRING"], layout, layout), environment=environment)
        sent = profile_request(service_name="media\\encoder", function=layout)
        send(flue, sent, tenant="team-a")
        wait_for(lambda: flue.total("otelcol_exporter_sent_profiles") == 1, 20, "the object")
        assert folded(binary, f"az:///profiles/slash-{layout}", "--tenant", "team-a", "--service", "media\\encoder",
                      environment=environment) == expected(sent)


def test_an_object_is_cut_into_parts_at_its_size(daemon, binary, bucket, tmp_path):
    import random
    rollup = ", sending_queue: {storage: file_storage}, rollup: {max_size: 64KiB, max_age: 2s}"
    flue = daemon(s3(bucket.port, more=rollup), durable(tmp_path / "queue"), environment=AWS)
    draw, now = random.Random(1), time.time_ns()
    sent = []
    for i in range(30):  # about 13 KB each when packed
        r = request(service_name=f"service-{i % 3}", at=now, samples=40, value=1 + i)
        for k in range(3, len(r.dictionary.string_table)):
            r.dictionary.string_table[k] = draw.randbytes(300).hex()
        sent.append(r)
        send(flue, r)
    wait_for(lambda: flue.total("otelcol_exporter_sent_profiles") == 30, 30, "the objects")
    flue.wait_quiet()
    data = bucket.data()
    assert len(data) >= 3 and len({k for k, _ in data}) == len(data)
    assert all(len(body) < 256 * 1024 for _, body in data), [len(body) for _, body in data]  # and what is open
    got, want = {}, {}
    for _, body in data:
        for part in stored(body):
            for key, count in resolved(part).items():
                got[key] = got.get(key, 0) + count
    for r in sent:
        for key, count in resolved(r).items():
            want[key] = want.get(key, 0) + count
    assert got == want


profile_request = request
