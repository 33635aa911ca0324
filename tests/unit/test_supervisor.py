"""A run's end is recorded however it comes, and no process outlives its supervisor."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from sar_experiments import run_folder, supervisor

HEADER = """
import os, signal, sys, time
from pathlib import Path
from sar_experiments import run_folder, supervisor
folder = Path(sys.argv[1])
"""


@pytest.fixture
def supervise(tmp_path):
    """Source of a child -> its recorded end."""

    def run(source, *, grace_s=10.0, gpus=(), console="log"):
        folder = tmp_path / "run"
        return supervisor.supervise(
            folder,
            command=[sys.executable, "-c", HEADER + textwrap.dedent(source), str(folder)],
            start=run_folder.new_result(task="train", config_hash="abc", overrides=[]),
            place=supervisor.Place(gpus),
            grace_s=grace_s,
            console=console,
        )

    return run


def test_a_child_that_says_it_is_done_is_done(supervise):
    result = supervise("run_folder.update_result(folder, status='completed', metrics={'AP': 0.5})")
    assert (result.status, result.metrics) == ("completed", {"AP": 0.5})
    assert supervisor.exit_code(result) == 0
    assert result.ended
    assert result.log_tail == []


@pytest.mark.parametrize(
    ("source", "cause", "why"),
    [
        ("raise ValueError('boom')", "exit", "ended with exit code 1"),
        ("sys.exit(3)", "exit", "ended with exit code 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed", "killed by SIGKILL; .* memory"),
        ("os.abort()", "killed", "killed by SIGABRT"),
    ],
)
def test_an_end_without_a_word_is_recorded_with_its_reason(supervise, source, cause, why):
    result = supervise(f"print('before the end', flush=True)\n{source}")
    assert (result.status, result.cause) == ("failed", cause)
    assert pytest.importorskip("re").match(why, result.why)
    assert "before the end" in result.log_tail
    assert supervisor.exit_code(result) == 1


def test_a_users_mistake_has_its_own_exit_code(supervise):
    result = supervise(
        "run_folder.update_result(folder, status='failed', cause='user', why='no'); sys.exit(2)"
    )
    assert supervisor.exit_code(result) == 2
    assert result.why == "no"


def test_the_child_sees_its_gpus_alone(supervise):
    result = supervise("print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True)", gpus=["a", "b"])
    assert result.log_tail[-1] == "a,b"
    assert result.gpus == ["a", "b"]


def test_children_of_the_child_do_not_outlive_it(supervise):
    result = supervise(
        """
        import subprocess
        grandchild = subprocess.Popen(["sleep", "60"])
        print(grandchild.pid, flush=True)
        run_folder.update_result(folder, status='failed')
        """
    )
    assert run_folder.process_start(int(result.log_tail[-1])) == 0


START = run_folder.new_result(task="train", config_hash="", overrides=[])

SUPERVISOR = """
import sys
from pathlib import Path
from sar_experiments import run_folder, supervisor
folder = Path(sys.argv[1])
result = supervisor.supervise(
    folder, command=[sys.executable, "-c", sys.argv[2], str(folder)],
    start=run_folder.new_result(task="train", config_hash="", overrides=[]),
    place=supervisor.Place(), grace_s=float(sys.argv[3]), console="log",
)
sys.exit(supervisor.exit_code(result))
"""

POLITE = """
def stop(*_):
    run_folder.update_result(folder, status="interrupted", why="saved")
    sys.exit(130)
signal.signal(signal.SIGTERM, stop)
(folder / "ready").touch()
time.sleep(60)
"""
DEAF = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
(folder / "ready").touch()
time.sleep(60)
"""
FOLLOWING = """
supervisor.die_with_parent(0.5)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
(folder / "ready").touch()
time.sleep(60)
"""


@pytest.fixture
def supervising(tmp_path):
    """Start a supervisor in a process of its own and wait until its child is ready."""
    started = []

    def start(source, *, grace_s=10.0, supervisor=SUPERVISOR):
        folder = tmp_path / "run"
        command = [sys.executable, "-c", supervisor, str(folder), HEADER + source, str(grace_s)]
        process = subprocess.Popen(command)
        started.append(process)
        deadline = time.monotonic() + 20
        while not (folder / "ready").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return process, folder

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_child_save(supervising, number):
    process, folder = supervising(POLITE)
    process.send_signal(number)
    assert process.wait(120) == 130
    result = run_folder.read_result(folder)
    assert (result.status, result.why) == ("interrupted", "saved")


def test_a_child_that_does_not_listen_is_killed_after_its_grace(supervising):
    process, folder = supervising(DEAF, grace_s=0.3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 130
    assert run_folder.read_result(folder).status == "interrupted"


def test_a_second_signal_does_not_wait(supervising):
    process, _ = supervising(DEAF, grace_s=600)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130


CLUSTER_SUPERVISOR = SUPERVISOR.replace(
    "result = supervisor",
    """
import signal
def requeue(number, _frame):
    status = run_folder.read_result(folder).status
    (folder / "requeued").write_text(f"{signal.Signals(number).name} {status}")
    sys.exit(99)
signal.signal(signal.SIGUSR2, requeue)
result = supervisor""",
)


def test_a_clusters_signal_reaches_its_own_handler_once_the_child_has_saved(supervising):
    process, folder = supervising(POLITE, supervisor=CLUSTER_SUPERVISOR)
    process.send_signal(signal.SIGTERM)  # Slurm sends this one too
    process.send_signal(signal.SIGUSR2)
    assert process.wait(20) == 99
    assert (folder / "requeued").read_text() == "SIGUSR2 interrupted"


def test_a_clusters_signal_without_a_handler_lets_the_child_save(supervising):
    process, folder = supervising(POLITE)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(20) == 130
    assert run_folder.read_result(folder).why == "saved"


def test_a_killed_supervisor_takes_its_child_with_it(supervising):
    process, folder = supervising(FOLLOWING)
    pid = run_folder.read_result(folder).pid
    os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while run_folder.process_start(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not run_folder.is_alive(run_folder.read_result(folder))


def test_a_run_goes_on_when_the_shell_that_started_it_ends(tmp_path):
    folder = tmp_path / "run"
    child = (
        HEADER
        + """
(folder / "ready").touch()
time.sleep(2)
run_folder.update_result(folder, status="completed")
"""
    )
    command = [sys.executable, "-c", SUPERVISOR, str(folder), child, "1"]
    shell = subprocess.Popen(["sh", "-c", '"$@" & echo', "sh", *command])
    shell.wait()
    deadline = time.monotonic() + 60
    while not folder.is_dir() or (run_folder.read_result(folder) or START).status == "running":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert run_folder.read_result(folder).status == "completed"


def test_cores_are_handed_to_the_child(tmp_path):
    result = supervisor.supervise(
        tmp_path / "run",
        command=[sys.executable, "-c", "import os; print(os.environ['SAR_CORES'])"],
        start=START,
        place=supervisor.Place(cores=3),
        console="log",
    )
    assert result.log_tail[-1] == "3"
