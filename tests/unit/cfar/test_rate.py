"""``pfa`` is the rate at which clutter is taken for a target, wherever in the image.

Clutter and its tails come from NumPy's and SciPy's distributions, by ``benchmarks/cfar_rate.py``.
"""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sar_experiments.cfar.detect import standing_out, windows_px

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "cfar_rate.py"
SPEC = importlib.util.spec_from_file_location("cfar_rate", SCRIPT)
cfar_rate = importlib.util.module_from_spec(SPEC)
sys.modules["cfar_rate"] = cfar_rate
SPEC.loader.exec_module(cfar_rate)

PLACES = ("interior", "border", "beside no data")
# Averages of nine pixels of one look in decibels: the tail is taken for a log-gamma's, and is less.
LEAST = {("intensity in decibels, 1 look estimated, 3 x 3 averaged", 1e-6): 0.65}


FAST = ("K, 4 looks, order 3", "intensity in decibels, 4 looks estimated, 3 x 3 averaged")


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(each, marks=() if each.name in FAST else pytest.mark.slow, id=each.name)
        for each in cfar_rate.cases()
    ],
)
def test_clutter_exceeds_the_threshold_as_rarely_as_asked(case):
    found = cfar_rate.rates(case, images=12, size=360)
    for pfa in (1e-5, 1e-6):
        for place in PLACES:
            least = LEAST.get((case.name, pfa), 1 / 1.3)
            assert least < found[place, pfa] < 1.3, (place, pfa)
    # Counted, they are few.
    assert found["interior", 1e-3] == pytest.approx(1, abs=0.2)


def test_a_border_finds_no_more_than_the_interior(rng):
    """Where averaging windows are cut, averages are of fewer pixels and vary more."""
    config = replace(cfar_rate.BASE, target_m=30.0, guard_m=110.0, background_m=210.0, pfa=1e-2,
                     extent_pfa=5e-2)  # fmt: skip
    windows = windows_px(config, (10.0, 10.0))
    valid = np.ones((300, 300), bool)
    valid[::12, ::12] = False
    rates = []
    for _ in range(3):
        found = standing_out(rng.gamma(4, 1 / 4, valid.shape), valid, config, windows) >= 1
        rim = np.zeros_like(valid)
        rim[0], rim[-1], rim[:, 0], rim[:, -1] = True, True, True, True
        rates.append((found[rim & valid].mean(), found[~rim & valid].mean()))
    at_rim, inside = np.mean(rates, axis=0)
    assert inside == pytest.approx(1e-2, rel=0.3)
    assert at_rim == pytest.approx(1e-2, rel=0.6)


def test_looks_count_what_is_averaged(rng):
    config = replace(cfar_rate.BASE, target_m=30.0, looks=1.0, pfa=1e-3, extent_pfa=1e-2)
    speckle = rng.exponential(1.0, (400, 400))
    found = standing_out(
        speckle, np.ones((400, 400), bool), config, windows_px(config, (10.0, 10.0))
    )
    assert (found >= 1).mean() == pytest.approx(1e-3, rel=0.4)
