"""Two processes share a run as two GPUs would: the same steps, one decision, one end.

On CPUs they talk through gloo; all but the arithmetic is what CUDA runs go through.
"""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from sar_experiments import run_folder

pytestmark = [pytest.mark.detectron2, pytest.mark.slow]

TWO = ("hardware.cpu_processes=2",)
LONG = ("solver.max_iter=100000", "solver.eval_period=0", "solver.checkpoint_period=2")


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def weights_of(path):
    return torch.load(path, weights_only=True)["model"]


def steps_of(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["iteration"] for line in lines]


def wait_for(condition, timeout_s=120):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def ranks_of(folder):
    """Return the process ids of a run's ranks, in order; empty before there are two."""
    launcher = result_of(folder)["pid"]
    found = []
    for pid in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text():
            found.append(int(pid))
    return sorted(found)


@pytest.fixture(scope="module")
def shared(call, tmp_path_factory):
    """A finished run of two processes: its folder and its output."""
    folder = tmp_path_factory.mktemp("shared") / "run"
    process = call(f"output={folder}", *TWO)
    assert process.returncode == 0, process.stdout + process.stderr
    return folder, process.stdout


@pytest.fixture
def start(command):
    """Start a run of two processes and wait for its first checkpoint."""
    started = []

    def begin(folder, *arguments):
        process = subprocess.Popen(
            command(f"output={folder}", *TWO, *arguments),
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        )
        started.append(process)
        wait_for((folder / "last_checkpoint").exists)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def test_a_shared_run_leaves_what_a_single_one_does(shared, trained):
    folder, output = shared
    single, result, _ = trained

    def names(of):
        return {path.name for path in of.iterdir() if not path.name.startswith("events.")}

    assert names(folder) == names(single)
    assert set(result_of(folder)["metrics"]) == set(result["metrics"])
    assert steps_of(folder) == steps_of(single)
    assert "12 steps of 2 images (1 on each of 2 processes)" in output
    assert "not scaled" in output
    assert output.count("24 images") == 1
    assert "Traceback" not in output
    assert "Warning" not in output


def test_checkpoints_of_shared_runs_are_those_of_single_ones(shared, call, tmp_path):
    folder, _ = shared
    again = call("task=evaluate", f"weights={folder}", f"output={tmp_path / 'single'}")
    assert again.returncode == 0, again.stderr
    expected = result_of(folder)["metrics"]
    assert result_of(tmp_path / "single")["metrics"] == pytest.approx(expected, abs=1e-6)


def test_an_evaluation_by_two_finds_the_same(trained, call, tmp_path):
    folder, result, _ = trained
    shared = call("task=evaluate", f"weights={folder}", f"output={tmp_path / 'eval'}", *TWO)
    assert shared.returncode == 0, shared.stderr
    assert result_of(tmp_path / "eval")["metrics"] == pytest.approx(result["metrics"], abs=1e-6)


ALL_PROPOSALS = (
    # Nothing is drawn: every anchor and every proposal counts, the same number in each image.
    "d2.MODEL.RPN.BATCH_SIZE_PER_IMAGE=100000",
    "d2.MODEL.RPN.POSITIVE_FRACTION=1.0",
    "d2.MODEL.RPN.POST_NMS_TOPK_TRAIN=32",
    "model.roi_batch_size_per_image=100000",
    "d2.MODEL.ROI_HEADS.POSITIVE_FRACTION=1.0",
    "d2.MODEL.ROI_HEADS.PROPOSAL_APPEND_GT=false",
)


@pytest.mark.parametrize("norm", ["GN", "BN"])
def test_two_with_two_images_learn_what_one_with_four_does(call, tmp_path, norm):
    arguments = (
        *ALL_PROPOSALS, f"d2.MODEL.RESNETS.NORM={norm}", f"d2.MODEL.FPN.NORM={norm}",
        "d2.MODEL.FPN.OUT_CHANNELS=64",
        "solver.ims_per_batch=4", "solver.max_iter=4", "solver.eval_period=0",
    )  # fmt: skip
    for name, count in (("one", 1), ("two", 2)):
        process = call(f"output={tmp_path / name}", *arguments, f"hardware.cpu_processes={count}")
        assert process.returncode == 0, process.stdout + process.stderr
    one, two = (weights_of(tmp_path / name / "model_final.pth") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for key in one:
        if key.endswith("num_batches_tracked"):  # Detectron2's shared norm does not count
            continue
        # ... and averages the variance of the batch where PyTorch's takes n / (n - 1) of it.
        rtol = 1e-2 if key.endswith("running_var") else 1e-3
        torch.testing.assert_close(two[key], one[key], rtol=rtol, atol=1e-5)


def test_a_killed_shared_run_ends_with_the_same_weights(shared, start, call, tmp_path):
    uninterrupted, _ = shared
    folder = tmp_path / "killed"
    process = start(folder)
    os.kill(result_of(folder)["pid"], signal.SIGKILL)
    # The ranks outlive their parent by the grace they have to save; who writes last is open.
    ending = process.wait(60), result_of(folder)["status"]
    assert ending in ((1, "failed"), (130, "interrupted"))
    resumed = call(f"output={folder}", *TWO)
    assert "resumed after step" in resumed.stdout, resumed.stdout + resumed.stderr
    before, after = (weights_of(f / "model_final.pth") for f in (uninterrupted, folder))
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert result_of(folder)["metrics"] == result_of(uninterrupted)["metrics"]


@pytest.mark.parametrize("whom", ["supervisor", "first rank", "second rank"])
def test_whoever_gets_the_signal_all_stop_after_the_same_step(start, tmp_path, whom):
    folder = tmp_path / "stopped"
    process = start(folder, *LONG)
    ranks = ranks_of(folder)
    pids = {"supervisor": process.pid, "first rank": ranks[0], "second rank": ranks[1]}
    os.kill(pids[whom], signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert result_of(folder)["status"] == "interrupted"
    assert output.count("checkpoint written") == 1
    assert not any(run_folder.process_start(pid) for pid in ranks)
    checkpoints = list(folder.glob("model_0*.pth"))
    assert [path.name for path in checkpoints] == [(folder / "last_checkpoint").read_text()]


def test_a_shared_run_goes_on_alone_with_a_word_about_it(start, call, tmp_path):
    folder = tmp_path / "stopped"
    process = start(folder, "solver.max_iter=60", "solver.eval_period=0")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert result_of(folder)["status"] == "interrupted"
    alone = call(f"output={folder}", "solver.max_iter=60", "solver.eval_period=0")
    assert alone.returncode == 0, alone.stdout + alone.stderr
    assert "the checkpoint is of 2 processes, now there are 1" in alone.stdout
    assert result_of(folder)["status"] == "completed"


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_ends_the_run_at_once_with_the_reason(start, tmp_path, victim):
    folder = tmp_path / "killed"
    process = start(folder, *LONG)
    ranks = ranks_of(folder)
    os.kill(ranks[victim], signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    result = result_of(folder)
    assert process.returncode == 1
    assert (result["status"], result["cause"]) == ("failed", "killed")
    assert result["why"].startswith(f"process {victim} of 2 was killed by SIGKILL"), result["why"]
    assert result["why"] in output
    assert not any(run_folder.process_start(pid) for pid in ranks)


BROKEN = """
from albumentations import ImageOnlyTransform
from detectron2.utils import comm

class BreaksOnOneRank(ImageOnlyTransform):
    def __init__(self, rank, kind):
        super().__init__(p=1.0)
        self.rank, self.kind = rank, kind
    def apply(self, img, **params):
        if comm.get_rank() == self.rank:
            if self.kind == "user":
                from sar_experiments.errors import DatasetError
                raise DatasetError("this image cannot be read")
            import torch
            raise torch.OutOfMemoryError("CUDA out of memory")
        return img
"""


@pytest.mark.parametrize(
    ("kind", "rank", "code", "why"),
    [("user", 0, 2, "this image cannot be read"), ("oom", 1, 1, "out of GPU memory")],
)
def test_what_one_rank_raises_is_the_runs_reason(command, tmp_path, kind, rank, code, why):
    (tmp_path / "broken_augmentation.py").write_text(BROKEN)
    folder = tmp_path / "run"
    target = f"_target_: broken_augmentation.BreaksOnOneRank, rank: {rank}, kind: {kind}"
    process = subprocess.run(
        command(f"output={folder}", *TWO, *LONG, f"+augment.transforms.broken={{{target}}}"),
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    result = result_of(folder)
    assert process.returncode == code, process.stdout + process.stderr
    assert (result["status"], result["cause"]) == ("failed", kind)
    assert why in result["why"]
    assert why in process.stdout
    assert "Traceback" not in process.stdout + process.stderr


def test_divergence_on_any_rank_stops_all(call, tmp_path):
    folder = tmp_path / "diverged"
    process = call(
        f"output={folder}", *TWO, "solver.base_lr=1e3", "solver.max_iter=400",
        "solver.warmup_iters=0",
    )  # fmt: skip
    result = result_of(folder)
    assert process.returncode == 1
    assert result["status"] == "diverged"
    assert result["details"]["files"]
    assert "solver.base_lr" in process.stdout
