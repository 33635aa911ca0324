"""One object, one box, wherever tiles cut it, and whatever their size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sar_experiments.config import MergeRule
from sar_experiments.detections import Detections
from sar_experiments.predict.merge import merge_tiles
from sar_experiments.predict.tiling import plan_tiles

RULES = list(MergeRule)


def seen(plan, boxes, scores, classes, jitter=None):
    """What a detector sees that finds whatever part of an object lies in a tile."""
    found = []
    for index, tile in enumerate(plan):
        w = tile.window
        parts = boxes if jitter is None else boxes + jitter.uniform(-1, 1, boxes.shape)
        parts = np.clip(
            parts, [w.left, w.top, w.left, w.top], [w.right, w.bottom, w.right, w.bottom]
        )
        there = ((parts[:, 2:] - parts[:, :2]) >= 1).all(axis=1)
        found.append(
            (
                index,
                Detections.of(
                    parts[there] - [w.left, w.top, w.left, w.top], scores[there], classes[there]
                ),
            )
        )
    return found


def rows(detections):
    """Boxes, score and class, best first; float32 boxes are good to a hundredth of a pixel."""
    order = np.argsort(-detections.scores, kind="stable")
    columns = (detections.boxes, detections.scores[:, None], detections.classes[:, None])
    return np.concatenate(columns, axis=1)[order]


@st.composite
def scenes(draw, longest_px):
    """Objects on a jittered grid, so that they do not overlap, no longer than given."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    height, width = draw(st.integers(60, 900)), draw(st.integers(60, 900))
    cells = [
        (x, y)
        for x in range(0, width - longest_px, longest_px + 2)
        for y in range(0, height - longest_px, longest_px + 2)
    ]
    chosen = rng.permutation(len(cells))[:40]
    sizes = rng.uniform(3, longest_px, (len(chosen), 2))
    corners = np.array([cells[i] for i in chosen], float).reshape(-1, 2)
    corners += rng.uniform(0, 1, corners.shape) * (longest_px - sizes)
    return (
        height,
        width,
        np.concatenate([corners, corners + sizes], axis=1),
        rng.uniform(0.5, 1, len(chosen)),
        rng.integers(0, 3, len(chosen)),
    )


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=50, deadline=None)
@given(scene=scenes(longest_px=40), tile_px=st.integers(80, 400))
def test_objects_no_longer_than_the_overlap_come_out_alike_for_any_tile_size(rule, scene, tile_px):
    height, width, boxes, scores, classes = scene
    plan = plan_tiles(height=height, width=width, tile_px=tile_px, overlap_px=40)
    merged = merge_tiles(seen(plan, boxes, scores, classes), plan, rule=rule, overlap=0.5)
    expected = rows(Detections.of(boxes, scores, classes))
    assert rows(merged) == pytest.approx(expected, abs=0.01)


@settings(max_examples=40, deadline=None)
@given(scene=scenes(longest_px=40), tile_px=st.integers(96, 400), seed=st.integers(0, 99))
def test_boxes_that_differ_a_little_between_tiles_are_neither_lost_nor_doubled(
    scene, tile_px, seed
):
    height, width, boxes, scores, classes = scene
    wide = (boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= 8
    boxes, scores, classes = boxes[wide], scores[wide], classes[wide]
    plan = plan_tiles(height=height, width=width, tile_px=tile_px, overlap_px=48)
    found = seen(plan, boxes, scores, classes, np.random.default_rng(seed))
    merged = merge_tiles(found, plan, rule=MergeRule.interior_nms, overlap=0.5)
    assert len(merged) == len(boxes)
    off = np.abs(merged.boxes[:, None] - boxes[None]).max(axis=2).min(axis=1, initial=np.inf)
    assert (off <= 1.01).all()


@pytest.mark.parametrize("rule", [MergeRule.nms, MergeRule.interior_nms])
@pytest.mark.parametrize("box", [(100, 30, 900, 50), (20, 10, 45, 780), (150, 160, 700, 650)])
def test_an_object_longer_than_the_overlap_becomes_one_box(rule, box):
    plan = plan_tiles(height=800, width=1000, tile_px=300, overlap_px=60)
    found = seen(plan, np.array([box], float), np.array([0.9]), np.array([0]))
    merged = merge_tiles(found, plan, rule=rule, overlap=0.5)
    assert merged.boxes.tolist() == [list(box)]


def tiles_of(*found, width=500):
    plan = plan_tiles(height=300, width=width, tile_px=300, overlap_px=100)
    return [(index, Detections.of(*each)) for index, each in found], plan


def test_the_whole_box_wins_over_a_cut_one_of_higher_score():
    found, plan = tiles_of(
        (0, ([[230, 100, 300, 120]], [0.95], [0])),  # ends with its tile
        (1, ([[30, 100, 140, 120]], [0.6], [0])),  # 230 to 340 of the scene
    )
    merged = merge_tiles(found, plan, rule=MergeRule.nms, overlap=0.5)
    assert merged.boxes.tolist() == [[230, 100, 340, 120]]


def test_classes_do_not_compete():
    found, plan = tiles_of(
        (0, ([[240, 100, 260, 120]], [0.9], [0])), (1, ([[40, 100, 60, 120]], [0.8], [1]))
    )
    assert len(merge_tiles(found, plan, rule=MergeRule.interior_nms, overlap=0.5)) == 2


# One place, two names: a better ship, a platform a little larger; a ship in a large harbour.
ONE_PLACE = [[100, 100, 120, 110], [98, 99, 121, 113], [150, 90, 160, 100], [120, 60, 250, 190]]


@pytest.mark.parametrize(
    ("across_classes", "kept"), [(False, [0, 1, 2, 3]), (True, [0, 2, 3])], ids=["each", "across"]
)
@pytest.mark.parametrize("rule", RULES)
def test_one_object_under_two_classes_keeps_the_better_where_asked(rule, across_classes, kept):
    found, plan = tiles_of((0, (ONE_PLACE, [0.9, 0.8, 0.7, 0.6], [0, 1, 0, 2])))
    merged = merge_tiles(found, plan, rule=rule, overlap=0.5, across_classes=across_classes)
    assert merged.boxes.tolist() == [ONE_PLACE[index] for index in kept]


@pytest.mark.parametrize(("nested", "kept"), [(None, [0, 1, 2, 3]), (0.8, [0, 2, 3])])
@pytest.mark.parametrize("turned", [False, True], ids=["the whole better", "the part better"])
def test_a_part_of_an_object_beside_the_whole_goes_where_asked(nested, kept, turned):
    """Neither another class inside goes, nor what lies inside by half."""
    boxes = [[100, 100, 117, 108], [99, 101, 107, 107], [101, 101, 108, 107], [113, 100, 121, 108]]
    kinds = [0, 0, 1, 0]
    scores = [0.8, 0.9, 0.7, 0.6] if turned else [0.9, 0.8, 0.7, 0.6]
    found, plan = tiles_of((0, (boxes, scores, kinds)))
    merged = merge_tiles(found, plan, rule=MergeRule.interior_nms, overlap=0.5, nested=nested)
    if turned:
        kept = [each for each in ([1, 0, 2, 3] if nested is None else [1, 2, 3])]
    assert merged.boxes.tolist() == [boxes[index] for index in kept]


def test_what_lost_to_a_better_class_hides_nothing_itself():
    chain = [[100, 100, 120, 110], [108, 100, 128, 110], [116, 100, 136, 110]]
    found, plan = tiles_of((0, (chain, [0.9, 0.8, 0.7], [0, 1, 0])))
    merged = merge_tiles(found, plan, rule=MergeRule.interior_nms, overlap=0.5, across_classes=True)
    assert merged.boxes.tolist() == [chain[0], chain[2]]


def test_neighbours_in_one_tile_do_not_compete():
    found, plan = tiles_of((0, ([[100, 100, 120, 120], [101, 101, 121, 121]], [0.9, 0.8], [0, 0])))
    assert len(merge_tiles(found, plan, rule=MergeRule.interior_nms, overlap=0.5)) == 2


def test_two_ships_side_by_side_at_a_border_stay_two():
    found, plan = tiles_of(
        (0, ([[240, 100, 260, 110], [240, 107, 260, 117]], [0.9, 0.8], [0, 0])),
        (1, ([[40, 100, 60, 110], [40, 107, 60, 117]], [0.85, 0.75], [0, 0])),
    )
    merged = merge_tiles(found, plan, rule=MergeRule.interior_nms, overlap=0.5)
    assert merged.boxes.tolist() == [[240, 100, 260, 110], [240, 107, 260, 117]]


@pytest.mark.parametrize(("rule", "count"), [(MergeRule.interior, 0), (MergeRule.interior_nms, 1)])
def test_a_centre_that_both_tiles_see_on_the_others_side_is_lost_by_the_plain_rule(rule, count):
    found, plan = tiles_of(  # the border is at 250
        (0, ([[240.5, 100, 261, 120]], [0.9], [0])), (1, ([[39.5, 100, 60, 120]], [0.8], [0]))
    )
    assert len(merge_tiles(found, plan, rule=rule, overlap=0.5)) == count


def test_the_best_come_first_and_the_order_of_tiles_does_not_matter():
    found, plan = tiles_of(
        (0, ([[10, 10, 20, 20], [40, 10, 50, 20]], [0.6, 0.7], [0, 0])),
        (1, ([[200, 10, 210, 20]], [0.9], [0])),
    )
    merged = merge_tiles(found, plan, rule=MergeRule.interior_nms, overlap=0.5)
    assert merged.scores.tolist() == pytest.approx([0.9, 0.7, 0.6])
    turned = merge_tiles(found[::-1], plan, rule=MergeRule.interior_nms, overlap=0.5)
    assert turned.boxes.tolist() == merged.boxes.tolist()


@pytest.mark.parametrize("rule", RULES)
def test_a_scene_without_detections_has_none(rule):
    found, plan = tiles_of((0, ([], [], [])))
    assert len(merge_tiles(found, plan, rule=rule, overlap=0.5)) == 0
    assert len(merge_tiles([], plan, rule=rule, overlap=0.5)) == 0


@pytest.mark.parametrize(
    ("thresholds", "kept"),
    [(None, 0), ([0.5, 0.5], 0), ([0.6, 0.2], 1), ([0.69, 0.5], 1), ([0.2, 0.6], 0)],
)
def test_of_two_classes_on_one_place_the_one_further_above_its_threshold_stays(thresholds, kept):
    plan = list(plan_tiles(height=100, width=100, tile_px=100, overlap_px=0))
    box = [10, 10, 30, 20]
    found = [(0, Detections.of([box, box], [0.7, 0.62], [0, 1]))]
    least = None if thresholds is None else np.array(thresholds, np.float32)
    merged = merge_tiles(
        found, plan, rule=MergeRule.interior_nms, overlap=0.5,
        across_classes=True, thresholds=least,
    )  # fmt: skip
    assert merged.classes.tolist() == [kept]
    assert merged.scores.tolist() == pytest.approx([(0.7, 0.62)[kept]])
