"""flue queue ls, cat, verify on a folder that a real daemon has filled, while it runs and after a kill."""
import signal
import subprocess

import pytest
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service

from harness import ROOT, Flue, free_port, listens, replay, wait_for

CAPTURE = ROOT / "tests" / "data" / "captures" / "pyroscope-java"
DATA = 32 * 1024  # where the records of a segment begin
CONFIG = """\
extensions:
  file_storage: {{directory: "{folder}", create_directory: true}}
receivers:
  otlp:
    protocols:
      http: {{endpoint: "127.0.0.1:{port}"}}
exporters:
  otlp_grpc:
    endpoint: "127.0.0.1:{closed}"
    tls: {{insecure: true}}
    sending_queue: {{storage: file_storage}}
service:
  extensions: [file_storage]
  pipelines:
    profiles: {{receivers: [otlp], exporters: [otlp_grpc]}}
"""


@pytest.fixture
def queue(binary):
    def run(*arguments):
        done = subprocess.run([str(binary), "queue", *map(str, arguments)], capture_output=True, timeout=60,
                              stdin=subprocess.DEVNULL)
        return done.returncode, done.stdout, done.stderr.decode()
    return run


def test_queue_command(binary, queue, tmp_path):
    folder, port = tmp_path / "log", free_port()
    flue = Flue(binary, CONFIG.format(folder=folder, port=port, closed=free_port()), tmp_path / "flue", balance=False)
    flue.start()
    wait_for(lambda: listens(port), what="the receiver")
    for _ in range(3):
        assert replay(port, CAPTURE, "otlp-cpu").status_code == 200
    for state in ("running", "killed"):
        status, out, err = queue("ls", folder)
        assert (status, err) == (0, ""), state
        row = next(line.split() for line in out.decode().splitlines() if line.startswith("otlp_grpc"))
        assert row[1] == "3", out
        status, out, err = queue("cat", folder)
        records = out.decode().splitlines()
        assert (status, len(records)) == (0, 3), err
        assert all("owed_by=otlp_grpc" in line for line in records)
        status, out, err = queue("cat", folder, records[0].split()[0])
        assert status == 0 and "owed_by=otlp_grpc" in err
        assert service.ExportProfilesServiceRequest.FromString(out).resource_profiles
        status, out, err = queue("verify", folder)
        assert (status, err) == (0, ""), out
        assert out.decode().splitlines()[-1].endswith("3 records, " + out.decode().split(", ")[2].split()[0]
                                                      + " bytes: 0 damaged")
        # Nobody else may write there, and validate does not want to.
        assert subprocess.run([str(binary), "validate", "--config", str(flue.path)], capture_output=True,
                              timeout=60).returncode == 0
        if state == "running":
            flue.stop(signal.SIGKILL)
    segment = next(folder.glob("*.segment"))
    content = bytearray(segment.read_bytes())
    content[DATA + 1000] ^= 1
    segment.write_bytes(content)
    status, out, _ = queue("verify", folder)
    assert status == 1 and b"is damaged" in out and out.splitlines()[-1].endswith(b"1 damaged")
    before = sorted((p.name, p.stat().st_mtime_ns) for p in folder.iterdir())
    queue("ls", folder)
    assert before == sorted((p.name, p.stat().st_mtime_ns) for p in folder.iterdir())  # it only looks


def test_mistakes(queue, tmp_path):
    assert queue()[0] == 2
    assert queue("ls")[0] == 2
    assert queue("cat", tmp_path, "no number")[0] == 2
    assert queue("remove", tmp_path)[0] == 2
    status, _, err = queue("ls", tmp_path / "nowhere")
    assert status == 1 and err.endswith("nowhere: No such file or directory (ENOENT)\n")
    status, _, err = queue("cat", tmp_path, "10000")
    assert status == 1 and "there is no record 10000" in err
    assert queue("verify", tmp_path)[0] == 0
