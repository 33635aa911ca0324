"""A network finds in a tile what it finds there alone, whatever comes with it in a batch.

Neighbouring tiles of one scene come together, as in a prediction: nothing of one may reach another.
"""

import numpy as np
import pytest
import torch

from sar_experiments.data.radiometry import Radiometry
from sar_experiments.geometry import Window
from sar_experiments.model import build
from sar_experiments.model.inference import for_inference
from sar_experiments.predict.detector import Tile
from sar_experiments.predict.network import NetworkDetector
from sar_experiments.predict.tiling import plan_tiles

pytestmark = pytest.mark.detectron2
MODELS = (
    "tiny",
    "faster_rcnn_r50_fpn",
    "retinanet_r50_fpn",
    "cascade_rcnn_r50_fpn",
    "mask_rcnn_r50_fpn",
)
SMALL = (
    "+d2.MODEL.RESNETS.STEM_OUT_CHANNELS=32",
    "+d2.MODEL.RESNETS.RES2_OUT_CHANNELS=64",
    "+d2.MODEL.RESNETS.WIDTH_PER_GROUP=32",
    "+d2.MODEL.FPN.OUT_CHANNELS=32",
    "+d2.MODEL.ROI_BOX_HEAD.FC_DIM=64",
    "+d2.MODEL.ROI_MASK_HEAD.CONV_DIM=32",
    "+d2.MODEL.RPN.PRE_NMS_TOPK_TEST=100",
    "+d2.MODEL.RPN.POST_NMS_TOPK_TEST=50",
    "+d2.MODEL.RETINANET.PRIOR_PROB=0.1",
    "+d2.MODEL.RETINANET.TOPK_CANDIDATES_TEST=100",
)


@pytest.fixture
def tiles(rng):
    """Nine tiles of a scene of speckle and bars, of which some are cut by tile borders."""
    scene = rng.gamma(4.0, 12.0, (176, 176, 1))
    for x, y in rng.integers(0, 162, (25, 2)):
        scene[y : y + 5, x : x + 14] = 240
    scene = np.clip(scene, 0, 255).astype(np.uint8)
    plan = plan_tiles(height=176, width=176, tile_px=80, overlap_px=32)
    return [
        Tile(each.window.of(scene), np.ones((80, 80), bool), each.window, "scene") for each in plan
    ]


def detector_of(config):
    torch.manual_seed(3)
    model = build.build_model(
        build.detectron2_config(
            build.ModelSpec(config.model.base, config.d2, ("ship", "platform")), device="cpu"
        )
    )
    with torch.no_grad():  # fresh heads find everything equally likely
        for name, parameter in model.named_parameters():
            if "predictor" in name or "cls_score" in name or "objectness" in name:
                parameter.mul_(20.0 if parameter.ndim > 1 else 1.0)
            if "subnet" in name:
                parameter.mul_(8.0)
    return NetworkDetector(
        for_inference(model), Radiometry.from_config(config.radiometry), ("ship", "platform")
    )


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batch", [2, 9])
def test_what_is_found_in_a_tile_does_not_depend_on_its_batch(typed_config, tiles, name, batch):
    small = SMALL if name != "tiny" else ()
    config = typed_config(
        "usecase=demo", f"model={name}", "model.weights=none", "evaluation.min_score=0.05", *small
    )
    detector = detector_of(config)
    alone = [detector([tile])[0] for tile in tiles]
    together = []
    for start in range(0, len(tiles), batch):
        together += detector(tiles[start : start + batch])
    assert sum(len(each) for each in alone) > 2 * len(tiles)
    assert np.ptp(np.concatenate([each.scores for each in alone])) > 0.05
    count = sum(len(each) for each in alone + together)
    found = sum(shared(one, other) for one, other in zip(alone, together, strict=True))
    assert 2 * found > 0.98 * count  # another rounding may swap equals at a limit of proposals


def shared(one, other):
    """Count the detections that both have."""
    alike = (
        (one.classes[:, None] == other.classes)
        & (abs(one.scores[:, None] - other.scores) < 1e-4)
        & (abs(one.boxes[:, None] - other.boxes).max(axis=2) < 0.05)
    )
    return min(alike.any(axis=0).sum(), alike.any(axis=1).sum())


def test_windows_do_not_matter(typed_config, tiles):
    config = typed_config("usecase=demo", "model=tiny", "evaluation.min_score=0.05")
    detector = detector_of(config)
    moved = Tile(tiles[0].pixels, tiles[0].valid, Window(500, 700, 580, 780), "another")
    here, there = detector([tiles[0]])[0], detector([tiles[1], moved])[1]
    assert len(here) > 0
    assert np.allclose(here.boxes, there.boxes, atol=0.05)
