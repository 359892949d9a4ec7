"""An API server that does as it is told: it refuses, lies, stops in the middle, and streams a hundred
thousand pods made from a recorded one. Correctness is judged with the real server (test_k8s.py)."""
import http.server
import json
import pathlib
import socketserver
import struct
import sys
import threading
import time
import urllib.parse

RECORDED = pathlib.Path(__file__).resolve().parent.parent / "data" / "kubernetes"
KINDS = {"pods": "Pod", "namespaces": "Namespace", "nodes": "Node", "replicasets": "ReplicaSet", "jobs": "Job",
         "deployments": "Deployment", "statefulsets": "StatefulSet", "daemonsets": "DaemonSet"}


def pod(name, uid=None, address=None, **metadata):
    return {"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "media", "uid": uid or f"uid-{name}",
                         "creationTimestamp": "2026-11-20T08:00:00Z", **metadata},
            "spec": {"nodeName": "node-a", "containers": [{"name": "main", "image": "x:1"}]},
            "status": {"phase": "Running", "startTime": "2026-11-20T08:00:00Z",
                       **({"podIP": address, "podIPs": [{"ip": address}]} if address else {})}}


def status(code, reason, message="told to"):
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": message}


class Double(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """JSON. `answer(kind, query, headers)` may return (status, body, headers) instead of the truth."""
    daemon_threads, allow_reuse_address = True, True

    def __init__(self, folder, watchlist=True, port=0):
        super().__init__(("127.0.0.1", port), Handler)
        self.folder, self.watchlist = pathlib.Path(folder), watchlist
        self.folder.mkdir(parents=True, exist_ok=True)
        self.changed = threading.Condition()
        self.objects = {kind: {} for kind in KINDS}
        self.log = {kind: [] for kind in KINDS}  # (version, raw line)
        self.version, self.oldest = 100, 0
        self.requests, self.answer, self.cut = [], None, 0
        self.page, self.silent = None, False
        self.wait = 0.0

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.end_watches()
        self.shutdown()
        self.server_close()

    def kubeconfig(self, token="secret-token"):
        path = self.folder / "kubeconfig"
        path.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "d",
            "contexts": [{"name": "d", "context": {"cluster": "d", "user": "d"}}],
            "clusters": [{"name": "d", "cluster": {"server": f"http://127.0.0.1:{self.server_address[1]}"}}],
            "users": [{"name": "d", "user": {"token": token}}]}))
        return path

    def change(self, event, object, kind="pods"):
        with self.changed:
            self.version += 1
            object = json.loads(json.dumps(object))
            object["metadata"]["resourceVersion"] = str(self.version)
            key = object["metadata"]["uid"]
            if event == "DELETED":
                self.objects[kind].pop(key, None)
            else:
                self.objects[kind][key] = object
            self.send(json.dumps({"type": event, "object": object}, separators=(",", ":")), kind)

    def send(self, line, kind="pods"):
        """As it is, to whoever watches."""
        with self.changed:
            self.version += 1
            self.log[kind].append((self.version, line + "\n"))
            self.changed.notify_all()

    def end_watches(self):
        with self.changed:
            self.cut += 1
            self.changed.notify_all()

    def count(self, **query):
        return sum(all(q.get(k) == v for k, v in query.items()) for _, q, _ in self.requests)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def chunk(self, text):
        data = text if isinstance(text, bytes) else text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def begin(self, code, type="application/json", headers=()):
        self.send_response(code)
        self.send_header("Content-Type", type)
        self.send_header("Transfer-Encoding", "chunked")
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()

    def whole(self, code, body, headers=()):
        self.begin(code, headers=headers)
        self.chunk(json.dumps(body))
        self.wfile.write(b"0\r\n\r\n")

    def do_GET(self):
        double, url = self.server, urllib.parse.urlparse(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        kind = url.path.rsplit("/", 1)[1]
        if kind == "version":
            self.whole(200, {"gitVersion": "v1.34.0"})
            return
        with double.changed:
            double.requests.append((kind, query, dict(self.headers)))
        time.sleep(double.wait)
        try:
            other = double.answer and double.answer(kind, query, self.headers)
            if other:
                self.whole(*other)
            elif "watch" not in query:
                self.list(double, kind, query)
            elif query.get("sendInitialEvents") and not double.watchlist:
                self.whole(422, status(422, "Invalid", "sendInitialEvents is forbidden"))
            else:
                self.watch(double, kind, query)
        except OSError:
            self.close_connection = True

    def list(self, double, kind, query):
        with double.changed:
            items, version = list(double.objects[kind].values()), double.version
        start = int(query.get("continue", "0"))
        metadata = {"resourceVersion": str(version)}
        if double.page and query.get("limit"):
            if start + double.page < len(items):
                metadata["continue"] = str(start + double.page)
            items = items[start:start + double.page]
        self.whole(200, {"kind": f"{KINDS[kind]}List", "apiVersion": "v1", "metadata": metadata, "items": items})

    def watch(self, double, kind, query):
        with double.changed:
            cut, at = double.cut, int(query.get("resourceVersion") or double.version)
            items = list(double.objects[kind].values()) if query.get("sendInitialEvents") else []
            if query.get("sendInitialEvents"):
                at = double.version
        self.begin(200)
        if at < double.oldest:
            self.chunk(json.dumps({"type": "ERROR", "object": status(410, "Expired", "too old")}, separators=(",", ":")) + "\n")
            self.wfile.write(b"0\r\n\r\n")
            return
        for item in items:
            self.chunk(json.dumps({"type": "ADDED", "object": item}, separators=(",", ":")) + "\n")
        if query.get("sendInitialEvents") and not double.silent:
            mark = {"kind": KINDS[kind], "metadata": {"resourceVersion": str(at), "annotations": {"k8s.io/initial-events-end": "true"}}}
            self.chunk(json.dumps({"type": "BOOKMARK", "object": mark}, separators=(",", ":")) + "\n")
        done = 0
        while True:
            with double.changed:
                while double.cut == cut and done >= len(double.log[kind]):
                    double.changed.wait(1)
                    if double.cut != cut:
                        break
                lines = double.log[kind][done:]
                done += len(lines)
            for version, line in lines:
                if version > at:
                    self.chunk(line)
            if double.cut != cut:
                self.wfile.write(b"0\r\n\r\n")
                return


# ---- many pods: protobuf, in a process of its own

def varint(n):
    out = b""
    while n >= 0x80:
        out, n = out + bytes([n & 0x7F | 0x80]), n >> 7
    return out + bytes([n])


def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def fields(data):
    """(number, start, content start, end) of every length-delimited field; others are stepped over."""
    at = 0

    def read():
        nonlocal at
        n = shift = 0
        while True:
            byte = data[at]
            at += 1
            n |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return n

    while at < len(data):
        start = at
        tag = read()
        if tag & 7 == 2:
            size = read()
            yield tag >> 3, start, at, at + size
            at += size
        elif tag & 7 == 0:
            read()
        else:
            at += 8 if tag & 7 == 1 else 4


def positions(data, text):
    at = data.find(text)
    while at >= 0:
        yield at
        at = data.find(text, at + len(text))


class Template:
    """The recorded pod of the packager, as large as a pod of production; what tells pods apart is
    written over what tells it."""
    NAME, HASH, ADDRESS, IDS = b"packager-7d9c5b8f6d-x2x9k", b"7d9c5b8f6d", b"10.1.2.3", (b"a1" * 32, b"b2" * 32)

    def __init__(self, size=9000):
        stream, at = (RECORDED / "pods.watch.pb").read_bytes(), 0
        while True:
            length = struct.unpack(">I", stream[at:at + 4])[0]
            frame = stream[at + 4:at + 4 + length]
            at += 4 + length
            if self.NAME in frame and self.IDS[0] in frame:
                break
        [event] = [frame[a:b] for n, _, a, b in fields(frame) if n == 2]
        [envelope] = [event[a:b] for n, _, a, b in fields(event) if n == 1]
        head, [raw] = b"k8s\0" + field(1, field(1, b"v1") + field(2, b"Pod")), [
            envelope[4 + a:4 + b] for n, _, a, b in fields(envelope[4:]) if n == 2]
        parts = {n: raw[a:b] for n, _, a, b in fields(raw)}
        self.uid = [parts[1][a:b] for n, _, a, b in fields(parts[1]) if n == 5][0]
        filler = field(17, field(1, b"kubelet") + field(7, field(1, b"x" * max(0, size - len(raw)))))
        raw = field(1, parts[1] + filler) + field(2, parts[2]) + field(3, parts[3])
        self.object = head + field(2, raw)
        self.places = {}
        for type in (b"ADDED", b"MODIFIED", b"DELETED"):
            body = field(1, type) + field(2, field(1, self.object))
            self.places[type] = self.pieces(struct.pack(">I", len(body)) + body)

    def pieces(self, frame):
        """What stands between the places that are written, and what belongs into each."""
        marks = (self.NAME, self.uid, self.ADDRESS, b"fd00::17", *self.IDS)
        found = sorted((at, m) for m in range(len(marks)) for at in positions(frame, marks[m]))
        out, at = [], 0
        for start, mark in found:
            out += [frame[at:start], mark]
            at = start + len(marks[mark])
        return out + [frame[at:]]

    def write(self, type, i, turn=0):
        values = (b"packager-%010d-%05d" % (i, turn % 100000), self.uid_of(i),
                  b"1%d.%d.%d.%d" % (i // 1000 % 10, i // 100 % 10, i // 10 % 10, i % 10),
                  b"%04x::%02x" % (0xA000 + (i >> 8), i & 255), self.id_of(i, 0), self.id_of(i, 1))
        return b"".join(values[p] if isinstance(p, int) else p for p in self.places[type])

    @staticmethod
    def uid_of(i):
        return b"%08x-0000-4000-8000-000000000000" % i

    @staticmethod
    def id_of(i, container):
        return b"%063x%x" % (i, container)


class Crowd(http.server.BaseHTTPRequestHandler):
    """`pods` pods, then for `seconds` as many changes a second as `rate` says: modified, deleted, added in turn."""
    protocol_version = "HTTP/1.0"
    pods, rate, seconds = 100000, 0, 0

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        if self.path == "/version":
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_header("Content-Type", "application/vnd.kubernetes.protobuf;stream=watch")
        self.end_headers()
        template, pieces = Template(), []
        for i in range(self.pods):
            pieces.append(template.write(b"ADDED", i))
            if len(pieces) == 200:
                self.wfile.write(b"".join(pieces))
                pieces = []
        mark = field(1, field(6, b"1000") + field(12, field(1, b"k8s.io/initial-events-end") + field(2, b"true")))
        body = field(1, b"BOOKMARK") + field(2, field(1, b"k8s\0" + field(2, mark)))
        self.wfile.write(b"".join(pieces) + struct.pack(">I", len(body)) + body)
        began, sent, step = time.monotonic(), 0, self.rate // 50
        changes = [(b"MODIFIED", 1), (b"DELETED", 0), (b"ADDED", 1)]
        while sent < self.rate * self.seconds:
            lines = []
            for k in range(step):
                n = sent + k
                i, (type, turn) = n // 3 * 7 % self.pods, changes[n % 3]
                lines.append(template.write(type, i, n // 3 * turn))
            self.wfile.write(b"".join(lines))
            sent += step
            left = began + sent / self.rate - time.monotonic()
            if left > 0:
                time.sleep(left)
        print(sent, time.monotonic() - began, flush=True)
        while True:
            time.sleep(1)


def main():
    Crowd.pods, Crowd.rate, Crowd.seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Crowd)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
