"""Stopped by any signal and resumed by what was printed, a run ends as if it had never stopped.

Extended, it has the schedule of the longer run: with a multistep schedule the same weights.
"""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

pytestmark = [pytest.mark.detectron2, pytest.mark.slow]


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def weights_of(folder):
    return torch.load(folder / "model_final.pth", weights_only=True)["model"]


def logged(folder, name):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["iteration"], line[name]) for line in lines if name in line]


def shown(folder, tag):
    return [each.step for each in EventAccumulator(str(folder)).Reload().Scalars(tag)]


def assert_same_weights(one, other):
    ours, theirs = weights_of(one), weights_of(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.fixture
def bare(tmp_path):
    """Arguments -> the finished process of a command that says nothing else, in another folder."""

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "sar_experiments", *arguments],
            capture_output=True, text=True, cwd=tmp_path, check=False, timeout=600,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        )  # fmt: skip

    return run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_run_ends_alike_by_the_printed_command(trained, command, tmp_path, number):
    whole, _, _ = trained
    folder = tmp_path / "it's stopped"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    quoted = str(folder).replace("'", "\\'")
    process = subprocess.Popen(
        command(f"output='{quoted}'"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment,
    )  # fmt: skip
    while not (folder / "last_checkpoint").is_file():
        assert process.poll() is None
        time.sleep(0.05)
    if number is signal.SIGKILL:
        os.kill(result_of(folder)["pid"], number)
    else:
        process.send_signal(number)
    _, said = process.communicate(timeout=240)
    assert process.returncode == (1 if number is signal.SIGKILL else 130)
    assert "To continue:" in said
    pasted = said.strip().splitlines()[-1]
    recorded = (folder / ".hydra" / "overrides.yaml").read_text()
    resumed = subprocess.run(
        pasted, shell=True, capture_output=True, text=True, cwd="/", env=environment, check=False
    )
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "resumed after step" in resumed.stdout
    assert_same_weights(folder, whole)
    assert result_of(folder)["metrics"] == result_of(whole)["metrics"]
    # A stop between two lines adds one; there is no hole, and no step twice.
    for steps, expected in (
        ([step for step, _ in logged(folder, "total_loss")],
         [step for step, _ in logged(whole, "total_loss")]),
        (shown(folder, "total_loss"), shown(whole, "total_loss")),
    ):  # fmt: skip
        assert steps == sorted(set(steps))
        assert set(steps) >= set(expected)
    # An evaluation that the signal cut short is caught up on first thing, at step 6.
    assert shown(folder, "val/AP50") in ([5, 11], [6, 11])
    assert (folder / ".hydra" / "overrides.yaml").read_text() == recorded


def test_an_extended_multistep_run_equals_the_longer_one(call, bare, tmp_path):
    schedule = ("solver.schedule=multistep", "solver.steps=[4]")
    longer, extended = tmp_path / "longer", tmp_path / "extended"
    assert call(f"output={longer}", *schedule).returncode == 0
    assert call(f"output={extended}", *schedule, "solver.max_iter=6").returncode == 0
    done = bare(f"output={extended}", "solver.max_iter=12")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "extended from 6 to 12 steps" in done.stdout
    assert_same_weights(extended, longer)
    assert result_of(extended)["metrics"] == result_of(longer)["metrics"]
    steps = [step for step, _ in logged(extended, "total_loss")]
    assert steps == sorted(set(steps))
    assert shown(extended, "val/AP50") == [5, 11]
    again = bare(f"resume={extended}")
    assert again.returncode == 0
    assert "completed already" in again.stdout


def test_an_extended_cosine_run_has_the_rate_of_the_longer_cosine(trained, call, bare, tmp_path):
    whole, _, _ = trained
    extended = tmp_path / "extended"
    assert call(f"output={extended}", "solver.max_iter=6").returncode == 0
    assert bare(f"output={extended}", "solver.max_iter=12").returncode == 0
    rates, expected = dict(logged(extended, "lr")), dict(logged(whole, "lr"))
    for step in (7, 9, 11):
        assert rates[step] == pytest.approx(expected[step], rel=1e-6)
    assert rates[3] < expected[3]
