"""Average precision is COCO's; precision, recall and F1 match each truth once.

Crowds do not count, duplicates are false alarms, and nothing depends on the order of images.
Class-agnostic numbers are those of pycocotools without categories.
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
    measure_any_class,
    metrics_table,
)
from sar_experiments.thresholds import Threshold, Thresholds

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
    assert metrics.thresholds.scores == {"ship": pytest.approx((0.5 + 0.3) / 2)}
    assert metrics.values["f1"] == 1.0


@pytest.mark.parametrize("ulps", [1, 2, 9])
def test_scores_however_close_are_told_apart(ulps):
    high = low = np.float32(0.7)
    for _ in range(ulps):
        low = np.nextafter(low, np.float32(0))
    metrics = numbers([sample(SHIP)], {1: found((SHIP, high), (FAR, low))})
    assert (metrics.hits, metrics.false_alarms) == (1, 0)
    assert low < metrics.thresholds.least[0] <= high


@pytest.mark.parametrize("change", [-1e-4, 1e-4])
def test_scores_that_another_runtime_rounds_otherwise_are_not_lost(rng, change):
    samples, detections = random_case(rng, images=20)
    first = numbers(samples, detections, ("a", "b"))
    others = {k: Detections(d.boxes, d.scores * (1 + np.float32(change)), d.classes)
              for k, d in detections.items()}  # fmt: skip
    second = measure(
        samples, others, ("a", "b"), max_detections=100, match_iou=0.5, thresholds=first.thresholds
    )
    assert (second.hits, second.false_alarms) == (first.hits, first.false_alarms)


BOXES = [(x, y, x + 8.0, y + 8.0) for y in (0, 20, 40, 60, 80) for x in (0, 20, 40, 60, 80)]
"""25 places that do not touch."""


def a_rare_class_of_low_scores():
    """Ten ships at 0.7 to 0.9, two platforms at 0.2 and 0.1, six false ships at 0.3."""
    ships, platforms, sea = BOXES[:10], BOXES[10:12], BOXES[12:18]
    truth = sample(*ships, *((*box, 1) for box in platforms))
    rows = [(box, 0.7 + 0.02 * k) for k, box in enumerate(ships)] + [(box, 0.3) for box in sea]
    rows += [(platforms[0], 0.2, 1), (platforms[1], 0.1, 1)]
    return [truth], {1: found(*rows)}


def f1_of(samples, detections, least):
    """F1 where detections count from ``least[class]`` on, counted one by one."""
    hits = count = truths = 0
    for each in samples:
        got = detections.get(each["image_id"], Detections.none())
        kept = [s >= np.float32(least[k]) for s, k in zip(got.scores, got.classes, strict=True)]
        kept = got.select(np.array(kept, bool))
        hits += int((assign(each, kept, match_iou=0.5).truth_of >= 0).sum())
        count += len(kept)
        truths += len(each["annotations"])
    return 2 * hits / (count + truths)


def test_a_class_of_low_scores_is_not_dropped_by_the_threshold_of_the_others():
    samples, detections = a_rare_class_of_low_scores()
    metrics = numbers(samples, detections, ("ship", "platform"))
    pooled = {score: f1_of(samples, detections, (score, score)) for score in (0.1, 0.2, 0.3, 0.7)}
    assert max(pooled, key=pooled.get) == 0.7  # at which no platform is left
    assert metrics.thresholds.scores == pytest.approx(
        {"ship": (0.7 + 0.3) / 2, "platform": 0.1 / 2}
    )
    assert [each.recall for each in metrics.per_class] == [1.0, 1.0]
    assert metrics.values["f1"] == 1.0 > max(pooled.values())
    assert metrics.thresholds.doubts() == {}


@pytest.mark.parametrize("seed", range(3))
def test_the_thresholds_are_those_of_trying_every_score_for_each_class(seed):
    samples, detections = random_case(np.random.default_rng(seed), images=20)
    metrics = numbers(samples, detections, ("a", "b"))
    scores = {}
    for kind, name in enumerate(("a", "b")):
        of_class = [
            {**s, "annotations": [a for a in s["annotations"] if a["category_id"] == kind]}
            for s in samples
        ]
        only = {k: d.select(d.classes == kind) for k, d in detections.items()}
        tried = {
            score: f1_of(of_class, only, (score, score))
            for score in sorted({float(s) for d in only.values() for s in d.scores})
        }
        scores[name] = max(reversed(tried), key=tried.get)
        lower = max((score for score in tried if score < scores[name]), default=0.0)
        assert lower < metrics.thresholds.scores[name] < scores[name]
        assert metrics.thresholds.per_class[name].f1 == pytest.approx(tried[scores[name]])
        assert metrics.per_class[kind].f1 == pytest.approx(tried[scores[name]])
    least = list(scores.values())
    assert metrics.values["f1"] == pytest.approx(f1_of(samples, detections, least))


def test_a_test_split_is_measured_at_the_thresholds_of_validation():
    val = numbers(*a_rare_class_of_low_scores(), ("ship", "platform"))
    samples = [sample(*BOXES[:4], (*BOXES[4], 1), (*BOXES[5], 1))]
    rows = [(box, score) for box, score in zip(BOXES, (0.9, 0.6, 0.45, 0.4), strict=False)]
    rows += [(BOXES[4], 0.15, 1), (BOXES[5], 0.04, 1), (BOXES[9], 0.12, 1)]
    metrics = measure(
        samples, {1: found(*rows)}, ("ship", "platform"),
        max_detections=100, match_iou=0.5, thresholds=val.thresholds,
    )  # fmt: skip
    # Ships from 0.5 on: two of four. Platforms from 0.05 on: one of two, and one false alarm.
    assert [(each.precision, each.recall) for each in metrics.per_class] == [(1, 0.5), (0.5, 0.5)]
    assert metrics.values["f1"] == pytest.approx(2 * 3 / (4 + 6))
    assert metrics.values["f1"] == pytest.approx(f1_of(samples, {1: found(*rows)}, (0.5, 0.05)))
    assert metrics.thresholds == val.thresholds
    own = numbers(samples, {1: found(*rows)}, ("ship", "platform"))
    assert own.values["f1"] > metrics.values["f1"]  # what would be told of the test split itself


def test_a_class_that_is_hardly_found_has_the_default_threshold_and_is_named():
    sea = [(box, 0.6, 1) for box in BOXES[1:]]
    metrics = numbers(
        [sample(SHIP, (*BOXES[0], 1))], {1: found((SHIP, 0.9), *sea, (BOXES[0], 0.01, 1))},
        ("ship", "platform"),
    )  # fmt: skip
    f1 = 2 * 1 / (25 + 1)  # one hit of 25 platforms found, one there
    assert metrics.thresholds.per_class["platform"].f1 == pytest.approx(f1)
    assert metrics.thresholds.scores == pytest.approx({"ship": 0.45, "platform": 0.5})
    assert metrics.thresholds.doubts() == {
        "platform": "platform has the default threshold 0.5, as its best F1 on the validation"
        " split, 0.077, is below 0.1"
    }
    assert "platform has the default threshold" in metrics_table(metrics)


def test_a_class_without_objects_and_a_split_without_any_have_the_default_threshold():
    metrics = numbers([sample(SHIP)], {1: found((SHIP, 0.9), (FAR, 0.8, 1))}, ("ship", "platform"))
    assert metrics.thresholds.scores == pytest.approx({"ship": 0.45, "platform": 0.5})
    assert list(metrics.thresholds.doubts()) == ["platform"]
    assert "holds none of it" in metrics.thresholds.doubts()["platform"]
    empty = numbers([sample()], {1: found((SHIP, 0.9), (FAR, 0.4))})
    assert empty.thresholds.scores == {"ship": 0.5}
    assert "no validation split with objects" in empty.thresholds.origin
    assert empty.false_alarms == 1


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


def of_pycocotools(samples, detections, *, with_classes=True):
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
        oracle.params.useCats = int(with_classes)
        oracle.evaluate()
        oracle.accumulate()
        oracle.summarize()
    return oracle


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_is_that_of_pycocotools(seed):
    samples, detections = random_case(np.random.default_rng(seed))
    oracle = of_pycocotools(samples, detections)
    values = numbers(samples, detections, ("a", "b")).values
    ours = [values[name] for name in ("AP", "AP50", "AP75", "APs", "APm")]
    assert ours == pytest.approx(oracle.stats[:5].tolist(), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_class_agnostic_numbers_are_those_of_pycocotools_without_categories(seed):
    samples, detections = random_case(np.random.default_rng(seed))
    metrics = numbers(samples, detections, ("a", "b"))
    values = flat(metrics)
    oracle = of_pycocotools(samples, detections, with_classes=False)
    ours = [values[f"{name}_any_class"] for name in ("AP", "AP50", "AP75", "APs", "APm")]
    assert ours == pytest.approx(oracle.stats[:5].tolist(), abs=1e-9)
    assert abs(values["AP50_any_class"] - values["AP50"]) > 0.01
    least = metrics.any_class.thresholds.any_class.score
    shown = {image: each.above(least) for image, each in detections.items()}
    images = of_pycocotools(samples, shown, with_classes=False).evalImgs[: len(samples)]
    found = sum(int((each["dtMatches"][0] > 0).sum()) for each in images if each)
    count = sum(len(each) for each in shown.values())
    assert values["recall_any_class"] == found / sum(len(s["annotations"]) for s in samples)
    assert values["precision_any_class"] == found / count


def test_a_detector_that_names_every_object_alike_is_right_class_agnostic():
    samples = [sample(SHIP, (*FAR, 1))]
    alike = {1: found((SHIP, 0.9), (FAR, 0.8))}
    metrics = measure_any_class(samples, alike, max_detections=100, match_iou=0.5)
    assert flat(metrics) == {
        **{f"{name}_any_class": 1.0 for name in ("AP", "AP50", "AP75", "APs")},
        **{f"{name}_any_class": None for name in ("APm", "APl")},
        **{f"{name}_any_class": 1.0 for name in ("precision", "recall", "f1")},
    }
    assert numbers(samples, alike, ("ship", "platform")).values["AP50"] == pytest.approx(0.5)
    assert [line.split()[:5] for line in metrics_table(metrics).splitlines()[1:2]] == [
        ["any", "class", "1.000", "1.000", "1.000"]
    ]


def test_two_names_on_one_object_are_one_hit_and_one_false_alarm_class_agnostic():
    twice = {1: found((SHIP, 0.9, 0), (SHIP, 0.8, 1))}
    metrics = measure_any_class(
        [sample(SHIP)], twice, max_detections=100, match_iou=0.5,
        thresholds=Thresholds({}, "test", any_class=Threshold(0.5)),
    )  # fmt: skip
    assert (metrics.hits, metrics.misses, metrics.false_alarms) == (1, 0, 1)


def test_one_class_has_no_second_set_of_numbers():
    metrics = numbers([sample(SHIP)], {1: found((SHIP, 0.9))})
    assert metrics.any_class is None
    assert not [name for name in flat(metrics) if name.endswith("_any_class")]


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
    table = metrics_table(metrics)
    header, ship, platform, total, agnostic, _what, note, _doubt = table.splitlines()
    assert ship.split()[:3] == ["ship", "1.000", "1.000"]
    assert [row.split()[-2] for row in (header, ship, platform, total)] == [
        *("score", "0.450", "0.500", "-")
    ]
    assert platform.split()[1:3] == ["-", "-"]
    assert total.split()[0] == "all"
    assert agnostic.split()[:5] == ["any", "class", "1.000", "1.000", "1.000"]
    assert len(header) == len(ship) == len(platform) == len(total) == len(agnostic) <= 80
    assert note.endswith("count from score on: best F1 of each class on the validation split")


def test_nothing_is_printed(capsys):
    numbers([sample(SHIP)], {1: found((SHIP, 0.9))})
    assert capsys.readouterr().out == ""
