"""Detections of two runtimes are compared one by one."""

import pytest

from sar_experiments.detections import Detections
from sar_experiments.export.agreement import compare

BOX = (10, 10, 20, 30)


def found(*rows):
    """Rows of box, score, class."""
    return Detections.of([r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows])


def moved(by_px):
    return tuple(side + by_px for side in BOX)


def test_equal_detections_agree_in_any_order():
    first = found((BOX, 0.9, 0), (moved(50), 0.8, 1))
    second = found((moved(50), 0.8, 1), (BOX, 0.9, 0))
    result = compare([(first, second)])
    assert result.holds
    assert (result.detections, result.max_box_px, result.max_score) == (2, 0.0, 0.0)


@pytest.mark.parametrize(
    "other", [(moved(0.2), 0.9, 0), (BOX, 0.89, 0), (BOX, 0.9, 1)], ids=["box", "score", "class"]
)
def test_a_difference_beyond_the_tolerance_is_counted_on_both_sides(other):
    result = compare([(found((BOX, 0.9, 0)), found(other))])
    assert not result.holds
    assert result.unmatched == 2


def test_differences_within_the_tolerance_are_reported():
    result = compare([(found((BOX, 0.9, 0)), found((moved(0.05), 0.9004, 0)))])
    assert result.holds
    assert result.max_box_px == pytest.approx(0.05, abs=1e-5)
    assert result.max_score == pytest.approx(4e-4, abs=1e-6)


def test_one_partner_cannot_serve_two():
    result = compare([(found((BOX, 0.9, 0), (BOX, 0.9, 0)), found((BOX, 0.9, 0)))])
    assert result.unmatched == 1


def test_faint_detections_may_be_missing():
    assert compare([(found((BOX, 0.04, 0)), Detections.none())]).holds
    assert not compare([(Detections.none(), found((BOX, 0.2, 0)))]).holds
