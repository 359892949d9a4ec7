"""Archives whose queue was damaged; a file of its own, since it waits for a minute."""
import signal
import time

import pytest

from harness import wait_for
from test_archive import AWS, ROLLUP, bucket, daemon, durable, request, s3, send, stored


@pytest.mark.parametrize("cut", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_damaged_record_is_set_aside_and_the_rest_goes_on(daemon, bucket, tmp_path, cut):
    """Also one that a cut names: after a minute without it, the others are cut anew."""
    queue = tmp_path / "queue"
    waiting = ROLLUP if cut else ", sending_queue: {storage: file_storage}, rollup: {max_age: 1h}"
    bucket.hold = 1 if cut else None
    flue = daemon(s3(bucket.port, more=waiting), durable(queue), environment=AWS, balance=False)
    now = time.time_ns()
    for i in range(5):
        send(flue, request(service_name=f"service-{i}", at=now, function=f"function-{i}-of-five"))
    wait_for(lambda: not cut or bucket.data(), 20, "the PUT")
    flue.process.send_signal(signal.SIGKILL)
    flue.process.wait(20)
    with bucket.lock:
        bucket.hold = None
        bucket.objects.clear()
        bucket.puts.clear()
    damaged = 0
    for path in queue.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        at = data.find(b"function-2-of-five")
        if at >= 0:
            with open(path, "r+b") as file:
                file.seek(at)
                file.write(b"F")
            damaged += 1
    assert damaged == 1
    flue = daemon(s3(bucket.port, more=ROLLUP), durable(queue), environment=AWS, balance=False)
    wait_for(lambda: flue.total("otelcol_exporter_sent_profiles") == 4, 90, "the rest")
    assert flue.total("otelcol_storage_damaged_records_total") == 1
    got = []
    for _, body in bucket.data():
        for part in stored(body):
            got += [s for s in part.dictionary.string_table if s.endswith("-of-five")]
    assert set(got) == {f"function-{i}-of-five" for i in (0, 1, 3, 4)}
    wait_for(lambda: list(queue.glob("*.damaged")), 20, "the damaged segment")
