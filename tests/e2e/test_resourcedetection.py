"""resourcedetection in the running daemon, against doubles of the metadata services that verify what
is asked, and how."""
import hashlib
import hmac
import http.server
import json
import os
import pathlib
import socket
import socketserver
import ssl
import subprocess
import threading

import pytest

from harness import free_port, wait_for
from test_cdn import request_of
from test_otlp import export


class Double:
    """An HTTP server: `answer(method, path, headers)` gives (status, text) or (status, text, headers)."""

    def __init__(self, answer, unix=None, tls=None):
        double = self
        self.asked, self.bodies = [], []

        class Handler(http.server.BaseHTTPRequestHandler):
            def handle_one(self):
                headers = {k.lower(): v for k, v in self.headers.items()}
                double.bodies.append(self.rfile.read(int(headers.get("content-length", 0))))
                double.asked.append((self.command, self.path, headers))
                status, text, *more = answer(self.command, self.path, headers)
                self.send_response(status)
                for key, value in (more[0] if more else {}).items():
                    self.send_header(key, value)
                self.send_header("content-length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_PUT = do_POST = handle_one

            def address_string(self):
                return "double"

            def log_message(self, *_):
                pass

        if unix:
            class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
                daemon_threads = True
            self.server = Server(unix, Handler)
        else:
            self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            self.port = self.server.server_address[1]
            self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.server.handle_error = lambda *_: None  # who asked has gone
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def double():
    made = []

    def make(answer, **options):
        made.append(Double(answer, **options))
        return made[-1]

    yield make
    for server in made:
        server.stop()


def configuration(port, sink_port, processor):
    return f"""
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
processors: {{resourcedetection: {json.dumps(processor)}}}
exporters: {{otlp_grpc: {{endpoint: "127.0.0.1:{sink_port}", tls: {{insecure: true}}, sending_queue: {{enabled: false}}}}}}
service: {{pipelines: {{profiles: {{receivers: [otlp], processors: [resourcedetection], exporters: [otlp_grpc]}}}}}}
"""


@pytest.fixture
def detect(flue, otlp_sink):
    """detect(processor, environment): a daemon; .attributes(): what a bare resource gets now."""

    def start(processor, environment=None, wait=True, **options):
        port = free_port()
        # no proxy and no variable of the machine that runs the test
        clean = {name: "" for name in os.environ if name.startswith(("AWS_", "CONSUL_", "KUBE", "OTEL_", "GCE_", "K_"))}
        daemon = flue(configuration(port, otlp_sink.port, processor), environment={**clean, **(environment or {})}, **options)

        def attributes():
            before = len(otlp_sink.requests)
            export(port, request_of(None).SerializeToString())
            wait_for(lambda: len(otlp_sink.requests) > before, what="the request")
            pairs = otlp_sink.requests[-1].resource_profiles[0].resource.attributes
            return {a.key: a.value.string_value for a in pairs if a.key != "service.name"}

        daemon.attributes = attributes
        if wait:
            wait_for(lambda: daemon.total("otelcol_processor_resourcedetection_attributes") > 0, what="attributes")
            wait_for(attributes, what="attributes on every loop")
        return daemon

    return start


DOCUMENT = {"region": "eu-west-1", "accountId": "123456789012", "availabilityZone": "eu-west-1b", "instanceId": "i-0abc",
            "imageId": "ami-1", "instanceType": "c7g.large", "privateIp": "10.0.0.1"}
EC2 = {"cloud.provider": "aws", "cloud.platform": "aws_ec2", "cloud.region": "eu-west-1", "cloud.account.id": "123456789012",
       "cloud.availability_zone": "eu-west-1b", "host.id": "i-0abc", "host.image.id": "ami-1", "host.type": "c7g.large",
       "host.name": "ip-10-0-0-1.internal"}


def imds(token=True, tags=None):
    def answer(method, path, headers):
        if path == "/latest/api/token":
            if method != "PUT" or headers.get("x-aws-ec2-metadata-token-ttl-seconds") != "21600":
                return 400, "bad"
            return (200, "secret-token") if token else (404, "")
        if method != "GET" or headers.get("x-aws-ec2-metadata-token") != ("secret-token" if token else None):
            return 401, ""
        pages = {"/latest/dynamic/instance-identity/document": json.dumps(DOCUMENT),
                 "/latest/meta-data/hostname": "ip-10-0-0-1.internal"}
        if tags is not None:
            pages["/latest/meta-data/tags/instance"] = "\n".join(tags)
            pages.update({f"/latest/meta-data/tags/instance/{k.replace(':', '%3A')}": v for k, v in tags.items()})
        return (200, pages[path]) if path in pages else (404, "")

    return answer


def test_ec2(detect, double):
    server = double(imds(tags={"team": "media", "Name": "edge-1", "labelled": "x"}))
    daemon = detect({"detectors": ["ec2"], "ec2": {"tags": ["^team$", "^label"], "tags_from_imds": True}},
                    {"AWS_EC2_METADATA_SERVICE_ENDPOINT": server.url})
    assert daemon.attributes() == {**EC2, "ec2.tag.team": "media", "ec2.tag.labelled": "x"}
    assert server.asked[0][:2] == ("PUT", "/latest/api/token")
    assert "secret-token" not in daemon.log()


def test_ec2_without_tokens_and_switched_off(detect, double):
    server = double(imds(token=False))
    daemon = detect({"detectors": ["ec2"], "ec2": {"resource_attributes": {"host.name": {"enabled": False}}}},
                    {"AWS_EC2_METADATA_SERVICE_ENDPOINT": server.url})
    assert daemon.attributes() == {k: v for k, v in EC2.items() if k != "host.name"}
    off = detect({"detectors": ["ec2"]}, {"AWS_EC2_METADATA_SERVICE_ENDPOINT": server.url,
                                          "AWS_EC2_METADATA_DISABLED": "true"}, wait=False)
    assert off.attributes() == {}


DESCRIBED = """<?xml version="1.0" encoding="UTF-8"?>
<DescribeTagsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>7a62c49f</requestId><tagSet>
<item><resourceId>i-0abc</resourceId><resourceType>instance</resourceType><key>team</key><value>me&amp;dia</value></item>
<item><resourceId>i-0abc</resourceId><resourceType>instance</resourceType><key>Name</key><value>edge-1</value></item>
<item><resourceId>i-0abc</resourceId><resourceType>instance</resourceType><key>kubernetes.io/cluster/live</key><value>owned</value></item>
</tagSet></DescribeTagsResponse>"""


def signed_again(server, i, secret):
    """The signature that AWS would compute of what was asked (Signature Version 4)."""
    method, path, headers = server.asked[i]
    fields = dict(f.strip().split("=", 1) for f in headers["authorization"].removeprefix("AWS4-HMAC-SHA256 ").split(","))
    _, date, region, service, last = fields["Credential"].split("/")
    names = fields["SignedHeaders"].split(";")
    canonical = "\n".join([method, path, "", *(f"{n}:{headers[n]}" for n in names), "", ";".join(names),
                           hashlib.sha256(server.bodies[i]).hexdigest()])
    text = "\n".join(["AWS4-HMAC-SHA256", headers["x-amz-date"], f"{date}/{region}/{service}/{last}",
                      hashlib.sha256(canonical.encode()).hexdigest()])
    key = ("AWS4" + secret).encode()
    for part in (date, region, service, last):
        key = hmac.digest(key, part.encode(), "sha256")
    assert (region, service, last) == ("eu-west-1", "ec2", "aws4_request") and {"host", "x-amz-date"} <= set(names)
    return hmac.digest(key, text.encode(), "sha256").hex() == fields["Signature"]


def test_ec2_tags_by_the_api(detect, double):
    metadata, api = double(imds()), double(lambda *_: (200, DESCRIBED))
    settings = {"detectors": ["ec2"], "ec2": {"tags": ["^team$"]}}
    environment = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.url, "AWS_ENDPOINT_URL_EC2": api.url,
                   "AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "very-secret", "AWS_SESSION_TOKEN": "session-secret"}
    daemon = detect(settings, environment)
    assert daemon.attributes() == {**EC2, "ec2.tag.team": "me&dia"}
    [(method, path, headers)] = api.asked
    assert (method, path, headers["x-amz-security-token"]) == ("POST", "/", "session-secret")
    assert api.bodies == [b"Action=DescribeTags&Filter.1.Name=resource-id&Filter.1.Value.1=i-0abc&Version=2016-11-15"]
    assert signed_again(api, 0, "very-secret") and "secret" not in daemon.log()


@pytest.mark.parametrize("status,text", [
    (403, "<Response><Errors><Error><Code>UnauthorizedOperation</Code></Error></Errors></Response>"),
    (200, DESCRIBED[:-100]), (200, "no xml"), (503, "")])
def test_without_tags_the_rest_is_used(detect, double, status, text):
    metadata, api = double(imds()), double(lambda *_: (status, text))
    daemon = detect({"detectors": ["ec2"], "ec2": {"tags": ["^nothing$"]}}, {
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.url, "AWS_ENDPOINT_URL_EC2": api.url,
        "AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "very-secret"})
    assert daemon.attributes() == EC2
    wait_for(lambda: "tags of the instance are left out" in daemon.log(), what="the reason")
    assert ("UnauthorizedOperation" in daemon.log()) == (status == 403)


def test_without_credentials_the_rest_is_used(detect, double, tmp_path):
    daemon = detect({"detectors": ["ec2"], "ec2": {"tags": ["^team$"]}}, {
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": double(imds()).url, "HOME": str(tmp_path)})
    assert daemon.attributes() == EC2
    assert "tags of the instance are left out" in daemon.log()


@pytest.fixture
def service_account(binary, tmp_path):
    """(a program that runs flue as in a pod, its certificate and key): the files of the account are at a fixed
    path, so that they need a mount of their own."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    certificate, key = tmp_path / "ca.crt", tmp_path / "key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "1",
                    "-subj", "/CN=kubernetes", "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    program = tmp_path / "in-a-pod"
    program.write_text(f"""#!/bin/sh
exec unshare -rm sh -c 'set -e; at=/run/secrets/kubernetes.io/serviceaccount
mount -t tmpfs none /run; mkdir -p $at; cp {certificate} $at/; printf pod-secret > $at/token; exec {pathlib.Path(binary).resolve()} "$@"' flue "$@"
""")
    program.chmod(0o755)
    return program, (certificate, key)


@pytest.mark.parametrize("by", ["metadata", "api"])
def test_eks(detect, double, service_account, by):
    program, tls = service_account
    cluster = double(lambda method, path, headers: (200, json.dumps({"gitVersion": "v1.33.1-eks-1a2b3c"}))
                     if (path, headers.get("authorization")) == ("/version", "Bearer pod-secret") else (403, "{}"), tls=tls)
    metadata = double(imds(tags={"aws:eks:cluster-name": "live"} if by == "metadata" else None))
    api = double(lambda *_: (200, DESCRIBED))
    environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(cluster.port),
                   "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.url, "AWS_ENDPOINT_URL_EC2": api.url,
                   "AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "very-secret"}
    on = {name: {"enabled": True} for name in ("k8s.cluster.name", "cloud.region", "host.id")}
    daemon = detect({"detectors": ["eks"], "eks": {"resource_attributes": on}}, environment, binary=program)
    assert daemon.attributes() == {"cloud.provider": "aws", "cloud.platform": "aws_eks", "cloud.region": "eu-west-1",
                                   "host.id": "i-0abc", "k8s.cluster.name": "live"}
    assert len(api.asked) == (by == "api") and "secret" not in daemon.log()
    asked = len(metadata.asked)
    daemon = detect({"detectors": ["eks"]}, environment, binary=program)
    assert daemon.attributes() == {"cloud.provider": "aws", "cloud.platform": "aws_eks"}
    assert len(metadata.asked) == asked, "nothing of the instance is wanted"


def test_a_cluster_that_is_not_of_eks(detect, double, service_account):
    program, tls = service_account
    cluster = double(lambda *_: (200, json.dumps({"gitVersion": "v1.33.1-gke.5"})), tls=tls)
    daemon = detect({"detectors": ["eks"]}, {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(cluster.port)},
                    wait=False, binary=program)
    wait_for(lambda: "the API server is not of EKS" in daemon.log(), 180, "the answer")
    assert daemon.attributes() == {}


def google(pages, flavor=True):
    def answer(method, path, headers):
        if headers.get("metadata-flavor") != "Google":
            return 403, "", {"Metadata-Flavor": "Google"}
        prefix = "/computeMetadata/v1/"
        known = path.startswith(prefix) and path[len(prefix):] in pages
        return (200 if known else 404), pages[path[len(prefix):]] if known else "", {"Metadata-Flavor": "Google"} if flavor else {}

    return answer


GCE = {"project/project-id": "acme", "instance/zone": "projects/12/zones/us-central1-c", "instance/id": "42",
       "instance/name": "edge-1", "instance/machine-type": "projects/12/machineTypes/e2-medium",
       "instance/hostname": "edge-1.c.acme.internal",
       "instance/attributes/created-by": "projects/12/zones/us-central1-c/instanceGroupManagers/edge"}


def test_gcp(detect, double):
    server = double(google(GCE))
    daemon = detect({"detectors": ["gcp"]}, {"GCE_METADATA_HOST": f"127.0.0.1:{server.port}"})
    assert daemon.attributes() == {
        "cloud.provider": "gcp", "cloud.platform": "gcp_compute_engine", "cloud.account.id": "acme",
        "cloud.region": "us-central1", "cloud.availability_zone": "us-central1-c", "host.id": "42", "host.name": "edge-1",
        "host.type": "e2-medium", "gcp.gce.instance_group_manager.name": "edge",
        "gcp.gce.instance_group_manager.zone": "us-central1-c"}


def test_gcp_labels(detect, double):
    token = "instance/service-accounts/default/token"
    server = double(google({**GCE, token: json.dumps({"access_token": "google-secret", "expires_in": 3000})}))
    asked = "/compute/v1/projects/acme/zones/us-central1-c/instances/edge-1?fields=labels"
    compute = double(lambda method, path, headers: (200, json.dumps({"labels": {"team": "media", "team-lead": "x", "cost": "7"}}))
                     if (path, headers.get("authorization")) == (asked, "Bearer google-secret") else (403, "{}"))
    settings = {"detectors": ["gcp"], "gcp": {"labels": ["^team$", "^cost"], "resource_attributes": {
        "cloud.account.id": {"enabled": False}, "host.name": {"enabled": False}}}}
    environment = {"GCE_METADATA_HOST": f"127.0.0.1:{server.port}", "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE": compute.url}
    daemon = detect(settings, environment)
    got = daemon.attributes()
    assert {k: v for k, v in got.items() if ".labels." in k} == {"gcp.gce.instance.labels.team": "media", "gcp.gce.instance.labels.cost": "7"}
    assert got["host.id"] == "42" and "host.name" not in got and "cloud.account.id" not in got
    assert "google-secret" not in daemon.log()
    refused = detect(settings, {**environment, "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE": double(lambda *_: (403, "{}")).url})
    assert refused.attributes() == {k: v for k, v in got.items() if ".labels." not in k}
    assert "compute.instances.get" in refused.log()


def test_gke(detect, double):
    server = double(google({"project/project-id": "acme", "instance/id": "42",
                            "instance/attributes/cluster-name": "live", "instance/attributes/cluster-location": "europe-west4"}))
    daemon = detect({"detectors": ["gcp"]}, {"GCE_METADATA_HOST": f"127.0.0.1:{server.port}", "KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    assert daemon.attributes() == {"cloud.provider": "gcp", "cloud.platform": "gcp_kubernetes_engine", "cloud.account.id": "acme",
                                   "cloud.region": "europe-west4", "host.id": "42", "k8s.cluster.name": "live"}


def test_not_a_metadata_server(detect, double):
    server = double(google(GCE, flavor=False))
    daemon = detect({"detectors": ["gcp"], "timeout": "1s"}, {"GCE_METADATA_HOST": f"127.0.0.1:{server.port}"}, wait=False)
    wait_for(lambda: "it is no metadata server" in daemon.log(), what="the failure")
    assert daemon.attributes() == {}


def azure(method, path, headers):
    if method != "GET" or headers.get("metadata") != "true" or \
            path != "/metadata/instance/compute?api-version=2020-09-01&format=json":
        return 400, ""
    return 200, json.dumps({"location": "westeurope", "name": "vm-1", "vmId": "02aa", "vmSize": "D4", "subscriptionId": "s-1",
                            "resourceGroupName": "MC_group_live_westeurope", "vmScaleSetName": "set", "zone": "1",
                            "osProfile": {"computerName": "computer-1"},
                            "tagsList": [{"name": "team", "value": "media"}, {"name": "cost", "value": "7"}]})


def test_azure_and_aks(detect, double):
    server = double(azure)
    daemon = detect({"detectors": ["azure"], "azure": {"tags": ["team"]}}, {"AZURE_POD_IDENTITY_AUTHORITY_HOST": server.url})
    assert daemon.attributes() == {
        "cloud.provider": "azure", "cloud.platform": "azure_vm", "cloud.region": "westeurope", "cloud.availability_zone": "1",
        "cloud.account.id": "s-1", "host.id": "02aa", "host.name": "computer-1", "azure.vm.name": "vm-1",
        "azure.vm.size": "D4", "azure.vm.scaleset.name": "set", "azure.resourcegroup.name": "MC_group_live_westeurope",
        "azure.tag.team": "media"}
    daemon = detect({"detectors": ["aks"], "aks": {"resource_attributes": {"k8s.cluster.name": {"enabled": True}}}},
                    {"AZURE_POD_IDENTITY_AUTHORITY_HOST": server.url, "KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    assert daemon.attributes() == {"cloud.provider": "azure", "cloud.platform": "azure_aks", "k8s.cluster.name": "live"}


def test_consul(detect, double, tmp_path):
    def answer(method, path, headers):
        if headers.get("x-consul-token") != "very-secret":
            return 403, "Permission denied"
        if path != "/v1/agent/self?dc=ams&ns=media":
            return 404, ""
        return 200, json.dumps({"Config": {"NodeName": "edge-1", "Datacenter": "ams", "NodeID": "0a-0b"},
                                "Meta": {"rack": "r7", "other": "x"}})

    server = double(answer)
    block = {"address": f"127.0.0.1:{server.port}", "datacenter": "ams", "namespace": "media", "meta": {"rack": ""}}
    expected = {"host.name": "edge-1", "cloud.region": "ams", "host.id": "0a-0b", "rack": "r7"}
    daemon = detect({"detectors": ["consul"], "consul": {**block, "token": "very-secret"}})
    assert daemon.attributes() == expected
    assert "very-secret" not in daemon.log()
    token = tmp_path / "token"
    token.write_text("very-secret\n")
    assert detect({"detectors": ["consul"], "consul": {**block, "token_file": str(token)}}).attributes() == expected


def test_docker(detect, double, tmp_path):
    def answer(method, path, headers):
        if path == "/info":
            return 200, json.dumps({"Name": "docker-host", "OSType": "linux", "Containers": 3})
        if path == f"/containers/{socket.gethostname()}/json":
            return 200, json.dumps({"Name": "/packager", "Image": "sha256:12", "Config": {"Image": "acme/packager:7"}})
        return 404, ""

    path = str(tmp_path / "docker.sock")
    double(answer, unix=path)
    daemon = detect({"detectors": ["docker"]}, {"DOCKER_HOST": "unix://" + path})
    assert daemon.attributes() == {"host.name": "docker-host", "os.type": "linux"}
    on = {name: {"enabled": True} for name in ("container.name", "container.image.name", "container.image.id")}
    daemon = detect({"detectors": ["docker"], "docker": {"resource_attributes": on}}, {"DOCKER_HOST": "unix://" + path})
    assert daemon.attributes() == {"host.name": "docker-host", "os.type": "linux", "container.name": "packager",
                                   "container.image.name": "acme/packager:7", "container.image.id": "sha256:12"}


def kubeconfig(path, url):
    path.write_text(f"""
apiVersion: v1
kind: Config
current-context: here
clusters: [{{name: c, cluster: {{server: "{url}"}}}}]
users: [{{name: u, user: {{token: kube-secret}}}}]
contexts: [{{name: here, context: {{cluster: c, user: u}}}}]
""")
    return str(path)


@pytest.mark.parametrize("name", ["kubernetes_node", "k8s_api", "k8snode"])
def test_kubernetes_node(detect, double, tmp_path, name):
    forbidden = name == "k8s_api"

    def answer(method, path, headers):
        if headers.get("authorization") != "Bearer kube-secret":
            return 401, "{}"
        if not headers.get("accept", "").startswith("application/json;as=PartialObjectMetadata"):
            return 406, "{}"
        if path == "/api/v1/nodes/node-7":
            return 200, json.dumps({"metadata": {"name": "node-7", "uid": "u-7"}})
        if path == "/api/v1/namespaces/kube-system":
            return (403, "{}") if forbidden else (200, json.dumps({"metadata": {"uid": "u-c"}}))
        return 404, "{}"

    server = double(answer)
    daemon = detect({"detectors": [name], name: {"auth_type": "kubeConfig", "node_from_env_var": "NODE"}},
                    {"KUBECONFIG": kubeconfig(tmp_path / "kubeconfig", server.url), "NODE": "node-7"})
    expected = {"k8s.node.name": "node-7", "k8s.node.uid": "u-7"}
    assert daemon.attributes() == (expected if forbidden else {**expected, "k8s.cluster.uid": "u-c"})
    assert "kube-secret" not in daemon.log()


def test_start_does_not_wait_and_late_metadata_is_used(detect, double):
    ready = threading.Event()
    answers = imds()
    server = double(lambda *question: answers(*question) if ready.is_set() else (503, "starting"))
    daemon = detect({"detectors": ["env", "ec2"], "timeout": "30s", "retry": {"initial_interval": "100ms", "max_interval": "200ms"},
                     "ec2": {"max_attempts": 100}},
                    {"AWS_EC2_METADATA_SERVICE_ENDPOINT": server.url, "OTEL_RESOURCE_ATTRIBUTES": "team=media"})
    assert daemon.attributes() == {"team": "media"}
    wait_for(lambda: len(server.asked) >= 3, what="attempts")
    ready.set()
    wait_for(lambda: daemon.attributes() == {"team": "media", **EC2}, what="the late answer")
    assert daemon.total("otelcol_processor_resourcedetection_failures", detector="ec2") >= 3


def test_refresh_keeps_what_is_known_when_it_fails(detect, double):
    state = {"name": "edge-1", "broken": False}

    def answer(method, path, headers):
        if state["broken"]:
            return 500, ""
        return 200, json.dumps({"Config": {"NodeName": state["name"], "Datacenter": "ams", "NodeID": "1"}})

    server = double(answer)
    daemon = detect({"detectors": ["consul"], "refresh_interval": "100ms", "timeout": "200ms", "override": False,
                     "consul": {"address": server.url}})
    assert daemon.attributes()["host.name"] == "edge-1"
    state["name"] = "edge-2"
    wait_for(lambda: daemon.attributes()["host.name"] == "edge-2", what="the new name")
    state["broken"] = True
    wait_for(lambda: "what it knew stays in use" in daemon.log(), what="the failure")
    assert daemon.attributes()["host.name"] == "edge-2"


def test_fail_on_missing_metadata(detect, double, binary, tmp_path):
    # there: start waits, the first profile has it all
    server = double(imds())
    daemon = detect({"detectors": ["ec2"], "fail_on_missing_metadata": True},
                    {"AWS_EC2_METADATA_SERVICE_ENDPOINT": server.url}, wait=False)
    assert daemon.attributes() == EC2
    # not there: start fails in time, and says which
    path = tmp_path / "missing.yaml"
    path.write_text(configuration(free_port(), free_port(), {"detectors": ["ec2"], "timeout": "1s",
                                                             "fail_on_missing_metadata": True}))
    result = subprocess.run([str(binary), "run", "--config", str(path)], capture_output=True, text=True, timeout=120,
                            env={**os.environ, "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://127.0.0.1:{free_port()}"})
    assert result.returncode != 0
    assert "detector ec2" in result.stderr and "fail_on_missing_metadata" in result.stderr


@pytest.mark.parametrize("waits", [False, True])
def test_system_by_dns_or_else_by_the_kernel(detect, waits):
    daemon = detect({"detectors": ["system"], "timeout": "20s", "fail_on_missing_metadata": waits}, wait=not waits)
    attributes = daemon.attributes()
    assert attributes["os.type"] == "linux"
    assert attributes["host.name"].split(".")[0] in (socket.gethostname().split(".")[0], "localhost")


def test_not_on_kubernetes(detect):
    daemon = detect({"detectors": ["eks", "aks", "kubernetes_node"], "timeout": "1s"}, {"KUBERNETES_SERVICE_HOST": ""}, wait=False)
    wait_for(lambda: daemon.log().count("nothing to detect") == 2 and "is not a node's name" in daemon.log(), what="the answers")
    assert daemon.attributes() == {}


def test_stop_does_not_wait_for_a_service_that_hangs(detect, double):
    release = threading.Event()

    def answer(method, path, headers):
        release.wait(600)
        return 503, ""

    server = double(answer)
    daemon = detect({"detectors": ["ec2", "azure"], "timeout": "1h"},
                    {"AWS_EC2_METADATA_SERVICE_ENDPOINT": server.url, "AZURE_POD_IDENTITY_AUTHORITY_HOST": server.url}, wait=False)
    wait_for(lambda: len(server.asked) == 2, what="the questions")
    assert daemon.attributes() == {}
    try:
        assert daemon.stop() == 0
    finally:
        release.set()
