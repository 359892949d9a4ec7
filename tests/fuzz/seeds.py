#!/usr/bin/env python3
"""Makes the seeds of every fuzz target in OUT/<target>/ from tests/data and a few small messages
written here.    usage: seeds.py OUT"""
import base64
import gzip
import json
import pathlib
import re
import struct
import sys
import zlib

root = pathlib.Path(__file__).resolve().parent.parent
data = root / "data"
captures = data / "captures"
out = pathlib.Path(sys.argv[1])


def seed(target, name, content):
    folder = out / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


# ---- protobuf, just enough of it

def varint(value):
    value &= (1 << 64) - 1
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def number(field, value):
    return varint(field << 3) + varint(value)


def fixed(field, value):
    return varint(field << 3 | 1) + struct.pack("<Q", value)


def part(field, *content):
    joined = b"".join(c.encode() if isinstance(c, str) else c for c in content)
    return varint(field << 3 | 2) + varint(len(joined)) + joined


def packed(field, *values):
    return part(field, *(varint(v) for v in values))


def key_value(field, key, value):
    any_value = number(3, value) if isinstance(value, int) else part(1, value)
    return part(field, part(1, key), part(2, any_value))


# ---- OTLP

def dictionary():
    strings = ["", "main", "work", "main.c", "cpu", "nanoseconds", "thread.name", "encoder", "k",
               "libx.so", "samples", "count"]
    return part(2,
                part(1), part(1, number(1, 4096), number(2, 65536), number(4, 9)),
                part(2), part(2, number(1, 1), number(2, 4200), part(3, number(1, 1), number(2, 7))),
                part(2, number(1, 1), number(2, 4300), part(3, number(1, 2), number(2, 9)),
                     part(3, number(1, 1), number(2, 10))),
                part(3), part(3, number(1, 1), number(3, 3)), part(3, number(1, 2), number(3, 3)),
                part(4), part(4, part(1, bytes(range(16))), part(2, bytes(range(8)))),
                *(part(5, s) for s in strings),
                part(6), part(6, number(1, 6), part(2, part(1, "main"))),
                part(6, number(1, 8), part(2, number(3, 5)), number(3, 11)),
                part(7), part(7, packed(1, 1, 2)), part(7, packed(1, 2)))


def sample(stack, values, attributes=(), link=0, times=()):
    content = number(1, stack) if stack else b""
    if attributes:
        content += packed(2, *attributes)
    if link:
        content += number(3, link)
    if values:
        content += packed(4, *values)
    if times:
        content += part(5, *(struct.pack("<Q", t) for t in times))
    return part(2, content)


def profile(*samples, kind=4, unit=5, identity=b"\x01" * 16):
    return part(2, part(1, number(1, kind), number(2, unit)), *samples,
                fixed(3, 1700000000000000000), number(4, 1000000000),
                part(5, number(1, kind), number(2, unit)), number(6, 10000000), part(7, identity),
                packed(11, 1))


def resource(*scopes, name="encoder"):
    return part(1, part(1, key_value(1, "service.name", name), key_value(1, "host.name", "h"),
                        key_value(1, "process.pid", 7)), *scopes, part(3, "https://schema"))


def scope(*profiles):
    return part(2, part(1, part(1, "scope"), part(2, "1.0"), key_value(3, "k", "v")), *profiles)


one = profile(sample(1, [5], [1]), sample(2, [7], [1, 2], 1))
two = profile(sample(1, [5, 6], [], 0, [1700000000000000001, 1700000000000000002]),
              sample(0, [], [2], 1, [1700000000000000003]), kind=10, unit=11, identity=b"\x02" * 16)
bodies = {
    "one": resource(scope(one)) + dictionary(),
    "two": resource(scope(one, two), scope(two)) + resource(scope(one), name="other")
    + dictionary(),
    "dictionary-first": dictionary() + resource(scope(two)) + resource(),
    "no-resource": part(1, part(2, one)) + dictionary(),
    "empty": b"",
}
for path in (data / "otlp").glob("*.otlp"):
    content = path.read_bytes()
    if len(content) <= 8192:
        bodies[path.stem] = content
for name, body in bodies.items():
    for target in ("otlp_read", "convert_otlp", "otlp_json"):
        seed(target, name, body)

seed("otlp_json", "json", json.dumps({
    "resourceProfiles": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "encoder"}},
                                    {"key": "n", "value": {"intValue": "7"}},
                                    {"key": "l", "value": {"arrayValue": {"values": [
                                        {"doubleValue": 1.5}, {"boolValue": True},
                                        {"bytesValue": "AQI="}]}}}]},
        "scopeProfiles": [{"scope": {"name": "s"}, "profiles": [{
            "sampleType": {"typeStrindex": 1, "unitStrindex": 2},
            "samples": [{"stackIndex": 1, "values": ["5"], "attributeIndices": [1]},
                        {"stackIndex": 1, "timestampsUnixNano": ["1700000000000000001"]}],
            "timeUnixNano": "1700000000000000000", "durationNano": "1000",
            "profileId": "000102030405060708090a0b0c0d0e0f"}]}]}],
    "dictionary": {
        "mappingTable": [{}], "locationTable": [{}, {"lines": [{"functionIndex": 1, "line": "3"}]}],
        "functionTable": [{}, {"nameStrindex": 3}], "linkTable": [{}],
        "stringTable": ["", "cpu", "nanoseconds", "main", "k\u00e9\\"],
        "attributeTable": [{}, {"keyStrindex": 4, "value": {"stringValue": "v"}}],
        "stackTable": [{}, {"locationIndices": [1]}]}}).encode())

# ---- pprof

strings = ["", "cpu", "nanoseconds", "samples", "count", "main", "main.c", "thread", "1", "bytes"]
small = (part(1, number(1, 3), number(2, 4)) + part(1, number(1, 1), number(2, 2))
         + part(2, packed(1, 1, 2), packed(2, 1, 10000000), part(3, number(1, 7), number(2, 8)),
                part(3, number(1, 7), number(3, 5), number(4, 9)))
         + part(2, packed(1, 2), packed(2, 3, 30000000))
         + part(3, number(1, 1), number(2, 4096), number(3, 65536), number(5, 6), number(7, 1))
         + part(4, number(1, 1), number(2, 1), number(3, 4200), part(4, number(1, 1), number(2, 3)))
         + part(4, number(1, 2), number(2, 1), number(3, 4300), part(4, number(1, 1), number(2, 4)))
         + part(5, number(1, 1), number(2, 5), number(3, 5), number(4, 6))
         + b"".join(part(6, s) for s in strings)
         + number(9, 1700000000000000000) + number(10, 10 ** 10)
         + part(11, number(1, 1), number(2, 2)) + number(12, 10 ** 7) + packed(13, 8))
profiles = {"small": small, "small-gzip": gzip.compress(small, mtime=0)}
for path in sorted((captures / "go-net-http-pprof").glob("*.body")) + \
        sorted((captures / "pyroscope-nodejs").glob("*.body")):
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        raw = gzip.decompress(content)
        if len(raw) <= 12288:
            profiles[path.stem] = raw
        if len(content) <= 1024:
            profiles[path.stem + "-gzip"] = content
for name, content in profiles.items():
    seed("pprof_check", name, content)
    seed("convert_pprof", name, content)
    seed("ingest", "pprof-" + name, b"app.cpu{region=eu,service_name=x}\n" + content)

# ---- labels of spans, in every form

forms = [("span_id", "006550ebcf4dccbe"), ("profile_id", "ABCDEF0123456789"), ("span id", -1),
         ("local root span id", "18446744073709551614"), ("trace_id", "000102030405060708090a0b0c0d0e0f"),
         ("traceIdHi", 1), ("traceIdLo", -2), ("span_id", "none"), ("span_id", 7), ("span id", "3")]
words = ["", "cpu", "n"] + [w for form in forms for w in form if isinstance(w, str)]


def attribute(key, value):
    any_value = number(3, value) if isinstance(value, int) else \
        part(1, value) if value != "3" else number(8, words.index(value))
    return part(6, number(1, words.index(key)), part(2, any_value))


def label(key, value):
    return part(3, number(1, words.index(key)),
                number(3, value) if isinstance(value, int) else number(2, words.index(value)))


chosen = [[1], [2], [3], [4], [5], [6, 7], [8], [9, 10], [3, 4, 5], [1, 2, 3, 4, 5, 6, 7]]
spans = resource(scope(profile(*(sample(0, [1], c, link) for c in chosen for link in (0, 1))))) + part(
    2, part(1), part(2), part(3), part(4), part(4, part(1, bytes(range(16))), part(2, bytes(range(8)))),
    *(part(5, w) for w in words + ["x"] * 3), part(6), *(attribute(*f) for f in forms), part(7))
seed("span_links", "otlp", spans)
seed("span_links", "pprof", part(1, number(1, 1), number(2, 2)) + b"".join(
    part(2, packed(2, 1), *(label(*forms[i - 1]) for i in c)) for c in [[], *chosen, range(1, 11)])
    + b"".join(part(6, w) for w in words))
for name, content in [*bodies.items(), *profiles.items()]:
    seed("span_links", name, content)

# ---- push

push = part(1, part(1, part(1, "__name__"), part(2, "process_cpu")),
            part(1, part(1, "service_name"), part(2, "encoder")),
            part(2, part(1, small), part(2, "id-1")), part(2, part(1, gzip.compress(small, mtime=0))))
seed("push_read", "small", push)
seed("push_read", "two", push + push)
for path in list((captures / "pyroscope-python").glob("*.body")) + \
        list((captures / "pyroscope-rust").glob("*.body")):
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    if len(content) <= 12288:
        seed("push_read", path.parent.name + "-" + path.stem, content)
seed("push_read", "json", json.dumps({"series": [{
    "labels": [{"name": "__name__", "value": "process_cpu"},
               {"name": "service_name", "value": "encoder"}],
    "samples": [{"rawProfile": base64.b64encode(small).decode(), "ID": "x"}]}]}).encode())

# ---- text

for path in (captures / "py-spy").glob("*.folded"):
    seed("folded", path.stem, path.read_bytes())
    seed("ingest", path.stem, b"app.wall{a=b}&from=now-1h\n" + path.read_bytes())
seed("folded", "small", b"main;work;loop 12\r\nmain;work 3\n\nmain 1\n")
for i, query in enumerate(["app", "app{}", "a.alloc_space{k=v,l.m=w}", "now-1h", "20240102",
                           "1700000000", "service.name=a%20b&pop=ams1&__name__=cpu", "10.0.0.0/8",
                           "fd00::/8", "[::1]:9"]):
    seed("ingest", f"query-{i}", query.encode() + b"\nmain;work 3\n")

for path in (data / "config").glob("*.yaml"):
    seed("yaml", path.name, path.read_bytes())
for path in (root.parent / "config" / "examples").glob("*.yaml"):
    seed("yaml", path.name, path.read_bytes())
seed("yaml", "small", b"""a: &x {b: [1, 0x1f, 0o17, 1_000, 1.5, .inf, ~, "q\\u00e9", 'it''s']}
c: *x
d:
  <<: *x
  e: |
    text
  f: >-
    folded
    text
g: ${env:A:-${B:-3}} $${x}
"h::i": yes
""")
seed("yaml", "expand", b"receivers:\n  otlp:\n    protocols:\n      grpc:\n        endpoint: ${env:E:-127.0.0.1:0}\n"
     b"exporters:\n  debug:\nservice:\n  pipelines:\n    profiles:\n      receivers: [otlp]\n"
     b"      exporters: [debug]\n")

# ---- HTTP

for path in captures.glob("*/*.request"):
    text = path.read_bytes()
    body = path.with_suffix(".body")
    head = re.sub(rb"\r?\n", b"\r\n", text.strip()) + b"\r\n\r\n"
    content = body.read_bytes() if body.exists() else b""
    seed("http1", path.parent.name + "-" + path.stem, head + content[:2000])
seed("http1", "get", b"GET /ready HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.0\r\n\r\n")
seed("http1", "length", b"POST /v1development/profiles HTTP/1.1\r\nHost: a:4318\r\nContent-Type: "
     b"application/x-protobuf\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhelloPOST / HTTP/1.1"
     b"\r\nHost: b\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
seed("http1", "chunked", b"POST /ingest?name=a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
     b"5;x=\"y\"\r\nhello\r\n1F\r\n0123456789012345678901234567890\r\n0\r\nTrailer: x\r\n\r\n")
seed("http1", "absolute", b"OPTIONS http://h:1/a?b HTTP/1.1\r\nHost: h:1\r\nConnection: keep-alive, x\r\n\r\n")

form = (b"--b1\r\nContent-Disposition: form-data; name=\"profile\"; filename=\"p.pprof\"\r\n"
        b"Content-Type: application/octet-stream\r\n\r\nbytes\r\n--b1\r\n"
        b"Content-Disposition: form-data; name=\"sample_type_config\"\r\n\r\n{}\r\n--b1--\r\n")
seed("multipart", "small", b"multipart/form-data; boundary=b1\n" + form)
seed("multipart", "quoted", b"multipart/form-data; charset=x; boundary=\"b1\"\n" + form)
for path in captures.glob("*/*.request"):
    match = re.search(rb"multipart/form-data;[^\r\n]*", path.read_bytes())
    body = path.with_suffix(".body")
    if match and body.exists() and body.stat().st_size <= 8192:
        seed("multipart", path.parent.name + "-" + path.stem,
             match.group(0) + b"\n" + body.read_bytes())


def frame(content, flag=0):
    return bytes([flag]) + struct.pack(">I", len(content)) + content


gz = gzip.compress(b"hello hello hello", mtime=0)
seed("rpc", "grpc", b"application/grpc\nidentity\n" + frame(b"hello"))
seed("rpc", "grpc-gzip", b"application/grpc+proto\ngzip\n" + frame(gz, 1))
seed("rpc", "connect", b"application/proto\ngzip\n" + gz)
seed("rpc", "connect-json", b"application/json; charset=utf-8\n\n{}")
seed("rpc", "http", b"application/x-protobuf\ndeflate\n" + zlib.compress(b"hello"))

retry = part(1, number(1, 2), number(2, 500000000))
status = number(1, 14) + part(2, "come again") + part(
    3, part(1, "type.googleapis.com/google.rpc.RetryInfo"), part(2, retry))
details = base64.b64encode(status).rstrip(b"=")
seed("answer", "retry", b":status: 200\ngrpc-status: 8\ngrpc-message: too%20much\n"
     b"grpc-status-details-bin: " + details + b"\n\n")
seed("answer", "good", b":status: 200\ngrpc-status: 0\n\n" + frame(part(1, number(1, 3), part(2, "x"))))
seed("answer", "gzip", b"grpc-encoding: gzip\ngrpc-status: 0\n\n" + frame(gz, 1))
seed("answer", "http", b":status: 503\nretry-after: Wed, 21 Oct 2065 07:28:00 GMT\n\n"
     + part(1, number(1, 3), part(2, "three are bad")))
seed("answer", "json", b":status: 429\nretry-after: 120\n\n"
     b'{"partialSuccess":{"rejectedProfiles":"3","errorMessage":"three are bad"}}')
for i, endpoint in enumerate([b"https://h:1/a?b", b"dns:///h:4317", b"unix:///run/x", b"[::1]:4317"]):
    seed("answer", f"endpoint-{i}", endpoint + b"\n")

for i, text in enumerate([rb"(?P<name>a+)\d{2,3}[^\w]", rb"(?i)(?:x|y)*$", rb"^\S+\s[\d-]\.",
                          b"team/../a b", b"\xff\x00" * 9, b"a" * 300]):
    seed("pattern", str(i), text)

for i, text in enumerate([
        b"<?xml version='1.0'?><s:a x=\"1\"><b>&lt;&#65;&#x20AC;<![CDATA[<&>]]></b><c/></s:a>",
        b"<R><Credentials><AccessKeyId>i</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t"
        b"</SessionToken><Expiration>2026-11-21T11:00:00Z</Expiration></Credentials></R>",
        b'{"AccessKeyId":"a","SecretAccessKey":"b","Expiration":"2026-11-21T11:00:00Z","access_token":"x",'
        b'"expires_in":"60"}', b"[profile  a]\nrole_arn = x # y\n  n=1\n", b"bytes 0-9/100", b"a%20b%",
        b"Sat, 21 Nov 2026 11:00:00 GMT"]):
    seed("object", str(i), text)

# ---- codings: identity gzip zlib deflate snappy snappy-framed zstd lz4 (the order of the enum)

plain = b"hello hello hello " * 20
raw_deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
seed("codecs", "identity", b"\x00" + plain)
seed("codecs", "gzip", b"\x01" + gzip.compress(plain, mtime=0))
seed("codecs", "gzip-twice", b"\x01" + gzip.compress(plain, mtime=0) + gzip.compress(b"x", mtime=0))
seed("codecs", "gzip-bomb", b"\x01" + gzip.compress(bytes(4 << 20), mtime=0))
seed("codecs", "zlib", b"\x02" + zlib.compress(plain))
seed("codecs", "deflate", b"\x03" + raw_deflate.compress(plain) + raw_deflate.flush())
seed("codecs", "snappy", b"\x04" + varint(10) + b"\x24" + b"0123456789")
seed("codecs", "snappy-framed", b"\x05\xff\x06\x00\x00sNaPpY\x01\x0a\x00\x00\x8d\xc6\xcf\x23hello!")
seed("codecs", "zstd", bytes([6]) + bytes.fromhex("28b52ffd0458290000") + b"hello" + bytes(4))
seed("codecs", "lz4", bytes([7]) + bytes.fromhex("04224d186440a7050000806865"
                                                 "6c6c6f00000000"))

seed("cdn_feed", "small.mmdb", (data / "cdn/small.mmdb").read_bytes())
seed("cdn_feed", "ipfeed", b"# ipfeed_version=1\nnetwork,cdn_pop,cdn_tier,country,region,latitude,is_anycast\n"
     b"192.0.2.0/25,AMS,edge,NL,NH,52.3,\n2001:db8::/96,\"a\"\"b\",\\N,,,,true\n")
seed("cdn_feed", "geofeed", b"192.0.2.0/24,US,US-AL,Alabaster, # here\n2001:db8::1,,,,\n")
for name, text in {
        "aws": {"prefixes": [{"ip_prefix": "3.5.140.0/22", "region": "a", "service": "EC2",
                              "network_border_group": "b"}], "ipv6_prefixes": []},
        "azure": {"changeNumber": 1, "values": [{"name": "AzureFrontDoor.X", "properties": {
            "region": "", "addressPrefixes": ["4.150.1.0/24"]}}]},
        "zones": {"coverageZones": {"a": {"network": ["10.0.0.0/8"], "coordinates": {"latitude": 1}}}},
        "crconfig": {"contentServers": {"e": {"cacheGroup": "a", "ip": "10.0.0.1", "ip6": "::5/64", "type": "EDGE"}},
                     "edgeLocations": {"a": {"lat": 1, "lon": 2}}},
        "footprints": {"footprints": [{"footprint-type": "footprintunion", "footprint-value": [
            {"footprint-type": "ipv4cidr", "footprint-value": ["192.0.2.0/24"]},
            {"footprint-type": "countrycode", "footprint-value": ["us"]}]}]}}.items():
    seed("cdn_feed", name, json.dumps(text).encode())

# Recorded of a kube-apiserver, its first objects; larger than an input may be is of no use.
for file in sorted((data / "kubernetes").iterdir()):
    seed("kubernetes", file.name, file.read_bytes()[:12000])
seed("kubernetes", "watch", b'{"type":"ADDED","object":{"metadata":{"name":"a","uid":"u"},"status":{"podIP":"10.0.0.1"}}}\n'
     b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}')
seed("kubernetes", "list", b'{"metadata":{"resourceVersion":"7","continue":"x"},"items":[{"metadata":{"name":"a","uid":"u"}}]}')
seed("kubernetes", "cgroup", b"0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + b"ab" * 32 + b".scope\n")

# A segment's bytes: what matters is made right by the target itself.
seed("storage", "zeros", bytes(4096))
seed("storage", "some", bytes(range(256)) * 40)

seed("trace_read", "span", part(1, part(1, part(1, part(1, "service.name") + part(2, part(1, "a"))))
                                + part(2, part(2, part(1, b"\x01" * 16) + part(2, b"\x02" * 8) + part(5, "work")))))
