"""Ring statistics equal those of a loop over pixels, masked pixels left out."""

import numpy as np
import pytest

from sar_experiments.cfar.windows import Windows, averaged, odd_side, ring

WINDOWS = Windows(target=(1, 3), guard=(3, 5), background=(7, 9))


def window(array, row, col, side):
    top, left = max(0, row - side[0] // 2), max(0, col - side[1] // 2)
    return array[top : row + side[0] // 2 + 1, left : col + side[1] // 2 + 1]


def around(values, used, row, col):
    """The ring's pixels, by a mask drawn for this pixel."""
    drawn = np.zeros(values.shape, bool)
    window(drawn, row, col, WINDOWS.background)[...] = True
    window(drawn, row, col, WINDOWS.guard)[...] = False
    return values[drawn & used]


@pytest.mark.parametrize("share_used", [1.0, 0.6, 0.05])
@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_rings_are_those_of_a_loop_over_pixels(rng, share_used, scale):
    values = rng.gamma(2, scale, (13, 17)) + 100 * scale  # far from zero: sums of squares cancel
    used = rng.random(values.shape) < share_used
    found = ring(values, used, WINDOWS)
    for row, col in np.ndindex(values.shape):
        pixels = around(values, used, row, col)
        assert found.count[row, col] == len(pixels)
        if len(pixels):
            assert found.mean[row, col] == pytest.approx(pixels.mean(), rel=1e-9)
        if len(pixels) > 1:
            std = pixels.std(ddof=1)
            assert found.std[row, col] == pytest.approx(std, rel=1e-6, abs=1e-7 * scale)


def test_an_image_smaller_than_the_windows_is_measured_too(rng):
    values = rng.random((4, 3))
    found = ring(values, np.ones(values.shape, bool), WINDOWS)
    assert found.count[0, 0] == len(around(values, np.ones(values.shape, bool), 0, 0))
    assert found.whole == 7 * 9 - 3 * 5


def test_averages_leave_masked_pixels_out(rng):
    values = rng.random((7, 8))
    valid = rng.random(values.shape) < 0.7
    found, share = averaged(np.where(valid, values, 1e9), valid, WINDOWS.target)
    for row, col in np.ndindex(values.shape):
        kept = window(values, row, col, WINDOWS.target)[window(valid, row, col, WINDOWS.target)]
        assert found[row, col] == pytest.approx(kept.mean() if len(kept) else 0.0)
        assert share[row, col] == pytest.approx(len(kept) / np.prod(WINDOWS.target))


@pytest.mark.parametrize(
    ("metres", "pixel_m", "side"),
    [(0, 10, 1), (15, 10, 1), (29, 10, 3), (510, 10, 51), (500, 30, 17)],
)
def test_sides_are_the_nearest_odd_numbers_of_pixels(metres, pixel_m, side):
    assert odd_side(metres, pixel_m) == side
