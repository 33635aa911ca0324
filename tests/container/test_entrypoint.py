"""The entry point of the image as a process: on SIGTERM a run saves and ends within its grace."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
GRACE_S = 30  # conf/hardware/auto.yaml
OVERRIDES = (
    "usecase=demo",
    "hardware=cpu",
    "hardware.num_workers=2",
    "usecase.simulator.image_size_px=128",
    "usecase.simulator.train_images=24",
    "usecase.simulator.val_images=6",
    "usecase.simulator.test_images=3",
    "usecase.simulator.scene_size_px=0",
    "solver.max_iter=100000",
    "solver.warmup_iters=2",
    "solver.eval_period=0",
    "solver.checkpoint_period=10",
    "solver.ims_per_batch=2",
)


def entry_point():
    """Return the Dockerfile's ENTRYPOINT with this environment's door in place of the image's."""
    dockerfile = (CHECKOUT / "docker" / "Dockerfile").read_text()
    tini, dashes, door = json.loads(re.search(r"^ENTRYPOINT (\[.*\])$", dockerfile, re.M)[1])
    if shutil.which(tini) is None:
        pytest.skip(f"{tini} is not installed (Debian: apt install tini)")
    # -s: it collects orphans as process 1 does, without being it.
    return [tini, "-s", dashes, str(Path(sys.executable).with_name(door))]


def children(pid):
    """Return the processes below one, as the kernel lists them."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *children(child)]
    return found


@pytest.mark.slow
def test_sigterm_ends_a_run_as_interrupted_within_its_grace_and_leaves_no_process(tmp_path):
    folder = tmp_path / "run"
    command = [*entry_point(), *OVERRIDES, f"output={folder}"]
    command += [f"usecase.simulator.folder={tmp_path / 'data'}"]
    with subprocess.Popen(command, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}) as process:
        deadline = time.monotonic() + 240
        while not (folder / "last_checkpoint").is_file():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        below = children(process.pid)
        process.send_signal(signal.SIGTERM)
        code = process.wait(GRACE_S + 30)
    assert code == 130
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "interrupted"
    assert "before it could save" not in result["why"]
    assert len(below) >= 2  # the door and the run
    assert not [pid for pid in below if Path(f"/proc/{pid}").exists()]
