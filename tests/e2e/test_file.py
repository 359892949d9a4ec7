"""The file exporter: an archive that google/pprof reads, and the Collector's own forms."""
import gzip
import json
import os
import struct

import httpx
import pytest
import zstandard
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service

from harness import ROOT, free_port, pprof_dump, replay, resolved, wait_for, without_resource
from test_otlp import BODIES, export


@pytest.fixture
def daemon(flue, tmp_path):
    def start(exporter):
        ports = {"otlp": free_port(), "pyroscope": free_port(), "pprof": free_port()}
        started = flue(f"""
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{ports['otlp']}"}}}}}}
  pyroscope: {{endpoint: "127.0.0.1:{ports['pyroscope']}"}}
  pprof: {{server: {{endpoint: "127.0.0.1:{ports['pprof']}"}}}}
processors: {{resource: {{attributes: [{{key: cdn.region, value: eu-west, action: upsert}}]}}}}
exporters: {{file: {{{exporter}}}}}
service: {{pipelines: {{profiles: {{receivers: [otlp, pyroscope, pprof], processors: [resource], exporters: [file]}}}}}}
""")
        started.ports = ports
        return started

    return start


def test_archive_of_pprof(daemon, tmp_path):
    archive = tmp_path / "archive"
    flue = daemon(f"path: {archive}, layout: pprof, create_directory: true")
    profile = (ROOT / "examples/go-cpu.pb.gz").read_bytes()
    url = f"http://127.0.0.1:{flue.ports['pprof']}/v1/pprof?service.name=..%2F..%2Fencoder"
    assert httpx.post(url, content=profile, headers={"X-Scope-OrgID": "media"}).status_code == 204
    [stored] = archive.rglob("*.pb.gz")
    assert stored.read_bytes() == profile
    assert stored.is_relative_to(archive)
    parts = stored.relative_to(archive).parts
    manifest = json.loads(stored.with_name(stored.name.replace(".pb.gz", ".json")).read_text())
    time_ns = pprof_dump(stored)["time_nanos"]
    assert manifest["time_unix_nano"] == str(time_ns)
    day, hour = manifest["time"][:10], manifest["time"][11:13]
    assert parts[:1] + parts[2:5] == ("media", "process_cpu", f"dt={day}", f"hour={hour}")
    assert "/" not in parts[1] and not parts[1].startswith(".")
    assert manifest["labels"]["service_name"] == "../../encoder" and manifest["labels"]["cdn_region"] == "eu-west"
    assert manifest["object"] == stored.name
    # the same again replaces itself
    assert httpx.post(url, content=profile, headers={"X-Scope-OrgID": "media"}).status_code == 204
    assert len(list(archive.rglob("*"))) == len(parts) + 1
    assert not list(archive.rglob("*.tmp"))


def test_archive_of_otlp(daemon, tmp_path):
    archive = tmp_path / "archive"
    flue = daemon(f"path: {archive}, layout: pprof, create_directory: true")
    request = service.ExportProfilesServiceRequest.FromString(BODIES[0].read_bytes())
    export(flue.ports["otlp"], BODIES[0].read_bytes())
    objects = list(archive.rglob("*.pb.gz"))
    events = sum(len(s.timestamps_unix_nano) or sum(s.values) for r in request.resource_profiles
                 for sc in r.scope_profiles for p in sc.profiles for s in p.samples)
    dumps = [pprof_dump(o) for o in objects]
    period = request.resource_profiles[0].scope_profiles[0].profiles[0].period
    assert sum(d["totals"]["cpu/nanoseconds"] for d in dumps) == events * period
    assert len(objects) == len(request.resource_profiles)


@pytest.mark.parametrize("name", ["pyroscope-python/cpu-and-memory", "pyroscope-rust/memory-jemalloc", "pyroscope-go/mutex"])
def test_archive_of_captures(daemon, tmp_path, captures, name):
    archive = tmp_path / "archive"
    flue = daemon(f"path: {archive}, layout: pprof, create_directory: true")
    folder, capture = name.split("/")
    assert replay(flue.ports["pyroscope"], captures / folder, capture).status_code == 200
    objects = list(archive.rglob("*.pb.gz"))
    assert objects and all(pprof_dump(o)["sample_count"] > 0 for o in objects)


def test_a_full_or_missing_folder_is_an_error_the_sender_sees(daemon, tmp_path):
    archive = tmp_path / "archive"
    flue = daemon(f"path: {archive}, layout: pprof, create_directory: true")
    os.rename(archive, tmp_path / "gone")
    (tmp_path / "archive").write_text("a file where the folder was")
    url = f"http://127.0.0.1:{flue.ports['pprof']}/v1/pprof?service.name=a"
    answer = httpx.post(url, content=(ROOT / "examples/go-cpu.pb.gz").read_bytes())
    assert answer.status_code == 503, answer.text
    assert flue.total("otelcol_exporter_sent_profiles") == 0


def messages(data):
    at = 0
    while at < len(data):
        [size] = struct.unpack_from(">I", data, at)
        yield data[at + 4:at + 4 + size]
        at += 4 + size


@pytest.mark.parametrize("format,compression", [("json", ""), ("proto", ""), ("json", "zstd"), ("proto", "zstd")])
def test_forms_of_the_collector(daemon, tmp_path, format, compression):
    path = tmp_path / "out" / "profiles"
    flue = daemon(f'path: {path}, format: {format}, compression: "{compression}", create_directory: true')
    for body in BODIES[:2]:
        export(flue.ports["otlp"], body.read_bytes())
    data = path.read_bytes()
    parts = list(messages(data)) if format == "proto" or compression else data.splitlines()
    assert len(parts) == 2
    for body, part in zip(BODIES, parts):
        if compression:
            part = zstandard.ZstdDecompressor().decompressobj().decompress(part)
        if format == "proto":
            sent = service.ExportProfilesServiceRequest.FromString(body.read_bytes())
            got = service.ExportProfilesServiceRequest.FromString(part)
            assert without_resource(resolved(got)) == without_resource(resolved(sent))
        else:
            tree = json.loads(part)
            assert tree["resourceProfiles"] and tree["dictionary"]["stringTable"][0] == ""


def test_rotation(daemon, tmp_path):
    path = tmp_path / "p.json"
    flue = daemon(f"path: {path}, rotation: {{max_megabytes: 1, max_backups: 2}}")
    for _ in range(40):
        export(flue.ports["otlp"], BODIES[0].read_bytes())
    files = sorted(tmp_path.glob("p*.json"))
    assert 2 <= len(files) <= 3
    assert all(f.stat().st_size <= 1 << 20 for f in files)
    assert all(json.loads(line) for f in files for line in f.read_text().splitlines())


def test_group_by_an_attribute(daemon, tmp_path):
    flue = daemon(f'path: "{tmp_path}/out/*.otlp", format: proto, create_directory: true, '
                  "group_by: {enabled: true, resource_attribute: process.executable.name, max_open_files: 2}")
    request = service.ExportProfilesServiceRequest.FromString(BODIES[0].read_bytes())
    name = lambda r: next((a.value.string_value for a in r.resource.attributes if a.key == "process.executable.name"), "MISSING")
    request.resource_profiles[0].resource.ClearField("attributes")
    for a in request.resource_profiles[1].resource.attributes:
        if a.key == "process.executable.name":
            a.value.string_value = "../../x"
    body = request.SerializeToString()
    for _ in range(2):
        export(flue.ports["otlp"], body)
    files = {p.name: p for p in (tmp_path / "out").iterdir()}
    names = {name(r) for r in request.resource_profiles}
    assert len(files) == len(names) and "MISSING.otlp" in files and "%2E.%2F..%2Fx.otlp" in files
    got = {}
    for path in files.values():
        parts = [service.ExportProfilesServiceRequest.FromString(m) for m in messages(path.read_bytes())]
        assert len(parts) == 2
        for part in parts:
            assert len({name(r) for r in part.resource_profiles}) == 1
            used = {s.stack_index for r in part.resource_profiles for sc in r.scope_profiles for p in sc.profiles for s in p.samples}
            assert len(part.dictionary.stack_table) <= len(used) + 1
            for key, count in without_resource(resolved(part)).items():
                got[key] = got.get(key, 0) + count
    assert got == {k: 2 * v for k, v in without_resource(resolved(request)).items()}
