"""What a Pyroscope server would refuse never reaches it: cut, trimmed, paced; and several servers."""
import base64
import re
import subprocess
import time
import urllib.parse

import httpx
import pytest
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service

from harness import Pyroscope, free_port, pprof_dump, wait_for
from test_otlp import export
from test_pyroscope import OTLP, daemon, received  # noqa: F401 (a fixture)
from test_pyroscope_rules import PROFILE, post


def request_of(samples, services=("encoder",), time_ns=None, **attributes):
    """OTLP: a profile of `samples` stacks for every service, values 1, 2, 3, ..."""
    r = service.ExportProfilesServiceRequest()
    d = r.dictionary
    for table in (d.mapping_table, d.location_table, d.function_table, d.link_table, d.attribute_table, d.stack_table):
        table.add()
    d.string_table.extend(["", "cpu", "nanoseconds"])
    for i in range(100):
        d.string_table.append(f"function_{i}")
        d.function_table.add(name_strindex=3 + i)
        d.location_table.add().lines.add(function_index=1 + i)
    for i in range(samples):
        d.stack_table.add(location_indices=[1 + i % 100, 1 + i // 100 % 100, 1 + i // 10000 % 100])
    for name in services:
        rp = r.resource_profiles.add()
        rp.resource.attributes.add(key="service.name").value.string_value = name
        for key, value in attributes.items():
            rp.resource.attributes.add(key=key).value.string_value = value
        p = rp.scope_profiles.add().profiles.add(time_unix_nano=time_ns or time.time_ns(), period=1)
        p.sample_type.type_strindex, p.sample_type.unit_strindex = 1, 2
        p.period_type.type_strindex, p.period_type.unit_strindex = 1, 2
        for i in range(samples):
            p.samples.add(stack_index=1 + i, values=[1 + i])
    return r.SerializeToString()


def totals(profiles):
    return sum(p["totals"]["cpu/nanoseconds"] for p in profiles)


@pytest.mark.parametrize("samples,parts", [(15999, 1), (16000, 1), (16001, 2), (40000, 3)])
def test_cut_by_samples(daemon, pyroscope, samples, parts):
    flue = daemon()
    export(flue.ports["otlp"], request_of(samples))
    flue.wait_quiet()
    state = pyroscope.received()
    profiles = state["profiles"]
    assert len(profiles) == parts and state["lost_duplicates"] == 0
    assert totals(profiles) == samples * (samples + 1) // 2
    assert sum(p["sample_count"] for p in profiles) == samples
    assert len({p["time_nanos"] for p in profiles}) == parts
    assert flue.total("otelcol_pyroscope_profiles_split") == (parts if parts > 1 else 0)


def test_labels_of_samples_of_otlp_are_trimmed(daemon, pyroscope, tmp_path):
    """Two chosen attributes and a link are four labels: two more than the server takes here."""
    request = service.ExportProfilesServiceRequest.FromString(request_of(1))
    d = request.dictionary
    d.string_table.extend(["title", "match", "rendition", "1080p"])
    for key in (len(d.string_table) - 4, len(d.string_table) - 2):
        d.attribute_table.add(key_strindex=key).value.string_value = d.string_table[key + 1]
    d.link_table.add(trace_id=bytes(range(16)), span_id=bytes(range(1, 9)))
    sample = request.resource_profiles[0].scope_profiles[0].profiles[0].samples[0]
    sample.attribute_indices.extend([1, 2])
    sample.link_index = 1
    flue = daemon(exporter="sample_attributes: [title, rendition]\n    limits: {sample_labels: 2}")
    export(flue.ports["otlp"], request.SerializeToString())
    [p] = received(pyroscope, 1, raw=True)
    (tmp_path / "p").write_bytes(base64.b64decode(p["raw"]))
    [sample] = pprof_dump(tmp_path / "p")["samples"]
    assert len(sample["labels"]) == 2, sample
    assert flue.total("otelcol_pyroscope_labels_trimmed") == 2


def test_an_item_is_converted_when_it_may_go(daemon, pyroscope):
    """Converted profiles are larger than what came: those of waiting items are not made before their turn."""
    flue = daemon(exporter="max_concurrency: 1\n    timeout: 10m")
    pyroscope.control(hold="true")
    for _ in range(12):
        export(flue.ports["otlp"], request_of(16001))
    wait_for(lambda: pyroscope.received()["requests"] == 1, timeout=60, what="the first push")
    made = flue.total("otelcol_pyroscope_profiles_split")
    loops = int(re.search(r"loops=(\d+)", flue.log()).group(1))
    assert 0 < made <= 2 * loops  # each may have one ready
    pyroscope.control(hold="false")
    flue.wait_quiet(120)
    assert flue.total("otelcol_pyroscope_profiles_split") == 24
    assert totals(pyroscope.profiles()) == 12 * 16001 * 16002 // 2


def test_a_pprof_is_cut_like_that_too(daemon, pyroscope):
    """In parts of 4 KiB; also when the server refuses some of them for a while: the same again."""
    flue = daemon(exporter="limits: {profile_bytes: 4096}")
    pyroscope.control(fail=2, code="unavailable")
    assert post(flue, "service.name=encoder") == 204
    flue.wait_quiet()
    state = pyroscope.received(full=True)
    whole = subprocess.run(["gzip", "-dc", PROFILE], capture_output=True, check=True).stdout
    assert len(state["profiles"]) >= len(whole) // 4096 and state["lost_duplicates"] == 0
    assert all(p["uncompressed"] <= 4096 for p in state["profiles"])
    direct = httpx.post(f"{pyroscope.url}/push.v1.PusherService/Push", json={"series": [{
        "labels": [{"name": "__name__", "value": "direct"}],
        "samples": [{"rawProfile": base64.b64encode(PROFILE.read_bytes()).decode()}]}]})
    assert direct.status_code == 200
    [one] = [p for p in pyroscope.profiles() if p["labels"]["__name__"] == "direct"]
    parts = [p for p in pyroscope.profiles() if p["labels"]["__name__"] != "direct"]
    for kind, total in one["totals"].items():
        assert sum(p["totals"][kind] for p in parts) == total


def test_what_was_stored_is_not_sent_again(daemon, pyroscope):
    """The server takes some profiles of an item and refuses others by rate: only those come again."""
    pyroscope.control(rate=200000, burst=100000)
    flue = daemon()
    names = [f"s{i}" for i in range(250)]
    export(flue.ports["otlp"], request_of(20, names))
    flue.wait_quiet(60)
    state = pyroscope.received()
    assert state["rate_limited"] > 0 and state["lost_duplicates"] == 0
    assert state["requests"] == 250 + state["rate_limited"]
    assert {p["labels"]["service_name"] for p in state["profiles"]} == set(names)
    assert totals(state["profiles"]) == 250 * 210


@pytest.mark.parametrize("code", ["invalid_argument", "unknown"])
def test_one_bad_series_hurts_no_other(daemon, pyroscope, code):
    flue = daemon()
    pyroscope.control(fail=1, code=code)
    names = [f"s{i}" for i in range(10)]
    export(flue.ports["otlp"], request_of(5, names))
    flue.wait_quiet()
    state = pyroscope.received()
    assert state["requests"] == (11 if code == "unknown" else 10) and state["lost_duplicates"] == 0
    assert len(state["profiles"]) == (10 if code == "unknown" else 9)
    assert flue.total("otelcol_exporter_dropped_profiles") == (0 if code == "unknown" else 1)


def test_paced_to_the_tenants_rate(daemon, pyroscope):
    """At no moment has more come than a bucket of that burst and rate lets through; everything arrives."""
    flue = daemon(exporter="pacing: {rate: 60000, burst: 90000}\n    limits: {profile_bytes: 60000}")
    began = time.time_ns()
    export(flue.ports["otlp"], request_of(6000, [*"abcdef"]))  # all of one item may go at once
    flue.wait_quiet(120)
    state = pyroscope.received()
    assert totals(state["profiles"]) == 6 * 6000 * 6001 // 2
    assert state["lost_duplicates"] == 0
    sent = 0
    for p in sorted(state["profiles"], key=lambda p: p["arrived_nanos"]):
        sent += p["uncompressed"]
        assert sent <= 90000 + 60000 * (p["arrived_nanos"] - began) / 1e9
    assert sent > 300000
    assert flue.total("otelcol_pyroscope_paced") > 0


def test_a_rate_is_learnt_from_refusals(daemon, pyroscope):
    pyroscope.control(rate=50000, burst=100000)
    flue = daemon(exporter="pacing: {burst: 90000}\n    limits: {profile_bytes: 60000}")
    export(flue.ports["otlp"], request_of(6000, ["a", "b", "c"]))  # all pushes of one item go at once
    flue.wait_quiet(120)
    state = pyroscope.received()
    assert totals(state["profiles"]) == 3 * 6000 * 6001 // 2
    assert 0 < state["rate_limited"] < 60
    assert flue.total("otelcol_exporter_dropped_profiles") == 0


def test_another_tenant_is_not_held_up(daemon, pyroscope):
    pyroscope.control(multitenancy="true")
    flue = daemon(exporter="pacing: {rate: 20000, burst: 20000}\n    tenant_source: {attribute: team}")
    for _ in range(3):
        export(flue.ports["otlp"], request_of(6000, team="noisy"))
    export(flue.ports["otlp"], request_of(5, ["quiet"], team="quiet"))
    flue.wait_quiet(120)
    profiles = sorted(pyroscope.profiles(), key=lambda p: p["arrived_nanos"])
    assert len(profiles) == 4
    assert profiles[-1]["tenant"] == "noisy"  # whose third is due long after the quiet one's


def test_where_a_tenant_comes_from(daemon, pyroscope):
    pyroscope.control(multitenancy="true")
    flue = daemon(exporter="tenant_source: {attribute: team, origin: true}\n    headers: {X-Scope-OrgID: media}")
    export(flue.ports["otlp"], request_of(2, ["a"], team="team-a"))
    export(flue.ports["otlp"], request_of(2, ["b"]))
    assert post(flue, "service.name=c", **{"X-Scope-OrgID": "team-c"}) == 204
    found = {p["labels"]["service_name"]: p["tenant"] for p in received(pyroscope, 3)}
    assert found == {"a": "team-a", "b": "media", "c": "team-c"}
    export(flue.ports["otlp"], request_of(2, ["d"], team="x\r\nevil: 1"))
    flue.wait_quiet()
    assert len(pyroscope.profiles()) == 3
    assert flue.total("otelcol_exporter_dropped_profiles") == 1
    assert "is no valid id" in flue.log()


def test_credentials(daemon, pyroscope):
    basic = "Basic " + base64.b64encode(b"flue:it's").decode()
    pyroscope.control(authorization=urllib.parse.quote(basic))
    flue = daemon(exporter="basic_auth: {username: flue, password: \"it's\"}")
    assert post(flue, "service.name=a") == 204
    received(pyroscope, 1)
    assert "it's" not in flue.log()


def test_a_token_that_changes(daemon, pyroscope, tmp_path):
    token = tmp_path / "token"
    token.write_text("one\n")
    pyroscope.control(authorization="Bearer%20one")
    flue = daemon(exporter=f"bearer_token_file: {token}")
    assert post(flue, "service.name=a") == 204
    received(pyroscope, 1)
    pyroscope.control(authorization="Bearer%20two")
    token.write_text("two")
    assert post(flue, "service.name=b") == 204
    assert len(received(pyroscope, 2)) == 2
    assert "two" not in flue.log().replace("attempt", "")


def test_replicas(flue, pyroscope):
    """Both get some; when one goes, the other gets all, and nothing is lost."""
    other, port = Pyroscope(), free_port()
    try:
        daemon = flue(f"""
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
exporters:
  pyroscope:
    endpoints: ["{pyroscope.url}", "{other.url}"]
    retry_on_failure: {{initial_interval: 20ms, max_interval: 100ms}}
service: {{pipelines: {{profiles: {{receivers: [otlp], exporters: [pyroscope]}}}}}}
""")
        for i in range(8):
            export(port, request_of(2, [f"a{i}"]))
        daemon.wait_quiet()
        first = len(pyroscope.profiles())
        assert 0 < first < 8 and first + len(other.profiles()) == 8
        other.stop()
        for i in range(20):
            export(port, request_of(2, [f"b{i}"]))
        daemon.wait_quiet()
        assert len(pyroscope.profiles()) == first + 20
        assert daemon.total("otelcol_pyroscope_failovers") > 0
        assert daemon.total("otelcol_exporter_dropped_profiles") == 0
    finally:
        other.stop()


@pytest.mark.parametrize("outside,found", [("restamp", 1), ("drop", 0), ("send", 0)])
def test_what_is_too_old(daemon, pyroscope, outside, found):
    flue = daemon(exporter=f"window: {{older_than: 1h, outside: {outside}}}")
    pyroscope.control(window="1h")
    before = time.time_ns()
    export(flue.ports["otlp"], request_of(3, time_ns=before - 2 * 3600 * 10**9))
    flue.wait_quiet()
    profiles = pyroscope.profiles()
    assert len(profiles) == found
    assert all(before <= p["time_nanos"] <= time.time_ns() for p in profiles)
    assert flue.total("otelcol_exporter_dropped_profiles") == 1 - found
    if outside == "drop":
        assert pyroscope.received()["requests"] == 0 and "older_than" in flue.log()


def test_what_is_too_new_is_held(daemon, pyroscope):
    flue = daemon(exporter="window: {newer_than: 1s, outside: hold}")
    pyroscope.control(window="1h")
    to_come = time.time_ns() + 3 * 10**9
    export(flue.ports["otlp"], request_of(3, time_ns=to_come))
    [p] = received(pyroscope, 1)
    assert p["time_nanos"] == to_come and p["arrived_nanos"] >= to_come - 10**9
    assert pyroscope.received()["requests"] == 1


def test_a_label_with_too_many_values(daemon, pyroscope):
    flue = daemon(exporter="labels: {cardinality: {limit: 5}}")
    for i in range(9):
        export(flue.ports["otlp"], request_of(2, time_ns=time.time_ns(), pod=f"p{i}", zone="z"))
    flue.wait_quiet()
    profiles = received(pyroscope, 9)
    assert sum("pod" in p["labels"] for p in profiles) == 5
    assert all(p["labels"]["zone"] == "z" for p in profiles)
    assert flue.total("otelcol_pyroscope_labels_guarded", label="pod") == 4
    assert totals(profiles) == 9 * 3


def test_mapping_keep_and_drop(daemon, pyroscope):
    flue = daemon(exporter="labels: {mapping: {team.name: team}, keep: [team.name, zone], drop: [zone]}")
    export(flue.ports["otlp"], request_of(2, **{"team.name": "video", "zone": "a", "rack": "r"}))
    [p] = received(pyroscope, 1)
    assert p["labels"]["team"] == "video"
    assert not {"zone", "rack", "cdn_region"} & set(p["labels"])
