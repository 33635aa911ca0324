"""What the command line may set anew of a trained network counts; anything else is refused."""

from types import SimpleNamespace

import pytest

from sar_experiments.config import to_plain
from sar_experiments.errors import ConfigError
from sar_experiments.tasks.trained import as_trained

RUN = (
    "model=tiny", "augment=sar_strong", "augment.max_size_train=999", "solver.max_iter=77",
    "radiometry=xview3_sigmoid", "evaluation.min_score=0.2", "evaluation.max_detections=50",
    "d2.MODEL.RPN.NMS_THRESH=0.6",
)  # fmt: skip


@pytest.fixture
def evaluated(typed_config):
    """Overrides -> config of the run, config of its evaluation."""
    trained = typed_config(*(f"+{each}" if each.startswith("d2") else each for each in RUN))
    about = SimpleNamespace(config=to_plain(trained), classes=("ship",))

    def evaluate(*overrides, **options):
        config = typed_config("task=monitor", *overrides)
        return trained, as_trained(config, about, list(overrides), **options)

    return evaluate


def test_without_overrides_a_run_is_measured_as_it_was(evaluated):
    trained, config = evaluated()
    assert config.d2 == trained.d2
    assert to_plain(config)["augment"] == to_plain(trained)["augment"]
    assert config.evaluation == trained.evaluation


def test_inference_keys_of_the_command_line_are_laid_over_the_trained_ones(evaluated):
    trained, config = evaluated(
        "++d2.MODEL.RPN.NMS_THRESH=0.9", "++d2.MODEL.RPN.POST_NMS_TOPK_TEST=33",
        "++d2.MODEL.ROI_HEADS.NMS_THRESH_TEST=0.3", "++d2.TEST.DETECTIONS_PER_IMAGE=9",
    )  # fmt: skip
    found = config.d2["MODEL"]
    assert found["RPN"]["NMS_THRESH"] == 0.9
    assert found["RPN"]["POST_NMS_TOPK_TEST"] == 33
    assert found["ROI_HEADS"]["NMS_THRESH_TEST"] == 0.3
    assert found["ROI_HEADS"]["SCORE_THRESH_TEST"] == 0.2
    assert config.d2["TEST"]["DETECTIONS_PER_IMAGE"] == 9
    assert config.d2["SOLVER"] == trained.d2["SOLVER"]


def test_evaluation_of_the_command_line_reaches_the_network(evaluated):
    _, config = evaluated("evaluation.min_score=0.05")
    assert config.evaluation.min_score == 0.05
    assert config.evaluation.max_detections == 50
    for head in ("ROI_HEADS", "RETINANET"):
        assert config.d2["MODEL"][head]["SCORE_THRESH_TEST"] == 0.05
    assert config.d2["TEST"]["DETECTIONS_PER_IMAGE"] == 50
    _, config = evaluated("evaluation.max_detections=7")
    assert config.d2["TEST"]["DETECTIONS_PER_IMAGE"] == 7
    assert config.evaluation.max_detections == 7


def test_sizes_of_test_images_count_without_the_rest_of_an_augmentation(evaluated):
    trained, config = evaluated("augment.min_size_test=1024")
    assert config.augment.min_size_test == 1024
    assert config.augment.max_size_test == trained.augment.max_size_test
    assert config.augment.max_size_train == 999


@pytest.mark.parametrize(
    "override",
    [
        "++d2.MODEL.RPN.IN_FEATURES=[p2]",
        "++d2.MODEL.RPN.POST_NMS_TOPK_TRAIN=9",
        "d2.SOLVER.MAX_ITER=9",
        "augment=flips",
        "augment.max_size_train=500",
    ],
)
def test_what_the_weights_were_trained_with_is_refused_in_one_sentence(evaluated, override):
    with pytest.raises(ConfigError) as refusal:
        evaluated(override)
    assert str(refusal.value).startswith(override.lstrip("+"))
    assert "the checkpoint carries its own" in str(refusal.value)


def test_the_words_of_the_training_may_be_repeated(evaluated):
    trained, config = evaluated(
        "model=tiny", "augment=sar_strong", "augment.max_size_train=999", "d2.SOLVER.MAX_ITER=77"
    )
    assert config.d2 == trained.d2
    assert to_plain(config)["augment"] == to_plain(trained)["augment"]


def test_what_an_exported_file_has_fixed_is_refused(evaluated):
    evaluated("evaluation.min_score=0.2", is_exported=True)
    with pytest.raises(ConfigError, match=r"^evaluation\.min_score=0\.1 .*repeat task=export"):
        evaluated("evaluation.min_score=0.1", is_exported=True)
