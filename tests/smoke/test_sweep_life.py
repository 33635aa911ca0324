"""Sweeps of stand-in jobs: real doors, workers, processes, locks and signals on made-up GPUs.

However jobs and sweeps end, the others go on, nothing is run twice, nothing is left behind.
"""

import contextlib
import csv
import fcntl
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

STANDIN = Path(__file__).parents[2] / "benchmarks" / "standin"
DOOR = (sys.executable, "-m", "sar_experiments")


class Sweeps:
    """Starts doors whose processes are all marked, so that survivors can be found."""

    def __init__(self, folder):
        self.folder = folder
        self.locks = folder / "locks"
        self.mark = f"SAR_TEST_MARK={folder}"
        self.environment = {
            **os.environ,
            "SAR_CONF_PATH": str(STANDIN),
            "PYTHONPATH": str(STANDIN),
            "SAR_GPUS": "gpu0,gpu1",
            "SAR_GPU_LOCK_DIR": str(self.locks),
            "SAR_TEST_MARK": str(folder),
            "TMPDIR": str(folder),
        }

    def start(self, *arguments, name="sweep", **environment):
        """Start a sweep in a session of its own, as a terminal would."""
        command = [*DOOR, "--multirun", "task=standin", "hardware.device=cuda", *arguments]
        return subprocess.Popen(
            [*command, f"output={self.folder / name}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            env={**self.environment, **environment},
            start_new_session=True,
        )

    def run(self, *arguments, name="sweep", **environment):
        process = self.start(*arguments, name=name, **environment)
        output, _ = process.communicate(timeout=120)
        return process.returncode, output

    def results(self, name="sweep"):
        found = sorted((self.folder / name).glob("*/result.json"))
        return {path.parent.name: json.loads(path.read_text()) for path in found}

    def by_ending(self, name="sweep"):
        """Return the value of the swept ending -> result."""
        return {
            value_of(result, "task.options.ending"): result
            for result in self.results(name).values()
        }

    def spans(self, name="sweep"):
        found = sorted((self.folder / name).glob("*/spans.jsonl"))
        return [json.loads(line) for path in found for line in path.read_text().splitlines()]

    def wait_for_running(self, count, name="sweep"):
        wait_until(lambda: len(list((self.folder / name).glob("*/helper.pid"))) >= count)

    def survivors(self):
        return [
            p.name for p in Path("/proc").iterdir() if p.name.isdigit() and self._is_marked(p.name)
        ]

    def _is_marked(self, pid):
        try:
            text = Path("/proc", pid, "environ").read_bytes()
        except OSError:
            return False
        return self.mark.encode() in text

    def leases(self):
        return [path.name for path in self.locks.glob("gpu-*.lock") if is_locked(path)]


def value_of(result, key):
    return next(o.partition("=")[2] for o in result["overrides"] if o.startswith(f"{key}="))


def is_locked(path):
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def sweeps(tmp_path):
    sweeps = Sweeps(tmp_path)
    yield sweeps
    for pid in sweeps.survivors():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


ENDINGS = "task.options.ending=completed,raise,exit,kill,diverge"


def test_jobs_that_fail_are_told_at_once_and_repeated_alone(sweeps):
    code, output = sweeps.run(ENDINGS, "solver.base_lr=0.004")
    assert code == 1
    ends = {e: (r["status"], r["cause"]) for e, r in sweeps.by_ending().items()}
    assert ends == {
        "completed": ("completed", ""),
        "raise": ("failed", "exception"),
        "exit": ("failed", "exit"),
        "kill": ("failed", "killed"),
        "diverge": ("diverged", ""),
    }
    assert "failed after" in output
    assert "  | ValueError: told to raise" in output  # the last lines of its log
    assert output.index("ValueError: told to raise") < output.index("sweep of 5 jobs")
    assert "1 completed, 3 failed" in output or "3 failed" in output
    assert "Traceback" not in "".join(line for line in output.splitlines() if "  | " not in line)

    before = sweeps.results()
    code, output = sweeps.run(ENDINGS, "solver.base_lr=0.004")
    after = sweeps.results()
    again = {
        value_of(after[job], "task.options.ending") for job in before if before[job] != after[job]
    }
    assert again == {"raise", "exit", "kill"}
    assert "sweep.rerun_diverged=true repeats it" in output
    assert code == 1
    assert [each["status"] for each in sweeps.by_ending()["kill"]["attempts"]] == ["failed"]


def test_jobs_are_known_by_what_they_are_not_by_their_number(sweeps):
    code, _ = sweeps.run("solver.base_lr=0.003,0.001")
    assert code == 0
    before = sweeps.results()
    code, output = sweeps.run("solver.base_lr=0.001,0.002,0.003", "hardware.num_workers=1")
    after = sweeps.results()
    assert code == 0
    assert {name: after[name] for name in before} == before
    assert output.count("is completed already") == 2
    assert len(after) == 3
    with (sweeps.folder / "sweep" / "summary.csv").open() as file:
        rates = {row["job"]: row["solver.base_lr"] for row in csv.DictReader(file)}
    assert sorted(rates.values()) == ["0.001", "0.002", "0.003"]
    for job, rate in rates.items():
        config = (sweeps.folder / "sweep" / job / ".hydra" / "config.yaml").read_text()
        assert f"base_lr: {rate}\n" in config


@pytest.mark.slow
def test_a_mistake_in_one_job_costs_that_job_alone(sweeps):
    code, output = sweeps.run("solver.base_lr=0.1,-1")
    assert code == 2
    assert "refused: solver.base_lr=-1.0 must be above 0" in output
    assert [r["status"] for r in sweeps.results().values()] == ["completed"]


@pytest.mark.slow
def test_a_named_sweep_has_one_folder(sweeps):
    command = [*DOOR, "-m", "task=standin", "hardware=cpu", "sweep.name=rates", "seed=1,2"]
    for _ in range(2):
        process = subprocess.run(
            command, cwd=sweeps.folder, env=sweeps.environment, capture_output=True, text=True,
            check=False, timeout=120,
        )  # fmt: skip
        assert process.returncode == 0, process.stdout + process.stderr
    assert "2 completed" in process.stderr
    assert len(sweeps.results("multirun/rates")) == 2
    assert len(sweeps.spans("multirun/rates")) == 2


@pytest.mark.slow
def test_no_gpu_has_two_jobs_and_none_idles_while_one_waits(sweeps):
    second = sweeps.start("task.options.seconds=0.6,0.7", name="second")
    code, output = sweeps.run("task.options.seconds=3,0.2,0.3,0.4,0.5")
    assert code == 0, output
    assert second.wait(60) == 0
    spans = sweeps.spans() + sweeps.spans("second")
    assert len(spans) == 7
    for gpu in ("gpu0", "gpu1"):
        own = sorted((s["began"], s["ended"]) for s in spans if s["gpus"] == gpu)
        assert own
        assert all(end <= start for (_, end), (start, _) in pairwise(own))
    (long,) = [s for s in spans if s["ended"] - s["began"] > 2.5]
    beside = [s for s in spans if s["gpus"] != long["gpus"] and s["began"] < long["ended"]]
    assert len(beside) > 1  # the other GPU went on


@pytest.mark.slow
def test_the_same_sweep_started_twice_shares_the_work(sweeps):
    other = sweeps.start("seed=1,2,3", "task.options.seconds=0.7")
    code, output = sweeps.run("seed=1,2,3", "task.options.seconds=0.7")
    assert (code, other.wait(60)) == (0, 0), output
    assert len(sweeps.spans()) == 3


@pytest.mark.slow
def test_jobs_at_once_share_the_cores(sweeps):
    code, output = sweeps.run("seed=1,2", "hardware.device=cpu", "hardware.jobs=2")
    assert code == 0, output
    share = str(max(1, len(os.sched_getaffinity(0)) // 2))
    spans = sweeps.spans()
    assert {(s["cores"], s["threads"], s["gpus"]) for s in spans} == {(share, share, "")}


@pytest.mark.parametrize("how", ["terminate", pytest.param("ctrl-c", marks=pytest.mark.slow)])
def test_a_stopped_sweep_saves_and_leaves_nothing(sweeps, how):
    process = sweeps.start("seed=1,2,3,4,5,6", "task.options.seconds=60")
    sweeps.wait_for_running(2)
    if how == "ctrl-c":
        os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the whole group
    else:
        process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert not sweeps.survivors()
    assert not sweeps.leases()
    assert [r["status"] for r in sweeps.results().values()] == ["interrupted"] * 2
    assert all(r["ended"] for r in sweeps.results().values())
    assert len(list(sweeps.folder.glob("sweep/*/saved"))) == 2
    assert not list(sweeps.folder.glob("sar-sweep-*"))
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_second_ctrl_c_kills_jobs_that_do_not_listen(sweeps):
    process = sweeps.start("seed=1,2,3", "task.options.seconds=60", "task.options.ending=deaf")
    sweeps.wait_for_running(2)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=25)  # less than hardware.grace_s
    assert process.returncode == 130, output
    assert not sweeps.survivors()
    assert not sweeps.leases()


@pytest.mark.slow
def test_a_killed_sweep_keeps_its_leases_until_its_jobs_have_saved(sweeps):
    process = sweeps.start("seed=1,2,3,4", "task.options.seconds=60")
    sweeps.wait_for_running(2)
    assert len(sweeps.leases()) == 2
    process.kill()
    process.wait()
    wait_until(lambda: not sweeps.survivors(), 30)
    assert not sweeps.leases()
    assert [r["status"] for r in sweeps.results().values()] == ["interrupted"] * 2


@pytest.mark.slow
def test_a_job_out_of_memory_is_tried_again_in_more_parts(sweeps):
    code, output = sweeps.run(
        "task.options.ending=oom", "task.options.fits=4,64", "sweep.retries=2",
        "solver.ims_per_batch=8",
    )  # fmt: skip
    assert code == 1
    fits = {value_of(r, "task.options.fits"): r for r in sweeps.results().values()}
    assert fits["4"]["status"] == "completed"
    assert fits["4"]["accumulate_steps"] == 4
    tried = [(each["cause"], each["accumulate_steps"]) for each in fits["4"]["attempts"]]
    assert tried == [("oom", None), ("oom", 2)]
    assert (fits["64"]["status"], fits["64"]["cause"]) == ("failed", "oom")
    assert "trying again, each batch in 2 parts (1 more tries left)" in output


@pytest.mark.slow
def test_a_killed_job_is_tried_again_as_often_as_asked(sweeps):
    code, _ = sweeps.run("task.options.ending=kill,raise", "sweep.retries=2")
    assert code == 1
    assert len(sweeps.by_ending()["kill"]["attempts"]) == 2
    assert sweeps.by_ending()["raise"]["attempts"] == []


SEARCH = ("search=ships", "hydra.sweeper.n_jobs=2")


def trials(sweeps):
    with contextlib.closing(sqlite3.connect(sweeps.folder / "sweep" / "optuna.db")) as base:
        return [state for (state,) in base.execute("SELECT state FROM trials ORDER BY number")]


@pytest.mark.slow
def test_a_search_goes_on_where_it_was_stopped_with_the_same_trials(sweeps):
    process = sweeps.start(*SEARCH, "sweep.trials=3", "task.options.seconds=60")
    sweeps.wait_for_running(2)
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert trials(sweeps) == ["RUNNING"] * 2
    stopped = sweeps.results()
    short = ("task.options.seconds=60", "sweep.trials=3")
    code, output = sweeps.run(*SEARCH, *short, SAR_STANDIN_SECONDS="0.1")
    assert code == 0, output
    assert trials(sweeps) == ["COMPLETE"] * 3
    after = sweeps.results()
    assert all(after[job]["attempts"] for job in stopped)
    assert len(after) == 3
    code, output = sweeps.run(*SEARCH, *short)
    assert code == 0, output
    assert sweeps.results() == after


@pytest.mark.slow
def test_a_search_goes_on_when_trials_fail_and_finds_the_largest(sweeps):
    code, output = sweeps.run(
        "hydra/sweeper=optuna", "hydra.sweeper.n_jobs=2", "sweep.trials=4",
        "hydra/sweeper/sampler=random", "hydra.sweeper.sampler.seed=1",
        "task.options.ending=completed,raise", "task.options.AP50=interval(0.1,0.9)",
    )  # fmt: skip
    assert code == 0, output
    assert len(trials(sweeps)) == 4
    assert set(trials(sweeps)) == {"COMPLETE", "FAIL"}
    reached = [result["metrics"].get("AP50", 0.0) for result in sweeps.results().values()]
    found = (sweeps.folder / "sweep" / "optimization_results.yaml").read_text()
    assert f"best_value: {max(reached)}" in found
