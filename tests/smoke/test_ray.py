"""A sweep through Ray, which needs an environment of its own: SAR_RAY_PYTHON names its Python.

``python -m venv ray && ray/bin/pip install '.[ray]'`` makes one.
"""

import json
import os
import subprocess

import pytest

PYTHON = os.environ.get("SAR_RAY_PYTHON")

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.slow,
    pytest.mark.skipif(PYTHON is None, reason="SAR_RAY_PYTHON names no Python with Ray"),
]


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def run_of(sweep, number):
    """Return the folder of a job, once it is there."""
    return next(iter(sweep.glob(f"{number}_demo_*")), sweep / "none yet")


def test_a_sweep_through_ray_is_a_sweep_like_any_other(command, tmp_path):
    arguments = command(
        "--multirun", "hydra/launcher=ray", "hydra.launcher.ray.init.num_cpus=2",
        f"output={tmp_path / 'sweep'}", "solver.base_lr=0.01,1e3",
    )  # fmt: skip
    process = subprocess.run(
        [PYTHON, *arguments[1:]],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        timeout=900,
        check=False,
    )
    good, bad = (result_of(run_of(tmp_path / "sweep", number)) for number in (0, 1))
    assert (good["status"], bad["status"]) == ("completed", "diverged"), process.stdout
    assert process.returncode == 1
    assert bad["why"].split(":")[0] in process.stderr
    assert (tmp_path / "sweep" / "summary.csv").is_file()


def test_a_task_of_ray_leases_the_gpu_that_ray_gave_it(command, tmp_path):
    arguments = command(
        "--multirun", "hydra/launcher=ray", "hydra.launcher.ray.init.num_cpus=2",
        "hydra.launcher.ray.init.num_gpus=2", "hardware=gpu", f"output={tmp_path / 'sweep'}",
        "seed=1,2",
    )  # fmt: skip
    environment = {**os.environ, "SAR_GPU_LOCK_DIR": str(tmp_path)}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    process = subprocess.run(
        [PYTHON, *arguments[1:]],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=900,
        check=False,
    )
    results = [result_of(run_of(tmp_path / "sweep", number)) for number in (0, 1)]
    assert {tuple(each["gpus"]) for each in results} <= {("0",), ("1",)}, process.stdout
    # They are no GPUs, which the run notices itself.
    assert all("sees no GPU (CUDA_VISIBLE_DEVICES=" in each["why"] for each in results)
