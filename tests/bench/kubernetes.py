#!/usr/bin/env python3
"""What k8sattributes costs, against an API server with 100,000 pods that are made from a recorded one.

    kubernetes.py --flue build/gcc --bodies DIR [--shape node] [--size 100k] [--repeat 7] [--seconds 2]
                  [--pods 100000] [--rate 5000]

Prints: the time and CPU until all pods are listed, how the changes keep up, resident memory; then the CPU
that a workload (OTLP in and out) takes in turns, per GB that came in: without the processor; with 20 fixed
attributes as long as the pods' (`resource`), so that as much is written; with k8sattributes, which finds
every resource by its container. Bodies of a node agent have a resource in every kilobyte, those of an
application one in all.
Where CPUs are shared with others, the smallest of the repetitions is the honest one.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e")]
from kubernetes_double import Template  # noqa: E402
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service  # noqa: E402
from run import Bench, cpu_ns, free_port, status_kb  # noqa: E402

TWENTY = ["k8s.pod.name", "k8s.pod.uid", "k8s.pod.ip", "k8s.pod.hostname", "k8s.pod.start_time", "k8s.namespace.name",
          "k8s.node.name", "k8s.deployment.name", "k8s.replicaset.name", "k8s.replicaset.uid", "k8s.container.name",
          "k8s.container.restart_count", "container.image.name", "container.image.tag", "container.image.repo_digests",
          "service.name", "service.namespace", "service.version", "service.instance.id"]


def config(sink, processor, metrics):
    names = f"      metadata: [{', '.join(TWENTY)}]\n      labels: [{{key: pod-template-hash, tag_name: revision}}]\n"
    values = "".join(f"    - {{key: {name}, value: {'v' * 24}, action: insert}}\n" for name in [*TWENTY, "revision"])
    return f"""
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: 127.0.0.1:PORT, max_recv_msg_size_mib: 64}}}}}}}}
processors:
  resource:
    attributes:
{values}  k8sattributes:
    auth_type: kubeConfig
    pod_delete_grace_period: 2s
    extract:
{names}exporters: {{otlp_grpc: {{endpoint: 127.0.0.1:{sink.port}, tls: {{insecure: true}}, compression: none, sending_queue: {{enabled: false}}}}}}
service:
  telemetry: {{metrics: {{readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {metrics}}}}}}}}}]}}}}
  pipelines: {{profiles: {{receivers: [otlp], processors: [{processor}], exporters: [otlp_grpc]}}}}
"""


def body_of(bench, size, pods):
    """Every resource is of another pod."""
    source = bench.o.bodies / f"{bench.o.shape}-{size}.otlp"
    request = service.ExportProfilesServiceRequest.FromString(source.read_bytes())
    for i, resource in enumerate(request.resource_profiles):
        attributes = resource.resource.attributes
        kept = [a for a in attributes if a.key != "container.id" and not a.key.startswith(("k8s.", "container."))]
        del attributes[:]
        attributes.extend(kept)
        attributes.add(key="container.id").value.string_value = Template.id_of(i * 1297 % pods, i % 2).decode()
    out = bench.folder / f"k8s-{size}.otlp"
    out.write_bytes(request.SerializeToString())
    return out, len(request.resource_profiles)


def metric(port, name):
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30).read().decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
               if line.startswith((name + "{", name + "_total{")) and 'event="bookmark"' not in line)


def wait(what, condition):
    until = time.monotonic() + 300
    while not condition():
        if time.monotonic() > until:
            sys.exit(f"waited in vain for {what}")
        time.sleep(0.02)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--flue", type=pathlib.Path, required=True, help="build folder (Release)")
    arguments.add_argument("--bodies", type=pathlib.Path, required=True, help="made by generate.py")
    arguments.add_argument("--shape", default="node", choices=["node", "app"])
    arguments.add_argument("--size", default="100k")
    arguments.add_argument("--repeat", type=int, default=7)
    arguments.add_argument("--seconds", type=float, default=2)
    arguments.add_argument("--pods", type=int, default=100_000)
    arguments.add_argument("--rate", type=int, default=5000)
    arguments.add_argument("--log", default=os.devnull)
    bench = Bench(arguments.parse_args())
    o = bench.o
    crowd = subprocess.Popen(["taskset", "-c", "0", sys.executable, HERE.parent / "e2e" / "kubernetes_double.py", str(o.pods),
                              str(o.rate), "6"], stdout=subprocess.PIPE, text=True)
    kubeconfig = bench.folder / "kubeconfig"
    kubeconfig.write_text(json.dumps({
        "current-context": "d", "contexts": [{"name": "d", "context": {"cluster": "d"}}],
        "clusters": [{"name": "d", "cluster": {"server": f"http://127.0.0.1:{int(crowd.stdout.readline())}"}}]}))
    os.environ["KUBECONFIG"] = str(kubeconfig)
    sink = bench.sink()
    try:
        port = free_port()
        began = time.monotonic()
        enriched = bench.flue(config(sink, "k8sattributes", port))
        pid = enriched.process.pid
        wait("the list of pods", lambda: metric(port, "otelcol_kubernetes_synced"))
        spent = cpu_ns(pid) / 1e9
        print(f"{o.pods} pods listed in {time.monotonic() - began:.1f} s ({spent:.2f} s of CPU), "
              f"{status_kb(pid, 'VmRSS') / 1e3:.1f} MB resident")
        sent, took = crowd.stdout.readline().split()
        wait("the changes", lambda: metric(port, "otelcol_kubernetes_events") >= o.pods + int(sent))
        print(f"{sent} changes in {float(took):.1f} s, {(cpu_ns(pid) / 1e9 - spent) / int(sent) * 1e6:.1f} us of CPU each, "
              f"{status_kb(pid, 'VmRSS') / 1e3:.1f} MB resident")

        body, resources = body_of(bench, o.size, o.pods)
        subjects = {"without": bench.flue(config(sink, "", free_port())),
                    "fixed": bench.flue(config(sink, "resource", free_port())), "k8sattributes": enriched}
        results = {name: [] for name in subjects}
        for _ in range(o.repeat):
            for name, subject in subjects.items():
                results[name].append(bench.verified(subject, sink, body))
        print(f"a body of {body.stat().st_size} bytes, {resources} resources")
        for name, runs in results.items():
            costs, last = [r["cpu_s_per_gb"] for r in runs], runs[-1]
            print(f"{name:14} {min(costs):.3f} CPU-s/GB at best, {statistics.median(costs):.3f} at the median; "
                  f"{last['sink']['attributes'] / resources:.1f} attributes a resource, {last['out_bytes']:.0f} bytes out")
        for subject in subjects.values():
            subject.stop()
    finally:
        sink.stop()
        crowd.kill()
        crowd.wait()


if __name__ == "__main__":
    main()
