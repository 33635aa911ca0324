"""Runs on real GPUs: precisions, leases, exact resume, two GPUs for one run.

`make test-gpu` runs them; those for two GPUs are skipped where there is one.
"""

import json
import os
import signal
import subprocess
import time
from itertools import pairwise

import pytest
import torch

pytestmark = [pytest.mark.detectron2, pytest.mark.gpu]

GPU = ("hardware=gpu",)
TWO = ("hardware=gpus", "hardware.num_gpus=2")
EXACT = ("hardware.deterministic=true", "hardware.precision=fp32")
ALL_PROPOSALS = (
    # Nothing is drawn: every anchor and every proposal counts, the same number in each image.
    "d2.MODEL.RPN.BATCH_SIZE_PER_IMAGE=100000",
    "d2.MODEL.RPN.POSITIVE_FRACTION=1.0",
    "d2.MODEL.RPN.POST_NMS_TOPK_TRAIN=32",
    "model.roi_batch_size_per_image=100000",
    "d2.MODEL.ROI_HEADS.POSITIVE_FRACTION=1.0",
    "d2.MODEL.ROI_HEADS.PROPOSAL_APPEND_GT=false",
)


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def weights_of(folder):
    return torch.load(folder / "model_final.pth", weights_only=True, map_location="cpu")["model"]


def assert_close(one, two, *, rtol, atol):
    assert one.keys() == two.keys()
    for key in one:
        torch.testing.assert_close(one[key].float(), two[key].float(), rtol=rtol, atol=atol)


@pytest.fixture
def call_on_gpu(command):
    """Run the command line to its end, seeing the GPUs of this machine."""

    def run(*arguments):
        return subprocess.run(
            command(*arguments), capture_output=True, text=True, timeout=900, check=False
        )

    return run


@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16", "fp16"])
def test_a_run_completes_in_every_precision(call_on_gpu, tmp_path, precision):
    process = call_on_gpu(f"output={tmp_path / 'run'}", *GPU, f"hardware.precision={precision}")
    assert process.returncode == 0, process.stdout + process.stderr
    result = result_of(tmp_path / "run")
    assert result["status"] == "completed"
    assert [gpu[:4] for gpu in result["gpus"]] == ["GPU-"]
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert all(0 < json.loads(line).get("total_loss", 1) < 1e4 for line in lines)
    assert all(torch.isfinite(each.float()).all() for each in weights_of(tmp_path / "run").values())


def test_a_gpu_learns_what_a_cpu_does(call_on_gpu, tmp_path):
    few = (*ALL_PROPOSALS, "solver.max_iter=3", "solver.eval_period=0", "hardware.precision=fp32")
    for name, hardware in (("gpu", "hardware=gpu"), ("cpu", "hardware=cpu")):
        process = call_on_gpu(f"output={tmp_path / name}", *few, hardware)
        assert process.returncode == 0, process.stdout + process.stderr
    # TF32 in convolutions has 10 bits of mantissa.
    assert_close(weights_of(tmp_path / "gpu"), weights_of(tmp_path / "cpu"), rtol=0.05, atol=1e-2)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_run_goes_on_as_if_it_had_not(command, call_on_gpu, tmp_path, number):
    arguments = (*GPU, *EXACT, "solver.max_iter=40", "solver.eval_period=0")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert call_on_gpu(f"output={whole}", *arguments).returncode == 0
    process = subprocess.Popen(command(f"output={stopped}", *arguments), stdout=subprocess.DEVNULL)
    wait_for((stopped / "last_checkpoint").exists)
    os.kill(result_of(stopped)["pid"], number)
    assert process.wait(120) in (1, 130)
    resumed = call_on_gpu(f"output={stopped}", *arguments)
    assert "resumed after step" in resumed.stdout, resumed.stdout + resumed.stderr
    # RoIAlign's backward pass adds in any order: close, not equal.
    assert_close(weights_of(whole), weights_of(stopped), rtol=0.05, atol=1e-2)


def test_two_runs_of_a_sweep_never_share_a_gpu(call_on_gpu, tmp_path):
    process = call_on_gpu("--multirun", f"output={tmp_path / 'sweep'}", *GPU, "seed=1,2,3")
    assert process.returncode == 0, process.stdout + process.stderr
    results = [result_of(path.parent) for path in (tmp_path / "sweep").glob("*/result.json")]
    assert len(results) == 3
    for gpu in {each["gpus"][0] for each in results}:
        runs = sorted((each["started"], each["ended"]) for each in results if each["gpus"] == [gpu])
        assert all(before[1] <= after[0] for before, after in pairwise(runs))


@pytest.mark.gpu(count=2)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_two_gpus_share_a_run(call_on_gpu, tmp_path, precision):
    folder = tmp_path / "run"
    process = call_on_gpu(f"output={folder}", *TWO, f"hardware.precision={precision}")
    assert process.returncode == 0, process.stdout + process.stderr
    assert "(1 on each of 2 processes)" in process.stdout
    assert "norms: BN over all 2 processes (SyncBN)" in process.stdout
    result = result_of(folder)
    assert len(set(result["gpus"])) == 2
    single = call_on_gpu("task=evaluate", f"weights={folder}", f"output={tmp_path / 'one'}", *GPU)
    assert single.returncode == 0, single.stdout + single.stderr
    assert result_of(tmp_path / "one")["metrics"] == pytest.approx(
        result["metrics"], abs=0.02, nan_ok=True
    )


@pytest.mark.gpu(count=2)
def test_two_gpus_with_two_images_learn_what_one_with_four_does(call_on_gpu, tmp_path):
    arguments = (
        *ALL_PROPOSALS, *EXACT, "solver.ims_per_batch=4", "solver.max_iter=4",
        "solver.eval_period=0",
    )  # fmt: skip
    for name, hardware in (("one", GPU), ("two", TWO)):
        process = call_on_gpu(f"output={tmp_path / name}", *arguments, *hardware)
        assert process.returncode == 0, process.stdout + process.stderr
    assert_close(weights_of(tmp_path / "one"), weights_of(tmp_path / "two"), rtol=0.05, atol=1e-2)


@pytest.mark.gpu(count=2)
def test_a_killed_rank_ends_the_run_within_a_minute(command, tmp_path):
    folder = tmp_path / "run"
    arguments = (*TWO, "solver.max_iter=100000", "solver.eval_period=0")
    process = subprocess.Popen(command(f"output={folder}", *arguments), stdout=subprocess.DEVNULL)
    wait_for((folder / "last_checkpoint").exists)
    os.kill(ranks_of(folder)[1], signal.SIGKILL)
    assert process.wait(60) == 1
    assert "process 1 of 2 was killed by SIGKILL" in result_of(folder)["why"]


def ranks_of(folder):
    """Return the process ids of a run's ranks, in order."""
    launcher = result_of(folder)["pid"]
    children = subprocess.run(
        ["pgrep", "-P", str(launcher), "-f", "spawn_main"],
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(int(pid) for pid in children.stdout.split())


def wait_for(condition, timeout_s=300):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.05)
