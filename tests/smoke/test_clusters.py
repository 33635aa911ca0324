"""A sweep through submitit: a job that is preempted saves, queues again and goes on exactly."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("submitit", reason="pip install 'sar-experiments[slurm]'")

pytestmark = [pytest.mark.detectron2, pytest.mark.slow]

SWEEP = ("solver.log_period=2,3", "solver.max_iter=30")  # the period changes no weight


def result_of(folder):
    try:
        return json.loads((folder / "result.json").read_text())
    except FileNotFoundError:
        return {"status": "missing"}


def weights_of(folder):
    return torch.load(folder / "model_final.pth", weights_only=True)["model"]


def wait_for(condition, timeout_s=240):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def run_of(sweep, number):
    """Return the folder of a job, once it is there."""
    return next(iter(sweep.glob(f"{number}_demo_*")), sweep / "none yet")


def test_a_preempted_job_goes_on_exactly(command, tmp_path):
    sweep = tmp_path / "sweep"
    arguments = ("--multirun", "hydra/launcher=slurm_local", f"output={sweep}", *SWEEP)
    process = subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    try:
        wait_for(lambda: (run_of(sweep, 0) / "last_checkpoint").exists())
        preempted = run_of(sweep, 0)
        before = result_of(preempted)
        task = parent_of(before["pid"])  # what Slurm would run; its handler is submitit's
        os.kill(task, signal.SIGTERM)
        os.kill(task, signal.SIGUSR2)
        output, _ = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0, output
    other = run_of(sweep, 1)
    logs = "".join(path.read_text() for path in sorted(sweep.glob(".submitit/*/*_log.*")))
    assert "interrupted after step" in (preempted / "train.log").read_text()
    assert "Requeued job" in logs
    assert "resumed after step" in (preempted / "train.log").read_text()
    assert result_of(preempted)["status"] == result_of(other)["status"] == "completed"
    assert result_of(preempted)["pid"] != before["pid"]
    one, two = weights_of(preempted), weights_of(other)
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert (sweep / "summary.csv").read_text().count("completed") == 2
