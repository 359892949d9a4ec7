"""Archives: what object stores and the file exporter keep, read back by flue and by zstd and protobuf alone."""
import gzip
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import time

import httpx
import pytest
import zstandard
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service

from harness import ROOT, free_port, pprof_dump, resolved, wait_for
from test_otlp import BODIES, export

SECOND = 10**9
INDEX_FRAME, SEEK_FRAME, SEEK_MAGIC = 0x184D2A50, 0x184D2A5E, 0x8F92EAB1


@pytest.fixture
def daemon(flue, tmp_path):
    def start(exporter, extra="", **options):
        port = free_port()
        started = flue(f"""
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
exporters: {{{exporter}}}
{extra}
service:
  {"extensions: [file_storage]" if "file_storage" in extra else ""}
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
    assert done.returncode == code, done.stderr.decode()
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
