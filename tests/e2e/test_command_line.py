"""The command line: exit statuses, what is said where, and texts that read again to the same."""
import json
import os
import re
import signal
import socket
import subprocess

import pytest

from harness import ROOT, free_port, listens, wait_for

DATA = ROOT / "tests" / "data" / "config"
WRONG = """\
recievers: {}
receivers:
  otlp:
    protocols:
      grpc: {endpoint: localhost, max_recv_msg_size: 4}
exporters:
  debug: {verbosity: detaild}
  nop:
service:
  pipelines:
    profiles: {receivers: [otlp, pprof/x], exporters: [debug]}
"""


@pytest.fixture
def cli(binary):
    def run(*arguments, **environment):
        done = subprocess.run([str(binary), *map(str, arguments)], capture_output=True, text=True, timeout=60,
                              stdin=subprocess.DEVNULL, env={**os.environ, **environment})
        return done.returncode, done.stdout, done.stderr
    return run


def test_validate_says_every_mistake(cli, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text(WRONG)
    status, out, err = cli("validate", "--config", path)
    assert (status, out) == (1, "")
    assert err.splitlines() == [
        f'{path}:1:1: unknown key "recievers" (did you mean "receivers"?)',
        f'{path}:5:24: receivers.otlp.protocols.grpc.endpoint: "localhost" has no port: write host:port '
        '("localhost:4317", "[::1]:4317", ":4317" for all addresses)',
        f'{path}:5:35: receivers.otlp.protocols.grpc: unknown key "max_recv_msg_size" '
        '(did you mean "max_recv_msg_size_mib"?)',
        f'{path}:7:22: exporters.debug.verbosity: "detaild" is not one of basic, normal, detailed '
        '(did you mean "detailed"?)',
        f'{path}:8:3: warning: exporters.nop is defined, but no pipeline names it',
        f'{path}:11:34: service.pipelines.profiles: the receiver "pprof/x" is not defined under receivers',
    ]


@pytest.mark.parametrize("path", [DATA / "collector.yaml", DATA / "start.yaml",
                                  *sorted((ROOT / "config" / "examples").glob("*.yaml"))], ids=lambda p: p.name)
def test_validate_is_content(cli, path, monkeypatch):
    monkeypatch.setenv("NODE_NAME", "node-1")  # as the agent's manifest sets it
    status, out, err = cli("validate", "--feature-gates=service.profilesSupport", "--config", path)
    assert (status, err) == (0, "")
    assert re.match(r"ok: \d+ pipelines?, ", out)


def test_validate_makes_but_does_not_start(cli):
    """An address that cannot be listened on is no mistake of the file."""
    status, _, err = cli("validate", "--config", DATA / "collector.yaml",
                         "--set", "receivers.otlp.protocols.grpc.endpoint=192.0.2.1:1")
    assert (status, err) == (0, "")


def test_print_config_reads_again_to_the_same(cli, tmp_path):
    arguments = ["--config", DATA / "start.yaml", "--set", "exporters.pyroscope.headers.Authorization=Bearer hush"]
    status, first, err = cli("print-config", "--mode", "unredacted", *arguments, CDN_REGION="$eu")
    assert (status, err) == (0, "")
    assert '"Bearer hush"' in first and 'value: "$$eu"' in first
    path = tmp_path / "printed.yaml"
    path.write_text(first)
    assert cli("print-config", "--mode=unredacted", "--config", path) == (0, first, "")
    assert cli("print-initial-config", "--mode=unredacted", "--config", path) == (0, first, "")
    status, redacted, _ = cli("print-config", *arguments)
    assert status == 0 and "hush" not in redacted and '"[REDACTED]"' in redacted
    status, text, _ = cli("print-config", "--format", "json", *arguments)
    assert status == 0
    assert json.loads(text)["exporters"]["pyroscope"]["headers"] == {
        "X-Scope-OrgID": "[REDACTED]", "Authorization": "[REDACTED]"}


def test_print_config_does_not_print_what_it_could_not_bind(cli, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text(WRONG)
    status, out, err = cli("print-config", "--config", path)
    assert (status, out) == (1, "") and "recievers" in err


def test_components(cli):
    status, out, _ = cli("components")
    assert status == 0 and "  - name: otlp_grpc\n" in out and "    deprecated_name: otlp\n" in out
    status, out, _ = cli("components", "--help", "receiver/otlp")
    assert status == 0 and "  protocols.grpc.endpoint: host:port, default localhost:4317\n" in out
    assert "exporter otlp_grpc" not in out
    status, out, _ = cli("components", "--help", "otlp")
    assert "receiver otlp:" in out and "exporter otlp_grpc:" in out
    assert "  sending_queue.num_consumers: whole number (1 to 65536), default 10\n" in out
    status, out, _ = cli("components", "--help", "service")
    assert status == 0 and "  flue.drain_timeout: duration (0s to 1h0m0s), default 10s\n" in out
    assert cli("components", "--help", "otpl") == (
        1, "", 'flue components: there is no component "otpl" (did you mean "otlp"?)\n')


def test_the_generated_reference(cli):
    status, out, _ = cli("components", "--markdown")
    assert status == 0
    assert out == (ROOT / "docs" / "components.md").read_text(), "flue components --markdown > docs/components.md"


@pytest.mark.parametrize("arguments, words", [
    ((), "usage: flue COMMAND"),
    (("rnu",), 'there is no command "rnu" (did you mean "run"?)'),
    (("run",), "which configuration? Name it with --config FILE"),
    (("validate", "--config"), 'no value behind "--config"'),
    (("validate", "--confg", "x"), 'does not know "--confg"'),
    (("validate", "x.yaml"), 'does not know "x.yaml"'),
    (("print-config", "--mode", "open"), '--mode is redacted or unredacted, not "open"'),
    (("print-config", "--format", "toml"), '--format is yaml or json, not "toml"'),
])
def test_wrong_command_lines(cli, arguments, words):
    status, out, err = cli(*arguments)
    assert (status, out) == (2, "") and words in err


def test_help_and_version(cli):
    assert cli("--help")[0] == 0 and "print-config" in cli("--help")[1]
    assert cli("run", "--help") == (0, "flue run --config FILE [--config ...] [--set KEY=VALUE]...\n"
                                       "  runs the pipelines of a configuration until SIGTERM\n", "")
    assert cli("version")[1] == cli("--version")[1] and cli("version")[1].startswith("flue version ")


def test_run_signals(binary, tmp_path):
    """`flue --config` is run; SIGHUP is said to change nothing; SIGTERM drains; the log goes where it is told."""
    health, page = free_port(), free_port()
    log = tmp_path / "flue.log"
    path = tmp_path / "flue.yaml"
    path.write_text(f"""
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{free_port()}"}}}}}}}}
exporters: {{nop: }}
extensions: {{health_check: {{endpoint: "127.0.0.1:{health}"}}}}
service:
  extensions: [health_check]
  telemetry:
    logs: {{encoding: json, output_paths: ["{log}"]}}
    metrics: {{readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {page}}}}}}}}}]}}
  pipelines: {{profiles: {{receivers: [otlp], exporters: [nop]}}}}
""")
    process = subprocess.Popen([str(binary), f"--config=file:{path}", "--feature-gates", "+service.profilesSupport"],
                               stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: process.poll() is not None or (listens(health) and listens(page)), what="the listeners")
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: "SIGHUP: the configuration is not read again" in log.read_text(), what="a line about SIGHUP")
        assert listens(health)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, err) == (0, "")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    words = json.dumps(lines)
    for word in ("ready", "SIGTERM", "draining", "drained, nothing left"):
        assert word in words


def test_run_with_a_port_that_is_taken(binary, cli):
    port = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        status, out, err = cli("run", "--config", DATA / "collector.yaml",
                               "--set", f"receivers.otlp.protocols.grpc.endpoint=127.0.0.1:{port}")
    assert (status, out) == (1, "") and f"127.0.0.1:{port}" in err
