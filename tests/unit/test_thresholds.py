"""Thresholds outlive the run: as plain values, in its folder, and as older versions wrote them."""

import json

import pytest

from sar_experiments import run_folder
from sar_experiments.thresholds import POOLED, Thresholds, as_array, chosen, listed, of_run

CLASSES = ("ship", "platform", "buoy")


@pytest.fixture
def thresholds():
    best = {"ship": (0.7, 0.9), "platform": (0.1, 0.4), "buoy": (0.02, 0.05)}
    return chosen(best, {"ship": 40, "platform": 3, "buoy": 2})


def test_plain_values_give_the_same_again(thresholds):
    plain = json.loads(json.dumps(thresholds.to_plain()))
    assert Thresholds.from_plain(plain, CLASSES) == thresholds


@pytest.mark.parametrize(
    "change",
    [
        lambda plain: plain["classes"].pop("buoy"),
        lambda plain: plain["classes"]["buoy"].update(score=7),
        lambda plain: plain["classes"].update(buoy=0.4),
        lambda plain: plain.pop("origin"),
    ],
)
def test_broken_values_and_those_of_other_classes_are_refused(thresholds, change):
    plain = thresholds.to_plain()
    change(plain)
    with pytest.raises(ValueError, match="the thresholds of ship, platform, buoy are missing or"):
        Thresholds.from_plain(plain, CLASSES)


def test_the_level_below_which_a_class_has_the_default_is_a_tenth():
    truths = {"a": 5, "b": 5}
    scores = chosen({"a": (0.3, 0.1), "b": (0.3, 0.0999)}, truths).scores
    assert scores == {"a": 0.3, "b": 0.5}


def test_a_run_folder_tells_its_thresholds(thresholds, tmp_path):
    run_folder.write_json(tmp_path / "thresholds.json", thresholds.to_plain())
    assert of_run(tmp_path, CLASSES) == thresholds
    (tmp_path / "thresholds.json").write_text("{")
    with pytest.raises(ValueError, match=r"thresholds\.json"):
        of_run(tmp_path, CLASSES)


def test_a_run_of_an_older_version_has_one_for_all_classes(tmp_path):
    assert of_run(tmp_path, CLASSES) is None
    result = run_folder.new_result(task="train", config_hash="", overrides=[])
    run_folder.write_result(tmp_path, result)
    assert of_run(tmp_path, CLASSES) is None
    run_folder.update_result(tmp_path, metrics={"threshold": 0.21})
    old = of_run(tmp_path, CLASSES)
    assert (old.scores, old.origin) == (dict.fromkeys(CLASSES, 0.21), POOLED)
    assert old.described() == "0.21 (one for all classes, as an older version chose it)"


def test_scores_are_told_by_class_where_they_differ(thresholds):
    assert listed(thresholds.scores) == "ship 0.7, platform 0.1, buoy 0.5"
    assert listed({"ship": 0.25, "platform": 0.25}) == "0.25"


def test_a_score_is_as_exact_as_those_of_detections(thresholds):
    assert as_array({"platform": 0.7, "ship": 0.1}, ("ship", "platform")).tolist() == (
        pytest.approx([0.1, 0.7], abs=1e-7)
    )
    assert as_array(0.3, CLASSES).shape == (3,)
    assert as_array(0.3, CLASSES).dtype == "float32"
