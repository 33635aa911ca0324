"""Training stops at the first loss or gradient that is not finite, or a loss far too large.

The optimiser never sees it: the weights are those of the step before.
"""

import pytest
import torch
from detectron2.engine import SimpleTrainer

from sar_experiments.errors import DivergedError
from sar_experiments.train.guard import DivergenceGuard
from sar_experiments.train.loop import with_loss_scale

pytestmark = pytest.mark.detectron2


class Line(torch.nn.Module):
    """One weight; the batch says what loss comes out."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))

    def forward(self, batch):
        loss = (self.weight * batch[0]["factor"]).sum()
        if batch[0].get("bad_gradient"):  # finite forwards, infinite backwards
            loss = loss + torch.sqrt(torch.abs(self.weight[0] - self.weight[0].detach()))
        return {"loss_box": loss, "loss_cls": loss * 0.5}


def train_on(factors, *, max_loss=1e4, clip_full_norm=None, bad_gradient_at=None):
    batches = [[{"factor": float(f), "file_name": f"{i}.png"}] for i, f in enumerate(factors)]
    if bad_gradient_at is not None:
        batches[bad_gradient_at][0]["bad_gradient"] = True
    model = Line()
    trainer = SimpleTrainer(model, batches, torch.optim.SGD(model.parameters(), lr=0.1))
    guard = DivergenceGuard(model, max_loss=max_loss, clip_full_norm=clip_full_norm)
    trainer.register_hooks([guard])
    return model, trainer, len(batches)


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_update(factor):
    model, trainer, steps = train_on([1, factor, 1])
    with pytest.raises(DivergedError, match=r"loss \(loss_box, loss_cls\) is not finite") as stop:
        trainer.train(0, steps)
    assert model.weight.tolist() == pytest.approx([0.85, 0.85])  # one step of 0.1 * 1.5
    assert stop.value.step == 1
    assert stop.value.files == ["1.png"]
    assert set(stop.value.losses) == {"loss_box", "loss_cls"}


def test_a_gradient_that_is_not_finite_stops_before_the_update():
    model, trainer, steps = train_on([1, 1, 1], bad_gradient_at=1)
    with pytest.raises(DivergedError, match=r"gradient is not finite at step 1"):
        trainer.train(0, steps)
    assert torch.isfinite(model.weight).all()


def test_an_exploded_loss_stops_although_it_is_finite():
    _, trainer, steps = train_on([1, 1e6], max_loss=1e4)
    with pytest.raises(DivergedError, match=r"solver\.max_loss=10000 at step 1: .*solver\.base_lr"):
        trainer.train(0, steps)


def test_healthy_training_is_left_alone():
    model, trainer, steps = train_on([1, 1])
    trainer.train(0, steps)
    assert model.weight.tolist() == pytest.approx([0.7, 0.7])


def test_the_common_norm_is_clipped():
    model, trainer, steps = train_on([100], clip_full_norm=1.0)
    trainer.train(0, steps)
    moved = (1 - model.weight.detach()) / 0.1
    assert float(moved.norm()) == pytest.approx(1.0, abs=1e-4)


def test_the_gradient_norm_is_recorded_before_clipping():
    _, trainer, steps = train_on([2], clip_full_norm=1.0)
    trainer.train(0, steps)
    assert trainer.storage.latest()["grad_norm"][0] == pytest.approx(3 * 2**0.5)


@pytest.mark.parametrize(("loss_scale", "stops"), [(1.0, False), (1e-5, True)])
def test_an_overflow_of_fp16_is_forgiven_until_the_loss_scale_is_used_up(loss_scale, stops):
    _, trainer, steps = train_on([1], bad_gradient_at=0)
    trainer.grad_scaler = scaler = torch.amp.GradScaler("cpu", init_scale=loss_scale)
    scaler.scale(torch.ones(1))  # as AMPTrainer does in every step
    if stops:
        with pytest.raises(DivergedError, match="gradient is not finite"):
            trainer.train(0, steps)
    else:
        trainer.train(0, steps)


@pytest.mark.parametrize(("stored", "given"), [({}, 16.0), ({"scale": 4.0}, 4.0)])
def test_a_checkpoint_of_the_cpu_goes_on_with_a_fresh_loss_scale(stored, given):
    _, trainer, _ = train_on([1])
    state = {**trainer.state_dict(), "grad_scaler": stored}
    assert with_loss_scale(state, trainer) is state  # no AMP, nothing to do
    trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    assert with_loss_scale(state, trainer)["grad_scaler"]["scale"] == given
