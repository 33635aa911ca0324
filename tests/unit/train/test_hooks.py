"""What Detectron2 keeps outside tensors survives a checkpoint, and validation leaves it alone."""

import pytest
import torch
from detectron2.engine import SimpleTrainer

from sar_experiments.evaluate.runner import mean_losses
from sar_experiments.train.hooks import LossNormalizer, Validation

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


class Kept:
    """Stands in for the checkpointer: notes at which steps the best one was written."""

    def __init__(self, folder):
        self.save_dir, self.steps = str(folder), []

    def save_whole(self, name, *, step):
        self.steps.append(step)


def validated(values, folder, *, patience=0):
    """Train as many steps as there are values of AP50, evaluated after each."""
    kept, left = Kept(folder), iter(values)
    torch.manual_seed(0)
    model = Dense()
    batches = [[{"positives": 1.0}] for _ in values]
    trainer = SimpleTrainer(model, batches, torch.optim.SGD(model.parameters(), lr=0.1))
    validation = Validation(
        lambda _: {"AP50": next(left)}, kept, period=1, metric="AP50", patience=patience
    )
    trainer.register_hooks([validation])
    trainer.train(0, len(values))
    return validation, kept


def test_without_objects_to_measure_by_the_last_checkpoint_is_the_best(tmp_path, caplog):
    validation, kept = validated([None, float("nan"), None], tmp_path, patience=1)
    assert kept.steps == [1, 2, 3]
    assert validation.best is None
    assert not validation.is_hopeless
    assert caplog.text.count("AP50 cannot be measured, as val holds no object") == 1


def test_a_measured_zero_is_a_value_and_what_follows_must_beat_it(tmp_path):
    validation, kept = validated([0.0, 0.0, 0.2, None, 0.1], tmp_path)
    assert kept.steps == [1, 3]
    assert (validation.best, validation.best_step, validation.since_best) == (0.2, 3, 1)
