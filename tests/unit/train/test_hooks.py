"""What Detectron2 keeps outside tensors survives a checkpoint, and validation leaves it alone."""

import pytest
import torch
from detectron2.engine import SimpleTrainer

from sar_experiments.evaluate.runner import mean_losses
from sar_experiments.train.hooks import LossNormalizer

pytestmark = pytest.mark.detectron2


class Dense(torch.nn.Module):
    """Divide its loss by a running number, as Detectron2's RetinaNet does."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, batch):
        old = getattr(self, "loss_normalizer", 100.0)
        self.loss_normalizer = 0.9 * old + 0.1 * batch[0]["positives"]
        return {"loss_cls": (self.weight * batch[0]["positives"]).sum() / self.loss_normalizer}


def trained(steps, start=0, state=None):
    torch.manual_seed(0)
    model = Dense()
    batches = [[{"positives": float(number)}] for number in range(start, steps)]
    trainer = SimpleTrainer(model, batches, torch.optim.SGD(model.parameters(), lr=0.1))
    trainer.register_hooks([LossNormalizer(model)])
    if state is not None:
        model.load_state_dict(state["model"])
        trainer.load_state_dict(state["trainer"])
    trainer.train(start, steps)
    return model, trainer


def test_a_resumed_dense_detector_divides_by_the_same_number():
    whole, _ = trained(8)
    model, trainer = trained(4)
    state = {"model": model.state_dict(), "trainer": trainer.state_dict()}
    resumed, _ = trained(8, start=4, state=state)
    assert resumed.loss_normalizer == whole.loss_normalizer
    assert torch.equal(resumed.weight, whole.weight)


def test_a_model_without_such_a_number_stays_without():
    model = torch.nn.Linear(1, 1)
    hook = LossNormalizer(model)
    hook.after_step()
    hook.load_state_dict(hook.state_dict())
    assert not hasattr(model, "loss_normalizer")


def test_the_loss_on_validation_data_does_not_move_it():
    model, _ = trained(3)
    before = model.loss_normalizer
    mean_losses(model, [[{"positives": 1000.0}]], seed=0)
    assert model.loss_normalizer == before
