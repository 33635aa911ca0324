"""Each fault planted into a dataset is found and named with its file.

Errors can be left out; what is merely odd is a warning. A second look takes its numbers from the
cache, unless the file changed.
"""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from sar_experiments.data import image_scan
from sar_experiments.data.annotations import Dataset, Fault
from sar_experiments.data.check_figures import write_figures
from sar_experiments.data.checks import CheckSettings, check_datasets, without_bad_samples
from sar_experiments.data.images import read_image, write_image
from sar_experiments.data.radiometry import Radiometry

WIDTH, HEIGHT = 60, 40
GOOD = (10.0, 10.0, 30.0, 20.0)


@pytest.fixture
def settings(typed_config):
    return CheckSettings(
        radiometry=Radiometry.from_config(typed_config().radiometry),
        anchor_sizes=[[8.0], [16.0]],
        anchor_ratios=[0.5, 1.0, 2.0],
        min_size_px=0,
        max_size_px=1333,
        workers=2,
    )


@pytest.fixture
def part(tmp_path, rng):
    """Boxes per image -> a dataset whose images lie in tmp_path."""

    def make(*images, name="train", classes=("ship",), area=None):
        samples = []
        for index, boxes in enumerate(images):
            path = tmp_path / f"{name}_{index}.png"
            cv2.imwrite(str(path), rng.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8))
            annotations = [
                {
                    "bbox": list(box),
                    "bbox_mode": 0,
                    "category_id": 0,
                    "iscrowd": 0,
                    "id": 10 * index + number,
                    "area": area or (box[2] - box[0]) * (box[3] - box[1]),
                }
                for number, box in enumerate(boxes)
            ]
            samples.append(
                {
                    "file_name": str(path),
                    "image_id": index,
                    "height": HEIGHT,
                    "width": WIDTH,
                    "scene": f"{name}{index}",
                    "annotations": annotations,
                }
            )
        return Dataset(name, tuple(samples), classes, tmp_path, tmp_path / "truth.json")

    return make


def codes(report):
    return {(each.severity, each.code) for each in report.findings}


def test_a_sound_dataset_has_no_findings(part, settings):
    report = check_datasets({"train": part([GOOD]), "val": part([GOOD], name="val")}, settings)
    assert not report.findings
    assert "nothing wrong was found" in report.as_table()


@pytest.mark.parametrize(
    ("box", "severity", "code"),
    [
        ((30, 10, 30, 20), "error", "box empty"),
        ((30, 10, 20, 20), "error", "box empty"),
        ((float("nan"), 10, 20, 20), "error", "box empty"),
        ((60, 10, 70, 20), "error", "box outside"),
        ((-20, 10, 0, 20), "error", "box outside"),
        ((50, 10, 65, 20), "warning", "box cut"),
        ((-5, 10, 75, 20), "warning", "box larger than the image"),
        ((10, 10, 12, 30), "warning", "box tiny"),
    ],
)
def test_a_bad_box_is_named(part, settings, box, severity, code):
    report = check_datasets({"train": part([GOOD], [box])}, settings)
    (finding,) = [f for f in report.findings if f.code != "area wrong"]
    assert (finding.severity, finding.code) == (severity, code)
    assert "train_1.png: annotation 10 has the" in finding.sentence


def test_a_box_may_stick_out_by_a_rounding(part, settings):
    assert not check_datasets({"train": part([(50, 10, 61, 20)])}, settings).findings


def test_a_repeated_box_and_a_wrong_area_are_warnings(part, settings):
    assert codes(check_datasets({"train": part([GOOD, GOOD])}, settings)) == {
        ("warning", "box twice")
    }
    assert codes(check_datasets({"train": part([GOOD], area=1e6)}, settings)) == {
        ("warning", "area wrong")
    }


def test_images_that_cannot_be_used_are_errors(part, settings):
    dataset = part([GOOD], [GOOD], [GOOD], [GOOD])
    files = [Path(sample["file_name"]) for sample in dataset.samples]
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-30])
    cv2.imwrite(str(files[2]), np.zeros((HEIGHT + 1, WIDTH), dtype=np.uint8))
    report = check_datasets({"train": dataset}, settings)
    named = {Path(error.file).name: error.code for error in report.errors}
    assert named == {
        "train_0.png": "image missing",
        "train_1.png": "image broken",
        "train_2.png": "image size differs",
    }
    assert "60 x 41 px, annotated as 60 x 40 px" in report.as_table()


def test_an_image_in_two_parts_is_found_under_another_name(part, settings):
    train, val = part([GOOD]), part([GOOD], name="val")
    shutil.copy(train.samples[0]["file_name"], val.samples[0]["file_name"])
    report = check_datasets({"train": train, "val": val}, settings)
    assert codes(report) == {("warning", "image shared by parts")}
    assert "val_0.png, which train holds as" in report.findings[0].sentence


def test_a_scene_in_two_parts_is_found(part, settings):
    train, val = part([GOOD]), part([GOOD], name="val")
    val = replace(val, samples=tuple({**s, "scene": "train0"} for s in val.samples))
    report = check_datasets({"train": train, "val": val}, settings)
    assert codes(report) == {("warning", "scene shared by parts")}


def test_a_class_without_objects_is_a_warning(part, settings):
    report = check_datasets({"train": part([GOOD], classes=("ship", "bridge"))}, settings)
    assert codes(report) == {("warning", "class unused")}
    assert report.findings[0].sentence == "train has no object of class bridge"


def test_bad_images_and_boxes_are_left_out_and_counted(part, settings):
    dataset = part([GOOD, (30, 10, 30, 20)], [GOOD], [])
    Path(dataset.samples[1]["file_name"]).unlink()
    kept, counts = without_bad_samples(dataset, check_datasets({"train": dataset}, settings))
    assert counts == {"images": 1, "boxes": 1}
    assert [[a["bbox"] for a in s["annotations"]] for s in kept.samples] == [[list(GOOD)], []]


def test_pixel_statistics_are_those_of_the_encoded_pixels(part, settings):
    dataset = part([GOOD], [GOOD])
    stored = [cv2.imread(s["file_name"], cv2.IMREAD_UNCHANGED) / 255 for s in dataset.samples]
    numbers = check_datasets({"train": dataset}, settings).parts["train"]
    assert numbers.mean == pytest.approx([np.mean(stored)], abs=1e-6)
    assert numbers.std == pytest.approx([np.std(stored)], abs=1e-6)
    assert sum(numbers.histogram) == pytest.approx(1)


def test_anchors_are_measured_and_better_ones_proposed(part, settings):
    boxes = [(0, 0, side, side / 2) for side in (20, 22, 24, 40, 44, 48)]
    report = check_datasets(
        {"train": part(*[[box] for box in boxes])}, replace(settings, anchor_sizes=[[4.0], [6.0]])
    )
    assert report.fit.reached_share == 0
    assert report.proposal.sizes == [[15.5], [31.0]]
    assert 0.5 in report.proposal.ratios
    assert report.proposal.fit.reached_share == 1


def test_sizes_are_those_the_network_sees(part, settings):
    report = check_datasets({"train": part([GOOD])}, replace(settings, min_size_px=80))
    assert report.parts["train"].sizes.tolist() == [[40, 20]]


def test_a_second_look_decodes_nothing_unless_a_file_changed(part, settings, tmp_path, monkeypatch):
    dataset = part([GOOD], [GOOD])
    cached = replace(settings, cache=tmp_path / "cache.sqlite")
    first = check_datasets({"train": dataset}, cached)
    decoded = []
    scan = image_scan.scan_image
    monkeypatch.setattr(
        image_scan, "scan_image", lambda path, r: decoded.append(path.name) or scan(path, r)
    )
    again = check_datasets({"train": dataset}, cached)
    assert decoded == []
    assert again.as_json() == first.as_json()
    cv2.imwrite(dataset.samples[1]["file_name"], np.zeros((HEIGHT, WIDTH), dtype=np.uint8))
    check_datasets({"train": dataset}, cached)
    assert decoded == ["train_1.png"]


def test_a_cache_that_cannot_be_used_is_done_without(part, settings, tmp_path):
    (tmp_path / "cache.sqlite").write_text("not a database, and long enough to be looked at")
    cached = replace(settings, cache=tmp_path / "cache.sqlite")
    assert not check_datasets({"train": part([GOOD])}, cached).findings


def test_progress_reaches_the_end(part, settings):
    seen = []
    check_datasets(
        {"train": part([GOOD], [GOOD])}, settings, progress=lambda *state: seen.append(state)
    )
    assert seen == [(1, 2), (2, 2)]


def test_the_figure_is_a_whole_png(part, settings, tmp_path):
    report = check_datasets({"train": part([GOOD], []), "val": part([], name="val")}, settings)
    path = write_figures(report, tmp_path)
    assert cv2.imread(str(path)).shape[1] > 500


def test_a_box_repeated_by_rounding_or_under_another_class_is_named(part, settings):
    near = (10.3, 9.8, 30.2, 20.1)
    report = check_datasets({"train": part([GOOD, near])}, settings)
    assert codes(report) == {("warning", "box twice")}
    dataset = part([GOOD, GOOD], classes=("ship", "bridge"))
    dataset.samples[0]["annotations"][1]["category_id"] = 1
    report = check_datasets({"train": dataset}, settings)
    assert codes(report) == {("warning", "box of two classes")}
    assert "ship there, bridge here" in report.findings[0].sentence


@pytest.mark.parametrize(("shift", "found"), [(0, False), (1.5, False), (2, True), (40, True)])
def test_an_outline_that_does_not_belong_to_its_box_is_a_warning(part, settings, shift, found):
    dataset = part([GOOD])
    left, top, right, bottom = GOOD
    outline = [left + shift, top, right + shift, top, right + shift, bottom, left + shift, bottom]
    dataset.samples[0]["annotations"][0]["segmentation"] = [outline]
    report = check_datasets({"train": dataset}, settings)
    assert codes(report) == ({("warning", "outline not of its box")} if found else set())
    if shift == 40:
        (finding,) = report.findings
        assert finding.annotation == 0
        assert (
            "outline that spans (50, 10, 70, 20) and the box (10, 10, 30, 20)" in finding.sentence
        )


@pytest.mark.parametrize(("area", "is_wrong"), [(100, False), (120, False), (30, True)])
def test_an_area_far_from_its_outline_is_a_warning(part, settings, area, is_wrong):
    dataset = part([GOOD], area=area)
    dataset.samples[0]["annotations"][0]["segmentation"] = [[10, 10, 30, 10, 10, 20]]  # half of it
    report = check_datasets({"train": dataset}, settings)
    assert codes(report) == ({("warning", "area wrong")} if is_wrong else set())


def test_the_same_pixels_are_found_in_another_file_format(part, settings, tmp_path):
    train, val = part([GOOD]), part([GOOD], name="val")
    copied = tmp_path / "copy.tif"
    write_image(copied, read_image(Path(train.samples[0]["file_name"])))
    val = replace(val, samples=({**val.samples[0], "file_name": str(copied)},))
    report = check_datasets({"train": train, "val": val}, settings)
    assert codes(report) == {("warning", "image shared by parts")}


def test_what_a_reader_left_out_is_an_error_and_counted(part, settings):
    fault = Fault("line unreadable", "labels/a.txt", "labels/a.txt, line 3: '0 1'")
    odd = Fault("label file missing", "labels/b.txt", "labels/b.txt is missing", "warning")
    dataset = replace(part([GOOD]), faults=(fault, odd))
    report = check_datasets({"train": dataset}, settings)
    assert codes(report) == {("error", "line unreadable"), ("warning", "label file missing")}
    assert report.left_out == {"train": {"records": 1}}
    assert "usecase.ignore_bad_samples=true   # leaves out train: 1 record" in report.as_table()
    assert without_bad_samples(dataset, report)[0].samples == dataset.samples


def test_the_table_counts_objects_and_shows_a_few_sentences_of_each_kind(part, settings):
    dataset = part([GOOD, (40, 10, 41, 30)], *[[(10, 10, 12, 30)]] * 5, [], classes=("ship", "sub"))
    text = check_datasets({"train": dataset}, settings).as_table()
    for line in (
        r"images +7",
        r"without objects +14%",
        r"most in one image +2",
        r"  ship +7 \(100%\)",
        r"0 errors, 7 warnings",
        r"warning  train: box tiny: 6",
        r"         and 3 more, see check\.json",
    ):
        assert re.search(f"(?m)^{line}$", text), f"{line} in\n{text}"


def test_an_interrupted_look_ends_soon_and_goes_on_from_its_cache(part, settings, tmp_path):
    dataset = part(*[[GOOD]] * 40)
    cached = replace(settings, cache=tmp_path / "cache.sqlite", workers=1)

    def interrupt(done, _total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_datasets({"train": dataset}, cached, progress=interrupt)
    seen = []
    check_datasets({"train": dataset}, cached, progress=lambda *state: seen.append(state))
    assert seen[0] == (4, 40)


def rewritten(dataset, pixels):
    """Replace the pixels of all images."""
    for sample in dataset.samples:
        path = Path(sample["file_name"])
        path.unlink()
        write_image(path, pixels)
    return dataset


def test_objects_that_are_all_crowds_are_an_error_in_train_and_odd_in_val(part, settings):
    train, val = part([GOOD]), part([GOOD], name="val")
    for dataset in (train, val):
        dataset.samples[0]["annotations"][0]["iscrowd"] = 1
    report = check_datasets({"train": train, "val": val}, settings)
    found = {(each.severity, each.part) for each in report.findings if each.code == "only crowds"}
    assert found == {("error", "train"), ("warning", "val")}
    (sentence,) = {
        e.sentence for e in report.findings if (e.code, e.part) == ("only crowds", "val")
    }
    assert sentence.startswith("all 1 objects of val are crowds")


def test_objects_in_an_image_without_data_are_an_error(part, settings):
    nothing = np.full((HEIGHT, WIDTH), np.nan, np.float32)
    dataset = part([GOOD], [])
    for sample in dataset.samples:
        tiff = Path(sample["file_name"]).with_suffix(".tif")
        write_image(tiff, nothing)
        sample["file_name"] = str(tiff)
    report = check_datasets({"train": dataset}, settings)
    found = [each for each in report.findings if each.code == "image without data"]
    assert [(each.severity, Path(each.file).name) for each in found] == [("error", "train_0.tif")]


@pytest.mark.parametrize(
    ("numbers", "code"),
    [
        (np.uint16(4000), "pixels white"),  # sixteen bits under a radiometry of eight
        (np.uint8(1), "pixels black"),  # what was one bit
        (np.uint8(40), None),
    ],
)
def test_pixels_of_another_radiometry_are_noticed(part, settings, rng, numbers, code):
    pixels = (rng.random((HEIGHT, WIDTH)) < 0.97).astype(numbers.dtype) * numbers
    report = check_datasets({"train": rewritten(part([GOOD]), pixels)}, settings)
    assert [e.code for e in report.findings if e.code.startswith("pixels")] == ([code] * bool(code))
