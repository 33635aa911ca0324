"""A rank does not outlive the others, and the first to fail says why the run ended."""

import subprocess
import sys
import threading
import time

import pytest

pytest.importorskip("torch")
pytest.importorskip("detectron2")

from sar_experiments import run_folder
from sar_experiments.tasks import launching
from sar_experiments.tasks.interruption import Interruption

pytestmark = pytest.mark.detectron2


@pytest.fixture
def folder(tmp_path):
    run_folder.write_result(
        tmp_path, run_folder.new_result(task="train", config_hash="", overrides=[])
    )
    return tmp_path


@pytest.fixture
def interruption():
    return Interruption()


def exited(code, index=1):
    return launching.ProcessExitedException("ended", index, 1, code)


def left_word(meeting, rank, when, why):
    changes = {"status": "failed", "why": why}
    content = {"when": when, "rank": rank, "code": 2, "changes": changes}
    run_folder.write_json(meeting / f"ending-{rank}.json", content)


def why(error, folder, interruption):
    return launching._why(error, folder, folder, 2, interruption)


def test_the_first_word_counts_since_later_ones_are_of_lost_connections(folder, interruption):
    left_word(folder, 0, 2_000, "connection closed by peer")
    left_word(folder, 1, 1_000, "an image is broken")
    ending = why(exited(1, index=0), folder, interruption)
    assert (ending.code, ending.changes["why"]) == (2, "an image is broken")


def test_a_killed_rank_leaves_no_word_and_is_named(folder, interruption):
    left_word(folder, 0, 2_000, "connection closed by peer")
    ending = why(exited(-9), folder, interruption)
    assert ending.changes["cause"] == "killed"
    assert ending.changes["why"].startswith("process 1 of 2 was killed by SIGKILL")


def test_a_rank_that_ends_on_request_before_it_listens_interrupts_the_run(folder, interruption):
    interruption.requested = True
    assert why(exited(-15), folder, interruption).changes["status"] == "interrupted"


def test_what_is_recorded_already_stays(folder, interruption):
    run_folder.update_result(folder, status="completed")
    ending = why(exited(-9), folder, interruption)
    assert (ending.code, ending.changes) == (0, {})


def test_an_end_without_any_word_is_a_failure(folder, interruption):
    ending = why(exited(1), folder, interruption)
    assert (ending.code, ending.changes["why"]) == (1, "process 1 of 2: ended")


WATCHER = """
import sys, threading, time
from sar_experiments.tasks import launching
launching.LAST_WORDS_S = 0.1
peer = (int(sys.argv[1]), int(sys.argv[2]))
threading.Thread(target=launching.watch_peers, args=([peer], threading.Event())).start()
print("watching", flush=True)
time.sleep(600)
"""


def test_a_rank_ends_when_another_one_died():
    peer = subprocess.Popen(["sleep", "600"])
    arguments = [str(peer.pid), str(run_folder.process_start(peer.pid))]
    watcher = subprocess.Popen(
        [sys.executable, "-c", WATCHER, *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        assert watcher.stdout.readline() == "watching\n"
        time.sleep(2 * launching.POLL_S)
        assert watcher.poll() is None
        peer.kill()
        assert watcher.wait(60) == 1
    finally:
        peer.kill()
        peer.wait()
        watcher.kill()
        watcher.communicate()


def test_the_watch_ends_with_the_run():
    is_over = threading.Event()
    is_over.set()
    launching.watch_peers([(0, 0)], is_over)
