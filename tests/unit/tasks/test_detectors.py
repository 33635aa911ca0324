"""From which score on a prediction keeps detections: what is asked, else what the run chose."""

import pytest

from sar_experiments import run_folder
from sar_experiments.errors import CheckpointError, ConfigError
from sar_experiments.tasks.detectors import choose_detector, min_scores_of, stored_thresholds
from sar_experiments.thresholds import POOLED, Thresholds, chosen

CLASSES = ("ship", "platform", "buoy")


@pytest.fixture
def stored():
    best = {"ship": (0.7, 0.9), "platform": (0.1, 0.4), "buoy": (0.02, 0.05)}
    return chosen(best, {"ship": 40, "platform": 3, "buoy": 2})


@pytest.fixture
def config_of(typed_config, tmp_path):
    (tmp_path / "model.pth").touch()
    common = ("task=predict", f"weights={tmp_path / 'model.pth'}", "source=.")
    return lambda *overrides: typed_config(*common, *overrides)


@pytest.fixture
def scores_of(config_of, caplog):
    caplog.set_level("INFO")

    def scores(stored, *overrides):
        return min_scores_of(config_of(*overrides), stored, CLASSES)

    return scores


def warnings_of(caplog):
    return [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]


def test_each_class_has_the_score_that_the_run_chose(scores_of, stored, caplog):
    assert scores_of(stored) == {"ship": 0.7, "platform": 0.1, "buoy": 0.5}
    assert "min_score: ship 0.7, platform 0.1, buoy 0.5 (best F1 of each class on" in caplog.text


def test_a_class_with_the_default_is_named_with_what_to_do(scores_of, stored, caplog):
    scores_of(stored)
    (warning,) = warnings_of(caplog)
    assert warning == (
        "buoy has the default threshold 0.5, as its best F1 on the validation split, 0.050, is"
        " below 0.1; predict.min_score={buoy: …} sets another"
    )


def test_one_number_is_for_all_classes(scores_of, stored, caplog):
    assert scores_of(stored, "predict.min_score=0.3") == dict.fromkeys(CLASSES, 0.3)
    assert warnings_of(caplog) == []


def test_classes_that_are_not_asked_for_keep_the_scores_of_the_run(scores_of, stored, caplog):
    asked = "predict.min_score={ship: 0.6, buoy: 0}"
    assert scores_of(stored, asked) == {"ship": 0.6, "platform": 0.1, "buoy": 0.0}
    assert "; ship, buoy by predict.min_score)" in caplog.text
    assert warnings_of(caplog) == []


def test_a_class_that_the_detector_does_not_know_is_refused_with_those_it_knows(scores_of, stored):
    with pytest.raises(ConfigError) as raised:
        scores_of(stored, "predict.min_score={ship: 0.6, platfrom: 0.3}")
    assert str(raised.value) == (
        "predict.min_score names platfrom, which the detector does not know; its classes are"
        " ship, platform, buoy"
    )


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("1.5", r"predict\.min_score=1\.5 must be from 0 to 1"),
        ("{ship: -1}", r"predict\.min_score\.ship=-1 must be from 0 to 1"),
        ("{ship: high}", r"predict\.min_score\.ship=high must be"),
        ("{ship: null}", r"predict\.min_score\.ship=None must be"),
        ("abc", r"predict\.min_score=abc must be .* such as predict\.min_score={ship: 0\.6"),
        ("true", r"predict\.min_score=True must be"),
        ("[0.1]", r"predict\.min_score=\[0\.1\] must be"),
    ],
)
def test_what_is_no_score_is_refused_before_anything_is_read(scores_of, value, named):
    with pytest.raises(ConfigError, match=named):
        scores_of(None, f"predict.min_score={value}")


def test_a_class_may_be_called_by_a_number(config_of):
    config = config_of("predict.min_score={1: 0.4}")
    assert min_scores_of(config, None, ("0", "1")) == {"0": 0.5, "1": 0.4}


def test_without_a_run_the_default_is_said(scores_of, caplog):
    assert scores_of(None) == dict.fromkeys(CLASSES, 0.5)
    assert "min_score: 0.5 (the default, as nothing tells the run's own)" in caplog.text


def test_one_threshold_of_an_older_version_is_for_all_classes_and_said_once(scores_of, caplog):
    old = Thresholds.alike(CLASSES, 0.21, POOLED)
    assert scores_of(old) == dict.fromkeys(CLASSES, 0.21)
    assert caplog.text.count("one for all classes, as an older version chose it") == 1


def test_a_checkpoint_keeps_its_thresholds_away_from_its_run(stored, tmp_path):
    kept = stored.to_plain()
    assert stored_thresholds(kept, tmp_path / "model_best.pth", CLASSES) == stored
    run_folder.write_json(tmp_path / "thresholds.json", {"of": "another"})  # not even read
    assert stored_thresholds(kept, tmp_path / "model_best.pth", CLASSES) == stored


def test_a_checkpoint_of_an_older_version_has_the_threshold_of_its_run(tmp_path):
    result = run_folder.new_result(task="train", config_hash="", overrides=[])
    run_folder.write_result(tmp_path, result)
    assert stored_thresholds(None, tmp_path / "model_best.pth", CLASSES) is None
    run_folder.update_result(tmp_path, metrics={"threshold": 0.21})
    found = stored_thresholds(None, tmp_path / "model_best.pth", CLASSES)
    assert found.scores == dict.fromkeys(CLASSES, 0.21)


def test_broken_thresholds_are_named_with_their_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"model\.pth: the thresholds of ship, .* broken"):
        stored_thresholds({"classes": {}}, tmp_path / "model.pth", CLASSES)


def test_a_cfar_keeps_all_that_exceeds_its_rate_but_for_what_is_asked(typed_config, tmp_path):
    def scores(*overrides):
        common = ("task=predict", "model=cfar", "source=.", "usecase.classes=[ship,wind]")
        return choose_detector(typed_config(*common, *overrides), tmp_path).min_scores

    assert scores() == {"ship": 0.0, "wind": 0.0}
    assert scores("predict.min_score={wind: 0.8}") == {"ship": 0.0, "wind": 0.8}
    assert scores("predict.min_score=0.6") == {"ship": 0.6, "wind": 0.6}
    with pytest.raises(ConfigError, match="its classes are ship, wind"):
        scores("predict.min_score={boat: 0.8}")
