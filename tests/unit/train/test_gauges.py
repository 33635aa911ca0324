"""Gradients are recorded as the optimiser used them; the GPU is asked without waiting; inputs
are shown with their boxes."""

import os
import time

import numpy as np
import pytest

pytest.importorskip("detectron2")

import torch
from detectron2.config import get_cfg
from detectron2.engine import SimpleTrainer
from detectron2.solver.build import maybe_add_gradient_clipping
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from sar_experiments.train.gauges import ClippedGradient, UtilisationProbe, input_picture
from sar_experiments.train.guard import DivergenceGuard

pytestmark = pytest.mark.detectron2


class Steep(torch.nn.Module):
    """Four weights with gradients of 100."""

    def __init__(self):
        super().__init__()
        self.weights = torch.nn.Parameter(torch.ones(4))

    def forward(self, _batch):
        return {"loss": 100 * self.weights.sum()}


def test_the_gradient_norm_is_recorded_before_and_after_clipping():
    cfg = get_cfg()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "value"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 1.0
    model = Steep()
    optimizer = maybe_add_gradient_clipping(cfg, torch.optim.SGD)(model.parameters(), lr=0.1)
    trainer = SimpleTrainer(model, [[{}]] * 4, optimizer)
    trainer.register_hooks(
        [
            DivergenceGuard(model, max_loss=1e6, clip_full_norm=None),
            ClippedGradient(model, period=2),
        ]
    )
    trainer.train(0, 4)
    histories = trainer.storage.histories()
    assert histories["grad_norm"].latest() == pytest.approx(200)
    assert histories["grad_norm_clipped"].latest() == pytest.approx(2)
    assert len(histories["grad_norm_clipped"].values()) == 2  # of four steps


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """A program of that name, which answers what it is told to."""

    def answers(script):
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    return answers


def asked(probe, timeout_s=20.0):
    """Ask until there is an answer."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        answer = probe.latest()
        if answer is not None:
            return answer
        time.sleep(0.01)
    return None


def test_the_utilisation_is_that_of_the_gpu_asked_about(nvidia_smi):
    nvidia_smi('[ "$2" = GPU-7 ] && echo 87')
    probe = UtilisationProbe("GPU-7")
    assert probe.latest() is None  # nothing was asked yet
    assert asked(probe) == pytest.approx(0.87)
    probe.close()


def test_a_slow_answer_holds_no_step_up_and_none_is_no_error(nvidia_smi):
    nvidia_smi("exec sleep 60")
    probe = UtilisationProbe("GPU-7")
    assert [probe.latest() for _ in range(3)] == [None] * 3
    probe.close()
    nvidia_smi("echo '[N/A]'")
    assert asked(UtilisationProbe("GPU-7"), timeout_s=0.5) is None


def test_without_nvidia_smi_nothing_is_asked(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert asked(UtilisationProbe("0"), timeout_s=0.05) is None


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_an_input_is_shown_with_its_boxes(channels):
    instances = Instances((60, 80))
    instances.gt_boxes = Boxes(torch.tensor([[20.0, 30, 40, 50]]))
    instances.gt_classes = torch.tensor([1])
    image = torch.full((channels, 60, 80), 0.25)
    picture = input_picture({"image": image, "instances": instances, "file_name": "a/b.tif"})
    assert picture.shape == (60, 80, 3)
    assert np.ptp(picture[40, 20].astype(int)) > 50  # the side of the box is coloured
    assert np.ptp(picture[40, 30].astype(int)) == 0  # what is in it is not


@pytest.mark.gpu(count=1)
def test_a_gpu_says_how_full_and_busy_it_is():
    from sar_experiments.train.gauges import GpuUse

    hook = GpuUse(period=1)

    class Trainer:
        iter, max_iter = 0, 100
        storage = EventStorage()

    hook.trainer = Trainer()
    hook.before_train()
    for _ in range(30):
        torch.ones(1000, 1000, device="cuda").matmul(torch.ones(1000, 1000, device="cuda"))
        hook.after_step()
        time.sleep(0.05)
    hook.after_train()
    histories = Trainer.storage.histories()
    assert histories["gpu/peak_memory_gb"].latest() > 0.004
    assert 0 <= histories["gpu/utilisation"].latest() <= 1
