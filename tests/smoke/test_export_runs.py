"""From a run to an ONNX file to a prediction that finds the same without PyTorch."""

import json
import os

import numpy as np
import pytest

pytestmark = pytest.mark.detectron2
pytest.importorskip("onnx", reason="needs the extra export")


@pytest.fixture(scope="module")
def exported(trained, call, tmp_path_factory):
    """The run of ``trained`` exported into a folder of its own."""
    folder = tmp_path_factory.mktemp("exported") / "run"
    process = call("task=export", f"weights={trained[0]}", f"output={folder}")
    assert process.returncode == 0, process.stdout + process.stderr
    return folder, process.stdout


def boxes_of(folder):
    records = json.loads((folder / "detections_coco.json").read_text())["annotations"]
    return sorted((*each["bbox"], each["score"], each["category_id"]) for each in records)


def test_an_export_is_compared_with_the_live_network_on_real_images(exported, trained):
    folder, output = exported
    record = json.loads((folder / "export.json").read_text())
    assert record["agreement"]["agrees"]
    assert record["agreement"]["images"] == 6 + 4  # validation images, generated ones
    assert record["tolerances"] == {"box_px": 0.1, "score": 0.001, "from_score": 0.05}
    assert record["checkpoint"] == str(trained[0] / "model_best.pth")
    assert f"exported: {folder / 'model.onnx'}, of model_best.pth, step" in output
    assert "without a partner" in output
    assert json.loads((folder / "result.json").read_text())["status"] == "completed"
    assert (folder / "model.onnx").stat().st_size > 100_000
    assert not (trained[0] / "model.onnx").exists()  # output= was given


def test_onnx_runtime_predicts_the_same_without_pytorch(
    exported, trained, command, data_folder, tmp_path, without_torch
):
    import subprocess

    common = (f"source={data_folder / 'val' / 'images'}", "predict.min_score=0.05")
    onnx, torch = tmp_path / "onnx", tmp_path / "torch"
    arguments = command(
        "task=predict", "runtime=onnx", f"weights={exported[0]}", *common, f"output={onnx}"
    )
    done = subprocess.run(
        arguments, capture_output=True, text=True, check=False, cwd=tmp_path, env=without_torch
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ONNX Runtime" in done.stdout
    arguments = command("task=predict", f"weights={trained[0]}", *common, f"output={torch}")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(arguments, capture_output=True, check=True, cwd=tmp_path, env=environment)
    first, second = boxes_of(onnx), boxes_of(torch)
    assert len(first) == len(second) > 0
    assert np.allclose(first, second, atol=0.1)


def test_runtime_onnx_says_what_writes_its_file(call, trained, tmp_path):
    process = call(
        "task=predict", "runtime=onnx", f"weights={trained[0]}", "source=.",
        f"output={tmp_path / 'run'}",
    )  # fmt: skip
    assert process.returncode == 2
    assert "is no ONNX file; task=export weights=" in process.stderr
