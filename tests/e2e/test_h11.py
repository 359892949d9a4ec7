"""Our HTTP/1.1 reader beside h11 on the same bytes: what both accept, both read alike; what h11 refuses, we
refuse; and the few forms that we refuse and h11 takes are listed, each on purpose."""
import json
import random
import subprocess

import h11
import pytest

GOOD = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /x?y=z HTTP/1.1\r\nHost: a:80\r\nContent-Length: 3\r\n\r\nabc",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n10;ext=1\r\n0123456789abcdef\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\nTrailer: x\r\n\r\n",
    b"GET / HTTP/1.0\r\nHost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nX-Empty:\r\nX-Blanks:   b c  \r\nContent-Length: 0\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: b\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
]
# What we refuse and h11 takes: two lengths, even equal ones, are how smuggling begins.
STRICTER = [b"POST /v1/pprof HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"]
BAD = [
    b"GET / HTTP/1.1\r\n\r\n", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1x\r\n\r\nx",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n", b"G\x80T / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
]


def by_h11(data):
    """[(method, target, headers, body)] and how it ended."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=16384)
    out, current = [], None
    try:
        connection.receive_data(data)
        connection.receive_data(b"")
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                current = [event.method, event.target, [(bytes(k), bytes(v)) for k, v in event.headers], b""]
                if (b"expect", b"100-continue") in [(k, v.lower()) for k, v in current[2]]:
                    return out, "expect"
            elif isinstance(event, h11.Data):
                current[3] += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                out.append(tuple(current))
                connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is h11.MUST_CLOSE:
                    return out, "closed"
                connection.start_next_cycle()
            elif isinstance(event, h11.ConnectionClosed):
                return out, "end"
            else:
                return out, "incomplete"
    except h11.RemoteProtocolError as error:
        return out, "incomplete" if "closed" in str(error) or "incomplete" in str(error) else "error"


def by_flue(tool, data, *arguments):
    lines = subprocess.run([tool, *arguments], input=data, capture_output=True, timeout=20).stdout.decode().splitlines()
    out, end = [], "end"
    for line in map(json.loads, lines):
        if "error" in line:
            end = "error"
        elif "incomplete" in line:
            end = "incomplete"
        else:
            headers = [(k.encode(), v.encode()) for k, v in line["headers"]]
            out.append((line["method"].encode(), line["target"].encode(), headers, bytes.fromhex(line["body"]), line["keep_alive"]))
    return out, end


def compare(tool, data):
    theirs, their_end = by_h11(data)
    ours, our_end = by_flue(tool, data)
    for mine, other in zip(ours, theirs):
        drop = lambda headers: [(k, v.lower() if k == b"transfer-encoding" else v)  # h11 folds its case
                                for k, v in headers if k != b"content-length"]
        assert (mine[0], mine[1], drop(mine[2]), mine[3]) == (other[0], other[1], drop(other[2]), other[3]), data
    assert len(ours) <= len(theirs) or their_end in ("closed", "expect"), (data, ours, theirs)
    if their_end == "error":
        assert our_end in ("error", "incomplete") and len(ours) <= len(theirs), (data, ours)
    assert by_flue(tool, data, "1") == (ours, our_end), data
    return our_end, their_end, len(ours), len(theirs)


@pytest.fixture(scope="session")
def tool(tools):
    return tools / "flue_tools_http1_dump"


def test_what_is_right_is_read_alike(tool):
    for data in GOOD:
        ours, theirs, count, expected = compare(tool, data)
        assert count == expected and ours in ("end",), (data, ours)


def test_what_is_wrong_is_refused(tool):
    for data in BAD:
        assert compare(tool, data)[0] == "error", data


def test_what_is_refused_on_purpose(tool):
    for data in STRICTER:
        ours, theirs, count, expected = compare(tool, data)
        assert (ours, count, expected) == ("error", 0, 1), data


def test_mutations(tool):
    rng = random.Random(11)
    for _ in range(400):
        data = bytearray(rng.choice(GOOD))
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(data))
            kind = rng.randrange(4)
            if kind == 0:
                data[at] = rng.choice(b"\r\n :;,\t\0\x7f\x80aA09-")
            elif kind == 1:
                del data[at]
            elif kind == 2:
                data.insert(at, rng.choice(b"\r\n :x0"))
            else:
                data = data[:at]
            if not data:
                data = bytearray(b"\r")
        compare(tool, bytes(data))
