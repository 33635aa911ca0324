"""A CFAR from the command line: measured like a network."""

import json
import subprocess

import numpy as np
import pytest

from sar_experiments.data.images import write_geotiff


@pytest.fixture(scope="module")
def measured(call, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cfar") / "run"
    process = call("model=cfar", "task=evaluate", f"output={folder}")
    assert process.returncode == 0, process.stdout + process.stderr
    return folder, process.stdout


@pytest.mark.slow
@pytest.mark.detectron2
def test_a_cfar_is_measured_without_weights(measured):
    folder, output = measured
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "completed"
    metrics = set(result["metrics"])
    expected = ("AP50", "precision", "recall", "f1", "test/AP50", "threshold")
    assert {f"{name}_any_class" for name in expected} <= metrics
    assert not {"AP50", "recall", "test/AP50"} & metrics  # it names no classes
    assert "any class: class-agnostic" in output
    assert "CFAR: gamma clutter, rate 1e-06, pixels of 10 x 10 m" in output
    assert "precision, recall and f1" in output


@pytest.mark.slow
@pytest.mark.detectron2
def test_its_detections_are_coco_results_of_the_named_class(measured):
    folder, _ = measured
    records = json.loads((folder / "detections.json").read_text())
    assert records
    assert {record["category_id"] for record in records} == {records[0]["category_id"]}
    assert all(0.5 <= record["score"] <= 1 for record in records)


def test_a_scene_needs_no_pytorch(command, without_torch, tmp_path):
    """Loading it takes seconds and more memory than the CFAR itself."""
    pixels = np.random.default_rng(2).integers(20, 60, (300, 300, 1)).astype(np.uint8)
    pixels[150:153, 100:108] = 250
    write_geotiff(
        tmp_path / "scene.tif", pixels, transform=(10.0, 0, 5e5, 0, -10.0, 4e6), crs="EPSG:32633",
        nodata=None, tags={},
    )  # fmt: skip
    done = subprocess.run(
        command(
            "task=predict", "model=cfar", f"source={tmp_path / 'scene.tif'}",
            f"output={tmp_path / 'run'}",
        ),
        capture_output=True, text=True, env=without_torch, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "run" / "detections_coco.json").read_text())["annotations"]
    left, top, width, height = found[0]["bbox"]
    assert (left <= 101, top <= 151, left + width >= 107, top + height >= 152) == (True,) * 4
