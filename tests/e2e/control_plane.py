"""A real kube-apiserver on a real etcd, without nodes: pods are written as a kubelet would."""
import concurrent.futures
import json
import os
import pathlib
import subprocess
import time
import uuid

import httpx

from harness import BIN, free_port, wait_for

ADMIN, PLAIN = "admintoken", "flueflue"
PROTOBUF = "application/vnd.kubernetes.protobuf"


class ControlPlane:
    def __init__(self, folder, etcd="etcd", arguments=()):
        self.folder, self.etcd, self.arguments = pathlib.Path(folder), etcd, list(arguments)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.etcd_port, self.port = free_port(), free_port()
        self.processes = {}
        subprocess.run(["openssl", "genrsa", "-out", self.folder / "sa.key", "2048"], check=True, capture_output=True)
        (self.folder / "tokens.csv").write_text(f'{ADMIN},admin,1,"system:masters"\n{PLAIN},flue,2,"flue"\n')
        self.ca = self.folder / "certs" / "apiserver.crt"
        self.client = None

    def __enter__(self):
        peer = free_port()
        at = f"http://127.0.0.1:{self.etcd_port}"
        self.run("etcd", [BIN / self.etcd, "--data-dir", self.folder / "etcd", "--listen-client-urls", at,
                          "--advertise-client-urls", at, "--listen-peer-urls", f"http://127.0.0.1:{peer}",
                          "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
                          "--initial-cluster", f"default=http://127.0.0.1:{peer}",
                          "--unsafe-no-fsync", "--log-level", "error"])
        wait_for(lambda: answers(f"{at}/health"), 180, "etcd")
        self.start_server()
        return self

    def run(self, name, command):
        log = (self.folder / f"{name}.log").open("ab")
        self.processes[name] = subprocess.Popen([str(c) for c in command], stdout=log, stderr=log,
                                                env={**os.environ, "GOMAXPROCS": "2"})

    def start_server(self):
        self.run("apiserver", [
            BIN / "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{self.etcd_port}", "--bind-address=127.0.0.1",
            f"--secure-port={self.port}", f"--cert-dir={self.folder / 'certs'}",
            f"--token-auth-file={self.folder / 'tokens.csv'}", "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.folder / 'sa.key'}",
            f"--service-account-signing-key-file={self.folder / 'sa.key'}", "--service-cluster-ip-range=10.96.0.0/16",
            "--disable-admission-plugins=ServiceAccount", "--etcd-compaction-interval=0",
            "--advertise-address=10.9.9.9", "--endpoint-reconciler-type=none", *self.arguments])
        wait_for(self.ca.exists, 180, "the server's certificate")
        url = f"https://127.0.0.1:{self.port}"
        wait_for(lambda: answers(f"{url}/readyz", verify=False, headers={"Authorization": f"Bearer {ADMIN}"}),
                 240, "kube-apiserver")
        import ssl
        trust = ssl.create_default_context(cafile=str(self.ca))
        self.client = httpx.Client(base_url=url, verify=trust, timeout=240, headers={"Authorization": f"Bearer {ADMIN}"},
                                   limits=httpx.Limits(max_connections=32))

    def stop_server(self):
        self.processes["apiserver"].kill()
        self.processes.pop("apiserver").wait()

    def __exit__(self, *_):
        for process in self.processes.values():
            process.kill()
            process.wait()

    def compact(self):
        """Forgets the history of etcd: with a restarted server, whatever is old is 410 Gone."""
        at = f"http://127.0.0.1:{self.etcd_port}/v3/kv"
        for _ in range(3):
            httpx.post(f"{at}/put", json={"key": "YQ==", "value": "YQ=="}).raise_for_status()
        revision = httpx.post(f"{at}/range", json={"key": "YQ=="}).json()["header"]["revision"]
        httpx.post(f"{at}/compaction", json={"revision": revision, "physical": True}).raise_for_status()

    def kubeconfig(self, name="kubeconfig", token=PLAIN, **user):
        path = self.folder / name
        path.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": f"https://127.0.0.1:{self.port}",
                                                      "certificate-authority": str(self.ca)}}],
            "users": [{"name": "test", "user": user or {"token": token}}]}))
        return path

    # ---- objects

    def post(self, path, body):
        answer = self.client.post(path, json=body)
        assert answer.status_code in (200, 201, 409), answer.text
        return answer.json()

    def allow(self, *rules, name="flue", user="flue"):
        """rules: (group, resource)."""
        body = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name},
                "rules": [{"apiGroups": [g], "resources": [r], "verbs": ["get", "list", "watch"]} for g, r in rules]}
        self.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", body)
        self.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]})

    def namespace(self, name, **metadata):
        return self.post("/api/v1/namespaces", {"metadata": {"name": name, **metadata}})

    def node(self, name, **labels):
        return self.post("/api/v1/nodes", {"metadata": {"name": name, "labels": labels}})

    def workload(self, kind, namespace, name, owner=None, labels=None):
        plural = kind.lower() + "s"
        selector = {"app": name}
        template = {"metadata": {"labels": selector}, "spec": {"containers": [{"name": "main", "image": "x:1"}]}}
        spec = {"selector": {"matchLabels": selector}, "template": template}
        if kind == "StatefulSet":
            spec["serviceName"] = name
        if kind == "Job":
            spec = {"template": {"spec": {**template["spec"], "restartPolicy": "Never"}}}
        metadata = {"name": name, "labels": labels or {}}
        if owner:
            metadata["ownerReferences"] = [reference(owner)]
        group = "batch" if kind == "Job" else "apps"
        return self.post(f"/apis/{group}/v1/namespaces/{namespace}/{plural}", {
            "apiVersion": f"{group}/v1", "kind": kind, "metadata": metadata, "spec": spec})

    def pod(self, namespace, name, address=None, node="node-a", owner=None, labels=None, annotations=None,
            containers=None, started=None, phase="Running", meanwhile=None, **spec):
        """A pod as it looks once its kubelet has reported. containers: {name: (image, id)}.
        meanwhile(uid): what happens before it reports."""
        containers = containers or {"main": ("registry.example/encoder:1.2", container_id())}
        metadata = {"name": name, "labels": labels or {}, "annotations": annotations or {}}
        if owner:
            metadata["ownerReferences"] = [reference(owner)]
        made = self.client.post(f"/api/v1/namespaces/{namespace}/pods", json={"metadata": metadata, "spec": {
            "nodeName": node, "containers": [{"name": n, "image": i} for n, (i, _) in containers.items()], **spec}})
        assert made.status_code == 201, made.text
        if meanwhile:
            meanwhile(made.json()["metadata"]["uid"])
        status = {"phase": phase, "startTime": started or now(), "hostIP": "10.0.0.1", "containerStatuses": [
            {"name": n, "image": i, "imageID": f"{i.split(':')[0]}@sha256:{'ab' * 32}", "ready": True, "restartCount": 0,
             "containerID": f"containerd://{c}", "state": {"running": {"startedAt": now()}}}
            for n, (i, c) in containers.items()]}
        if address:
            addresses = [address] if isinstance(address, str) else list(address)
            status.update(podIP=addresses[0], podIPs=[{"ip": a} for a in addresses])
        return self.patch_status(namespace, name, status)

    def patch_status(self, namespace, name, status):
        answer = self.client.patch(f"/api/v1/namespaces/{namespace}/pods/{name}/status",
                                   content=json.dumps({"status": status}),
                                   headers={"Content-Type": "application/merge-patch+json"})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def patch_pod(self, namespace, name, body):
        answer = self.client.patch(f"/api/v1/namespaces/{namespace}/pods/{name}", content=json.dumps(body),
                                   headers={"Content-Type": "application/merge-patch+json"})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def delete_pod(self, namespace, name, grace=0):
        answer = self.client.delete(f"/api/v1/namespaces/{namespace}/pods/{name}?gracePeriodSeconds={grace}")
        assert answer.status_code in (200, 202), answer.text

    def many(self, work, items, at_once=16):
        with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(work, items))


def answers(url, **options):
    try:
        return httpx.get(url, timeout=20, **options).status_code == 200
    except httpx.HTTPError:
        return False


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def container_id():
    return uuid.uuid4().hex + uuid.uuid4().hex


def reference(owner):
    return {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"], "controller": True}
