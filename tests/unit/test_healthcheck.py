"""docker/healthcheck.py: runs that write and servers that answer are healthy, others are not."""

import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docker" / "healthcheck.py"


def check(*arguments, idle_s="3600"):
    environment = {**os.environ, "SAR_HEALTH_IDLE_S": idle_s}
    command = [sys.executable, "-I", str(SCRIPT), *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def run_folder(tmp_path):
    """A folder that a process with a run's command line claims to write."""
    (tmp_path / "train.log").write_text("step 1\n")
    words = [sys.executable, "-c", "input()", "sar_experiments.tasks", str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as process:
        yield tmp_path
        process.kill()


@contextmanager
def server(status):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    listening = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield str(listening.server_port)
    listening.shutdown()
    listening.server_close()


def test_a_run_that_writes_is_healthy(run_folder):
    process = check()
    assert process.returncode == 0, process.stdout


def test_a_run_that_stopped_writing_is_not(run_folder):
    long_ago = time.time() - 7200
    os.utime(run_folder / "train.log", (long_ago, long_ago))
    process = check()
    assert process.returncode == 1
    assert f"{run_folder}: nothing written for 72" in process.stdout


def test_a_server_that_answers_is_healthy():
    with server(200) as port:
        assert check("http", port, "/").returncode == 0


def test_a_server_that_fails_or_is_gone_is_not():
    with server(503) as port:
        process = check("http", port, "/")
        assert (process.returncode, "503" in process.stdout) == (1, True)
    assert check("http", port, "/").returncode == 1


def test_other_words_are_refused():
    process = check("tcp")
    assert process.returncode == 1
    assert "usage" in process.stdout
