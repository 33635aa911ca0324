"""Where an exported network goes, and that one of another checkpoint is not replaced unsaid."""

import logging
from dataclasses import replace

import pytest

from sar_experiments import run_folder
from sar_experiments.config import to_plain
from sar_experiments.data.radiometry import Radiometry
from sar_experiments.export.session import INPUT, METADATA_KEY, OnnxAbout
from sar_experiments.thresholds import POOLED, Thresholds, chosen

pytestmark = pytest.mark.detectron2
onnx = pytest.importorskip("onnx", reason="needs the extra export")
pytest.importorskip("onnxruntime", reason="needs the extra export")


@pytest.fixture
def about(typed_config):
    config = typed_config()
    radiometry = Radiometry.from_config(config.radiometry).to_dict()
    thresholds = Thresholds.alike(("ship", "platform"), 0.4, POOLED)
    return OnnxAbout(
        to_plain(config),
        ("ship", "platform"),
        radiometry,
        12,
        "model_best.pth",
        128,
        thresholds,
        {},
    )


def write(path, about):
    """A network that returns its input, with what the metadata of an export says."""
    kind = onnx.helper.make_tensor_value_info(INPUT, onnx.TensorProto.FLOAT, [1])
    same = onnx.helper.make_tensor_value_info("same", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", [INPUT], ["same"])
    graph = onnx.helper.make_graph([node], "same", [kind], [same])
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    model.metadata_props.add(key=METADATA_KEY, value=about.to_json())
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({}, ""),
        (
            {"checkpoint": "model_final.pth", "step": 30},
            "held an export of model_best.pth, step 12; now it is of model_final.pth, step 30",
        ),
    ],
)
def test_an_export_of_another_checkpoint_is_replaced_aloud(
    about, tmp_path, caplog, change, warning
):
    from sar_experiments.tasks.export import publish

    caplog.set_level(logging.INFO)
    there = write(tmp_path / "model.onnx", about)
    new = write(tmp_path / ".new.onnx", replace(about, **change))
    publish(new, there)
    assert there.read_bytes() == new.read_bytes()
    warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert warnings == ([f"{there} {warning}"] if warning else [])
    assert f"of {change.get('checkpoint', 'model_best.pth')}, step" in caplog.text


@pytest.mark.parametrize(
    ("asked", "scores"),
    [
        ((), {"ship": 0.7, "platform": 0.1}),
        (("predict.min_score={ship: 0.6}",), {"ship": 0.6, "platform": 0.1}),
        (("predict.min_score=0.2",), {"ship": 0.2, "platform": 0.2}),
    ],
)
def test_onnx_runtime_predicts_from_the_thresholds_of_the_file_on(
    about, tmp_path, typed_config, asked, scores
):
    from sar_experiments.tasks.network_onnx import choose

    best, truths = {"ship": (0.7, 0.9), "platform": (0.1, 0.8)}, {"ship": 9, "platform": 2}
    path = write(tmp_path / "model.onnx", replace(about, thresholds=chosen(best, truths)))
    config = typed_config("task=predict", f"weights={path}", "source=.", "runtime=onnx", *asked)
    run_folder.write_result(
        tmp_path, run_folder.new_result(task="predict", config_hash="0", overrides=[])
    )
    assert choose(config, tmp_path).min_scores == scores
