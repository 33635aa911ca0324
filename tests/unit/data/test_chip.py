"""Objects follow their image: clipped at its border, dropped when too little is left."""

from dataclasses import replace

import numpy as np
import pytest

from sar_experiments.data.chip import Chip, marks, resized, settled, with_marks


def chip(*boxes, size=(100, 100), outlines=None):
    image = np.zeros((*size, 1), np.float32)
    return Chip.of(image, boxes, np.arange(len(boxes)), outlines)


def square(left, top, right, bottom):
    return (np.array([[left, top], [right, top], [right, bottom], [left, bottom]], float),)


def turned(points, degrees, centre=50.0):
    angle = np.deg2rad(degrees)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (points - centre) @ matrix.T + centre


def test_a_box_that_reaches_outside_is_clipped():
    assert settled(chip((-10, 20, 30, 40)), min_visible_share=0.3).boxes.tolist() == [
        [0, 20, 30, 40]
    ]


@pytest.mark.parametrize(("left", "kept"), [(-6.9, True), (-7.1, False)])
def test_a_box_is_dropped_below_the_visible_share(left, kept):
    result = settled(chip((left, 20, left + 10, 30)), min_visible_share=0.3)
    assert len(result) == kept


def test_visible_shares_multiply_over_transforms():
    half = settled(chip((-10, 0, 10, 20)), min_visible_share=0.3)
    assert half.visible.tolist() == [0.5]
    moved = replace(half, boxes=half.boxes - [5, 0, 5, 0])
    assert len(settled(moved, min_visible_share=0.3)) == 0  # a quarter of the original


def test_the_class_goes_with_its_box():
    result = settled(
        chip((10, 10, 20, 20), (200, 200, 220, 220), (30, 30, 40, 40)), min_visible_share=0.3
    )
    assert result.classes.tolist() == [0, 2]


def test_the_outline_goes_with_its_box():
    outlines = (square(200, 0, 210, 10), square(10, 10, 20, 20))
    result = settled(
        chip((200, 0, 210, 10), (10, 10, 20, 20), outlines=outlines), min_visible_share=0.3
    )
    assert result.outlines is not None
    assert [each[0].tolist() for each in result.outlines] == [square(10, 10, 20, 20)[0].tolist()]


@pytest.mark.parametrize(
    "box", [(10, 10, 10, 30), (10, 10, 10.9, 30), (30, 10, 20, 30), (10, 40, 30, 10)]
)
def test_degenerate_boxes_are_dropped(box):
    assert len(settled(chip(box), min_visible_share=0.0)) == 0


def test_a_cut_box_is_tight_around_what_is_left_of_its_outline():
    # A thin ship from the lower left, outside, to the upper right.
    ship = (np.array([[-20, 58], [-20, 62], [20, 22], [20, 18]], float),)
    result = settled(chip((-20, 18, 20, 62), outlines=(ship,)), min_visible_share=0.3)
    assert np.allclose(result.boxes, [[0, 18, 20, 42]])


def test_a_box_stays_the_annotated_one_as_long_as_it_stays_a_rectangle():
    loose = chip((10, 10, 40, 40), outlines=(square(15, 15, 35, 35),))
    quarter = turned(marks(loose), 90)
    result = with_marks(loose, loose.image, quarter, as_ellipse=False)
    assert np.allclose(result.boxes, [[60, 10, 90, 40]])


def test_a_turned_box_is_tight_around_its_outline():
    ship = (turned(square(20, 48, 80, 52)[0], 45),)
    box = [*ship[0].min(axis=0), *ship[0].max(axis=0)]
    tilted = chip(box, outlines=(ship,))
    result = with_marks(tilted, tilted.image, turned(marks(tilted), -45), as_ellipse=False)
    assert np.allclose(result.boxes, [[20, 48, 80, 52]])


@pytest.mark.parametrize("gap", [(1.5, 0), (-1.5, 1.5)])
def test_an_outline_that_ends_a_rounding_beside_its_box_belongs_to_it(gap):
    ship = (square(20, 20, 40, 30)[0] + gap,)
    assert chip((20, 20, 40, 30), outlines=(ship,)).follows.tolist() == [True]
    assert chip((20, 20, 40, 30), outlines=((ship[0] + [0.1, 0.1],),)).follows.tolist() == [False]


def test_an_outline_may_be_off_by_a_twentieth_of_its_box():
    ship = square(24, 20, 80, 30)
    assert chip((20, 20, 100, 30), outlines=(ship,)).follows.tolist() == [False]
    assert chip((20, 20, 84, 30), outlines=(square(23, 20, 84, 30),)).follows.tolist() == [True]


@pytest.mark.parametrize(("box", "end"), [((80, 10, 120, 30), 100), ((80, 10, 100, 30), 120)])
def test_an_outline_belongs_to_its_box_if_one_of_them_ends_with_the_image(box, end):
    assert chip(box, outlines=(square(80, 10, end, 30),)).follows.tolist() == [True]


def test_an_outline_that_is_elsewhere_neither_drops_nor_shrinks_its_box():
    # Outlines of an older crop, 40 px to the right: of the first ship nothing is left of it, of
    # the second the right half.
    boxes = [(-10, 20, 30, 40), (-10, 50, 30, 70)]
    outlines = (square(-50, 20, -10, 40), square(10, 50, 50, 70))
    result = settled(chip(*boxes, outlines=outlines), min_visible_share=0.3)
    assert result.boxes.tolist() == [[0, 20, 30, 40], [0, 50, 30, 70]]


def test_a_turned_box_does_not_follow_an_outline_that_is_elsewhere():
    ship = chip((20, 48, 80, 52), outlines=(square(20, 8, 80, 12),))
    moved = with_marks(ship, ship.image, turned(marks(ship), 45), as_ellipse=False)
    bare = chip((20, 48, 80, 52))
    expected = with_marks(bare, bare.image, turned(marks(bare), 45), as_ellipse=False)
    assert np.allclose(moved.boxes, expected.boxes)
    assert moved.outlines is not None
    assert np.allclose(moved.outlines[0][0], turned(square(20, 8, 80, 12)[0], 45))


def test_a_turned_box_without_outline_is_the_hull_of_its_corners():
    result = with_marks(
        chip((40, 40, 60, 60)),
        np.zeros((100, 100, 1), np.float32),
        turned(marks(chip((40, 40, 60, 60))), 45),
        as_ellipse=False,
    )
    half = 10 * np.sqrt(2)
    assert np.allclose(result.boxes, [[50 - half, 50 - half, 50 + half, 50 + half]])


def test_a_turned_box_as_ellipse_does_not_grow():
    round_thing = chip((40, 40, 60, 60))
    result = with_marks(
        round_thing, round_thing.image, turned(marks(round_thing), 45), as_ellipse=True
    )
    assert np.allclose(result.boxes, [[40, 40, 60, 60]], atol=0.1)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("size", [(40, 61), (133, 170)], ids=["shrink", "enlarge"])
def test_resizing_treats_each_channel_alone(rng, channels, size):
    image = rng.random((80, 100, channels), dtype=np.float32)
    whole = resized(Chip.of(image), height=size[0], width=size[1]).image
    assert whole.shape == (*size, channels)
    for channel in range(channels):
        single = Chip.of(image[:, :, channel : channel + 1])
        alone = resized(single, height=size[0], width=size[1]).image
        assert np.array_equal(whole[:, :, channel], alone[:, :, 0])


def test_shrinking_averages_all_pixels(rng):
    image = rng.random((64, 64, 1), dtype=np.float32)
    small = resized(Chip.of(image), height=16, width=16).image
    assert np.allclose(small, image.reshape(16, 4, 16, 4, 1).mean(axis=(1, 3)), atol=1e-6)


def test_resizing_scales_boxes_and_outlines():
    small = resized(
        chip((10, 20, 30, 40), outlines=(square(10, 20, 30, 40),)), height=50, width=200
    )
    assert small.boxes.tolist() == [[20, 10, 60, 20]]
    assert small.outlines is not None
    assert small.outlines[0][0].tolist() == square(20, 10, 60, 20)[0].tolist()


def test_without_objects_nothing_breaks():
    empty = Chip.of(np.zeros((20, 30, 2), np.float32))
    assert len(settled(empty, min_visible_share=0.3)) == 0
    assert len(with_marks(empty, empty.image, marks(empty), as_ellipse=True)) == 0
