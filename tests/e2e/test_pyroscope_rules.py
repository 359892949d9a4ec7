"""What a Pyroscope server demands of labels and tenants, whatever a sender writes."""
import httpx
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service

from harness import ROOT
from test_otlp import export
from test_pyroscope import OTLP, daemon, received  # noqa: F401 (a fixture)

PROFILE = ROOT / "examples/go-cpu.pb.gz"


def post(flue, query, **headers):
    url = f"http://127.0.0.1:{flue.ports['pprof']}/v1/pprof?{query}"
    return httpx.post(url, content=PROFILE.read_bytes(), headers=headers).status_code


def test_labels_of_samples_count_towards_the_thirty(daemon, pyroscope):
    flue = daemon()
    many = "&".join(f"attribute.n{i}=v" for i in range(60))
    assert post(flue, f"service.name=encoder&k8s.pod.name=pod&{many}") == 204
    [p] = received(pyroscope, 1, full=True)
    flue.wait_quiet()
    on_samples = {label.split("=")[0] for s in p["samples"] for label in s.get("labels", [])}
    assert on_samples
    assert len(p["labels"]) + len(on_samples) == 30
    assert {"__name__", "service_name", "cdn_region", "k8s_pod_name"} <= set(p["labels"])


def test_no_attribute_is_an_identity(daemon, pyroscope):
    flue = daemon()
    request = service.ExportProfilesServiceRequest.FromString(OTLP.read_bytes())
    del request.resource_profiles[1:]
    for key in ("__name__", "__profile_type__", "__session_id__", "éx"):
        request.resource_profiles[0].resource.attributes.add(key=key).value.string_value = "bad"
    export(flue.ports["otlp"], request.SerializeToString())
    flue.wait_quiet()
    [p] = received(pyroscope, 1)
    assert p["labels"]["__name__"] == "process_cpu"
    assert {k for k, v in p["labels"].items() if v == "bad"} == {"_x"}


def test_the_tenant_of_what_came_with_none(daemon, pyroscope):
    pyroscope.control(multitenancy="true")
    flue = daemon(exporter='tenant_from_origin: true\n    headers: {X-Scope-OrgID: media}')
    assert post(flue, "service.name=a", **{"X-Scope-OrgID": "team-a"}) == 204
    assert post(flue, "service.name=b") == 204
    found = {p["labels"]["service_name"]: p["tenant"] for p in received(pyroscope, 2)}
    assert found == {"a": "team-a", "b": "media"}
