"""The real daemon, started on configurations that tests write, beside real servers on loopback."""
import os
import pathlib
import shutil
import subprocess

import pytest

from harness import Flue, OtlpSink, Pyroscope, free_port

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def pytest_addoption(parser):
    parser.addoption("--flue", default="build/gcc/flue", help="the daemon under test")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes long under a sanitizer")
    config.addinivalue_line("markers", "resident: looks at resident memory, which a sanitizer's allocator keeps")


@pytest.fixture(scope="session")
def binary(request):
    path = pathlib.Path(request.config.getoption("--flue"))
    path = path if path.is_absolute() else ROOT / path
    assert path.exists(), f"{path} is not built"
    return path


@pytest.fixture(scope="session")
def tools(binary):
    """Programs that were built next to the daemon: tests/tools/*.c."""
    return binary.parent / "tests"


@pytest.fixture
def flue(binary, tmp_path):
    """flue(config, check_balance=True): starts a daemon; all are stopped and balanced at the end."""
    running = []

    def start(config, **options):
        daemon = Flue(options.pop("binary", binary), config, tmp_path / f"flue-{len(running)}", **options)
        running.append(daemon)
        daemon.start()
        return daemon

    yield start
    failures = []
    for daemon in running:
        try:
            daemon.finish()
        except AssertionError as failure:
            failures.append(str(failure))
    assert not failures, "\n".join(failures)


@pytest.fixture
def otlp_sink():
    with OtlpSink() as sink:
        yield sink


@pytest.fixture
def pyroscope():
    server = Pyroscope()
    yield server
    server.stop()


@pytest.fixture
def port():
    return free_port()


@pytest.fixture(scope="session")
def captures():
    return ROOT / "tests" / "data" / "captures"
