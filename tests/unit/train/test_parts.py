"""A batch in parts gives the gradient, losses and steps of the whole one, but for batch norm."""

import copy

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("detectron2")

from detectron2.engine import SimpleTrainer  # noqa: E402
from detectron2.structures import Boxes, Instances  # noqa: E402
from detectron2.utils.events import EventStorage  # noqa: E402

from sar_experiments.errors import DivergedError  # noqa: E402
from sar_experiments.model import build  # noqa: E402
from sar_experiments.train.guard import DivergenceGuard  # noqa: E402
from sar_experiments.train.loop import _say_batch_norms  # noqa: E402
from sar_experiments.train.parts import PartsTrainer  # noqa: E402

pytestmark = pytest.mark.detectron2


class Mean(torch.nn.Module):
    """A loss that is a mean over images, as detectors' are."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)
        self.seen = []

    def forward(self, batch):
        self.seen.append(len(batch))
        images = torch.stack([record["image"] for record in batch])
        return {"loss": self.layer(images).square().mean()}


def step(trainer, *hooks):
    trainer.register_hooks(hooks)
    with EventStorage() as storage:
        trainer.iter, trainer.storage = 0, storage
        trainer.before_train()
        trainer.before_step()
        trainer.run_step()
        trainer.after_train()
    return {name: history.latest() for name, history in storage.histories().items()}


@pytest.fixture
def batch():
    torch.manual_seed(3)
    return [{"image": torch.randn(3), "file_name": f"{i}.png"} for i in range(8)]


def trained(batch, parts):
    torch.manual_seed(0)
    model = Mean()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    trainer = (
        SimpleTrainer(model, [batch], optimizer)
        if parts is None
        else PartsTrainer(model, [batch], optimizer, parts=parts)
    )
    scalars = step(trainer)
    return model, scalars


@pytest.mark.parametrize("parts", [1, 2, 8])
def test_weights_and_losses_are_those_of_the_whole_batch(batch, parts):
    whole, expected = trained(batch, None)
    cut, scalars = trained(batch, parts)
    assert cut.seen == [8 // parts] * parts
    torch.testing.assert_close(cut.layer.weight, whole.layer.weight)
    torch.testing.assert_close(cut.layer.weight.grad, whole.layer.weight.grad)
    assert scalars["total_loss"] == pytest.approx(expected["total_loss"])


def test_a_broken_image_in_the_first_part_is_noticed_with_all_files(batch):
    batch[0]["image"] = batch[0]["image"] * float("nan")
    model = Mean()
    trainer = PartsTrainer(model, [batch], torch.optim.SGD(model.parameters(), 0.1), parts=4)
    with pytest.raises(DivergedError, match="is not finite") as diverged:
        step(trainer, DivergenceGuard(model, max_loss=100, clip_full_norm=None))
    assert diverged.value.files == [f"{i}.png" for i in range(8)]


@pytest.fixture
def detector(typed_config):
    """A detector that samples every anchor and proposal, so that nothing is drawn at random."""

    def built():
        config = typed_config(
            "usecase=demo",
            "++d2.MODEL.RPN.BATCH_SIZE_PER_IMAGE=100000",
            "++d2.MODEL.RPN.POSITIVE_FRACTION=1.0",
            "++d2.MODEL.RPN.POST_NMS_TOPK_TRAIN=20",
            "++d2.MODEL.RPN.NMS_THRESH=1.0",
            "model.roi_batch_size_per_image=100000",
            "++d2.MODEL.RESNETS.NORM=FrozenBN",  # statistics of a batch differ from its parts'
            "++d2.MODEL.FPN.NORM=''",
        )
        torch.manual_seed(0)
        spec = build.ModelSpec(config.model.base, config.d2, ("ship", "platform"))
        return build.build_model(build.detectron2_config(spec, device="cpu"))

    return built


def images():
    torch.manual_seed(1)
    found = []
    for k in range(4):
        instances = Instances((96, 96))
        instances.gt_boxes = Boxes(torch.tensor([[8.0 + 9 * k, 20, 40 + 9 * k, 50]]))
        instances.gt_classes = torch.tensor([k % 2])
        found.append(
            {"image": torch.rand(1, 96, 96), "instances": instances, "height": 96, "width": 96}
        )
    return found


def test_a_detectors_gradient_is_that_of_the_whole_batch(detector):
    gradients = []
    for parts in (1, 2, 4):
        model = detector()
        trainer = PartsTrainer(
            model, [images()], torch.optim.SGD(model.parameters(), 0.0), parts=parts
        )
        step(trainer)
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    for cut in gradients[1:]:
        for name, gradient in gradients[0].items():
            scale = float(gradient.abs().max()) or 1.0
            difference = float((cut[name] - gradient).abs().max()) / scale
            assert difference < 1e-3, (name, difference)


@pytest.mark.parametrize(
    ("norm", "is_equal"),
    [(torch.nn.GroupNorm(1, 3), True), (torch.nn.BatchNorm1d(3), False)],
    ids=["GN", "BN"],
)
def test_parts_equal_the_whole_batch_but_not_with_batch_norm(batch, norm, is_equal):
    weights = []
    for parts in (1, 4):
        torch.manual_seed(0)
        model = Mean()
        model.layer = torch.nn.Sequential(copy.deepcopy(norm), torch.nn.Linear(3, 1))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        step(PartsTrainer(model, [batch], optimizer, parts=parts))
        weights.append(model.layer[1].weight.detach())
    difference = float((weights[0] - weights[1]).abs().max())
    assert (difference < 1e-6) is is_equal
    assert is_equal or difference > 1e-3


def test_batch_norms_that_see_parts_are_warned_about(caplog):
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(2), torch.nn.BatchNorm2d(2))
    _say_batch_norms(model, 2)
    assert "accumulate_steps=2 is not the whole batch for the 2 batch norms of this" in caplog.text
    caplog.clear()
    _say_batch_norms(model.eval(), 2)
    _say_batch_norms(torch.nn.GroupNorm(1, 2), 2)
    assert not caplog.text
