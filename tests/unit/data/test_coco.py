"""A COCO file becomes dataset dicts, and each way it can be broken is named with its file.

A file that is broken as a whole is refused; a record that is broken is left out and named.
"""

import json

import numpy as np
import pytest
from pycocotools import mask as mask_tools

from sar_experiments.data.coco import read_coco, write_coco
from sar_experiments.data.images import write_image
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
    def read_content(content, classes=None, scene_pattern=SCENES, name="x"):
        path = tmp_path / "truth.json"
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_coco(path, tmp_path, name=name, classes=classes, scene_pattern=scene_pattern)

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
        ({"info": 1}, r"no list 'categories'.*found: info"),
        (broken(lambda c: c.pop("images")), "no list 'images'"),
        (broken(lambda c: c["categories"].clear()), "no list 'categories'"),
        (broken(lambda c: c["categories"][1].update(name="ship")), "'ship' stands there more than"),
        (broken(lambda c: c["categories"][1].update(id=4)), r"categories\[\]\.id 4 stands"),
        (broken(lambda c: c["categories"][1].pop("name")), r"categories\[1\] lacks name"),
        (
            broken(lambda c: [each.pop("id") for each in c["images"]]),
            r"no image.*\[0\] lacks",
        ),
    ],
)
def test_a_broken_file_is_refused_with_its_place(read, content, message):
    with pytest.raises(DatasetError, match=message) as refusal:
        read(content)
    assert "truth.json" in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "code", "sentence"),
    [
        (lambda c: c["images"][2].pop("width"), "record broken", "images[2] lacks width"),
        (lambda c: c["images"][2].update(width=0), "image record broken", "has width=0 and"),
        (lambda c: c["images"][2].update(id="a"), "record broken", "images[2] has id='a'"),
        (
            lambda c: c["images"][2].update(file_name="P0_0_0.png"),
            "image file twice",
            "images[2] repeats file_name 'P0_0_0.png'",
        ),
        (lambda c: c["images"].append(3), "record broken", "images[3] is 3, not an object"),
        (lambda c: c["annotations"][1].pop("bbox"), "record broken", "annotations[1] lacks bbox"),
        (
            lambda c: c["annotations"][1].update(bbox=[1, 2, float("inf"), 4]),
            "box unreadable",
            "annotations[1] has bbox=[1, 2, inf, 4], which must be finite numbers",
        ),
        (
            lambda c: c["annotations"][1].update(bbox=[0.5, 0.5, 0.1, 0.2]),
            "box in shares",
            "annotations[1] has bbox=[0.5, 0.5, 0.1, 0.2], which are shares of the image",
        ),
        (lambda c: c["annotations"][1].update(image_id=99), "image unknown", "image_id 99, which"),
        (lambda c: c["annotations"][1].update(category_id=5), "class unknown", "category_id 5"),
        (lambda c: c["annotations"][1].update(bbox=[1, 2]), "box unreadable", "bbox=[1, 2]"),
        (lambda c: c["annotations"][1].update(bbox=[1, 2, 3, "4"]), "box unreadable", "'4']"),
    ],
)
def test_a_broken_record_is_left_out_and_named(read, change, code, sentence):
    dataset = read(broken(change))
    (fault,) = dataset.faults
    assert (fault.code, fault.severity) == (code, "error")
    assert sentence in fault.sentence
    assert "truth.json" in fault.sentence
    held = len(dataset.samples) + sum(len(s["annotations"]) for s in dataset.samples)
    assert held == (5 if sentence.startswith("images[3]") else 4)


def test_objects_of_an_image_that_is_left_out_say_so(read):
    dataset = read(broken(lambda c: c["images"][0].pop("width")))
    assert [fault.code for fault in dataset.faults] == ["record broken", "image left out"]


@pytest.mark.parametrize("outline", [[[1, 2, 3]], [[1, 2, 3, 4, 5, 6, 7]], [5], [["a"] * 6]])
def test_an_outline_that_is_none_costs_the_outline_alone(read, outline):
    dataset = read(broken(lambda c: c["annotations"][0].update(segmentation=outline)))
    (fault,) = dataset.faults
    assert (fault.code, fault.severity) == ("outline unreadable", "warning")
    assert "segmentation" not in dataset.samples[0]["annotations"][0]


def test_a_misspelt_class_is_refused_with_the_nearest(read):
    with pytest.raises(DatasetError, match="did you mean 'platform'"):
        read(coco(), classes=["ship", "plattform"])


def test_objects_of_a_class_that_the_list_lacks_are_left_out_and_named(read):
    (fault,) = read(coco(), classes=["ship"]).faults
    assert fault.code == "class not listed"
    assert "annotations[0] is of class platform, which usecase.classes (ship)" in fault.sentence


def test_a_missing_file_or_folder_is_named(tmp_path):
    options = {"name": "x", "classes": None, "scene_pattern": ""}
    with pytest.raises(DatasetError, match=r"none\.json does not exist"):
        read_coco(tmp_path / "none.json", tmp_path, **options)
    with pytest.raises(DatasetError, match="images is no folder"):
        read_coco(tmp_path / "none.json", tmp_path / "images", **options)


def test_what_is_written_reads_back_the_same(read, tmp_path):
    dataset = read(coco())
    write_coco(dataset, tmp_path / "again.json")
    again = read_coco(
        tmp_path / "again.json", tmp_path, name="x", classes=dataset.classes, scene_pattern=""
    )
    assert again.samples == dataset.samples


def test_objects_of_an_image_id_that_two_images_have_are_given_to_neither(read):
    dataset = read(broken(lambda c: c["images"][2].update(id=10)))
    assert [fault.code for fault in dataset.faults] == ["image id twice"] * 2 + ["image left out"]
    assert [sample["image_id"] for sample in dataset.samples] == [11]


def test_an_image_record_that_stands_there_twice_costs_no_object(read):
    dataset = read(broken(lambda c: c["images"].append(dict(c["images"][0]))))
    assert [fault.code for fault in dataset.faults] == ["image file twice"]
    assert dataset.class_counts() == {"ship": 1, "platform": 1}


@pytest.mark.parametrize("number", [None, 1, "a"])
def test_an_annotation_id_that_cannot_be_used_costs_no_object(read, number):
    dataset = read(broken(lambda c: c["annotations"][1].update(id=number)))
    (fault,) = dataset.faults
    assert (fault.code, fault.severity) == ("annotation id replaced", "warning")
    assert [a["id"] for s in dataset.samples for a in s["annotations"]] == [1, 2]


def test_a_validation_file_may_lack_classes_and_order_them_otherwise(read):
    content = broken(lambda c: c["annotations"].pop(0))
    content["categories"] = [{"id": 4, "name": "ship"}, {"id": 1, "name": "nobody wants it"}]
    classes = ["platform", "ship", "bridge"]
    dataset = read(content, classes=classes, name="val")
    assert dataset.class_counts() == {"platform": 0, "ship": 1, "bridge": 0}
    assert not dataset.faults
    with pytest.raises(DatasetError, match="names 'bridge'"):
        read(content, classes=["bridge"], name="val")
    with pytest.raises(DatasetError, match="names 'platform'"):
        read(content, classes=classes, name="train")


def test_a_file_of_boxes_in_shares_is_refused_in_one_sentence(read):
    content = coco()
    for each in content["annotations"]:
        each["bbox"] = [0.1, 0.2, 0.3, 0.4]
    with pytest.raises(DatasetError, match=r"annotations\[0\] has bbox=\[0\.1.*all 2 boxes"):
        read(content)


def test_a_byte_order_mark_is_no_fault_and_other_encodings_are_refused_with_their_line(read):
    assert not read("\ufeff" + json.dumps(coco())).faults
    with pytest.raises(DatasetError, match=r"truth\.json, line 2: is no UTF-8 text"):
        read('{"a":\n"船"}'.encode("gbk"))


def test_backslashes_and_missing_sizes_are_made_up_for_by_the_image(read, tmp_path, rng):
    (tmp_path / "images").mkdir()
    write_image(tmp_path / "images" / "a.png", rng.integers(0, 256, (30, 70), dtype="uint8"))
    content = coco(images=1)
    content["images"][0] = {"id": 10, "file_name": "images\\a.png"}
    content["annotations"].pop()
    (sample,) = read(content).samples
    assert sample["file_name"] == str(tmp_path / "images" / "a.png")
    assert (sample["height"], sample["width"], sample["scene"]) == (30, 70, "images/a")


def test_an_area_that_is_no_number_is_that_of_the_box(read):
    content = broken(lambda c: c["annotations"][0].update(area=float("nan")))
    assert read(content).samples[0]["annotations"][0]["area"] == 12


def test_masks_in_run_lengths_become_polygons_around_the_same_pixels(read):
    mask = np.zeros((40, 60), np.uint8, order="F")
    mask[5:9, 12:31] = 1
    mask[20:22, 40:44] = 1  # a second part of the object
    packed = mask_tools.encode(mask)
    column_wise = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(column_wise)) + 1
    counts = np.diff([0, *changes, column_wise.size]).tolist()
    for lengths in (packed["counts"].decode(), counts):
        record = {"size": [40, 60], "counts": lengths}
        dataset = read(broken(lambda c, r=record: c["annotations"][0].update(segmentation=r)))
        assert not dataset.faults
        polygons = dataset.samples[0]["annotations"][0]["segmentation"]
        spans = sorted([min(p[0::2]), min(p[1::2]), max(p[0::2]), max(p[1::2])] for p in polygons)
        assert spans == [
            pytest.approx([12, 5, 31, 9], abs=0.13),
            pytest.approx([40, 20, 44, 22], abs=0.13),
        ]


def test_run_lengths_that_mean_nothing_leave_the_box(read):
    record = {"size": [40], "counts": "??"}
    dataset = read(broken(lambda c: c["annotations"][0].update(segmentation=record)))
    (fault,) = dataset.faults
    assert (fault.code, fault.severity) == ("outline unreadable", "warning")
    assert "cannot be decoded; its box alone is used" in fault.sentence
