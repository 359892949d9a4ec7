#!/usr/bin/env python3
"""Runs the benchmarks of docs/performance.md: floor, subject and Collector in the same minutes.

    run.py --flue build/gcc [--collector PATH] [--bodies DIR] [--rows forward,gzip,pprof,push,idle,memory]
           [--sizes 2k,10k,100k,1m,4m] [--repeat 5] [--seconds 2] [--json FILE]

Every figure is CPU time of the subject by the scheduler's statistics, per GB of raw (inflated) bytes, as
median over the repetitions; "floors" is its ratio to the median floor (floor.c) of the same size measured
beside it. The subject is pinned to one core, loader and sink to the other.
"""
import argparse
import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
SUBJECT_CPU, OTHER_CPU = 1, 0
TEN = ["cdn.region", "cdn.pop", "cdn.tier", "k8s.namespace.name", "k8s.pod.name", "k8s.node.name",
       "k8s.deployment.name", "deployment.environment.name", "cloud.region", "team.name"]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_port(port, process):
    for _ in range(500):
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            sys.exit(f"{process.args} ended with {process.returncode}")
        time.sleep(0.02)
    sys.exit(f"nothing listens on {port}")


def cpu_ns(pid):
    total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total


def status_kb(pid, key):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])


class Process:
    def __init__(self, command, cpus, port, log, **environment):
        self.process = subprocess.Popen(["taskset", "-c", cpus, *map(str, command)], stdout=log, stderr=log,
                                        env={**os.environ, **environment})
        self.port = port
        wait_port(port, self.process)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Bench:
    def __init__(self, options):
        self.o = options
        self.tests = options.flue / "tests"
        self.log = open(options.log, "ab")
        self.folder = pathlib.Path(tempfile.mkdtemp())

    def floor(self, size):
        out = subprocess.run([self.tests / "flue_bench_floor", str(size), "4", "1", str(SUBJECT_CPU), str(OTHER_CPU)],
                             check=True, capture_output=True, text=True).stdout
        return json.loads(out)["cpu_s_per_gb"]

    def sink(self, *arguments):
        port = free_port()
        return Process([self.tests / "flue_bench_sink", f"127.0.0.1:{port}", *arguments], str(OTHER_CPU), port, self.log)

    def counts(self, sink):
        with urllib.request.urlopen(f"http://127.0.0.1:{sink.port}/counts") as answer:
            return json.load(answer)

    def flue(self, config, cpus=str(SUBJECT_CPU)):
        port = free_port()
        path = self.folder / f"flue-{port}.yaml"
        path.write_text(config.replace("PORT", str(port)))
        return Process([self.o.flue / "flue", "run", "--config", path], cpus, port, self.log)

    def collector(self, config):
        port = free_port()
        path = self.folder / f"collector-{port}.yaml"
        path.write_text(config.replace("PORT", str(port)))
        return Process([self.o.collector, "--config", path, "--feature-gates=service.profilesSupport"],
                       str(SUBJECT_CPU), port, self.log, GOMAXPROCS="1")

    def load(self, subject, body, *arguments):
        before = cpu_ns(subject.process.pid)
        done = subprocess.run(
            ["taskset", "-c", str(OTHER_CPU), self.tests / "flue_bench_load", f"http://127.0.0.1:{subject.port}", body,
             "--seconds", str(self.o.seconds), *map(str, arguments)], capture_output=True, text=True)
        if not done.stdout:
            sys.exit(f"loader: {done.stderr}")
        result = json.loads(done.stdout)
        result["cpu_ns"] = cpu_ns(subject.process.pid) - before
        result["cpu_s_per_gb"] = result["cpu_ns"] / max(1, result["raw_bytes"])
        result["us_per_request"] = result["cpu_ns"] / max(1, result["requests"]) / 1e3
        if result["failed"] or result["partial"]:
            print(f"   {result['failed']} failed, {result['partial']} partial: {result['first_failure']}", file=sys.stderr)
        return result

    def verified(self, subject, sink, body, *arguments):
        """Loads, then checks that the sink has counted what was sent."""
        before = self.counts(sink)
        result = self.load(subject, body, *arguments)
        deadline = time.monotonic() + 20
        while True:
            after = self.counts(sink)
            if after["requests"] - before["requests"] >= result["requests"] or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        per = {k: (after[k] - before[k]) / max(1, result["requests"]) for k in after}
        result["out_bytes"], result["sink"] = per["wire_bytes"], per
        if after["errors"] != before["errors"]:
            sys.exit("the sink met broken requests")
        return result


def telemetry():
    return "  telemetry: {metrics: {readers: []}}\n"


def resource():
    rows = "\n".join(f"      - {{key: {k}, value: value-of-{k}, action: upsert}}" for k in TEN)
    return f"processors:\n  memory_limiter: {{check_interval: 1s, limit_mib: 1024}}\n  resource:\n    attributes:\n{rows}\n"


def forward(sink, compression="none", level=""):
    return f"""
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: 127.0.0.1:PORT, max_recv_msg_size_mib: 64}}}}}}}}
{resource()}
exporters: {{otlp_grpc: {{endpoint: 127.0.0.1:{sink.port}, tls: {{insecure: true}}, compression: {compression}{level}, sending_queue: {{enabled: false}}}}}}
service:
{telemetry()}  pipelines: {{profiles: {{receivers: [otlp], processors: [memory_limiter, resource], exporters: [otlp_grpc]}}}}
"""


def collector_forward(sink, compression="none"):
    return f"""
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: 127.0.0.1:PORT, max_recv_msg_size_mib: 64}}}}}}}}
processors: {{memory_limiter: {{check_interval: 1s, limit_mib: 4096}}, enrich: {{}}}}
exporters: {{otlp_grpc: {{endpoint: 127.0.0.1:{sink.port}, tls: {{insecure: true}}, compression: {compression}, sending_queue: {{enabled: false}}, timeout: 30s}}}}
service: {{pipelines: {{profiles: {{receivers: [otlp], processors: [memory_limiter, enrich], exporters: [otlp_grpc]}}}}, telemetry: {{metrics: {{level: none, readers: []}}}}}}
"""


def to_pyroscope(sink, receiver, extra=""):
    return f"""
receivers: {{{receiver}}}
{resource()}
exporters: {{pyroscope: {{endpoint: "http://127.0.0.1:{sink.port}", sending_queue: {{enabled: false}}{extra}}}}}
service:
{telemetry()}  pipelines: {{profiles: {{receivers: [{receiver.split(':')[0]}], processors: [memory_limiter, resource], exporters: [pyroscope]}}}}
"""


def median(values):
    return statistics.median(values) if values else 0


def row_forward(b, compression="none", level="", loader=(), collector=True):
    table = []
    for size in b.o.sizes:
        for shape in ("node", "app"):
            body = b.o.bodies / f"{shape}-{size}.otlp"
            sink = b.sink()
            subjects = {"flue": b.flue(forward(sink, compression, level))}
            if b.o.collector and collector:
                subjects["collector"] = b.collector(collector_forward(sink, compression))
            bare = b.sink("nothing")
            got = {name: [] for name in subjects}
            floors, answers = [], []
            for _ in range(b.o.repeat):
                floors.append(b.floor(body.stat().st_size))
                for name, subject in subjects.items():
                    got[name].append(b.verified(subject, sink, body, *loader))
                if size in ("2k", "10k"):
                    subprocess.run(["taskset", "-pc", str(SUBJECT_CPU), str(bare.process.pid)], capture_output=True)
                    answers.append(b.load(bare, body)["us_per_request"])
            line = {"size": size, "shape": shape, "floor": median(floors)}
            for name, results in got.items():
                line[name] = median([r["cpu_s_per_gb"] for r in results])
                line[name + "_us"] = median([r["us_per_request"] for r in results])
                line[name + "_p50"] = median([r["p50_ms"] for r in results])
                line[name + "_p99"] = median([r["p99_ms"] for r in results])
                line[name + "_mb_s"] = median([r["raw_bytes"] / r["seconds"] / 1e6 for r in results])
                line[name + "_out"] = results[-1]["out_bytes"]
                line[name + "_attributes"] = results[-1]["sink"]["attributes"] / max(1, results[-1]["sink"]["resources"])
            line["floors"] = line["flue"] / line["floor"]
            if answers:
                line["answer_us"] = median(answers)
                line["answers"] = line["flue_us"] / line["answer_us"]
            if "collector" in line:
                line["times"] = line["collector_us"] / line["flue_us"]
                line["out_ratio"] = line["flue_out"] / max(1, line["collector_out"])
            table.append(line)
            print("  " + " ".join(f"{k}={v:.3f}" if isinstance(v, float) else f"{k}={v}" for k, v in line.items()), flush=True)
            for p in (*subjects.values(), sink, bare):
                p.stop()
    return table


def row_half_load(b):
    """Latency at half of what one core carries, open loop."""
    table = []
    for size in b.o.sizes:
        for shape in ("node", "app"):
            body = b.o.bodies / f"{shape}-{size}.otlp"
            sink = b.sink()
            subject = b.flue(forward(sink))
            full = b.load(subject, body)
            utilisation = full["cpu_ns"] / full["seconds"] / 1e9
            rate = full["per_s"] / 2
            half = [b.load(subject, body, "--rate", rate, "--in-flight", 256) for _ in range(b.o.repeat)]
            line = {"size": size, "shape": shape, "rate": rate, "busy": utilisation / 2, "p50": median([h["p50_ms"] for h in half]),
                    "p99": median([h["p99_ms"] for h in half])}
            line["ratio"] = line["p99"] / max(0.001, line["p50"])
            table.append(line)
            print("  " + " ".join(f"{k}={v:.3f}" if isinstance(v, float) else f"{k}={v}" for k, v in line.items()), flush=True)
            subject.stop()
            sink.stop()
    return table


def row_pprof(b, trusted):
    table = []
    for size in b.o.sizes:
        raw, gz = b.o.bodies / f"app-{size}.pprof", b.o.bodies / f"app-{size}.pprof.gz"
        sink = b.sink()
        receiver = "pyroscope: {endpoint: 127.0.0.1:PORT" + (", trusted: [127.0.0.0/8]" if trusted else "") + "}"
        subject = b.flue(to_pyroscope(sink, receiver))
        results, floors = [], []
        for _ in range(b.o.repeat):
            floors.append(b.floor((gz if trusted else raw).stat().st_size))
            results.append(b.verified(subject, sink, gz, "--push"))
        per_gz = median([r["cpu_s_per_gb"] for r in results])
        line = {"size": size, "floor": median(floors), "per_gb_gzip": per_gz,
                "per_gb_inflated": per_gz * gz.stat().st_size / raw.stat().st_size}
        line["floors"] = (line["per_gb_gzip"] if trusted else line["per_gb_inflated"]) / line["floor"]
        table.append(line)
        print("  " + " ".join(f"{k}={v:.3f}" if isinstance(v, float) else f"{k}={v}" for k, v in line.items()), flush=True)
        subject.stop()
        sink.stop()
    return table


def row_push(b):
    table = []
    for size in b.o.sizes:
        for shape in ("node", "app"):
            body = b.o.bodies / f"{shape}-{size}.otlp"
            sink = b.sink()
            subject = b.flue(to_pyroscope(sink, "otlp: {protocols: {grpc: {endpoint: 127.0.0.1:PORT, max_recv_msg_size_mib: 64}}}"))
            results, floors = [], []
            for _ in range(b.o.repeat):
                floors.append(b.floor(body.stat().st_size))
                results.append(b.load(subject, body))
            line = {"size": size, "shape": shape, "floor": median(floors), "flue": median([r["cpu_s_per_gb"] for r in results])}
            line["floors"] = line["flue"] / line["floor"]
            table.append(line)
            print("  " + " ".join(f"{k}={v:.3f}" if isinstance(v, float) else f"{k}={v}" for k, v in line.items()), flush=True)
            subject.stop()
            sink.stop()
    return table


def row_memory(b):
    body = b.o.bodies / "app-4m.otlp"
    sink = b.sink()
    subject = b.flue(forward(sink))
    time.sleep(0.5)
    idle = status_kb(subject.process.pid, "VmRSS")
    b.load(subject, body, "--in-flight", 32)
    peak = status_kb(subject.process.pid, "VmHWM")
    line = {"idle_mb": idle / 1024, "peak_mb": peak / 1024, "bar_mb": 1.1 * (32 * body.stat().st_size / 2**20 + 16)}
    print("  " + " ".join(f"{k}={v:.1f}" for k, v in line.items()))
    subject.stop()
    sink.stop()
    return [line]


def row_idle(b):
    """With TLS and libcurl ready: a TLS listener, an HTTP/1.1 exporter."""
    key, certificate = b.folder / "k.pem", b.folder / "c.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key,
                    "-out", certificate, "-days", "2", "-subj", "/CN=localhost"], check=True, capture_output=True)
    subject = b.flue(f"""
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: 127.0.0.1:PORT, tls: {{cert_file: {certificate}, key_file: {key}}}}}}}}}}}
exporters: {{otlp_http: {{endpoint: "https://127.0.0.1:9"}}, pyroscope: {{endpoint: "https://127.0.0.1:9"}}}}
service:
{telemetry()}  pipelines: {{profiles: {{receivers: [otlp], exporters: [otlp_http, pyroscope]}}}}
""", cpus="0,1")
    time.sleep(1)
    line = {"idle_mb": status_kb(subject.process.pid, "VmRSS") / 1024}
    print(f"  idle with TLS: {line['idle_mb']:.1f} MB")
    subject.stop()
    return [line]


ROWS = {
    "forward": row_forward,
    "gzip": lambda b: row_forward(b, "gzip", loader=("--gzip",)),
    "dense": lambda b: row_forward(b, "gzip", ", compression_params: {level: dense}", loader=("--gzip",), collector=False),
    "half": row_half_load,
    "pprof": lambda b: row_pprof(b, False),
    "trusted": lambda b: row_pprof(b, True),
    "push": row_push,
    "memory": row_memory,
    "idle": row_idle,
}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--flue", type=pathlib.Path, required=True, help="build folder (Release)")
    arguments.add_argument("--collector", type=pathlib.Path)
    arguments.add_argument("--bodies", type=pathlib.Path, required=True, help="made by generate.py")
    arguments.add_argument("--rows", default=",".join(ROWS))
    arguments.add_argument("--sizes", default="2k,10k,100k,1m,4m", type=lambda s: s.split(","))
    arguments.add_argument("--repeat", type=int, default=5)
    arguments.add_argument("--seconds", type=float, default=2)
    arguments.add_argument("--json", type=pathlib.Path)
    arguments.add_argument("--log", default=os.devnull)
    options = arguments.parse_args()
    bench, results = Bench(options), {}
    for row in options.rows.split(","):
        print(row, flush=True)
        results[row] = ROWS[row](bench)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
