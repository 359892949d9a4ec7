"""k8sattributes against a real kube-apiserver: what it knows, it sets; what it doubts, it leaves.

Pods are written as a kubelet would write them. Addresses are of 127.0.0.0/8, so that requests can
really come from them. What needs a server that misbehaves is in test_k8s_double.py."""
import concurrent.futures
import os
import random
import signal
import threading
import time

import httpx
import pytest
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service

from control_plane import ControlPlane, container_id, now
from harness import BIN, ROOT, free_port, wait_for

pytestmark = pytest.mark.skipif(not (BIN / "kube-apiserver").exists(), reason="kube-apiserver is not built")
PROTO = {"content-type": "application/x-protobuf"}
CORE = [("", "pods"), ("", "namespaces"), ("", "nodes"), ("apps", "replicasets"), ("apps", "deployments"),
        ("apps", "statefulsets"), ("apps", "daemonsets"), ("batch", "jobs")]
EVERYTHING = """
      extract:
        metadata: [k8s.pod.name, k8s.pod.uid, k8s.pod.ip, k8s.pod.hostname, k8s.pod.start_time, k8s.namespace.name,
                   k8s.node.name, k8s.node.uid, k8s.cluster.uid, k8s.deployment.name, k8s.deployment.uid,
                   k8s.replicaset.name, k8s.replicaset.uid, k8s.statefulset.name, k8s.job.name, k8s.cronjob.name, k8s.cronjob.uid,
                   k8s.container.name, k8s.container.restart_count, container.id, container.image.name,
                   container.image.tag, container.image.repo_digests, service.name, service.namespace,
                   service.version, service.instance.id]
        labels:
          - {key: team}
          - {key_regex: "app.kubernetes.io/(.*)", tag_name: "app.$1"}
          - {key: topology.kubernetes.io/region, from: node, tag_name: cloud.region}
          - {key: tier, from: deployment, tag_name: tier}
          - {key: cost, from: namespace}
        annotations:
          - {key: note, tag_name: note}
        otel_annotations: true
"""


def request(*resources, start=None, duration=1_000_000_000):
    """An OTLP request: a resource for each dict of attributes, with one profile of one sample."""
    r = service.ExportProfilesServiceRequest()
    d = r.dictionary
    d.string_table.extend(["", "cpu", "nanoseconds", "main"])
    for table in (d.mapping_table, d.link_table, d.attribute_table):
        table.add()
    d.location_table.add()
    d.function_table.add()
    d.function_table.add(name_strindex=3)
    d.location_table.add().lines.add(function_index=1)
    d.stack_table.add()
    d.stack_table.add(location_indices=[1])
    for attributes in resources:
        rp = r.resource_profiles.add()
        for key, value in attributes.items():
            a = rp.resource.attributes.add(key=key)
            if isinstance(value, int):
                a.value.int_value = value
            else:
                a.value.string_value = value
        p = rp.scope_profiles.add().profiles.add(duration_nano=duration, profile_id=bytes(range(16)))
        p.time_unix_nano = time.time_ns() - 30_000_000_000 if start is None else start
        p.sample_type.type_strindex, p.sample_type.unit_strindex = 1, 2
        p.samples.add(stack_index=1, values=[7])
    return r


def attributes(resource_profiles):
    out = {}
    for a in resource_profiles.resource.attributes:
        kind = a.value.WhichOneof("value")
        value = getattr(a.value, kind) if kind else None
        out[a.key] = [v.string_value for v in value.values] if kind == "array_value" else value
    keys = [a.key for a in resource_profiles.resource.attributes]
    assert len(keys) == len(set(keys)), keys
    return out


class Enricher:
    """flue with k8sattributes between HTTP clients and an OTLP server."""

    def __init__(self, flue, sink, kubeconfig, settings="", environment=None, auth="kubeConfig", ready=True, **options):
        self.sink, self.port = sink, free_port()
        self.daemon = flue(f"""
receivers:
  otlp:
    protocols:
      http: {{endpoint: "127.0.0.1:{self.port}"}}
processors:
  k8sattributes:
      auth_type: {auth}
      {settings}
exporters:
  otlp_grpc:
    endpoint: "127.0.0.1:{sink.port}"
    tls: {{insecure: true}}
service:
  pipelines:
    profiles: {{receivers: [otlp], processors: [k8sattributes], exporters: [otlp_grpc]}}
""", environment={**({"KUBECONFIG": str(kubeconfig)} if kubeconfig else {}), **(environment or {})}, **options)
        if ready:
            wait_for(lambda: self.daemon.total("otelcol_kubernetes_synced", kind="pods"), 180, "the list of pods")

    def send(self, *resources, address="127.0.0.1", timeout=60, headers=None, **options):
        """Every resource as it came out, in order."""
        with httpx.Client(transport=httpx.HTTPTransport(local_address=address), timeout=timeout) as client:
            before = len(self.sink.requests)
            answer = client.post(f"http://127.0.0.1:{self.port}/v1development/profiles", headers={**PROTO, **(headers or {})},
                                 content=request(*resources, **options).SerializeToString())
        assert answer.status_code == 200, answer.text
        wait_for(lambda: len(self.sink.requests) > before, 180, "the request to come out")
        return [attributes(r) for r in self.sink.requests[-1].resource_profiles]

    def result(self, result):
        return self.daemon.total("otelcol_processor_k8sattributes_resources", result=result)

    def knows(self, **key):
        """Waits until a resource with this key is found."""
        wait_for(lambda: "k8s.namespace.name" in self.send(key)[0], 180, f"{key} to be known")


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    with ControlPlane(tmp_path_factory.mktemp("plane")) as plane:
        plane.allow(*CORE)
        plane.namespace("media", labels={"cost": "4711"})
        plane.node("node-a", **{"topology.kubernetes.io/region": "eu-1", "topology.kubernetes.io/zone": "eu-1a"})
        yield plane


@pytest.fixture
def enricher(flue, otlp_sink, plane):
    def start(settings="", **options):
        return Enricher(flue, otlp_sink, plane.kubeconfig(), settings, **options)

    return start


def test_everything_that_is_known_is_set(plane, enricher):
    deployment = plane.workload("Deployment", "media", "packager", labels={"tier": "edge"})
    replicaset = plane.workload("ReplicaSet", "media", "packager-7d9c5b8f6d", owner=deployment)
    main, proxy = container_id(), container_id()
    pod = plane.pod("media", "packager-7d9c5b8f6d-x2x9k", "127.7.0.1", owner=replicaset, started="2026-11-20T08:00:00Z",
                    labels={"app.kubernetes.io/name": "packager", "app.kubernetes.io/version": "4.2", "team": "abr",
                            "pod-template-hash": "7d9c5b8f6d"},
                    annotations={"note": "π", "resource.opentelemetry.io/deployment.environment.name": "prod"},
                    containers={"main": ("registry.example:5000/media/packager:4.2.1", main), "proxy": ("envoy", proxy)})
    flue = enricher(EVERYTHING)
    flue.knows(**{"container.id": main})
    a, b, c = flue.send({"container.id": main, "process.pid": 17}, {"k8s.pod.uid": pod["metadata"]["uid"]},
                        {"container.id": proxy, "service.name": "mine"})
    cluster = plane.client.get("/api/v1/namespaces/kube-system").json()["metadata"]["uid"]
    node = plane.client.get("/api/v1/nodes/node-a").json()["metadata"]["uid"]
    of_pod = {
        "k8s.pod.name": "packager-7d9c5b8f6d-x2x9k", "k8s.pod.uid": pod["metadata"]["uid"], "k8s.pod.ip": "127.7.0.1",
        "k8s.pod.hostname": "packager-7d9c5b8f6d-x2x9k", "k8s.pod.start_time": "2026-11-20T08:00:00Z",
        "k8s.namespace.name": "media", "k8s.node.name": "node-a", "k8s.node.uid": node, "k8s.cluster.uid": cluster,
        "k8s.deployment.name": "packager", "k8s.deployment.uid": deployment["metadata"]["uid"],
        "k8s.replicaset.name": "packager-7d9c5b8f6d", "k8s.replicaset.uid": replicaset["metadata"]["uid"],
        "service.name": "packager", "service.namespace": "media", "service.version": "4.2",
        "k8s.pod.labels.team": "abr", "app.name": "packager", "app.version": "4.2", "cloud.region": "eu-1",
        "tier": "edge", "k8s.namespace.labels.cost": "4711", "note": "π", "deployment.environment.name": "prod"}
    assert b == of_pod
    assert a == {**of_pod, "container.id": main, "process.pid": 17, "k8s.container.name": "main",
                 "k8s.container.restart_count": 0, "container.image.name": "registry.example:5000/media/packager",
                 "container.image.tag": "4.2.1",
                 "container.image.repo_digests": ["registry.example@sha256:" + "ab" * 32],
                 "service.instance.id": "media.packager-7d9c5b8f6d-x2x9k.main"}
    assert c["k8s.container.name"] == "proxy" and c["container.image.tag"] == "latest" and c["service.name"] == "mine"


def test_workloads_of_other_kinds(plane, enricher):
    statefulset = plane.workload("StatefulSet", "media", "origin")
    job = plane.workload("Job", "media", "reindex-29012345")
    pods = {}
    for name, owner in (("origin-0", statefulset), ("reindex-29012345-abcde", job)):
        pods[name] = plane.pod("media", name, owner=owner)["metadata"]["uid"]
    flue = enricher(EVERYTHING)
    flue.knows(**{"k8s.pod.uid": pods["reindex-29012345-abcde"]})
    a, b = flue.send(*({"k8s.pod.uid": uid} for uid in pods.values()))
    assert a["k8s.statefulset.name"] == "origin" and a["service.name"] == "origin"
    assert b["k8s.job.name"] == "reindex-29012345" and "k8s.deployment.name" not in b
    assert "k8s.cronjob.name" not in b, "the Job itself says that no CronJob made it"


def test_a_key_that_is_present_but_unknown_ends_the_search(plane, enricher):
    pod = plane.pod("media", "ends-the-search", "127.7.0.2")
    flue = enricher()
    flue.knows(**{"k8s.pod.uid": pod["metadata"]["uid"]})
    unknown = {"container.id": container_id(), "k8s.pod.uid": pod["metadata"]["uid"]}
    wrong = {"k8s.pod.uid": pod["metadata"]["uid"], "k8s.pod.name": "another"}
    impossible = [{"container.id": "../../etc/passwd"}, {"k8s.pod.uid": "x" * 300}, {"k8s.pod.ip": "300.1.1.1"},
                  {"container.id": 17}]
    out = flue.send(unknown, wrong, *impossible)
    assert out == [unknown, wrong, *impossible]
    assert flue.result("unknown") == 1 and flue.result("conflict") == 1 and flue.result("invalid") == 4


def test_what_an_agent_has_set_stays_unless_told(plane, enricher, flue, otlp_sink):
    pod = plane.pod("media", "kept", "127.7.0.3")
    uid = pod["metadata"]["uid"]
    set_before = {"k8s.pod.uid": uid, "k8s.node.name": "another-name"}
    gateway = enricher()
    gateway.knows(**{"k8s.pod.uid": uid})
    assert gateway.send(set_before)[0]["k8s.node.name"] == "another-name"
    told = enricher("overwrite: true")
    told.knows(**{"k8s.pod.uid": uid})
    assert told.send(set_before)[0]["k8s.node.name"] == "node-a"


def test_the_connection_counts_for_a_sender_of_its_own_data_only(plane, enricher):
    uid = plane.pod("media", "sender", "127.7.0.4", started="2026-11-20T08:00:00Z")["metadata"]["uid"]
    plane.pod("media", "gateway", "127.7.9.9", started="2026-11-20T08:00:00Z")
    host = plane.pod("media", "on-host", "127.7.0.5", hostNetwork=True)
    flue = enricher("relays: [127.7.9.0/24]")
    flue.knows(**{"k8s.pod.uid": host["metadata"]["uid"]})
    other = {"service.name": "x"}
    wait_for(lambda: flue.send(other, address="127.7.0.4")[0].get("k8s.pod.uid") == uid, 180, "the pod that sends")
    for more in ({"process.pid": 1}, {"container.name": "x"}, {"process.executable.name": "y"}):
        assert flue.send({**other, **more}, address="127.7.0.4") == [{**other, **more}]
    assert flue.send(other, other, address="127.7.0.4") == [other, other]
    assert flue.send(other, address="127.7.9.9") == [other] and flue.result("relayed") == 1
    for said in ({"x-forwarded-for": "10.0.0.1"}, {"forwarded": "for=10.0.0.1"}, {"via": "1.1 proxy"}, {"user-agent": "flue/1.0"},
                 {"user-agent": "OpenTelemetry Collector Contrib/0.159.0 (linux/amd64)"}, {"user-agent": "Alloy/v1.9 (linux)"}):
        assert flue.send(other, address="127.7.0.4", headers=said) == [other], said
    assert flue.result("relayed") == 7
    assert flue.send(other, address="127.7.0.5") == [other], "an address of the host says nothing"


def test_deleted_pods_are_known_for_the_grace_period(plane, enricher):
    main, old = container_id(), container_id()
    plane.pod("media", "short-lived", "127.7.0.6", containers={"main": ("x:1", main)})
    flue = enricher("pod_delete_grace_period: 20s")
    flue.knows(**{"container.id": main})
    plane.patch_status("media", "short-lived", {"containerStatuses": [
        {"name": "main", "image": "x:1", "imageID": "", "ready": True, "restartCount": 1, "containerID": f"containerd://{old}"}]})
    flue.knows(**{"container.id": old})
    assert flue.send({"container.id": main})[0]["k8s.pod.name"] == "short-lived", "a container of before"
    plane.delete_pod("media", "short-lived")
    wait_for(lambda: flue.daemon.total("otelcol_kubernetes_events", kind="pods", event="deleted"), 180, "the deletion")
    assert flue.send({"container.id": old})[0]["k8s.pod.name"] == "short-lived"
    wait_for(lambda: flue.send({"container.id": old}) == [{"container.id": old}], 180, "the pod to be forgotten")


def test_static_pods_are_found_by_their_hash(plane, enricher):
    hash = "0123456789abcdef" * 2
    plane.pod("kube-system", "static-node-a", node="node-a", hostNetwork=True,
              annotations={"kubernetes.io/config.hash": hash, "kubernetes.io/config.mirror": hash})
    flue = enricher()
    flue.knows(**{"k8s.pod.uid": hash})


def test_selectors_are_the_servers(plane, enricher, otlp_sink):
    here = plane.pod("media", "here", node="node-s", labels={"flue": "yes"})["metadata"]["uid"]
    there = plane.pod("media", "there", node="node-t", labels={"flue": "yes"})["metadata"]["uid"]
    bare = plane.pod("media", "bare", node="node-s")["metadata"]["uid"]
    flue = enricher("filter: {node_from_env_var: HERE, labels: [{key: flue, op: exists}]}", environment={"HERE": "node-s"})
    flue.knows(**{"k8s.pod.uid": here})
    assert [len(a) > 1 for a in flue.send(*({"k8s.pod.uid": u} for u in (here, there, bare)))] == [True, False, False]
    assert flue.daemon.total("otelcol_kubernetes_pods") == 1


def test_a_missing_rule_is_named_and_the_rest_goes_on(flue, otlp_sink, plane):
    plane.allow(("", "pods"), name="pods-only", user="system:serviceaccount:media:agent")
    plane.post("/api/v1/namespaces/media/serviceaccounts", {"metadata": {"name": "agent"}})
    token = plane.post("/api/v1/namespaces/media/serviceaccounts/agent/token", {"spec": {"expirationSeconds": 600}})
    uid = plane.pod("media", "no-nodes")["metadata"]["uid"]
    flue = Enricher(flue, otlp_sink, plane.kubeconfig("account", token["status"]["token"]), EVERYTHING)
    flue.knows(**{"k8s.pod.uid": uid})
    [out] = flue.send({"k8s.pod.uid": uid})
    assert out["k8s.pod.name"] == "no-nodes" and "k8s.node.uid" not in out and "k8s.cluster.uid" not in out
    log = flue.daemon.log()
    assert 'resources: [nodes], verbs: [list, watch]' in log and "a rule is missing" in log
    assert log.count("resources: [nodes]") == 1


def test_certificates_and_token_files(flue, otlp_sink, plane, tmp_path):
    uid = plane.pod("media", "by-token-file")["metadata"]["uid"]
    token = tmp_path / "token"
    token.write_text("wrong\n")
    flue = Enricher(flue, otlp_sink, plane.kubeconfig("file", tokenFile=str(token)), ready=False)
    wait_for(lambda: flue.daemon.total("otelcol_kubernetes_errors"), 180, "401")
    token.write_text("flueflue\n")
    wait_for(lambda: flue.daemon.total("otelcol_kubernetes_synced", kind="pods"), 180, "the new token to be read")
    flue.knows(**{"k8s.pod.uid": uid})
    assert "wrong" not in flue.daemon.log().replace("wrong-", "") and "flueflue" not in flue.daemon.log()


def test_exec_plugins(flue, otlp_sink, plane, tmp_path):
    plugin = tmp_path / "plugin"
    plugin.write_text('#!/bin/sh\ncase "$KUBERNETES_EXEC_INFO" in *ExecCredential*) ;; *) exit 1 ;; esac\n'
                      'echo "$1 $EXTRA" >> ' + str(tmp_path / "ran") + '\n'
                      'echo \'{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential",'
                      '"status":{"token":"flueflue"}}\'\n')
    plugin.chmod(0o755)
    config = plane.kubeconfig("exec", exec={
        "apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin), "args": ["get-token"],
        "env": [{"name": "EXTRA", "value": "more"}], "interactiveMode": "IfAvailable", "provideClusterInfo": True})
    Enricher(flue, otlp_sink, config)
    assert set((tmp_path / "ran").read_text().splitlines()) == {"get-token more"}


def test_a_wrong_certificate_is_refused(flue, otlp_sink, plane, tmp_path):
    other = tmp_path / "other.pem"
    import subprocess
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", tmp_path / "k", "-out", other,
                    "-subj", "/CN=other", "-days", "1"], check=True, capture_output=True)
    config = plane.kubeconfig("other")
    config.write_text(config.read_text().replace(str(plane.ca), str(other)))
    flue = Enricher(flue, otlp_sink, config, "wait_for_metadata_timeout: 1s", ready=False)
    wait_for(lambda: "certificate" in flue.daemon.log(), 180, "the reason")
    sent = {"container.id": container_id()}
    assert flue.send(sent) == [sent], "data passes without an API, once it has waited"
    assert flue.daemon.total("otelcol_processor_k8sattributes_unready_resources") == 1


def test_one_address_many_pods_time_decides(plane, enricher):
    """A finished pod keeps its address in the API while another has it."""
    first = plane.pod("media", "finished", "127.7.1.1", started="2026-11-20T08:00:00Z")["metadata"]["uid"]
    plane.patch_status("media", "finished", {"phase": "Succeeded", "containerStatuses": [
        {"name": "main", "image": "x", "imageID": "", "ready": False, "restartCount": 0, "containerID": f"containerd://{container_id()}",
         "state": {"terminated": {"exitCode": 0, "startedAt": "2026-11-20T08:00:00Z", "finishedAt": "2026-11-20T09:00:00Z"}}}]})
    second = plane.pod("media", "running", "127.7.1.1", started="2026-11-20T10:00:00Z")["metadata"]["uid"]
    ends = plane.pod("media", "overlapping", "127.7.1.2", started="2026-11-20T08:00:00Z")["metadata"]["uid"]
    plane.pod("media", "overlapping-too", "127.7.1.2", started="2026-11-20T08:30:00Z")
    flue = enricher()
    flue.knows(**{"k8s.pod.uid": ends})
    at = lambda hour, minute=0: int(time.mktime((2026, 11, 20, hour, minute, 0, 0, 0, 0)) - time.timezone) * 10**9
    uid = lambda **options: flue.send({"k8s.pod.ip": "127.7.1.1"}, **options)[0].get("k8s.pod.uid")
    assert uid(start=at(8, 30)) == first
    assert uid(start=at(9, 30)) is None, "nobody had it"
    assert uid(start=at(10, 30)) == second
    assert uid(start=at(8, 30), duration=3 * 3600 * 10**9) is None, "two had it"
    assert uid(start=at(8, 0) - 10**9) is None, "before it began"
    assert uid(start=time.time_ns() + 3600 * 10**9) is None, "a clock that is wrong"
    doubts = flue.result("doubt")
    assert flue.send({"k8s.pod.ip": "127.7.1.2"}, start=at(8, 45))[0] == {"k8s.pod.ip": "127.7.1.2"}
    assert flue.result("doubt") == doubts + 1


def test_a_young_profile_waits_until_the_api_can_know(plane, enricher):
    plane.pod("media", "young", "127.7.1.3", started="2026-11-20T08:00:00Z")
    flue = enricher("address_settle: 2s")

    def waits(start):
        began = time.monotonic()
        found = flue.send({}, address="127.7.1.3", start=start, duration=0)[0].get("k8s.pod.name") == "young"
        return found and time.monotonic() - began > 1.5

    wait_for(lambda: waits(time.time_ns()), 180, "the pod, late")
    # Of a sender whose clock is behind, too: it cannot have been there for longer than its profile took.
    wait_for(lambda: waits(time.time_ns() - 60 * 10**9), 180, "the pod, late")


def test_an_old_profile_does_not_wait(plane, enricher):
    plane.pod("media", "grown", "127.7.1.4", started="2026-11-20T08:00:00Z")
    flue = enricher("address_settle: 20s\n      hold_size: 0")
    old = lambda **options: flue.send({}, address="127.7.1.4", start=time.time_ns() - 60 * 10**9, **options)[0].get("k8s.pod.name")
    wait_for(lambda: old(duration=50 * 10**9) == "grown", 180, "the pod")
    assert old(duration=10**9) is None, "it would have to wait"


def test_a_server_that_hangs_is_not_believed(flue, otlp_sink, tmp_path):
    """Its connections stand, and it says nothing: whoever has an address now, nobody can report."""
    with ControlPlane(tmp_path / "plane") as plane:
        plane.allow(*CORE)
        plane.namespace("media")
        uid = plane.pod("media", "known", "127.7.1.5", started="2026-11-20T08:00:00Z")["metadata"]["uid"]
        flue = Enricher(flue, otlp_sink, plane.kubeconfig(), "address_settle: 1s")
        whose = lambda: flue.send({}, address="127.7.1.5", start=time.time_ns(), duration=0)[0].get("k8s.pod.uid")
        wait_for(lambda: whose() == uid, 180, "the pod")
        os.kill(plane.processes["apiserver"].pid, signal.SIGSTOP)
        stale = flue.result("stale")
        assert whose() is None and flue.result("stale") == stale + 1
        assert flue.send({"k8s.pod.uid": uid})[0]["k8s.pod.name"] == "known", "a uid is never another's"
        os.kill(plane.processes["apiserver"].pid, signal.SIGCONT)
        wait_for(lambda: whose() == uid, 180, "the server to be believed again")
        assert flue.daemon.total("otelcol_kubernetes_probes") > 0


def test_the_server_goes_and_comes_back(flue, otlp_sink, tmp_path):
    """Down in the middle: what is known stays; back again: what has changed meanwhile is learnt."""
    with ControlPlane(tmp_path / "plane") as plane:
        plane.allow(*CORE)
        plane.namespace("media")
        before = plane.pod("media", "before")["metadata"]["uid"]
        gone = plane.pod("media", "gone")["metadata"]["uid"]
        flue = Enricher(flue, otlp_sink, plane.kubeconfig(), "pod_delete_grace_period: 1s")
        flue.knows(**{"k8s.pod.uid": gone})
        plane.stop_server()
        assert flue.send({"k8s.pod.uid": before})[0]["k8s.pod.name"] == "before"
        wait_for(lambda: flue.daemon.total("otelcol_kubernetes_errors"), 180, "the loss to be seen")
        plane.start_server()
        plane.delete_pod("media", "gone")
        after = plane.pod("media", "after")["metadata"]["uid"]
        for i in range(20):
            plane.patch_pod("media", "after", {"metadata": {"labels": {"n": str(i)}}})
        flue.knows(**{"k8s.pod.uid": after})
        wait_for(lambda: flue.send({"k8s.pod.uid": gone}) == [{"k8s.pod.uid": gone}], 180, "what is gone to be forgotten")
        assert flue.send({"k8s.pod.uid": before})[0]["k8s.pod.name"] == "before"


def test_a_watch_too_old_lists_again(flue, otlp_sink, tmp_path):
    """The history was compacted while the server was down: 410, as an event."""
    with ControlPlane(tmp_path / "plane", arguments=["--watch-cache=false", "--min-request-timeout=5"]) as plane:
        plane.allow(*CORE)
        plane.namespace("media")
        pods = [plane.pod("media", f"p{i}")["metadata"]["uid"] for i in range(3)]
        flue = Enricher(flue, otlp_sink, plane.kubeconfig())
        flue.knows(**{"k8s.pod.uid": pods[2]})
        plane.stop_server()
        wait_for(lambda: flue.daemon.total("otelcol_kubernetes_errors"), 180, "the loss to be seen")
        plane.compact()
        plane.start_server()
        new = plane.pod("media", "new")["metadata"]["uid"]
        flue.knows(**{"k8s.pod.uid": new})
        assert "too far behind" in flue.daemon.log()


@pytest.mark.slow
def test_the_fallback_with_an_old_etcd(flue, otlp_sink, tmp_path):
    """etcd 3.4 cannot say how far a watch has come, so the server cannot stream a list."""
    with ControlPlane(tmp_path / "plane", etcd="etcd34") as plane:
        plane.allow(*CORE)
        plane.namespace("media")
        uid = plane.pod("media", "old")["metadata"]["uid"]
        flue = Enricher(flue, otlp_sink, plane.kubeconfig(), ready=False)
        wait_for(lambda: flue.daemon.total("otelcol_kubernetes_synced", kind="pods"), 180, "the list of pods")
        assert flue.daemon.total("otelcol_kubernetes_requests", kind="pods", type="list") >= 1
        flue.knows(**{"k8s.pod.uid": uid})
        plane.delete_pod("media", "old")
        new = plane.pod("media", "new")["metadata"]["uid"]
        flue.knows(**{"k8s.pod.uid": new})


@pytest.mark.slow
def test_two_thousand_pods(plane, enricher):
    plane.namespace("many")
    ids = [container_id() for _ in range(2000)]
    plane.many(lambda i: plane.pod("many", f"pod-{i}", f"127.20.{i // 250}.{i % 250 + 1}", started="2026-11-20T08:00:00Z",
                                   containers={"main": (f"image-{i % 7}:1.{i % 11}", ids[i])}), range(2000))
    flue = enricher()
    wait_for(lambda: flue.daemon.total("otelcol_kubernetes_pods") >= 2000, 180, "all pods")
    for start in range(0, 2000, 200):
        out = flue.send(*({"container.id": ids[i]} for i in range(start, start + 200)))
        for i, got in zip(range(start, start + 200), out):
            assert got["k8s.pod.name"] == f"pod-{i}" and got["container.image.name"] == f"image-{i % 7}"
            assert got["container.image.tag"] == f"1.{i % 11}"
    for i in random.sample(range(2000), 20):
        address = f"127.20.{i // 250}.{i % 250 + 1}"
        assert flue.send({}, address=address)[0]["k8s.pod.name"] == f"pod-{i}"
    plane.client.delete("/api/v1/namespaces/many/pods?gracePeriodSeconds=0").raise_for_status()


class Life:
    """A pod's hold on an address: from `began` until `ended` its processes really were there; `known` is when
    the API had been told that they are."""

    def __init__(self, uid):
        self.uid, self.began, self.ended, self.known = uid, time.time_ns(), None, None


def test_no_profile_gets_another_pods_attributes(plane, flue, otlp_sink):
    """Few addresses, many pods. Kubelets report late; pods are deleted at once, end by and by (and stay in the
    API meanwhile), or finish and keep their address in the API; the next pod has it at once. Meanwhile
    profiles come from every address: by connection and through an agent that says the address, at once
    or late (of pods that are no more), by clocks that are wrong, through collectors and proxies, from
    the host's own network. Whatever is set must be of the pod that made the profile."""
    settle, seconds = 5, 30
    plane.namespace("reuse")
    flue = Enricher(flue, otlp_sink, plane.kubeconfig(), f"address_settle: {settle}s\n      pod_delete_grace_period: 60s")
    reused = [f"127.66.0.{i + 1}" for i in range(5)]
    calm, host, relay = ["127.66.1.1", "127.66.1.2"], "127.66.2.1", "127.66.3.1"
    lives = {a: [] for a in [*reused, *calm, host]}
    by_uid, failures, sent = {}, [], [0]
    until = time.monotonic() + seconds
    pool = concurrent.futures.ThreadPoolExecutor(256)

    def finish(name, rng):
        time.sleep(rng.random())
        how = rng.choice(["delete", "end", "finish"])
        if how == "end":
            plane.delete_pod("reuse", name, grace=30)
            time.sleep(rng.random() * 6)
        if how == "finish":
            end = {"terminated": {"exitCode": 0, "finishedAt": now(), "containerID": f"containerd://{container_id()}"}}
            plane.patch_status("reuse", name, {"phase": "Succeeded", "containerStatuses": [
                {"name": "main", "image": "x", "imageID": "", "ready": False, "restartCount": 0, "state": end}]})
            time.sleep(rng.random() * 20)
        plane.delete_pod("reuse", name)

    def live(address, seed):
        rng = random.Random(seed)
        n = 0
        while time.monotonic() < until:
            n += 1
            name = f"p-{address.replace('.', '-')}-{n}"

            def begin(uid):
                lives[address].append(Life(uid))
                by_uid[uid] = lives[address][-1]
                time.sleep(rng.random() * 1.2)

            plane.pod("reuse", name, address, started=now(), meanwhile=begin, hostNetwork=address == host)
            life = lives[address][-1]
            life.known = time.time_ns()
            if address in calm:
                return
            time.sleep(rng.choice([0.05, 0.5, 2, 13]))
            life.ended = time.time_ns()
            pool.submit(finish, name, random.Random(seed * 1000 + n))

    def post(local, resource, start, duration, headers):
        body = request(resource, start=start, duration=duration).SerializeToString()
        try:
            with httpx.Client(transport=httpx.HTTPTransport(local_address=local), timeout=120) as client:
                answer = client.post(f"http://127.0.0.1:{flue.port}/v1development/profiles", headers={**PROTO, **headers}, content=body)
            assert answer.status_code == 200, answer.text
            sent[0] += 1
        except (httpx.HTTPError, AssertionError) as e:
            failures.append(repr(e))

    def profile(address, seed):
        rng = random.Random(seed)
        while time.monotonic() < until:
            time.sleep(0.3 + rng.random() * 0.6)
            here = list(lives[address])
            if not here:
                continue
            late = len(here) > 1 and rng.random() < 0.3
            life = rng.choice(here[:-1]) if late else here[-1]
            last = (life.ended or 0) if late else time.time_ns()
            if not last or (not late and life.ended):
                continue
            start = max(life.began, last - int(rng.choice([0, 1, 4, 12]) * 1e9))
            duration = rng.choice([0, (last - start) // 2, last - start])
            skew = int(rng.choice([0, 0, 0, -2, -0.5, 0.5, 2]) * 1e9)
            resource, local, headers = {"test.uid": life.uid}, address, {}
            if late or rng.random() < 0.4:
                resource["k8s.pod.ip"], local = address, "127.0.0.1"
            elif rng.random() < 0.2:
                local, headers = relay, rng.choice([{"x-forwarded-for": address}, {"via": "1.1 x"}, {"user-agent": "flue/1"}])
            pool.submit(post, local, resource, start + skew, duration, headers)

    plane.pod("reuse", "relay", relay)
    threads = [threading.Thread(target=live, args=(a, i)) for i, a in enumerate(lives)]
    threads += [threading.Thread(target=profile, args=(a, 100 + i)) for i, a in enumerate(lives)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    pool.shutdown()
    flue.daemon.wait_quiet()
    matched = 0
    for r in otlp_sink.requests:
        for rp in r.resource_profiles:
            got = attributes(rp)
            life = by_uid.get(got.get("test.uid"))
            if not life or "k8s.pod.uid" not in got:
                continue
            assert life not in lives[host], "an address of the host is no pod's"
            # What the API was told later than it may be, is not promised.
            if life.known and life.known - life.began < (settle - 2) * 1e9:
                assert got["k8s.pod.uid"] == got["test.uid"], got
                matched += 1
    assert not failures, failures[:3]
    assert sent[0] > 100 and matched > 20, (sent, matched)
    assert flue.result("doubt") > 0 and flue.result("relayed") > 0


@pytest.mark.parametrize("name", ["agent", "gateway", "sidecar"])
def test_the_examples_are_valid(binary, name):
    import subprocess
    example = ROOT / "config" / "examples" / f"kubernetes-{name}.yaml"
    subprocess.run([binary, "validate", "--config", example], check=True, env={**os.environ, "NODE_NAME": "node-a"})


def test_what_is_shipped_for_kubernetes_is_taken_by_a_server(plane):
    """Every object of deploy/kubernetes, with the server's own strict validation, as a dry run."""
    plane.namespace("flue")
    paths = {"ServiceAccount": "/api/v1/namespaces/flue/serviceaccounts", "Service": "/api/v1/namespaces/flue/services",
             "Pod": "/api/v1/namespaces/default/pods", "Deployment": "/apis/apps/v1/namespaces/flue/deployments",
             "DaemonSet": "/apis/apps/v1/namespaces/flue/daemonsets",
             "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
             "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"}
    taken = 0
    for file in sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml")):
        for document in file.read_text().split("\n---\n"):
            kind = next(line.split(": ")[1] for line in document.splitlines() if line.startswith("kind: "))
            body = document.replace("metadata: {name: flue}", "metadata: {name: flue-dry-run}") if "Cluster" in kind else document
            answer = plane.client.post(f"{paths[kind]}?dryRun=All&fieldValidation=Strict", content=body,
                                       headers={"Content-Type": "application/yaml"})
            assert answer.status_code == 201, f"{file.name} {kind}: {answer.text}"
            taken += 1
    assert taken == 7
