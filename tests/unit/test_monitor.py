"""The monitor tells what files tell: state, step, time left; it reads ends and harms nothing."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from sar_experiments import monitor, run_folder
from sar_experiments.run_state import RunReader, run_folders

CONFIG = "d2:\n  SOLVER:\n    MAX_ITER: 1000\n"


@pytest.fixture
def make_run(tmp_path):
    def make(name, status="running", *, steps=0, age_s=0.0, pid=None, host=None, **more):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(CONFIG)
        pid = os.getpid() if pid is None else pid
        result = run_folder.Result(
            status=status, pid=pid, pid_start=run_folder.process_start(pid),
            host=host or socket.gethostname(), started=run_folder.now(),
            **{"task": "train", **more},
        )  # fmt: skip
        run_folder.write_result(folder, result)
        lines = [
            {"iteration": step, "total_loss": 2.0, "time": 0.5, "val/AP50": 0.25}
            for step in range(19, steps, 20)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
        for path in folder.iterdir():
            os.utime(path, (time.time() - age_s,) * 2)
        return folder

    return make


@pytest.fixture
def read(tmp_path):
    reader = RunReader(tmp_path, metric="AP50", stalled_s=600)
    return lambda: {str(run.folder.relative_to(tmp_path)): run for run in reader.read()}


def test_a_running_run_shows_step_loss_metric_and_time_left(make_run, read):
    make_run("run", steps=400)
    run = read()["run"]
    assert (run.state, run.step, run.max_iter, run.loss, run.metric) == (
        "running", 400, 1000, 2.0, 0.25,
    )  # fmt: skip
    assert run.left_s == pytest.approx(300)


def test_a_run_without_process_is_dead_and_a_silent_one_stalled(make_run, read):
    make_run("dead", age_s=120, pid=2**22 + 1)
    make_run("silent", age_s=3600)
    make_run("other_host", age_s=120, host="elsewhere", pid=2**22 + 1)
    make_run("other_container", age_s=1, pid=2**22 + 1)
    assert {name: run.state for name, run in read().items()} == {
        "dead": "dead", "silent": "stalled", "other_host": "running", "other_container": "running",
    }  # fmt: skip


def test_a_prediction_that_writes_tiles_and_a_service_without_requests_are_not_stalled(
    make_run, read
):
    predicting = make_run("predicting", task="predict", age_s=3600)
    (predicting / "tiles.jsonl").write_text("")
    make_run("serving", task="serve", age_s=3600)
    make_run("gone", task="serve", age_s=3600, pid=2**22 + 1)
    assert {name: run.state for name, run in read().items()} == {
        "predicting": "running", "serving": "running", "gone": "dead",
    }  # fmt: skip


def test_an_ended_run_shows_its_own_metric_and_why(make_run, read):
    make_run("good", "completed", steps=1000, metrics={"AP50": 0.9})
    make_run("bad", "failed", why="out of memory")
    runs = read()
    assert (runs["good"].metric, runs["good"].left_s) == (0.9, None)
    assert runs["bad"].why == "out of memory"


def test_runs_that_go_on_come_first_and_nested_sweeps_are_found(make_run, read, tmp_path):
    make_run("old", "completed", age_s=5)
    make_run("silent", age_s=3600)
    make_run("week/sweep/0_ships", steps=40)
    make_run(".hidden/run")
    (tmp_path / "week" / "sweep" / "0_ships" / "result").mkdir()
    assert list(read()) == ["week/sweep/0_ships", "silent", "old"]
    assert len(list(run_folders(tmp_path))) == 3


def test_half_written_and_foreign_files_do_no_harm(make_run, read, tmp_path):
    run = make_run("run", steps=40)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 59, "total_lo')
    for name, content in (("half", "{"), ("foreign", "[1, 2]"), ("other", '{"status": 3}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(content)
    (tmp_path / "metrics.jsonl").write_bytes(b"\xff\xfe")
    assert read()["run"].step == 40
    assert len(read()) == 1


def test_new_lines_are_seen_and_the_last_metric_is_remembered(make_run, read):
    run = make_run("run", steps=40)
    assert read()["run"].step == 40
    with (run / "metrics.jsonl").open("w") as file:
        file.write(json.dumps({"iteration": 59, "total_loss": 1.0, "time": 1.0}) + "\n")
    assert (read()["run"].step, read()["run"].metric) == (60, 0.25)


def test_only_the_end_of_a_long_file_is_read(make_run, read):
    run = make_run("run")
    line = json.dumps({"iteration": 5, "total_loss": 1.0, "filler": "x" * 1000}) + "\n"
    last = json.dumps({"iteration": 999, "total_loss": 0.5, "time": 1.0}) + "\n"
    (run / "metrics.jsonl").write_text(line * 5000 + last)
    began_s = time.process_time()
    assert read()["run"].step == 1000
    assert time.process_time() - began_s < 1


def test_plain_text_has_one_line_per_run(make_run, read, tmp_path):
    make_run("s/0", steps=40, overrides=["a=1", "b=2"], gpus=["GPU-1234567890"])
    make_run("s/1", "failed", why="why not\nmore", overrides=["a=1", "b=3"])
    text = monitor.plain(list(read().values()), tmp_path, "AP50").splitlines()
    assert text[0].split() == [
        "run",
        "state",
        "step",
        "left",
        "loss",
        "AP50",
        "GPU",
        "load",
        "what",
    ]
    assert text[1].split() == [
        "s/0",
        "running",
        "40/1000",
        "8:00",
        "2.000",
        "0.2500",
        "12345678",
        "b=2",
    ]
    assert text[2].split()[-4:] == ["CPU", "b=3;", "why", "not"]
    assert text[3].startswith("2 runs below")


def test_the_command_writes_once_off_a_terminal_and_leaves_nothing(make_run, tmp_path):
    make_run("multirun/run", "completed", metrics={"AP50": 0.5})
    door = [sys.executable, "-X", "importtime", "-m", "sar_experiments", "task=monitor"]
    process = subprocess.run(door, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert "1 run below multirun: 1 completed" in process.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["multirun"]
    assert [path.name for path in (tmp_path / "multirun").iterdir()] == ["run"]
    assert "torch" not in process.stderr
    process = subprocess.run(
        [*door[:1], *door[3:], "--once", "source=nowhere"], cwd=tmp_path, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 2
    assert process.stderr.startswith(f"sar_experiments: source={tmp_path / 'nowhere'} is no folder")


def test_the_load_of_gpus_is_what_nvidia_smi_tells(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\n"
        "echo 'GPU-1, 97, 40960, 81920'\n"
        "echo 'GPU-2, [N/A], [N/A], [N/A]'\n"
        "echo 'something else'\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert monitor.gpu_loads() == {"GPU-1": "97% 40/80 GB", "GPU-2": ""}
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert monitor.gpu_loads() == {}
