"""A model prepared for inference computes what it computed before, with fewer steps."""

import pytest
import torch

from sar_experiments.model import build
from sar_experiments.model.inference import for_inference

pytestmark = pytest.mark.detectron2


@pytest.fixture(params=["tiny", "faster_rcnn_r50_fpn"])
def model(request, typed_config):
    """Random weights, but statistics and offsets of norms as if it had been trained."""
    config = typed_config(f"model={request.param}", "model.weights=none")
    tree = dict(config.d2)
    if request.param != "tiny":  # frozen norms, as pretrained weights have
        tree["MODEL"]["RESNETS"]["NORM"] = "FrozenBN"
    spec = build.ModelSpec(config.model.base, tree, ("ship",))
    torch.manual_seed(3)
    model = build.build_model(build.detectron2_config(spec, device="cpu")).eval()
    for module in model.modules():
        if hasattr(module, "running_var"):
            module.running_var.uniform_(0.5, 1.5)
            module.running_mean.uniform_(-0.2, 0.2)
            module.weight.data.uniform_(0.8, 1.2)
            module.bias.data.uniform_(-0.1, 0.1)
    return model


@torch.inference_mode()
def features_of(model, image):
    return model.backbone((image - model.pixel_mean) / model.pixel_std)


def test_features_stay_the_same_to_rounding(model):
    image = torch.rand(1, 1, 128, 128)
    before, after = features_of(model, image), features_of(for_inference(model), image)
    for name, level in before.items():
        scale = float(level.abs().max())
        assert scale > 0
        assert float((level - after[name]).abs().max()) < 1e-4 * scale


def test_norms_with_fixed_statistics_are_gone_and_the_original_keeps_them(model):
    def norms(of):
        kinds = ("FrozenBatchNorm2d", "BatchNorm2d")
        return sum(type(module).__name__ in kinds for module in of.modules())

    before = norms(model)
    assert before > 0
    assert norms(for_inference(model)) == 0
    assert norms(model) == before


@pytest.mark.slow
@torch.inference_mode()
def test_outlines_are_left_out_and_boxes_stay(typed_config):
    config = typed_config("model=mask_rcnn_r50_fpn", "model.weights=zoo")  # frozen norms
    spec = build.ModelSpec(config.model.base, config.d2, ("ship",))
    torch.manual_seed(3)
    model = build.build_model(build.detectron2_config(spec, device="cpu")).eval()
    inputs = [{"image": torch.rand(1, 128, 128), "height": 128, "width": 128}]
    (before,), (after,) = model(inputs), for_inference(model)(inputs)
    assert before["instances"].has("pred_masks")
    assert not after["instances"].has("pred_masks")
    assert model.roi_heads.mask_on
    boxes = [each["instances"].pred_boxes.tensor for each in (before, after)]
    assert len(boxes[0]) == len(boxes[1]) > 0
    torch.testing.assert_close(boxes[0], boxes[1], rtol=0, atol=0.1)
