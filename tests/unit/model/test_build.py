"""Every model of conf/model/ builds from its YAML, learns a step and detects on one gray image.

Keys that Detectron2 does not have are refused before anything is built.
"""

import os
from pathlib import Path

import pytest
import torch
from detectron2.model_zoo import get_config_file
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from sar_experiments import cli
from sar_experiments.errors import ConfigError
from sar_experiments.model.build import (
    ModelSpec,
    build_model,
    detectron2_config,
    with_shared_norms,
    zoo_url,
)

pytestmark = pytest.mark.detectron2
FILES = sorted(path.stem for path in (Path(cli.conf_dir()) / "model").glob("*.yaml"))
MODELS = [name for name in FILES if name != "cfar"]  # which learns nothing


def image(rng, side=96, *, with_mask):
    instances = Instances((side, side))
    instances.gt_boxes = Boxes(torch.tensor([[20.0, 30.0, 50.0, 44.0]]))
    instances.gt_classes = torch.tensor([1])
    if with_mask:
        from detectron2.structures import PolygonMasks

        instances.gt_masks = PolygonMasks([[[20.0, 30.0, 50.0, 30.0, 50.0, 44.0, 20.0, 44.0]]])
    pixels = torch.from_numpy(rng.random((1, side, side), dtype="float32"))
    return {"image": pixels, "instances": instances, "height": side, "width": side}


def spec_of(config, **changes):
    return ModelSpec(
        **{"base": config.model.base, "tree": config.d2, "classes": ("a", "b")} | changes
    )


@pytest.mark.parametrize("name", MODELS)
def test_a_model_learns_and_detects_on_one_channel(typed_config, rng, name):
    config = typed_config(f"model={name}", "model.weights=none")
    cfg = detectron2_config(spec_of(config), device="cpu")
    torch.manual_seed(0)
    model = build_model(cfg)
    record = image(rng, with_mask=cfg.MODEL.MASK_ON)
    with EventStorage(0):
        losses = model([record])
        sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    frozen = [key for key, p in model.named_parameters() if not p.requires_grad or p.grad is None]
    assert not [key for key in frozen if "mask_head" not in key]
    model.eval()
    with torch.no_grad():
        (output,) = model([record])
    assert output["instances"].image_size == (96, 96)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "tiny"])
def test_a_zoo_model_names_weights_that_exist(typed_config, name):
    config = typed_config(f"model={name}")
    assert config.model.weights == "zoo"
    assert zoo_url(config.model.base).endswith(".pkl")


def test_the_class_list_sets_the_outputs(typed_config):
    spec = spec_of(typed_config("model=tiny"), classes=("a", "b", "c"))
    cfg = detectron2_config(spec, device="cpu")
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == cfg.MODEL.RETINANET.NUM_CLASSES == 3


def test_any_detectron2_key_reaches_detectron2(typed_config):
    config = typed_config("+d2.MODEL.RPN.NMS_THRESH=1", "+d2.SOLVER.NESTEROV=true")
    cfg = detectron2_config(spec_of(config), device="cpu")
    assert cfg.MODEL.RPN.NMS_THRESH == 1.0
    assert cfg.SOLVER.NESTEROV is True


def test_an_unknown_key_is_refused_with_its_nearest(typed_config):
    config = typed_config("model=tiny")
    with pytest.raises(ConfigError, match=r"did you mean d2\.MODEL\.RPN\?"):
        detectron2_config(spec_of(config, tree={"MODEL": {"RPNN": {}}}), device="cpu")


def test_a_base_that_the_zoo_lacks_is_refused(typed_config):
    config = typed_config("model=tiny")
    with pytest.raises(ConfigError, match=r"model\.base=nowhere\.yaml"):
        detectron2_config(spec_of(config, base="nowhere.yaml"), device="cpu")


@pytest.mark.parametrize("is_relative", [False, True])
def test_a_base_outside_the_zoo_is_not_read_since_detectron2_runs_what_it_asks_for(
    typed_config, tmp_path, is_relative
):
    base = tmp_path / "evil.yaml"
    base.write_text(f"SEED: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']\n")
    zoo = Path(get_config_file("Base-RCNN-FPN.yaml")).parent
    named = os.path.relpath(base, zoo) if is_relative else str(base)
    assert (zoo / named).exists()
    with pytest.raises(ConfigError, match=r"model\.base=.*evil\.yaml is not in Detectron2's model"):
        detectron2_config(spec_of(typed_config("model=tiny"), base=named), device="cpu")
    assert not (tmp_path / "made").exists()


def test_what_detectron2_cannot_build_is_a_config_error(typed_config):
    config = typed_config("model=faster_rcnn_r50_fpn", "+d2.MODEL.FPN.IN_FEATURES=[res9]")
    with pytest.raises(ConfigError, match="GeneralizedRCNN"):
        build_model(detectron2_config(spec_of(config), device="cpu"))


def norms_of(model):
    return {type(each).__name__ for each in model.modules() if "BatchNorm" in type(each).__name__}


@pytest.mark.parametrize(("device", "norm"), [("cpu", "naiveSyncBN"), ("cuda", "SyncBN")])
def test_several_processes_share_their_batch_norms(typed_config, device, norm):
    single = detectron2_config(spec_of(typed_config("model=tiny")), device=device)
    shared = with_shared_norms(single, 2)
    assert ("BN", norm) == (single.MODEL.RESNETS.NORM, shared.MODEL.RESNETS.NORM)
    assert norm == shared.MODEL.FPN.NORM
    assert with_shared_norms(single, 1) is single


def test_shared_norms_change_no_name_of_a_weight(typed_config):
    single = detectron2_config(spec_of(typed_config("model=tiny")), device="cpu")
    models = [build_model(with_shared_norms(single, count)) for count in (1, 2)]
    assert models[0].state_dict().keys() == models[1].state_dict().keys()
    assert norms_of(models[1]) == {"NaiveSyncBatchNorm"}


def test_frozen_and_group_norms_stay(typed_config):
    config = typed_config("model=faster_rcnn_r50_fpn", "model.weights=none")
    cfg = detectron2_config(spec_of(config), device="cpu")
    assert with_shared_norms(cfg, 4) == cfg
