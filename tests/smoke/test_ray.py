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
    good, bad = (result_of(tmp_path / "sweep" / f"{number}_demo") for number in (0, 1))
    assert (good["status"], bad["status"]) == ("completed", "diverged"), process.stdout
    assert process.returncode == 1
    assert bad["why"].split(":")[0] in process.stderr
    assert (tmp_path / "sweep" / "summary.csv").is_file()
