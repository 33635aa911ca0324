"""task=convert counts what it read, kept and left out, and fails where no object was kept."""

import json
import logging
from types import SimpleNamespace

import pytest

from sar_experiments import run_folder
from sar_experiments.data.coco import read_coco
from sar_experiments.data.parts import read_named_parts
from sar_experiments.tasks import convert

INFINITE = [1, 2, float("inf"), 4]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Convert a COCO file whose two boxes are given, and return exit code and status."""

    def run_on(*boxes):
        content = {
            "images": [{"id": 1, "file_name": "a.png", "height": 50, "width": 60}],
            "annotations": [{"image_id": 1, "category_id": 1, "bbox": box} for box in boxes],
            "categories": [{"id": 1, "name": "ship"}],
        }
        path = tmp_path / "truth.json"
        path.write_text(json.dumps(content))
        part = read_coco(path, tmp_path, name="train", classes=None, scene_pattern="")
        changes = {}
        monkeypatch.setattr(
            convert.data_parts, read_named_parts.__name__, lambda _: {"train": part}
        )
        monkeypatch.setattr(run_folder, "update_result", lambda _, **new: changes.update(new))
        code = convert.run(SimpleNamespace(usecase=None), tmp_path / "out", None)
        return code, changes

    (tmp_path / "out").mkdir()
    return run_on


def test_a_file_all_of_whose_objects_were_left_out_fails(run):
    code, changes = run(INFINITE, INFINITE)
    assert (code, changes["status"]) == (1, "failed")
    assert changes["why"].startswith("every object of train was left out")


def test_a_table_counts_what_was_read_kept_and_left_out_by_reason(run, caplog):
    caplog.set_level(logging.INFO)
    assert run(INFINITE, [1, 2, 3, 4]) == (0, {"status": "completed"})
    lines = [line.split() for line in caplog.text.splitlines()]
    assert ["train", "images", "and", "objects", "3", "2", "1"] in lines
    assert ["box", "unreadable", "1"] in lines


def test_a_file_without_any_object_and_without_faults_is_converted(run):
    assert run()[0] == 0
