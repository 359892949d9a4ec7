"""A component in a folder of its own, outside the tree: built by one option, listed, configured, run."""
import collections
import re
import shutil
import subprocess

import httpx
import pytest
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service

from harness import ROOT, Flue, free_port, wait_for

pytestmark = pytest.mark.slow

BODIES = sorted((ROOT / "tests/data/otlp").glob("*.otlp"))
CONFIG = """
receivers:
  otlp: {protocols: {http: {endpoint: "127.0.0.1:%d"}}}
  pprof: {server: {endpoint: "127.0.0.1:%d"}}
exporters:
  counter: {max_values: 50, log_interval: 1ns}
service:
  pipelines:
    profiles: {receivers: [otlp, pprof], exporters: [counter]}
"""


@pytest.fixture(scope="module")
def extended(binary, tmp_path_factory):
    """flue with examples/component, built elsewhere as the daemon under test was built."""
    folder = tmp_path_factory.mktemp("component")
    root, build = folder / "my-components", folder / "build"
    shutil.copytree(ROOT / "examples/component", root)
    cache = dict(re.findall(r"^(\w+):\w+=(.*)$", (binary.parent / "CMakeCache.txt").read_text(), re.M))
    same = [f"-D{key}={cache[key]}" for key in ("CMAKE_BUILD_TYPE", "CMAKE_C_COMPILER", "FLUE_SANITIZE")]
    subprocess.run(["cmake", "-G", "Ninja", "-B", build, "-S", ROOT, f"-DFLUE_COMPONENT_DIRS={root}",
                    "-DFLUE_TESTS=OFF", *same], check=True, capture_output=True, text=True)
    done = subprocess.run(["ninja", "-C", build, "flue"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:]
    yield build / "flue"
    shutil.rmtree(folder)


def flue_says(binary, *arguments):
    return subprocess.run([binary, *arguments], capture_output=True, text=True, timeout=60)


def test_is_listed_and_explained(extended):
    listed = flue_says(extended, "components").stdout
    assert re.search(r"- name: counter\n\s+summary: \"counts samples by an attribute", listed)
    help_text = flue_says(extended, "components", "--help", "counter").stdout
    for word in ("exporter counter", "attribute", "service.name", "max_values", "1000", "log_interval", "10s"):
        assert word in help_text, help_text
    assert "sending_queue" not in help_text


@pytest.mark.parametrize("wrong, said", [
    ("{max_valeus: 5}", "max_values"),          # the nearest right name
    ("{max_values: 0}", "max_values"),          # below its minimum
    ("{attribute: ''}", "attribute"),           # its own check
])
def test_mistakes_are_named(extended, tmp_path, wrong, said):
    path = tmp_path / "config.yaml"
    path.write_text((CONFIG % (4318, 4041)).replace("{max_values: 50, log_interval: 1ns}", wrong))
    answer = flue_says(extended, "validate", "--config", str(path))
    assert answer.returncode == 1
    assert re.search(rf"config\.yaml:6:\d+.*{said}", answer.stdout + answer.stderr), answer


def samples_by_service(request):
    out = collections.Counter()
    for resource in request.resource_profiles:
        names = {a.key: a.value.string_value for a in resource.resource.attributes}
        if not names:
            names = {"service.name": "unknown_service"}
        out[names.get("service.name", "")] += sum(len(p.samples) for s in resource.scope_profiles for p in s.profiles)
    return out


def test_counts_samples_of_real_requests(extended, tmp_path):
    http, pprof = free_port(), free_port()
    daemon = Flue(extended, CONFIG % (http, pprof), tmp_path / "flue")
    daemon.start()
    try:
        expected = collections.Counter()
        for body in BODIES:
            answer = httpx.post(f"http://127.0.0.1:{http}/v1development/profiles", content=body.read_bytes(),
                                headers={"content-type": "application/x-protobuf"})
            assert (answer.status_code, answer.content) == (200, b"")
            expected += samples_by_service(service.ExportProfilesServiceRequest.FromString(body.read_bytes()))
        assert sum(expected.values()) > 0
        for name, samples in expected.items():
            assert daemon.total("otelcol_counter_samples", value=name) == samples, name
        answer = httpx.post(f"http://127.0.0.1:{pprof}/v1/pprof?service.name=example",
                            content=(ROOT / "examples/go-cpu.pb.gz").read_bytes())
        assert answer.status_code == 204
        total = daemon.total("otelcol_exporter_sent_samples", exporter="counter")
        assert daemon.total("otelcol_counter_samples", value="example") == total - sum(expected.values()) > 0
        wait_for(lambda: re.search(r"counted\b.*example", daemon.log()), what="a log line of the counts")
    finally:
        daemon.finish()
