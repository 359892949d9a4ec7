"""What the end-to-end tests are made of: the daemon, servers to send to, and the balance."""
import concurrent.futures
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.request

import grpc
import httpx
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2_grpc as service_grpc

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BIN = pathlib.Path(os.environ.get("FLUE_TEST_BIN", pathlib.Path.home() / ".cache/flue/bin"))
GRPC_PATH = "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export"


# Below the ports that the system gives to outgoing connections, and apart for every worker of a parallel run.
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
PORTS = range(11000 + WORKER % 4 * 5000, 16000 + WORKER % 4 * 5000)
handed_out = set()


def free_port():
    """One that nobody listens on and that was not given to another part of this run."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in handed_out:
            handed_out.add(port)
            return port


PATIENCE = 4  # how much slower a busy machine may be


def wait_for(condition, timeout=20.0, what="condition"):
    """Polls until condition() is true and returns its value. `timeout` is for a machine at rest."""
    deadline = time.monotonic() + PATIENCE * timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"timed out waiting for {what}"
        time.sleep(0.02)


def listens(port):
    with socket.socket() as s:
        s.settimeout(0.5)
        return s.connect_ex(("127.0.0.1", port)) == 0


def prometheus(text):
    """{(name, frozenset of label pairs): value}"""
    out = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        name, labels, value = re.fullmatch(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)", line).groups()
        pairs = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels or "")
        out[name, frozenset(pairs)] = float(value)
    return out


class Flue:
    """One daemon. `config` is YAML text; the metrics reader is added to it on a port of its own."""

    def __init__(self, binary, config, folder, environment=None, arguments=(), balance=True):
        self.binary, self.folder, self.balance_checked = binary, folder, balance
        folder.mkdir(parents=True)
        self.metrics_port = free_port()
        self.path = folder / "config.yaml"
        self.path.write_text(config)
        telemetry = folder / "telemetry.yaml"
        telemetry.write_text(
            "service: {telemetry: {metrics: {readers: [{pull: {exporter: {prometheus: "
            f"{{host: 127.0.0.1, port: {self.metrics_port}}}}}}}}}]}}}}}}\n")
        self.command = [str(binary), "run", "--config", str(self.path), "--config", str(telemetry), *arguments]
        self.environment = {**os.environ, **(environment or {}),
                            "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0:exitcode=99",
                            "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=99",
                            "TSAN_OPTIONS": "exitcode=98:halt_on_error=0"}
        self.process = None
        self.last_metrics = None

    def start(self):
        self.log_path = self.folder / "log"
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=self.log_path.open("ab"),
                                        stderr=subprocess.STDOUT, env=self.environment)
        wait_for(lambda: self.process.poll() is not None or listens(self.metrics_port), 30, "the metrics page")
        assert self.process.poll() is None, f"flue ended with {self.process.returncode}:\n{self.log()}"

    def log(self):
        return self.log_path.read_text(errors="replace")

    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as answer:
            self.last_metrics = prometheus(answer.read().decode())
        return self.last_metrics

    def total(self, name, **labels):
        """Sum over all series of a family that have these labels."""
        wanted = set(labels.items())
        return sum(value for (family, pairs), value in self.metrics().items()
                   if family in (name, name + "_total") and wanted <= pairs)

    def quiet(self):
        return not any(value for (family, _), value in self.metrics().items()
                       if re.fullmatch(r"\w+_exporter_(queued|in_flight)_samples", family))

    def balance(self):
        """received = sent + dropped + queued + in flight, per destination, in every unit."""
        books = {}
        for (family, pairs), value in self.metrics().items():
            match = re.fullmatch(r"\w*?(exporter|pipeline)_(received|sent|dropped|queued|in_flight|recovered)"
                                 r"_(profiles|samples|bytes)(?:_total)?", family)
            if not match:
                continue
            kind, row, unit = match.groups()
            who = (kind, unit) + tuple(sorted(p for p in pairs if p[0] != "reason"))
            book = books.setdefault(who, dict.fromkeys(
                ("received", "sent", "dropped", "queued", "in_flight", "recovered"), 0))
            book[row] += value
        for who, book in books.items():
            if who[0] != "exporter":
                continue
            assert book["received"] + book["recovered"] == \
                book["sent"] + book["dropped"] + book["queued"] + book["in_flight"], f"{who}: {book}"
        return books

    def wait_balance(self, timeout=10):
        """The books are exact when the loops are quiet; what does not balance by then, never will."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                return self.balance()
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def wait_quiet(self, timeout=30):
        wait_for(self.quiet, timeout, "the queues to be empty")

    def stop(self, sig=signal.SIGTERM, timeout=120):
        self.process.send_signal(sig)
        return self.process.wait(timeout)

    def finish(self):
        if self.process.poll() is None:
            if self.balance_checked:
                self.wait_balance()
            code = self.stop()
        else:
            code = self.process.returncode
        log = self.log()
        assert "Sanitizer" not in log, log[-8000:]
        assert code in (0, -signal.SIGKILL), f"flue ended with {code}:\n{log[-8000:]}"


class OtlpSink:
    """An OTLP/gRPC profiles server on the real protocol packages; keeps every request."""

    def __init__(self):
        self.requests, self.metadata, self.answers = [], [], []
        self.delay = 0.0
        self.lock = threading.Lock()

    def __enter__(self):
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(16), options=[
            ("grpc.max_receive_message_length", 256 << 20)])
        service_grpc.add_ProfilesServiceServicer_to_server(self, self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()
        return self

    def __exit__(self, *_):
        self.server.stop(0)

    def Export(self, request, context):
        with self.lock:
            answer = self.answers.pop(0) if self.answers else None
        if self.delay:
            time.sleep(self.delay)
        if callable(answer):
            answer = answer(context)
        if answer is None or not isinstance(answer, service.ExportProfilesServiceResponse):
            with self.lock:
                self.requests.append(request)
                self.metadata.append(dict(context.invocation_metadata()))
            answer = service.ExportProfilesServiceResponse()
        else:
            with self.lock:
                self.requests.append(request)
                self.metadata.append(dict(context.invocation_metadata()))
        return answer

    def samples(self):
        with self.lock:
            return sum(count_samples(r) for r in self.requests)


def count_samples(request):
    return sum(len(p.samples) for r in request.resource_profiles for s in r.scope_profiles for p in s.profiles)


def count_profiles(request):
    return sum(len(s.profiles) for r in request.resource_profiles for s in r.scope_profiles)


class Pyroscope:
    """The stand-in of tests/e2e/go/pyroscope."""

    def __init__(self):
        self.process = subprocess.Popen([BIN / "pyroscope"], stdout=subprocess.PIPE, text=True)
        self.address = self.process.stdout.readline().strip()
        self.url = f"http://{self.address}"

    def control(self, **settings):
        query = "&".join(f"{k}={v}" for k, v in settings.items())
        httpx.post(f"{self.url}/control?{query}").raise_for_status()

    def received(self, full=False, raw=False):
        query = "&".join(k for k, on in (("full", full), ("raw", raw)) if on)
        return httpx.get(f"{self.url}/received?{query}", timeout=60).json()

    def profiles(self, **options):
        return self.received(**options)["profiles"]

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


def pprof_dump(path):
    """google/pprof's reading of a file."""
    out = subprocess.run([BIN / "pprofdump", str(path)], check=True, capture_output=True, text=True).stdout
    return json.loads(out)


def capture_request(folder, name):
    """(method, target, headers without hop-by-hop ones, body) of a captured request."""
    head = (folder / f"{name}.request").read_text().splitlines()
    method, target, _ = head[0].split(" ", 2)
    headers = []
    for line in head[1:]:
        key, _, value = line.partition(":")
        if key.lower() not in ("host", "content-length", "transfer-encoding", "connection", ""):
            headers.append((key, value.strip()))
    return method, target, headers, (folder / f"{name}.body").read_bytes()


def replay(port, folder, name):
    method, target, headers, body = capture_request(folder, name)
    return httpx.request(method, f"http://127.0.0.1:{port}{target}", headers=headers, content=body, timeout=30)


def resolved(request):
    """Every sample of an OTLP request spelled out, without indices, and how often: what it says."""
    d = request.dictionary
    text = lambda i: d.string_table[i] if i < len(d.string_table) else ""

    def value(v):
        return str(v).strip()

    def attributes(indices):
        rows = (d.attribute_table[i] for i in indices)
        return tuple(sorted((text(r.key_strindex), value(r.value), text(r.unit_strindex)) for r in rows))

    def mapping(i):
        if not i and not d.mapping_table:
            return ()
        m = d.mapping_table[i]
        return (m.memory_start, m.memory_limit, m.file_offset, text(m.filename_strindex), attributes(m.attribute_indices))

    def location(i):
        l = d.location_table[i]
        lines = tuple((text(d.function_table[n.function_index].name_strindex),
                       text(d.function_table[n.function_index].system_name_strindex),
                       text(d.function_table[n.function_index].filename_strindex), n.line, n.column) for n in l.lines)
        return (mapping(l.mapping_index), l.address, lines, attributes(l.attribute_indices))

    out = {}
    for r in request.resource_profiles:
        resource = tuple(sorted((a.key, value(a.value)) for a in r.resource.attributes))
        for s in r.scope_profiles:
            for p in s.profiles:
                head = (resource, s.scope.name, text(p.sample_type.type_strindex), text(p.sample_type.unit_strindex),
                        text(p.period_type.type_strindex), p.period, p.time_unix_nano, p.duration_nano,
                        attributes(p.attribute_indices))
                for sample in p.samples:
                    link = d.link_table[sample.link_index] if sample.link_index else None
                    stack = d.stack_table[sample.stack_index] if d.stack_table else None
                    key = (head, tuple(location(i) for i in stack.location_indices) if stack else (),
                           attributes(sample.attribute_indices), (link.trace_id, link.span_id) if link else None,
                           tuple(sample.values), tuple(sample.timestamps_unix_nano))
                    out[key] = out.get(key, 0) + 1
    return out


def without_resource(resolved_samples):
    """The same with the resource's attributes left out, for where they were changed on the way."""
    out = {}
    for (head, *rest), count in resolved_samples.items():
        key = (head[1:], *rest)
        out[key] = out.get(key, 0) + count
    return out
