"""The processor cdn in the running daemon: tables and databases made by others' libraries, swapped
and damaged under it; the commands `cdn explain` and `cdn import`."""
import os
import random
import re
import shlex
import subprocess

import mmdb_writer
import netaddr
import pytest

from harness import ROOT, free_port, wait_for
from test_otlp import export

from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service


def database(path, **networks):
    writer = mmdb_writer.MMDBWriter(ip_version=6, ipv4_compatible=True, database_type="Test-City",
                                    languages=["en"])
    for city, network in networks.items():
        writer.insert_network(netaddr.IPSet([network]), {
            "city": {"names": {"en": city}}, "country": {"iso_code": "NL"}, "subdivisions": [{"iso_code": "NH"}],
            "location": {"latitude": 52.25, "longitude": 4.5}, "autonomous_system_number": 64500})
    writer.to_db_file(str(path))


def replace(path, content):
    """As geoipupdate and everybody careful does it."""
    path.with_suffix(".new").write_bytes(content)
    os.replace(path.with_suffix(".new"), path)


def request_of(*addresses):
    request = service.ExportProfilesServiceRequest()
    d = request.dictionary
    d.string_table.extend(["", "cpu", "nanoseconds", "work"])
    for table in (d.mapping_table, d.location_table, d.function_table, d.link_table, d.attribute_table, d.stack_table):
        table.add()
    for address in addresses:
        resource = request.resource_profiles.add()
        if address:
            resource.resource.attributes.add(key="host.ip").value.string_value = address
        profile = resource.scope_profiles.add().profiles.add()
        profile.sample_type.type_strindex, profile.sample_type.unit_strindex = 1, 2
        profile.time_unix_nano = 1_700_000_000_000_000_000
        profile.samples.add(stack_index=0).values.append(1)
    return request


def places(request):
    out = []
    for r in request.resource_profiles:
        pairs = {a.key: a.value for a in r.resource.attributes}
        out.append({k: v.string_value or v.int_value or v.double_value for k, v in pairs.items() if k not in ("host.ip", "service.name")})
    return out


@pytest.fixture
def cdn(flue, otlp_sink, tmp_path):
    class Fixture:
        port, networks, mmdb, sink = free_port(), tmp_path / "networks.csv", tmp_path / "city.mmdb", otlp_sink

        def ask(self, *addresses):
            before = len(otlp_sink.requests)
            export(self.port, request_of(*addresses).SerializeToString())
            wait_for(lambda: len(otlp_sink.requests) > before, what="the request")
            return places(otlp_sink.requests[-1])

    fixture = Fixture()
    fixture.networks.write_text("network,cdn_region,cdn_pop,cdn_tier\n192.0.2.0/24,eu-west,AMS,edge\n"
                                "127.0.0.0/8,local,HOME,origin\n")
    database(fixture.mmdb, Amsterdam="192.0.2.0/25", Utrecht="2001:db8:1::/48")
    fixture.flue = flue(f"""
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{fixture.port}"}}}}}}}}
processors:
  cdn:
    networks: [{{path: {fixture.networks}, set: {{cdn.provider: acme}}}}]
    databases: [{{path: {fixture.mmdb}}}]
    reload_interval: 100ms
exporters: {{otlp_grpc: {{endpoint: "127.0.0.1:{otlp_sink.port}", tls: {{insecure: true}}, sending_queue: {{enabled: false}}}}}}
service: {{pipelines: {{profiles: {{receivers: [otlp], processors: [cdn], exporters: [otlp_grpc]}}}}}}
""")
    return fixture


AMSTERDAM = {"cdn.provider": "acme", "cdn.region": "eu-west", "cdn.pop": "AMS", "cdn.tier": "edge", "cdn.asn": 64500,
             "geo.country.iso_code": "NL", "geo.region.iso_code": "NL-NH", "geo.locality.name": "Amsterdam",
             "geo.location.lat": 52.25, "geo.location.lon": 4.5}


def test_sources_are_joined(cdn):
    got = cdn.ask("192.0.2.7", "192.0.2.200", "2001:db8:1::5", "198.51.100.1")
    assert got[0] == AMSTERDAM
    assert got[1] == {"cdn.provider": "acme", "cdn.region": "eu-west", "cdn.pop": "AMS", "cdn.tier": "edge"}
    assert got[2]["geo.locality.name"] == "Utrecht" and "cdn.region" not in got[2]
    assert got[3] == {}
    # Nothing said where it runs, but somebody sent it.
    assert cdn.ask(None) == [{"cdn.provider": "acme", "cdn.region": "local", "cdn.pop": "HOME", "cdn.tier": "origin"}]
    assert cdn.flue.total("otelcol_processor_cdn_resolved", attribute="cdn.region", source="networks") == 3
    assert cdn.flue.total("otelcol_processor_cdn_unknown", attribute="cdn.region") == 2


def test_files_are_swapped_whole_and_damage_keeps_the_old(cdn):
    assert cdn.ask("192.0.2.7") == [AMSTERDAM]
    replace(cdn.networks, b"network,cdn_region\n192.0.2.0/24,eu-north\n")
    wait_for(lambda: cdn.ask("192.0.2.7")[0]["cdn.region"] == "eu-north", what="the new table")

    good = cdn.mmdb.read_bytes()
    failures = lambda path: cdn.flue.total("otelcol_processor_cdn_table_failures", file=str(path))
    with cdn.mmdb.open("r+b") as file:  # in place: a mapped file would kill the process here
        file.truncate(len(good) // 2)
    wait_for(lambda: failures(cdn.mmdb) >= 1, what="the failure")
    assert cdn.ask("192.0.2.7")[0]["geo.locality.name"] == "Amsterdam"
    cdn.networks.unlink()
    wait_for(lambda: failures(cdn.networks) >= 1, what="the failure")
    assert cdn.ask("192.0.2.7")[0]["cdn.region"] == "eu-north"
    assert "the old one stays in use" in cdn.flue.log()

    database(cdn.mmdb.with_suffix(".other"), Leiden="192.0.2.0/25")
    replace(cdn.mmdb, cdn.mmdb.with_suffix(".other").read_bytes())
    wait_for(lambda: cdn.ask("192.0.2.7")[0]["geo.locality.name"] == "Leiden", what="the new database")


def test_half_a_table_is_no_table(cdn):
    rows = [f"198.18.{i}.0/24,region-{i},P{i},edge" for i in range(200)]
    text = lambda count: "\n".join(["network,cdn_region,cdn_pop,cdn_tier", *rows[:count], ""]).encode()
    replace(cdn.networks, text(200))
    wait_for(lambda: cdn.ask("198.18.7.1")[0].get("cdn.pop") == "P7", what="the large table")
    failures = lambda: cdn.flue.total("otelcol_processor_cdn_table_failures", file=str(cdn.networks))
    before = failures()
    replace(cdn.networks, text(99))
    wait_for(lambda: failures() > before, what="the refusal")
    assert cdn.ask("198.18.150.1")[0]["cdn.pop"] == "P150"
    assert "99 networks where there were 200" in cdn.flue.log()
    # It is said once, not at every look: it goes on as soon as there is another file.
    replace(cdn.networks, text(150))
    wait_for(lambda: cdn.ask("198.18.7.1")[0].get("cdn.pop") == "P7" and "cdn.pop" not in cdn.ask("198.18.190.1")[0],
             what="the other table")
    assert failures() == before + 1


def test_a_batch_sees_one_table(cdn):
    """Tables follow each other as fast as they can; all that a batch gets is of one of them."""
    seen = set()
    table = lambda n: "\n".join(["network,cdn_region,cdn_pop,cdn_tier",
                                 *(f"198.18.{i}.0/24,r{n},p{n},edge" for i in range(256)), ""]).encode()
    for n in range(12):
        replace(cdn.networks, table(n))
        for _ in range(8):
            got = {(p.get("cdn.region"), p.get("cdn.pop")) for p in cdn.ask(*(f"198.18.{i}.7" for i in range(0, 256, 5)))}
            assert len(got) == 1, got
            (region, pop), = got
            assert region is None or region[1:] == pop[1:]  # None: the table from before, without them
        if n % 4 == 3:
            wait_for(lambda: cdn.ask("198.18.0.1")[0].get("cdn.region") == f"r{n}", what="the table")
            seen.add(f"r{n}")
    assert seen >= {"r3", "r7", "r11"}
    assert cdn.flue.total("otelcol_processor_cdn_table_failures") == 0


def test_addresses_as_the_conventions_have_them(cdn):
    request = request_of(None, "192.0.2.200")
    values = request.resource_profiles[0].resource.attributes.add(key="host.ip").value.array_value.values
    for address in ("fe80::1", "192.0.2.7"):
        values.add(string_value=address)
    before = len(cdn.sink.requests)
    export(cdn.port, request.SerializeToString())
    wait_for(lambda: len(cdn.sink.requests) > before, what="the request")
    got = places(cdn.sink.requests[-1])
    assert got[0] == AMSTERDAM and got[1]["cdn.pop"] == "AMS"
    # Two machines in one batch: it was passed on, and the sender's address (HOME) is neither's.
    request = request_of(None, None, None)
    for i, name in enumerate(("a", "b", "")):
        if name:
            request.resource_profiles[i].resource.attributes.add(key="host.name").value.string_value = name
    before = len(cdn.sink.requests)
    export(cdn.port, request.SerializeToString())
    wait_for(lambda: len(cdn.sink.requests) > before, what="the request")
    assert all("cdn.pop" not in place for place in places(cdn.sink.requests[-1]))


def run(binary, *arguments):
    return subprocess.run([binary, "cdn", *map(str, arguments)], capture_output=True, text=True, timeout=60)


def test_import_reads_what_a_real_writer_wrote(binary):
    done = run(binary, "import", ROOT / "tests/data/cdn/small.mmdb")
    assert done.returncode == 0, done.stderr
    rows = [line.split(",") for line in done.stdout.splitlines()[1:]]
    by_network = {row[0]: dict(zip(rows[0], row)) for row in rows[1:]}
    assert set(by_network) == {"192.0.2.0/25", "192.0.2.128/26", "198.51.100.0/24", "203.0.113.0/24", "2001:db8:1::/48"}
    assert by_network["192.0.2.0/25"]["city"] == "Amsterdam" and by_network["192.0.2.0/25"]["region"] == "NL-NH"
    assert by_network["198.51.100.0/24"]["country"] == "\\N" and by_network["198.51.100.0/24"]["cdn_asn"] == "64501"
    assert by_network["203.0.113.0/24"]["city"] == "Utrecht" and by_network["203.0.113.0/24"]["cdn_asn"] == "64502"


def test_import_of_import_is_the_same(binary, tmp_path):
    first = run(binary, "import", ROOT / "tests/data/cdn/small.mmdb").stdout
    (tmp_path / "table.csv").write_text(first)
    assert run(binary, "import", tmp_path / "table.csv").stdout == first


def test_damaged_databases_are_refused_or_read(binary, tmp_path):
    good = (ROOT / "tests/data/cdn/small.mmdb").read_bytes()
    draw = random.Random(7)
    for i in range(60):
        bad = bytearray(good[:draw.randrange(len(good))] if i % 3 == 0 else good)
        for _ in range(draw.randrange(1, 5)):
            if bad:
                bad[draw.randrange(len(bad))] ^= 1 << draw.randrange(8)
        (tmp_path / "bad.mmdb").write_bytes(bad)
        done = run(binary, "import", tmp_path / "bad.mmdb")
        assert done.returncode in (0, 1), f"{i}: {done.returncode} {done.stderr}"


def test_explain(binary, tmp_path):
    (tmp_path / "networks.csv").write_text("network,cdn_region\n10.1.0.0/16,eu-north\n")
    (tmp_path / "flue.yaml").write_text(f"""
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:0"}}}}}}}}
processors:
  cdn:
    networks: [{{path: {tmp_path}/networks.csv}}]
    patterns: [{{host: "edge-{{pop:alpha3}}{{site:digits?}}-{{node}}.example.net", set: {{cdn.tier: edge}}}}]
    pops: [{{pop: AMS, set: {{cdn.region: eu-west}}}}]
exporters: {{nop: {{}}}}
service: {{pipelines: {{profiles: {{receivers: [otlp], processors: [cdn], exporters: [nop]}}}}}}
""")
    done = run(binary, "explain", "edge-ams3-17.example.net", "--addr", "10.1.2.3", "--config", tmp_path / "flue.yaml")
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path}/networks.csv:2, /16, by the sender's address" in done.stdout
    assert "cdn.region            eu-north  (networks; another value by pops)" in done.stdout
    assert "cdn.tier              edge  (host)" in done.stdout
    # What was there and not used says why.
    (tmp_path / "networks.csv").write_text("network,cdn_region,cdn_pop\n10.1.0.0/16,eu-north,\n10.1.2.0/24,\\N,AMS\n"
                                           "10.3.0.0/16,a,\n10.3.0.0/16,b,\n")
    config = tmp_path / "flue.yaml"
    config.write_text(config.read_text().replace("  cdn:\n", "  cdn:\n    relays: [10.9.0.0/16]\n    trusted_peers: [10.8.0.1]\n"
                                                 "    headers: [{name: CF-Ray, format: cf_ray}]\n"))
    explain = lambda *words: run(binary, "explain", *words, "--config", config)
    ray = ("--header", "CF-Ray: 230b030023ae2822-SJC")
    for words, line in [
            (["10.1.2.3"], f"retracted: {tmp_path}/networks.csv:3, /24, by the sender's address"),
            (["10.3.2.3"], "in dispute: two lines place the same network differently"),
            (["10.9.2.3"], "not used: the sender is in relays"),
            (["10.7.2.3"], "no network holds it"),
            (["10.1.2.3", "--header", "X-Forwarded-For: 10.1.7.7"], "not used: the request was passed on, as its headers say"),
            (["10.7.2.3", *ray], "not used: the sender is not in trusted_peers"),
            (["10.8.0.1", *ray], "cdn.pop               SJC  (headers)"),
            (["10.9.2.3", "--attr", "host.ip=10.1.7.7"], "networks.csv:2, /16, by host.ip")]:
        done = explain(*words)
        assert done.returncode == 0 and line in done.stdout, f"{words}: {done.stdout}{done.stderr}"
    assert "networks.csv:5: the same network as in line 4 with another place: neither counts" in explain("10.3.2.3").stderr
    assert explain("10.3.2.3").stdout.endswith("what a profile gets\n  nothing\n")
    assert run(binary, "explain", "10.1.2.3").returncode == 2
    assert run(binary, "what").returncode == 2


def test_the_documentation_says_what_happens(binary, tmp_path, monkeypatch):
    text = (ROOT / "docs/cdn.md").read_text()
    blocks = re.findall(r"```(\w+)\n(.*?)```", text, re.S)
    for kind, name in (("csv", "networks.csv"), ("yaml", "flue.yaml"), ("json", "fastly.json")):
        (content,) = [block for of, block in blocks if of == kind]
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    assert subprocess.run([binary, "validate", "--config", "flue.yaml"], timeout=60).returncode == 0
    sessions = [s for kind, block in blocks if kind == "console" for s in re.split(r"^\$ flue cdn ", block, flags=re.M) if s]
    assert len(sessions) == 4
    for session in sessions:
        command, _, output = session.partition("\n")
        done = run(binary, *shlex.split(command))
        assert (done.returncode, done.stdout) == (0, output), done.stderr
