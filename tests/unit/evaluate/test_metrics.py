"""Average precision is COCO's; precision, recall and F1 match each truth once.

Crowds do not count, duplicates are false alarms, and nothing depends on the order of images.
"""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sar_experiments.detections import Detections
from sar_experiments.evaluate.metrics import (
    FALSE_ALARM,
    ON_CROWD,
    assign,
    coco_results,
    flat,
    measure,
    metrics_table,
)

SHIP = (10.0, 10.0, 30.0, 20.0)
FAR = (60.0, 60.0, 80.0, 70.0)


def sample(*boxes, image_id=1, crowd=()):
    annotations = [
        {
            "bbox": list(box[:4]),
            "bbox_mode": 0,
            "category_id": int(box[4]) if len(box) > 4 else 0,
            "iscrowd": int(index in crowd),
            "id": 100 * image_id + index,
            "area": (box[2] - box[0]) * (box[3] - box[1]),
        }
        for index, box in enumerate(boxes)
    ]
    return {
        "file_name": f"{image_id}.png",
        "image_id": image_id,
        "height": 100,
        "width": 100,
        "scene": "a",
        "annotations": annotations,
    }


def found(*rows):
    """Rows of box, score and, where it is not 0, class."""
    return Detections.of(
        [row[0] for row in rows],
        [row[1] for row in rows],
        [row[2] if len(row) > 2 else 0 for row in rows],
    )


def numbers(samples, detections, classes=("ship",), *, max_detections=100, match_iou=0.5):
    return measure(samples, detections, classes, max_detections=max_detections, match_iou=match_iou)


def random_case(rng, images=12, classes=2):
    samples, detections = [], {}
    for image_id in range(1, images + 1):
        corners = rng.uniform(0, 60, (rng.integers(0, 5), 2))
        boxes = np.hstack([corners, corners + rng.uniform(8, 38, corners.shape)])
        kinds = rng.integers(0, classes, len(boxes))
        rows = np.column_stack([boxes, kinds])
        samples.append(sample(*rows.tolist(), image_id=image_id))
        near = np.vstack([boxes + rng.normal(0, 3, boxes.shape), rng.uniform(0, 40, (3, 4))])
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 5)
        extra = rng.integers(0, classes, 3)
        detections[image_id] = Detections.of(near, rng.random(len(near)), [*kinds, *extra])
    return samples, detections


def test_all_found_is_perfect():
    metrics = numbers([sample(SHIP, FAR)], {1: found((SHIP, 0.9), (FAR, 0.8))})
    assert [
        metrics.values[k] for k in ("AP", "AP50", "precision", "recall", "f1")
    ] == pytest.approx([1] * 5)
    assert (metrics.hits, metrics.misses, metrics.false_alarms) == (2, 0, 0)


def test_one_of_two_found_halves_the_recall():
    metrics = numbers([sample(SHIP, FAR)], {1: found((SHIP, 0.9))})
    assert (metrics.values["precision"], metrics.values["recall"]) == (1.0, 0.5)
    assert metrics.values["f1"] == pytest.approx(2 / 3)


def test_a_second_box_on_one_object_is_a_false_alarm():
    metrics = numbers([sample(SHIP)], {1: found((SHIP, 0.8), (SHIP, 0.8))})
    assert (metrics.hits, metrics.false_alarms) == (1, 1)


def test_another_class_is_no_hit():
    metrics = numbers([sample(SHIP)], {1: found((SHIP, 0.9, 1))}, ("ship", "platform"))
    assert (metrics.values["recall"], metrics.values["AP50"]) == (0.0, 0.0)


def test_the_threshold_is_where_f1_is_best():
    rows = [(SHIP, 0.9), (FAR, 0.5), ((0, 80, 10, 90), 0.3)]
    metrics = numbers([sample(SHIP, FAR)], {1: found(*rows)})
    assert metrics.values["threshold"] == pytest.approx(0.5)
    assert metrics.values["f1"] == 1.0


def test_nothing_found_is_zero_not_undefined():
    metrics = numbers([sample(SHIP)], {})
    assert (metrics.values["AP"], metrics.values["recall"], metrics.values["f1"]) == (0.0, 0.0, 0.0)
    assert metrics.values["precision"] is None
    assert metrics.misses == 1


def test_without_truth_there_is_no_average_precision():
    metrics = numbers([sample()], {1: found((SHIP, 0.9))})
    assert metrics.values["AP"] is None
    assert metrics.values["recall"] is None


def test_a_class_without_truth_does_not_lower_the_mean():
    metrics = numbers([sample(SHIP)], {1: found((SHIP, 0.9))}, ("ship", "platform"))
    assert metrics.values["AP"] == pytest.approx(1)
    assert metrics.per_class[1].ap is None


def test_sizes_without_objects_are_undefined():
    values = numbers([sample(SHIP)], {1: found((SHIP, 0.9))}).values
    assert values["APs"] == pytest.approx(1)
    assert values["APm"] is values["APl"] is None


def test_a_detection_on_a_crowd_does_not_count():
    metrics = numbers([sample(SHIP, FAR, crowd={1})], {1: found((SHIP, 0.9), (FAR, 0.8))})
    assert (metrics.hits, metrics.misses, metrics.false_alarms) == (1, 0, 0)
    assert metrics.values["AP"] == pytest.approx(1)


def test_the_best_detections_of_an_image_are_kept():
    rows = [((40, 40, 50, 50), 0.1), (SHIP, 0.9), ((70, 0, 80, 10), 0.2)]
    metrics = numbers([sample(SHIP)], {1: found(*rows)}, max_detections=1)
    assert (metrics.hits, metrics.false_alarms) == (1, 0)


def test_more_than_a_hundred_objects_can_be_found():
    boxes = [(x, y, x + 4.0, y + 4.0) for x in range(0, 90, 6) for y in range(0, 90, 6)]
    rows = [(box, 0.9) for box in boxes]
    metrics = numbers([sample(*boxes)], {1: found(*rows)}, max_detections=300)
    assert metrics.values["AP"] == pytest.approx(1)


def test_the_numbers_do_not_depend_on_the_order_of_images(rng):
    samples, detections = random_case(rng)
    backwards = dict(reversed(detections.items()))
    first = flat(numbers(samples, detections, ("a", "b")))
    assert first == flat(numbers(samples[::-1], backwards, ("a", "b")))


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_is_that_of_pycocotools(seed):
    samples, detections = random_case(np.random.default_rng(seed))
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": s["image_id"], "height": 100, "width": 100} for s in samples],
        "categories": [{"id": 1}, {"id": 2}],
        "annotations": [
            {
                "id": a["id"],
                "image_id": s["image_id"],
                "category_id": a["category_id"] + 1,
                "bbox": [*a["bbox"][:2], a["bbox"][2] - a["bbox"][0], a["bbox"][3] - a["bbox"][1]],
                "area": a["area"],
                "iscrowd": 0,
            }
            for s in samples
            for a in s["annotations"]
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        oracle = COCOeval(truth, truth.loadRes(coco_results(detections)), "bbox")
        oracle.evaluate()
        oracle.accumulate()
        oracle.summarize()
    values = numbers(samples, detections, ("a", "b")).values
    ours = [values[name] for name in ("AP", "AP50", "AP75", "APs", "APm")]
    assert ours == pytest.approx(oracle.stats[:5].tolist(), abs=1e-9)


def test_the_best_f1_is_that_of_trying_every_threshold(rng):
    samples, detections = random_case(rng)
    tried = []
    for threshold in sorted({float(s) for d in detections.values() for s in d.scores}):
        hits = count = 0
        for each in samples:
            kept = detections[each["image_id"]].above(threshold)
            hits += int((assign(each, kept, match_iou=0.5).truth_of >= 0).sum())
            count += len(kept)
        truths = sum(len(each["annotations"]) for each in samples)
        tried.append(2 * hits / (count + truths))
    assert numbers(samples, detections, ("a", "b")).values["f1"] == pytest.approx(max(tried))


def test_an_assignment_names_hits_misses_and_false_alarms():
    rows = [((40, 40, 50, 50), 0.9), (FAR, 0.8), (SHIP, 0.7)]
    result = assign(sample(SHIP, FAR, (0, 90, 9, 99), crowd={1}), found(*rows), match_iou=0.5)
    assert result.truth_of.tolist() == [FALSE_ALARM, ON_CROWD, 0]
    assert result.missed.tolist() == [2]


def test_detections_of_an_unknown_image_are_refused():
    with pytest.raises(ValueError, match=r"image ids \[9\]"):
        numbers([sample(SHIP)], {9: found((SHIP, 0.9))})


def test_a_result_record_is_cocos():
    (record,) = coco_results({7: found(((1.0, 2.0, 4.0, 8.0), 0.25, 1))}, [3, 5])
    expected = {"image_id": 7, "category_id": 5, "bbox": [1.0, 2.0, 3.0, 6.0], "score": 0.25}
    assert record == expected


def test_the_table_has_a_row_per_class_and_shows_what_is_undefined():
    metrics = numbers([sample(SHIP)], {1: found((SHIP, 0.9))}, ("ship", "platform"))
    header, ship, platform, total, note = metrics_table(metrics, ("ship", "platform")).splitlines()
    assert ship.split()[:3] == ["ship", "1.000", "1.000"]
    assert platform.split()[1:3] == ["-", "-"]
    assert total.split()[0] == "all"
    assert len(header) == len(ship) == len(platform) == len(total) <= 80
    assert "score 0.900" in note


def test_nothing_is_printed(capsys):
    numbers([sample(SHIP)], {1: found((SHIP, 0.9))})
    assert capsys.readouterr().out == ""
