"""Files of a run are whole or not there; result.json says how it ended; weights are found."""

import json
import os
import subprocess
import sys
import threading

import pytest

from sar_experiments import run_folder
from sar_experiments.errors import CheckpointError


def started(**changes):
    return run_folder.new_result(task="train", config_hash="abc", overrides=["seed=1"], **changes)


def test_a_reader_never_sees_half_a_file(tmp_path):
    path = tmp_path / "result.json"
    run_folder.write_json(path, {"n": [0] * 5000})
    stop = threading.Event()

    def rewrite():
        n = 0
        while not stop.is_set():
            n += 1
            run_folder.write_json(path, {"n": [n] * 5000})

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        for _ in range(200):
            assert len(json.loads(path.read_text())["n"]) == 5000
    finally:
        stop.set()
        writer.join()
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


def test_a_failed_write_keeps_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    run_folder.write_atomically(path, "old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        run_folder.write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_numbers_that_json_does_not_have_become_null(tmp_path):
    run_folder.write_json(tmp_path / "a.json", {"a": [float("nan"), 1.0], "b": float("inf")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [None, 1.0], "b": None}


def test_a_result_reads_back_as_it_was_written(tmp_path):
    result = started()
    run_folder.write_result(tmp_path, result)
    assert run_folder.read_result(tmp_path) == result
    changed = run_folder.update_result(tmp_path, status="completed", metrics={"AP": 0.5})
    assert run_folder.read_result(tmp_path) == changed
    assert (changed.status, changed.overrides) == ("completed", ["seed=1"])


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}'])
def test_what_is_no_result_is_none(tmp_path, content):
    assert run_folder.read_result(tmp_path) is None
    (tmp_path / "result.json").write_text(content)
    assert run_folder.read_result(tmp_path) is None


def test_changes_of_two_processes_at_once_are_all_kept(tmp_path):
    run_folder.write_result(tmp_path, started())
    code = (
        "import sys; from pathlib import Path; from sar_experiments import run_folder\n"
        "folder, changes = Path(sys.argv[1]), {sys.argv[2]: sys.argv[3]}\n"
        "for _ in range(50): run_folder.update_result(folder, **changes)"
    )
    arguments = (("why", "a"), ("cause", "b"), ("ended", "c"))
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), *each]) for each in arguments
    ]
    assert [process.wait(30) for process in processes] == [0, 0, 0]
    result = run_folder.read_result(tmp_path)
    assert (result.why, result.cause, result.ended) == ("a", "b", "c")


def test_keys_of_a_newer_version_do_no_harm(tmp_path):
    (tmp_path / "result.json").write_text('{"status": "completed", "task": "train", "new": 1}')
    assert run_folder.read_result(tmp_path).status == "completed"


def test_versions_and_time_are_recorded():
    result = started()
    assert result.versions["torch"].count(".") >= 2
    assert result.started.endswith("+00:00")
    assert result.host


@pytest.mark.parametrize(("said", "commit"), [("c0ffee", "c0ffee"), ("", None), (None, None)])
def test_outside_a_checkout_the_image_says_the_commit(tmp_path, monkeypatch, said, commit):
    monkeypatch.setattr(run_folder, "__file__", str(tmp_path / "sar_experiments/run_folder.py"))
    if said is None:
        monkeypatch.delenv("SAR_GIT_COMMIT", raising=False)
    else:
        monkeypatch.setenv("SAR_GIT_COMMIT", said)
    assert run_folder.git_commit.__wrapped__() == commit


def test_the_hash_ignores_what_does_not_change_the_result():
    def digest(**config):
        return run_folder.config_hash(config, exclude=("hardware",))

    assert digest(seed=1, hardware="a") == digest(hardware="b", seed=1)
    assert digest(seed=1) != digest(seed=2)
    assert len(digest(seed=1)) == 12


def test_a_run_is_alive_while_its_process_is(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    start = run_folder.process_start(process.pid)
    values = {"pid": process.pid, "pid_start": start, "status": "running", "task": "train"}
    result = run_folder.Result(host=started().host, **values)
    assert run_folder.is_alive(result)
    assert not run_folder.is_alive(run_folder.Result(host="elsewhere", **values))
    values["pid_start"] = start - 1  # another process had this number
    assert not run_folder.is_alive(run_folder.Result(host=started().host, **values))
    process.kill()
    process.wait()
    assert not run_folder.is_alive(result)


def test_weights_are_the_best_then_the_final_then_the_file_itself(tmp_path):
    (tmp_path / "model_final.pth").touch()
    assert run_folder.resolve_weights(tmp_path).name == "model_final.pth"
    (tmp_path / "model_best.pth").touch()
    assert run_folder.resolve_weights(tmp_path).name == "model_best.pth"
    assert run_folder.resolve_weights(tmp_path / "model_final.pth").name == "model_final.pth"


def test_weights_that_are_not_there_are_explained(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        run_folder.resolve_weights(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="not a run folder"):
        run_folder.resolve_weights(tmp_path)
    run = tmp_path / "0_ships"
    run.mkdir()
    run_folder.write_result(run, started())
    with pytest.raises(CheckpointError, match=r"is a sweep, not a run.*0_ships"):
        run_folder.resolve_weights(tmp_path)
    with pytest.raises(CheckpointError, match=r"without model_best\.pth \(status running\)"):
        run_folder.resolve_weights(run)


def test_caches_lie_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SAR_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert run_folder.cache_folder() == tmp_path / ".cache" / "sar_experiments"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert str(run_folder.cache_folder()) == "/x/sar_experiments"
    monkeypatch.setenv("SAR_CACHE_DIR", "~/sar")
    assert run_folder.cache_folder() == tmp_path / "sar"
