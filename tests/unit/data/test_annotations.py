"""A split keeps scenes whole and is the same every time; difficult objects follow one rule."""

import re
from pathlib import Path

import pytest

from sar_experiments.config import Difficult
from sar_experiments.data.annotations import (
    Dataset,
    Fault,
    as_agreed,
    limit_empty,
    scene_of,
    split_by_scene,
)
from sar_experiments.errors import DatasetError


def chips(count):
    """Two chips per scene; the first two chips hold an object each."""
    samples = tuple(
        {
            "file_name": f"P{i // 2}_{i}_0.png",
            "image_id": 10 + i,
            "height": 50,
            "width": 60,
            "scene": f"P{i // 2}",
            "annotations": [
                {
                    "bbox": [1, 2, 4, 6],
                    "bbox_mode": 0,
                    "category_id": i,
                    "iscrowd": 0,
                    "id": i,
                    "area": 12,
                }
            ][: i < 2],
        }
        for i in range(count)
    )
    faults = (Fault("record broken", "truth.json", "truth.json: images[9] lacks id"),)
    return Dataset("x", samples, ("ship", "platform"), Path(), Path("truth.json"), faults)


def test_a_scene_is_the_part_of_the_name_before_the_numbers():
    pattern = re.compile(r"(?P<scene>.+?)(_\d+){2,}")
    assert scene_of("folder/P0001_1200_2000", pattern) == "P0001"
    assert scene_of("folder/other", pattern) == "folder/other"
    assert scene_of("P0001_1200_2000", re.compile("")) == "P0001_1200_2000"


def test_a_split_keeps_scenes_whole_and_near_the_wanted_share():
    train, val = split_by_scene(chips(20), val_share=0.2, seed=0)
    scenes = [{sample["scene"] for sample in part.samples} for part in (train, val)]
    assert not scenes[0] & scenes[1]
    assert (len(train.samples), len(val.samples)) == (16, 4)


def test_a_split_is_the_same_every_time_and_another_with_another_seed():
    dataset = chips(20)

    def chosen(seed):
        return [s["image_id"] for s in split_by_scene(dataset, val_share=0.2, seed=seed)[1].samples]

    assert chosen(0) == chosen(0)
    assert len({tuple(chosen(seed)) for seed in range(5)}) > 1


@pytest.mark.parametrize("val_share", [0.01, 0.99])
def test_each_side_of_a_split_gets_a_scene(val_share):
    train, val = split_by_scene(chips(4), val_share=val_share, seed=0)
    assert train.samples
    assert val.samples


def test_a_large_scene_is_not_taken_for_a_small_share():
    dataset = chips(7)
    for number, sample in enumerate(dataset.samples):
        sample["scene"] = "large" if number else "small"
    for seed in range(4):
        train, val = split_by_scene(dataset, val_share=0.2, seed=seed)
        assert (len(train.samples), len(val.samples)) == (6, 1)


def test_one_scene_cannot_be_split():
    with pytest.raises(DatasetError, match=r"only the scene 'P0'.*usecase\.scene_pattern"):
        split_by_scene(chips(2), val_share=0.2, seed=0)


def test_images_without_objects_are_kept_unless_a_share_is_set():
    dataset = chips(10)
    assert limit_empty(dataset, 1.0, seed=0) is dataset
    limited = limit_empty(dataset, 0.5, seed=0)
    assert limited.empty_share() == 0.5
    assert sum(limited.class_counts().values()) == 2
    assert limit_empty(dataset, 0.0, seed=0).empty_share() == 0.0


def test_what_could_not_be_read_is_told_once_after_a_split():
    train, val = split_by_scene(chips(20), val_share=0.2, seed=0)
    assert (len(train.faults), len(val.faults)) == (1, 0)


@pytest.mark.parametrize(
    ("rule", "learnt", "counted"),
    [
        (Difficult.learn, True, False),
        (Difficult.count, True, True),
        (Difficult.ignore, False, False),
    ],
)
def test_difficult_objects_follow_the_use_cases_rule(rule, learnt, counted):
    dataset = chips(2)
    dataset.samples[0]["annotations"][0]["difficult"] = 1
    for is_learnt, stays in ((True, learnt), (False, counted)):
        first, second = as_agreed(dataset, rule, is_learnt=is_learnt).samples
        assert first["annotations"][0]["iscrowd"] == (not stays)
        assert second["annotations"][0]["iscrowd"] == 0
    assert dataset.samples[0]["annotations"][0]["iscrowd"] == 0
