"""A COCO file becomes dataset dicts, and each way it can be broken is named with its file.

A split keeps scenes whole and is the same on every machine.
"""

import json

import pytest

from sar_experiments.data.annotations import (
    limit_empty,
    read_coco,
    read_dataset,
    split_by_scene,
    write_coco,
)
from sar_experiments.errors import DatasetError

SCENES = r"(?P<scene>.+?)(_\d+){2,}"


def coco(images=3, categories=((4, "ship"), (9, "platform"))):
    return {
        "images": [
            {"id": 10 + i, "file_name": f"P{i // 2}_{i}_0.png", "height": 50, "width": 60}
            for i in range(images)
        ],
        "annotations": [
            {"id": 1, "image_id": 10, "category_id": 9, "bbox": [1, 2, 3, 4], "area": 12},
            {"id": 2, "image_id": 11, "category_id": 4, "bbox": [5, 5, 10, 10], "iscrowd": 1},
        ],
        "categories": [{"id": i, "name": name} for i, name in categories],
    }


@pytest.fixture
def read(tmp_path):
    def read_content(content, classes=None, scene_pattern=SCENES):
        path = tmp_path / "truth.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return read_coco(path, tmp_path, name="x", classes=classes, scene_pattern=scene_pattern)

    return read_content


def test_boxes_become_corners_and_ids_become_class_indices(read, tmp_path):
    dataset = read(coco())
    first, second, third = dataset.samples
    assert dataset.classes == ("ship", "platform")
    assert first["file_name"] == str(tmp_path / "P0_0_0.png")
    assert first["annotations"][0]["bbox"] == [1, 2, 4, 6]
    assert first["annotations"][0]["category_id"] == 1
    assert second["annotations"][0]["iscrowd"] == 1
    assert second["annotations"][0]["area"] == 100
    assert third["annotations"] == []


def test_the_class_list_decides_the_order(read):
    dataset = read(coco(), classes=["platform", "ship"])
    assert dataset.classes == ("platform", "ship")
    assert dataset.samples[0]["annotations"][0]["category_id"] == 0
    assert dataset.class_counts() == {"platform": 1, "ship": 1}


def test_files_with_other_ids_agree_by_name(read):
    other = coco(categories=((9, "ship"), (4, "platform")))
    assert (
        read(other, classes=["ship", "platform"]).samples[0]["annotations"][0]["category_id"] == 0
    )


def test_an_unused_category_may_be_left_out(read):
    content = coco(categories=((4, "ship"), (9, "platform"), (11, "bridge")))
    assert read(content, classes=["ship", "platform"]).classes == ("ship", "platform")


def test_a_scene_is_the_part_of_the_name_before_the_numbers(read):
    assert [s["scene"] for s in read(coco()).samples] == ["P0", "P0", "P1"]


def test_an_images_own_scene_wins_and_no_pattern_makes_each_its_own(read):
    content = coco()
    content["images"][0]["scene"] = "harbour"
    assert [s["scene"] for s in read(content).samples] == ["harbour", "P0", "P1"]
    assert len({s["scene"] for s in read(coco(), scene_pattern="").samples}) == 3


def broken(change):
    content = coco()
    change(content)
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "holds a list"),
        ({"info": 1}, r"no list 'images'.*found: info"),
        (broken(lambda c: c["images"][1].pop("width")), r"images\[1\] lacks width"),
        (broken(lambda c: c["annotations"][0].pop("bbox")), r"annotations\[0\] lacks bbox"),
        (broken(lambda c: c["images"][1].update(id=10)), r"images\[\]\.id 10 .* more than once"),
        (broken(lambda c: c["annotations"][1].update(id=1)), r"annotations\[\]\.id 1 .* more than"),
        (
            broken(lambda c: c["images"][1].update(file_name="P0_0_0.png")),
            "'P0_0_0.png' stands there more than once",
        ),
        (broken(lambda c: c["annotations"][1].update(image_id=99)), "image_id 99, which no image"),
        (broken(lambda c: c["annotations"][1].update(category_id=5)), "category_id 5 is none of"),
        (broken(lambda c: c["annotations"][1].update(bbox=[1, 2])), "must be four numbers"),
        (broken(lambda c: c["categories"][1].update(name="ship")), "'ship' stands there more than"),
        (broken(lambda c: c["categories"].clear()), "no list 'categories'"),
    ],
)
def test_a_broken_file_is_refused_with_its_place(read, content, message):
    with pytest.raises(DatasetError, match=message) as refusal:
        read(content)
    assert "truth.json" in str(refusal.value)


def test_a_misspelt_class_is_refused_with_the_nearest(read):
    with pytest.raises(DatasetError, match="did you mean 'platform'"):
        read(coco(), classes=["ship", "plattform"])


def test_a_class_that_the_list_lacks_is_refused(read):
    with pytest.raises(DatasetError, match="objects of class platform"):
        read(coco(), classes=["ship"])


def test_a_missing_file_folder_or_format_is_named(tmp_path):
    options = {"name": "x", "classes": None, "scene_pattern": ""}
    with pytest.raises(DatasetError, match=r"none\.json does not exist"):
        read_coco(tmp_path / "none.json", tmp_path, **options)
    with pytest.raises(DatasetError, match="images is no folder"):
        read_coco(tmp_path / "none.json", tmp_path / "images", **options)
    with pytest.raises(DatasetError, match=r"boxes\.parquet is in no known format"):
        read_dataset(tmp_path / "boxes.parquet", tmp_path, **options)


def test_what_is_written_reads_back_the_same(read, tmp_path):
    dataset = read(coco())
    write_coco(dataset, tmp_path / "again.json")
    again = read_coco(
        tmp_path / "again.json", tmp_path, name="x", classes=dataset.classes, scene_pattern=""
    )
    assert again.samples == dataset.samples


def test_a_split_keeps_scenes_whole_and_near_the_wanted_share(read):
    train, val = split_by_scene(read(coco(images=20)), val_share=0.2, seed=0)
    scenes = [{sample["scene"] for sample in part.samples} for part in (train, val)]
    assert not scenes[0] & scenes[1]
    assert (len(train.samples), len(val.samples)) == (16, 4)


def test_a_split_is_the_same_every_time_and_another_with_another_seed(read):
    dataset = read(coco(images=20))

    def chosen(seed):
        return [s["image_id"] for s in split_by_scene(dataset, val_share=0.2, seed=seed)[1].samples]

    assert chosen(0) == chosen(0)
    assert len({tuple(chosen(seed)) for seed in range(5)}) > 1


@pytest.mark.parametrize("val_share", [0.01, 0.99])
def test_each_side_of_a_split_gets_a_scene(read, val_share):
    train, val = split_by_scene(read(coco(images=4)), val_share=val_share, seed=0)
    assert train.samples
    assert val.samples


def test_a_large_scene_is_not_taken_for_a_small_share(read):
    content = coco(images=7)
    for number, image in enumerate(content["images"]):
        image["scene"] = "large" if number else "small"
    for seed in range(4):
        train, val = split_by_scene(read(content), val_share=0.2, seed=seed)
        assert (len(train.samples), len(val.samples)) == (6, 1)


def test_one_scene_cannot_be_split(read):
    with pytest.raises(DatasetError, match=r"only the scene 'P0'.*usecase\.scene_pattern"):
        split_by_scene(read(coco(images=2)), val_share=0.2, seed=0)


def test_images_without_objects_are_kept_unless_a_share_is_set(read):
    dataset = read(coco(images=10))
    assert limit_empty(dataset, 1.0, seed=0) is dataset
    limited = limit_empty(dataset, 0.5, seed=0)
    assert limited.empty_share() == 0.5
    assert sum(limited.class_counts().values()) == 2
    assert limit_empty(dataset, 0.0, seed=0).empty_share() == 0.0
