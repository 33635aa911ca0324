"""Real runs on the simulator's images: real processes, real files."""

import json
import os
import subprocess
import sys

import pytest

SMALL_DATA = (
    "usecase=demo",
    "hardware=cpu",
    "hardware.num_workers=0",
    "usecase.simulator.image_size_px=128",
    "usecase.simulator.train_images=24",
    "usecase.simulator.val_images=6",
    "usecase.simulator.test_images=3",
    "usecase.simulator.scene_size_px=0",
    "usecase.simulator.seed=11",
)
SHORT = (
    "solver.optimizer=sgd",  # after twelve steps with it, scores differ enough to have one order
    "solver.base_lr=0.02",
    "solver.max_iter=12",
    "solver.warmup_iters=2",
    "solver.eval_period=6",
    "solver.checkpoint_period=4",
    "solver.log_period=2",
    "solver.ims_per_batch=2",
)


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory):
    """The simulator writes here once; later runs find it."""
    return tmp_path_factory.mktemp("simulated") / "small"


@pytest.fixture(scope="session")
def command(data_folder):
    """Arguments -> the command line of a short CPU run on small data."""

    def with_arguments(*arguments):
        door = [sys.executable, "-m", "sar_experiments"]
        return [*door, *SMALL_DATA, f"usecase.simulator.folder={data_folder}", *SHORT, *arguments]

    return with_arguments


@pytest.fixture(scope="session")
def without_torch(tmp_path_factory):
    """An environment in which importing PyTorch or Detectron2 fails."""
    site = tmp_path_factory.mktemp("site")
    for name in ("torch", "detectron2"):
        (site / f"{name}.py").write_text(f"raise ImportError('{name} must not be imported')")
    return {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(site)}


@pytest.fixture(scope="session")
def call(command, tmp_path_factory):
    """Run the command line to its end; returns the finished process with its output."""
    elsewhere = tmp_path_factory.mktemp("cwd")

    def run(*arguments, **options):
        return subprocess.run(
            command(*arguments),
            capture_output=True,
            text=True,
            cwd=elsewhere,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
            timeout=600,
            check=False,
            **options,
        )

    return run


@pytest.fixture(scope="session")
def trained(call, tmp_path_factory):
    """One finished training: its folder, its result, its output."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    process = call(f"output={folder}")
    assert process.returncode == 0, process.stdout + process.stderr
    return folder, json.loads((folder / "result.json").read_text()), process.stdout
