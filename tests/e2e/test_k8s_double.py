"""k8sattributes and an API server that misbehaves, or has very many pods."""
import json
import subprocess
import sys
import threading
import time

import httpx
import pytest

from harness import ROOT, free_port, wait_for
from kubernetes_double import Double, Template, pod, status
from test_k8s import EVERYTHING, PROTO, Enricher, request


@pytest.fixture
def double(tmp_path):
    with Double(tmp_path / "double") as double:
        yield double


@pytest.fixture
def enricher(flue, otlp_sink, double):
    def start(settings="", **options):
        return Enricher(flue, otlp_sink, double.kubeconfig(), settings, **options)

    return start


def is_known(flue, uid):
    return "k8s.pod.name" in flue.send({"k8s.pod.uid": uid})[0]


def test_list_in_pages_where_lists_cannot_be_streamed(double, enricher):
    double.watchlist, double.page = False, 3
    for i in range(10):
        double.change("ADDED", pod(f"p{i}"))
    flue = enricher()
    assert flue.daemon.total("otelcol_kubernetes_pods") == 10
    assert double.count(limit="500") == 4
    double.change("ADDED", pod("later"))
    flue.knows(**{"k8s.pod.uid": "uid-later"})
    [version] = {q["resourceVersion"] for _, q, _ in double.requests if q.get("watch") and not q.get("sendInitialEvents")}
    assert version.isdigit() and version != "0"
    assert all("gzip" not in h.get("Accept-Encoding", "") for _, _, h in double.requests)


def test_a_page_whose_token_expired_starts_anew(double, enricher):
    double.watchlist, double.page = False, 3
    for i in range(10):
        double.change("ADDED", pod(f"p{i}"))
    expired = []

    def answer(kind, query, headers):
        if query.get("continue") == "6" and not expired:
            expired.append(1)
            return 410, {**status(410, "Expired"), "metadata": {"continue": "9"}}
        return None

    double.answer = answer
    flue = enricher()
    assert expired and flue.daemon.total("otelcol_kubernetes_pods") == 10
    assert any("limit" not in q and "continue" not in q for k, q, _ in double.requests if "watch" not in q)


def test_a_watch_that_falls_silent_is_listed_instead(double, enricher):
    double.silent = True
    double.change("ADDED", pod("a"))
    flue = enricher()
    assert flue.daemon.total("otelcol_kubernetes_requests", kind="pods", type="list") == 1
    assert "fell silent" in flue.daemon.log()


def test_clean_ends_go_on_from_the_last_version(double, enricher):
    double.change("ADDED", pod("a"))
    flue = enricher()
    double.change("ADDED", pod("b"))
    flue.knows(**{"k8s.pod.uid": "uid-b"})
    lists = double.count(sendInitialEvents="true")
    double.end_watches()
    wait_for(lambda: any("resourceVersion" in q for _, q, _ in double.requests), 180, "a new watch")
    double.change("DELETED", pod("a"))
    double.change("ADDED", pod("c"))
    flue.knows(**{"k8s.pod.uid": "uid-c"})
    wait_for(lambda: flue.daemon.total("otelcol_kubernetes_pods") == 2, 180, "the deletion")
    assert double.count(sendInitialEvents="true") == lists, "nothing was listed again"


@pytest.mark.parametrize("as_event", [True, False], ids=["event", "status"])
def test_gone_in_both_forms_lists_again(double, enricher, as_event):
    double.change("ADDED", pod("a"))
    double.change("ADDED", pod("b"))
    flue = enricher("pod_delete_grace_period: 0s")
    with double.changed:
        del double.objects["pods"]["uid-b"]
        double.objects["pods"]["uid-c"] = pod("c")
        double.oldest = double.version + 1 if as_event else 0
        double.version += 5
    if not as_event:
        double.answer = lambda kind, query, headers: (
            (410, status(410, "Expired")) if "watch" in query and "sendInitialEvents" not in query else None)
    double.end_watches()
    flue.knows(**{"k8s.pod.uid": "uid-c"})
    wait_for(lambda: not is_known(flue, "uid-b"), 180, "what is gone to be forgotten")
    assert is_known(flue, "uid-a")


def test_events_out_of_order_twice_and_for_the_unknown(double, enricher):
    double.change("ADDED", pod("a"))
    flue = enricher("pod_delete_grace_period: 1s")
    double.change("DELETED", pod("never-seen"))
    double.change("ADDED", pod("a"))
    double.change("ADDED", pod("a"))
    double.change("MODIFIED", pod("b"))
    double.change("DELETED", pod("a"))
    double.change("DELETED", pod("a"))
    double.send(json.dumps({"type": "MODIFIED", "object": pod("a")}, separators=(",", ":")))
    double.send(json.dumps({"type": "SURPRISE", "object": pod("x")}, separators=(",", ":")))
    double.send('{"type":"ADDED","object":{"metadata":[],"spec":7,"status":"no"}}')
    double.send('{"type":"ADDED","object":{"metadata":{"name":"no-uid"}}}')
    double.change("ADDED", pod("last"))
    flue.knows(**{"k8s.pod.uid": "uid-last"})
    assert is_known(flue, "uid-b")
    wait_for(lambda: not is_known(flue, "uid-a"), 180, "the deleted one to be forgotten")
    assert flue.daemon.total("otelcol_kubernetes_pods") == 2
    assert not flue.daemon.total("otelcol_kubernetes_errors")


def test_large_objects_and_broken_ones(double, enricher):
    flue = enricher()
    large = pod("large", annotations={"blob": "x" * 1_000_000})
    double.change("ADDED", large)
    double.change("ADDED", pod("huge", annotations={"blob": "x" * 6_000_000}))
    double.change("ADDED", pod("after"))
    flue.knows(**{"k8s.pod.uid": "uid-after"})
    assert is_known(flue, "uid-large") and not is_known(flue, "uid-huge")
    double.send('{"type":"ADDED","object":' + "[" * 40 + "]" * 40 + "}")
    double.send("}")  # the stream itself is broken: a new watch
    double.change("ADDED", pod("recovered"))
    flue.knows(**{"k8s.pod.uid": "uid-recovered"})
    assert flue.daemon.total("otelcol_kubernetes_broken_objects") == 1


def test_429_and_401_are_normal(double, enricher):
    double.change("ADDED", pod("a"))
    seen = {"busy": 0, "token": 0}

    def answer(kind, query, headers):
        if seen["busy"] < 2:
            seen["busy"] += 1
            return 429, status(429, "TooManyRequests"), [("Retry-After", "1")]
        if seen["token"] < 1:
            seen["token"] += 1
            return 401, status(401, "Unauthorized")
        return None

    double.answer = answer
    began = time.monotonic()
    flue = enricher()
    assert time.monotonic() - began >= 2, "Retry-After was obeyed"
    assert is_known(flue, "uid-a")
    assert "secret-token" not in flue.daemon.log()


def test_a_server_without_protobuf(double, enricher):
    double.change("ADDED", pod("a"))
    double.answer = lambda kind, query, headers: (
        (406, status(406, "NotAcceptable")) if "protobuf" in headers.get("Accept", "") else None)
    flue = enricher(EVERYTHING)
    assert is_known(flue, "uid-a")


def test_a_server_that_is_down_at_start(flue, otlp_sink, tmp_path):
    port = free_port()
    config = tmp_path / "kubeconfig"
    config.write_text(json.dumps({
        "current-context": "d", "contexts": [{"name": "d", "context": {"cluster": "d"}}],
        "clusters": [{"name": "d", "cluster": {"server": f"http://127.0.0.1:{port}"}}]}))
    flue = Enricher(flue, otlp_sink, config, "wait_for_metadata_timeout: 1s", ready=False)
    assert flue.send({"k8s.pod.uid": "uid-a"}) == [{"k8s.pod.uid": "uid-a"}], "data passes, once it has waited"
    assert flue.daemon.total("otelcol_processor_k8sattributes_unready_resources") == 1
    wait_for(lambda: "cannot reach the API server" in flue.daemon.log(), 180, "the reason")
    with Double(tmp_path / "double", port=port) as double:
        double.change("ADDED", pod("a"))
        wait_for(lambda: flue.daemon.total("otelcol_kubernetes_synced", kind="pods"), 180, "the list")
        assert is_known(flue, "uid-a")


def test_a_slow_server_and_data_before_the_first_list(double, flue, otlp_sink):
    """What comes before the first list waits for it, up to hold_size; the rest goes bare, counted."""
    double.change("ADDED", pod("a"))
    listed = threading.Event()
    double.answer = lambda *_: None if listed.wait(180) else None
    flue = Enricher(flue, otlp_sink, double.kubeconfig(), "hold_size: 1000\n      wait_for_metadata_timeout: 180s", ready=False)

    def release():
        wait_for(lambda: flue.daemon.total("otelcol_processor_k8sattributes_held_bytes"), 180, "the request to be held")
        listed.set()

    releases = threading.Thread(target=release)
    releases.start()
    assert flue.send({"k8s.pod.uid": "uid-a"}, timeout=180)[0]["k8s.pod.name"] == "a"
    releases.join()
    assert not flue.daemon.total("otelcol_processor_k8sattributes_unready_resources")


def test_hold_size_bounds_what_waits(double, flue, otlp_sink):
    double.change("ADDED", pod("a"))
    listed = threading.Event()
    double.answer = lambda *_: None if listed.wait(180) else None
    flue = Enricher(flue, otlp_sink, double.kubeconfig(), "hold_size: 10\n      wait_for_metadata_timeout: 180s", ready=False)
    assert flue.send({"k8s.pod.uid": "uid-a"}) == [{"k8s.pod.uid": "uid-a"}]
    assert flue.daemon.total("otelcol_processor_k8sattributes_unready_resources") == 1
    listed.set()


def test_wait_for_metadata(double, flue, otlp_sink):
    double.change("ADDED", pod("a"))
    double.wait = 1
    began = time.monotonic()
    flue = Enricher(flue, otlp_sink, double.kubeconfig(), "wait_for_metadata: true")
    assert time.monotonic() - began >= 1 and is_known(flue, "uid-a")


def test_an_address_is_not_trusted_while_nobody_watches(double, enricher):
    double.change("ADDED", pod("a", address="127.8.0.1"))
    flue = enricher("address_settle: 500ms")
    assert flue.send({"k8s.pod.ip": "127.8.0.1"})[0]["k8s.pod.name"] == "a"
    double.answer = lambda kind, query, headers: (503, status(503, "ServiceUnavailable"))
    double.end_watches()
    wait_for(lambda: flue.daemon.total("otelcol_kubernetes_errors"), 180, "the watch to be lost")
    time.sleep(1)
    late = flue.send({"k8s.pod.ip": "127.8.0.1"}, start=time.time_ns() - 100_000_000)
    assert late == [{"k8s.pod.ip": "127.8.0.1"}] and flue.result("stale") == 1
    assert flue.send({"k8s.pod.ip": "127.8.0.1"})[0]["k8s.pod.name"] == "a", "a profile of before"
    assert flue.send({"k8s.pod.uid": "uid-a"})[0]["k8s.pod.name"] == "a", "a uid is never another's"


def test_two_pipelines_watch_once(double, flue, otlp_sink):
    double.change("ADDED", pod("a"))
    daemon = flue(f"""
receivers:
  otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:0"}}}}}}
processors:
  k8s_attributes: {{auth_type: kubeConfig}}
exporters:
  otlp_grpc: {{endpoint: "127.0.0.1:{otlp_sink.port}", tls: {{insecure: true}}}}
service:
  pipelines:
    profiles/a: {{receivers: [otlp], processors: [k8s_attributes], exporters: [otlp_grpc]}}
    profiles/b: {{receivers: [otlp], processors: [k8s_attributes], exporters: [otlp_grpc]}}
""", environment={"KUBECONFIG": str(double.kubeconfig())})
    wait_for(lambda: daemon.total("otelcol_kubernetes_synced", kind="pods"), 180, "the list")
    assert len(double.requests) == 1


def test_sidecars_need_no_api(flue, otlp_sink, tmp_path):
    info = tmp_path / "podinfo"
    info.mkdir()
    (info / "labels").write_text('app.kubernetes.io/name="packager"\npod-template-hash="7d9c5b8f6d"\nteam="a\\"b\\u00e9"\n')
    (info / "annotations").write_text('note="1\\n2"\n')
    flue = Enricher(flue, otlp_sink, None, f"downward_api: {{directory: {info}, interval: 1s}}" + EVERYTHING, auth="none",
                    environment={"POD_NAME": "packager-7d9c5b8f6d-x2x9k", "POD_UID": "u-1", "POD_NAMESPACE": "media",
                                 "NODE_NAME": "node-a", "POD_IP": "10.1.2.3", "CONTAINER_NAME": "main"}, ready=False)
    [got] = flue.send({"service.name": "mine"})
    assert got == {
        "service.name": "mine", "service.namespace": "media", "k8s.pod.name": "packager-7d9c5b8f6d-x2x9k",
        "k8s.pod.uid": "u-1", "k8s.pod.ip": "10.1.2.3", "k8s.pod.hostname": "packager-7d9c5b8f6d-x2x9k",
        "k8s.namespace.name": "media", "k8s.node.name": "node-a", "k8s.deployment.name": "packager",
        "k8s.replicaset.name": "packager-7d9c5b8f6d", "k8s.container.name": "main", "app.name": "packager",
        "k8s.pod.labels.team": 'a"bé', "note": "1\n2", "k8s.container.restart_count": 0,
        "service.instance.id": "media.packager-7d9c5b8f6d-x2x9k.main"}
    other = {"k8s.pod.uid": "of-another"}
    assert flue.send(other) == [other]
    (info / "labels").write_text('team="new"\n')
    wait_for(lambda: flue.send({})[0].get("k8s.pod.labels.team") == "new", 180, "the files to be read again")


def test_passthrough_sets_the_address_only(flue, otlp_sink):
    flue = Enricher(flue, otlp_sink, None, "passthrough: true", auth="none", ready=False)
    assert flue.send({"service.name": "x"}, address="127.8.0.9") == [{"service.name": "x", "k8s.pod.ip": "127.8.0.9"}]


def test_processes_of_this_host(double, flue, otlp_sink, tmp_path):
    """Process ids are looked up for listed senders only, and not for one that began too late."""
    made = pod("hosted")
    id = "ab" * 32
    made["status"]["containerStatuses"] = [{"name": "main", "image": "x:1", "imageID": "", "containerID": f"containerd://{id}"}]
    double.change("ADDED", made)
    proc = tmp_path / "proc"
    boot = int(time.time()) - 1000
    for pid, start in ((41, 50_000), (42, 99_900)):  # hundredths of a second since boot: 500 s ago; now
        (proc / str(pid)).mkdir(parents=True)
        (proc / str(pid) / "stat").write_text(f"{pid} (a) b) S " + "0 " * 18 + f"{start} 0 0\n")
        (proc / str(pid) / "cgroup").write_text(f"0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope\n")
    (proc / "stat").write_text(f"cpu 1\nbtime {boot}\n")
    flue = Enricher(flue, otlp_sink, double.kubeconfig(), f"host_processes: {{senders: [127.8.1.0/24], proc: {proc}}}")
    assert flue.send({"process.pid": 41}, address="127.8.1.1")[0]["k8s.pod.name"] == "hosted"
    assert flue.send({"process.pid": 41}, address="127.8.2.1") == [{"process.pid": 41}]
    assert flue.send({"process.pid": 42}, address="127.8.1.1") == [{"process.pid": 42}], "it began after the profile"
    assert flue.send({"process.pid": 43}, address="127.8.1.1") == [{"process.pid": 43}]


def resident(daemon):
    with open(f"/proc/{daemon.process.pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS")) * 1024


@pytest.mark.slow
@pytest.mark.resident
def test_a_hundred_thousand_pods_and_thirty_thousand_changes(flue, otlp_sink, tmp_path):
    """What it takes in memory. How long it takes is measured by tests/bench/kubernetes.py."""
    pods, rate, seconds = 100_000, 5000, 6
    crowd = subprocess.Popen([sys.executable, ROOT / "tests/e2e/kubernetes_double.py", str(pods), str(rate), str(seconds)],
                             stdout=subprocess.PIPE, text=True)
    try:
        port = int(crowd.stdout.readline())
        config = tmp_path / "kubeconfig"
        config.write_text(json.dumps({
            "current-context": "d", "contexts": [{"name": "d", "context": {"cluster": "d"}}],
            "clusters": [{"name": "d", "cluster": {"server": f"http://127.0.0.1:{port}"}}]}))
        flue = Enricher(flue, otlp_sink, config, "pod_delete_grace_period: 2s", ready=False)
        wait_for(lambda: flue.daemon.total("otelcol_kubernetes_synced", kind="pods"), 300, "the list of pods")
        assert resident(flue.daemon) <= 100_000_000
        done = threading.Event()

        def load():  # the data path goes on meanwhile
            while not done.is_set():
                with httpx.Client(timeout=120) as client:
                    client.post(f"http://127.0.0.1:{flue.port}/v1development/profiles", headers=PROTO, content=request(
                        *({"container.id": Template.id_of(i * 7919 % pods, 0).decode()} for i in range(77))).SerializeToString())

        loader = threading.Thread(target=load)
        loader.start()
        sent = int(crowd.stdout.readline().split()[0])
        done.set()
        loader.join()
        assert sent == rate * seconds
        changes = lambda: sum(flue.daemon.total("otelcol_kubernetes_events", kind="pods", event=e)
                              for e in ("added", "modified", "deleted")) - pods
        wait_for(lambda: changes() == sent, 180, "every change to be read")
        assert resident(flue.daemon) <= 100_000_000
        [got] = flue.send({"container.id": Template.id_of(99_999, 1).decode()})
        assert got["k8s.container.name"] == "proxy" and got["k8s.pod.uid"] == Template.uid_of(99_999).decode()
    finally:
        crowd.kill()
        crowd.wait()
