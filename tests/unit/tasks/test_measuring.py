"""Thresholds are chosen on validation, hold on the test split, and are kept with the run."""

import json

import numpy as np
import pytest

from sar_experiments import run_folder
from sar_experiments.detections import Detections
from sar_experiments.evaluate.metrics import assign
from sar_experiments.thresholds import POOLED, Thresholds

pytestmark = pytest.mark.detectron2

CLASSES = ("ship", "platform")
PLACES = [(x, y, x + 8.0, y + 8.0) for y in (0, 20, 40) for x in (0, 20, 40, 60, 80)]


def split(name, kinds, tmp_path):
    """One image with an object of each kind, at the first places."""
    from sar_experiments.data.annotations import Dataset

    annotations = [
        {
            "bbox": list(box),
            "bbox_mode": 0,
            "category_id": kind,
            "iscrowd": 0,
            "id": k,
            "area": 64.0,
        }
        for k, (box, kind) in enumerate(zip(PLACES, kinds, strict=False), start=1)
    ]
    sample = {
        "file_name": f"{name}.png", "image_id": 1, "height": 100, "width": 100, "scene": "a",
        "annotations": annotations,
    }  # fmt: skip
    return Dataset(name, (sample,), CLASSES, tmp_path, tmp_path / f"{name}.json")


@pytest.fixture
def folder(tmp_path):
    result = run_folder.new_result(task="evaluate", config_hash="0", overrides=[])
    run_folder.write_result(tmp_path, result)
    return tmp_path


@pytest.fixture
def record(typed_config, folder):
    """Record what is found: place, score and class of each split; return the numbers."""
    from sar_experiments.tasks.measuring import record_parts

    def record_found(parts, found, thresholds=None, **more):
        def find(part):
            rows = [(PLACES[place], score, kind) for place, score, kind in found[part.name]]
            return {1: Detections.of(*zip(*rows, strict=True)) if rows else Detections.none()}

        return record_parts(typed_config(), folder, parts, find, thresholds, **more)

    return record_found


VAL = [(0, 0.9, 0), (1, 0.7, 0), (2, 0.2, 1), (3, 0.15, 1), (10, 0.5, 0)]
"""Two ships down to 0.7 and a false one at 0.5, two platforms down to 0.15: from 0.6, 0.075 on."""
TEST = [(0, 0.95, 0), (1, 0.55, 0), (2, 0.05, 1), (3, 0.3, 1), (4, 0.1, 1), (11, 0.62, 0)]


@pytest.fixture
def parts(tmp_path):
    return {
        "val": split("val", (0, 0, 1, 1), tmp_path),
        "test": split("test", (0, 0, 1, 1, 1), tmp_path),
    }


def test_the_test_split_is_told_at_the_thresholds_of_validation(record, parts, folder):
    found = record(parts, {"val": VAL, "test": TEST})
    assert found["threshold/ship"] == pytest.approx(0.6)
    assert found["threshold/platform"] == pytest.approx(0.075)
    assert (found["precision"], found["recall"]) == (1.0, 1.0)
    kept = [row for row in TEST if row[1] >= (0.6, 0.075)[row[2]]]
    assert [row[0] for row in kept] == [0, 3, 4, 11]
    rows = [(PLACES[place], score, kind) for place, score, kind in kept]
    shown = Detections.of(*zip(*rows, strict=True))
    truth_of = assign(parts["test"].samples[0], shown, match_iou=0.5).truth_of
    hits = int((truth_of >= 0).sum())
    assert hits == 3
    assert found["test/precision"] == pytest.approx(hits / len(kept))
    assert found["test/recall"] == pytest.approx(hits / 5)
    assert found["test/f1"] == pytest.approx(2 * hits / (len(kept) + 5))
    assert "test/threshold/ship" not in found
    assert run_folder.read_result(folder).metrics == found


def test_a_detector_without_classes_is_told_class_agnostic(record, parts, folder, caplog):
    caplog.set_level("INFO")
    val = [(0, 0.9, 0), (1, 0.7, 0), (2, 0.8, 0), (10, 0.5, 0), (3, 0.3, 0)]
    found = record(parts, {"val": val, "test": TEST}, names_classes=False)
    assert found["threshold_any_class"] == pytest.approx(0.15)  # halfway to nothing: all four
    assert (found["precision_any_class"], found["recall_any_class"]) == (4 / 5, 1.0)
    # Five of the six pass 0.15 but (2, 0.05) and (4, 0.1): places 0, 1, 3 hit, 11 is empty.
    assert (found["test/precision_any_class"], found["test/recall_any_class"]) == (3 / 4, 3 / 5)
    assert not {"AP50", "recall", "test/AP50", "threshold/ship"} & set(found)
    assert not run_folder.read_result(folder).names_classes
    assert "any class: class-agnostic, a detection hits any object" in caplog.text
    content = json.loads((folder / "thresholds.json").read_text())
    assert content["any_class"]["score"] == found["threshold_any_class"]


def test_a_network_is_told_class_agnostic_too_at_a_threshold_of_validation(record, parts):
    found = record(parts, {"val": VAL, "test": TEST})
    assert found["threshold_any_class"] == pytest.approx(0.075)
    assert (found["precision_any_class"], found["recall_any_class"]) == (4 / 5, 1.0)
    assert (found["test/precision_any_class"], found["test/recall_any_class"]) == (4 / 5, 4 / 5)
    assert (found["precision"], found["recall"]) == (1.0, 1.0)


def test_the_run_folder_holds_the_thresholds(record, parts, folder):
    record(parts, {"val": VAL, "test": TEST})
    content = json.loads((folder / "thresholds.json").read_text())
    assert content["origin"] == "best F1 of each class on the validation split"
    assert content["classes"]["platform"] == {
        "score": pytest.approx(0.075), "f1": 1.0, "doubt": "",
    }  # fmt: skip


def test_stored_thresholds_hold_on_every_split(record, parts, caplog):
    caplog.set_level("INFO")
    found = record(parts, {"val": VAL, "test": TEST}, Thresholds.alike(CLASSES, 0.4, POOLED))
    assert found["recall"] == 0.5  # both ships, no platform
    assert found["test/recall"] == pytest.approx(2 / 5)
    assert found["test/precision"] == pytest.approx(2 / 3)
    assert (found["threshold/ship"], found["threshold/platform"]) == (0.4, 0.4)
    assert "count from score on: one for all classes, as an older version chose it" in caplog.text


def test_a_class_with_the_default_threshold_is_named_in_a_warning(record, parts, caplog):
    found = record(parts, {"val": VAL[:2], "test": TEST})
    assert found["threshold/platform"] == 0.5
    warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert warnings == [
        "platform has the default threshold 0.5, as its best F1 on the validation split, 0.000,"
        " is below 0.1"
    ]


@pytest.mark.parametrize("is_there", [True, False])
def test_without_validation_objects_the_test_split_is_told_at_the_default(
    record, parts, tmp_path, caplog, is_there
):
    caplog.set_level("INFO")
    test = [(0, 0.95, 0), (1, 0.45, 0), (2, 0.1, 1), (3, 0.55, 1)]
    empty = {"val": split("val", (), tmp_path)} if is_there else {}
    found = record({**empty, "test": parts["test"]}, {"val": [], "test": test})
    assert (found["threshold/ship"], found["threshold/platform"]) == (0.5, 0.5)
    assert found["test/recall"] == pytest.approx(2 / 5)
    assert "the default, as there is no validation split with objects" in caplog.text


def test_a_prediction_keeps_what_the_evaluation_counted(record, parts, folder):
    record(parts, {"val": VAL, "test": TEST})
    content = json.loads((folder / "thresholds.json").read_text())
    least = Thresholds.from_plain(content, CLASSES).least
    rows = [(PLACES[place], score, kind) for place, score, kind in VAL]
    assert len(Detections.of(*zip(*rows, strict=True)).above(least)) == 4
    assert least.dtype == np.float32
