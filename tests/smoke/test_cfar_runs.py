"""A CFAR from the command line: measured like a network."""

import json

import pytest

pytestmark = [pytest.mark.detectron2, pytest.mark.slow]


@pytest.fixture(scope="module")
def measured(call, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cfar") / "run"
    process = call("model=cfar", "task=evaluate", f"output={folder}")
    assert process.returncode == 0, process.stdout + process.stderr
    return folder, process.stdout


def test_a_cfar_is_measured_without_weights(measured):
    folder, output = measured
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "completed"
    assert {"AP50", "precision", "recall", "f1", "test/AP50"} <= set(result["metrics"])
    assert "CFAR: gaussian clutter, rate 1e-06, pixels of 10 x 10 m" in output
    assert "precision, recall and f1" in output


def test_its_detections_are_coco_results_of_the_named_class(measured):
    folder, _ = measured
    records = json.loads((folder / "detections.json").read_text())
    assert records
    assert {record["category_id"] for record in records} == {records[0]["category_id"]}
    assert all(0.5 <= record["score"] <= 1 for record in records)
