"""Pixels become objects: over small gaps, around a strong pixel, measured along their axis."""

import numpy as np
import pytest

from sar_experiments.cfar import groups


def grouped(strength, *, pixel_m, gap_m, max_drop_db=100.0, level_db=None):
    level_db = np.zeros(strength.shape) if level_db is None else level_db
    return groups.grouped(strength, level_db, pixel_m=pixel_m, gap_m=gap_m, max_drop_db=max_drop_db)


def strengths(*pixels, shape=(20, 30)):
    field = np.zeros(shape)
    for row, col, strength in pixels:
        field[row, col] = strength
    return field


@pytest.mark.parametrize(("gap_m", "objects"), [(0, 2), (19, 2), (20, 1), (50, 1)])
def test_gaps_up_to_the_limit_are_bridged(gap_m, objects):
    field = strengths((5, 4, 2.0), (5, 7, 3.0))  # two pixels of 10 m between them
    found = grouped(field, pixel_m=(10, 10), gap_m=gap_m)
    assert len(found.boxes) == objects
    if objects == 1:
        assert found.boxes.tolist() == [[4, 5, 8, 6]]
        assert found.peaks.tolist() == [3.0]


def test_gaps_are_measured_in_metres_along_each_axis():
    field = strengths((5, 4, 2.0), (5, 7, 2.0), (15, 4, 2.0), (18, 4, 2.0))
    found = grouped(field, pixel_m=(40, 10), gap_m=20)
    assert len(found.boxes) == 3


def test_faint_pixels_belong_to_the_strong_one_they_touch_and_to_no_other():
    field = strengths((5, 4, 2.0), (6, 5, 0.4), (6, 9, 0.4), (6, 8, 0.4))
    found = grouped(field, pixel_m=(10, 10), gap_m=50)
    assert found.boxes.tolist() == [[4, 5, 6, 7]]


@pytest.mark.parametrize("turned", [False, True])
def test_lengths_are_those_along_the_object(turned):
    pixels = [(3 + i, 3 + (i if turned else 0), 1.5) for i in range(10)]
    found = grouped(strengths(*pixels), pixel_m=(10, 10), gap_m=0)
    expected = 9 * np.sqrt(2) * 10 + 10 if turned else 100
    assert found.lengths_m.tolist() == pytest.approx([expected])


def test_nothing_gives_no_objects():
    found = grouped(np.zeros((4, 4)), pixel_m=(10, 10), gap_m=10)
    assert found.boxes.shape == (0, 4)


def test_sidelobes_belong_to_no_outline():
    field = strengths(*((5, col, 1.5) for col in range(2, 25)))
    level_db = np.full(field.shape, 10.0)
    level_db[5, 10:14] = 30.0
    limits = {"pixel_m": (10, 10), "gap_m": 0, "level_db": level_db}
    assert grouped(field, **limits, max_drop_db=25.0).boxes.tolist() == [[2, 5, 25, 6]]
    short = grouped(field, **limits, max_drop_db=15.0)
    assert short.boxes.tolist() == [[10, 5, 14, 6]]
    assert short.lengths_m.tolist() == pytest.approx([40])
