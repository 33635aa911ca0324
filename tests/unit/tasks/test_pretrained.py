"""Training from a checkpoint of this package sees it as it learnt: norms, strides, input."""

import logging
from dataclasses import replace

import pytest
import torch

from sar_experiments import run_folder
from sar_experiments.config import read_config, to_plain
from sar_experiments.errors import CheckpointError
from sar_experiments.model import weights
from sar_experiments.model.build import ModelSpec, build_model, detectron2_config
from sar_experiments.tasks.pretrained import with_layout_of_weights

pytestmark = pytest.mark.detectron2

R50 = "model=faster_rcnn_r50_fpn"


def saved(path, config, model=None):
    """A checkpoint of a run with this config."""
    about = {"config": to_plain(config), "classes": ["ship"]}
    model = model or torch.nn.Linear(1, 1)
    return weights.Checkpointer(model, path.parent, about).save_whole(path.name, step=1)


def ask(folder, *overrides):
    folder.mkdir(exist_ok=True)
    result = run_folder.new_result(task="train", config_hash="", overrides=overrides)
    run_folder.write_result(folder, result)


def layout(config):
    tree = config.d2["MODEL"]
    keys = (tree["RESNETS"]["NORM"], tree["RESNETS"]["STRIDE_IN_1X1"], tree["FPN"]["NORM"])
    return (*keys, config.model.input_std)


def built(config):
    spec = ModelSpec(config.model.base, config.d2, ("ship",))
    return build_model(detectron2_config(spec, device="cpu"))


OF_ZOO = ("FrozenBN", True, "", 57.4)
OF_NONE = ("GN", False, "GN", 1.0)


@pytest.mark.parametrize(("start", "expected"), [("none", OF_NONE), ("zoo", OF_ZOO)])
def test_the_network_is_laid_out_as_the_weights_learnt(
    typed_config, tmp_path, caplog, start, expected
):
    caplog.set_level(logging.INFO)
    path = saved(tmp_path / "model.pth", typed_config(R50, f"model.weights={start}"))
    config = typed_config(R50, f"model.weights={path}")
    assert layout(config) == OF_ZOO  # what conf/model takes a path for
    found = with_layout_of_weights(config, tmp_path)
    assert layout(found) == expected
    std = found.radiometry.std or []
    assert found.d2["MODEL"]["PIXEL_STD"] == pytest.approx([e / expected[3] for e in std])
    if start == "none":
        assert layout(read_config(tmp_path / run_folder.CONFIG)) == OF_NONE
        assert "d2.MODEL.RESNETS.NORM=GN" in caplog.text
        assert "model.input_std=1" in caplog.text


def test_what_the_command_line_asks_for_stays_and_is_named(typed_config, tmp_path, caplog):
    path = saved(tmp_path / "model.pth", typed_config(R50, "model.weights=none"))
    overrides = (R50, f"model.weights={path}", "d2.MODEL.RESNETS.STRIDE_IN_1X1=true")
    ask(tmp_path / "run", *overrides)
    found = with_layout_of_weights(typed_config(*overrides), tmp_path / "run")
    assert layout(found) == ("GN", True, "GN", 1.0)
    assert "d2.MODEL.RESNETS.STRIDE_IN_1X1 is set, but model.weights=" in caplog.text


def test_batch_norms_may_freeze(typed_config, tmp_path):
    source = typed_config(R50, "model.weights=none", "d2.MODEL.RESNETS.NORM=BN")
    path = saved(tmp_path / "model.pth", source)
    found = with_layout_of_weights(typed_config(R50, f"model.weights={path}"), tmp_path)
    assert layout(found) == ("FrozenBN", False, "GN", 1.0)


def test_statistics_that_are_to_be_measured_are_left_open(typed_config, tmp_path):
    path = saved(tmp_path / "model.pth", typed_config(R50, "model.weights=none"))
    config = typed_config(
        R50, f"model.weights={path}", "radiometry.mean=null", "radiometry.std=null"
    )
    found = with_layout_of_weights(config, tmp_path)
    assert found.d2["MODEL"]["PIXEL_STD"] is None
    assert found.model.input_std == 1.0


@pytest.mark.parametrize("weights_of", ["none", "zoo"])
def test_without_a_path_nothing_is_changed(typed_config, tmp_path, weights_of):
    config = typed_config(R50, f"model.weights={weights_of}")
    assert with_layout_of_weights(config, tmp_path) is config


def test_weights_of_another_package_are_taken_as_the_config_says_and_that_is_said(
    typed_config, tmp_path, caplog
):
    caplog.set_level(logging.INFO)
    torch.save({"model": {"w": torch.ones(1)}}, tmp_path / "model.pth")
    config = typed_config(R50, f"model.weights={tmp_path / 'model.pth'}")
    assert with_layout_of_weights(config, tmp_path) is config
    assert "model.input_std=57.4 and d2.MODEL.RESNETS.STRIDE_IN_1X1=True" in caplog.text


@pytest.mark.slow
def test_an_r50_that_began_from_none_gives_the_same_features_where_it_is_fine_tuned(
    typed_config, tmp_path
):
    torch.manual_seed(0)
    first = typed_config(R50, "model.weights=none")
    source = built(first)
    path = saved(tmp_path / "model.pth", first, source)
    second = typed_config(R50, f"model.weights={path}")
    with pytest.raises(CheckpointError, match=r"does not fit.*d2\.MODEL\.RESNETS\.NORM"):
        weights.load_pretrained(built(second), str(path), base=None)
    second = with_layout_of_weights(second, tmp_path)
    second = replace(second, usecase=replace(second.usecase, classes=["ship"]))
    target = built(second)
    count = len(target.state_dict())
    said = weights.load_pretrained(target, str(path), base=None)
    assert f"{count} of {count} tensors" in said
    image = [{"image": torch.rand(source.pixel_mean.shape[0], 64, 64)}]
    with torch.no_grad():
        features = [
            each.eval().backbone(each.preprocess_image(image).tensor)["p3"]
            for each in (source, target)
        ]
    torch.testing.assert_close(*features)
