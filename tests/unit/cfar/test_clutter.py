"""Clutter models: thresholds are those of the distributions, and clutter keeps the rate."""

import numpy as np
import pytest
from scipy import special, stats

from sar_experiments.cfar.clutter import Clutter, k_exceedance
from sar_experiments.config import ClutterKind

MANY = np.full(1, 1e6)


def threshold(kind, pfa, *, mean, std, looks=None, count=MANY):
    clutter = Clutter(kind, pfa, looks)
    return float(clutter.threshold(np.full(1, mean), np.full(1, std), count)[0])


@pytest.mark.parametrize("pfa", [1e-2, 1e-4, 1e-7])
def test_gaussian_thresholds_are_the_normal_quantiles(pfa):
    found = threshold(ClutterKind.gaussian, pfa, mean=3.0, std=2.0)
    assert found == pytest.approx(stats.norm.isf(pfa, 3.0, 2.0), rel=1e-4)


@pytest.mark.parametrize("pfa", [1e-2, 1e-4, 1e-7])
@pytest.mark.parametrize("looks", [1.0, 4.4, 30.0])
@pytest.mark.parametrize("known", [True, False])
def test_gamma_thresholds_are_the_gamma_quantiles(pfa, looks, known):
    found = threshold(
        ClutterKind.gamma, pfa, mean=0.2, std=0.2 / looks**0.5, looks=looks if known else None
    )
    assert found == pytest.approx(stats.gamma.isf(pfa, looks, scale=0.2 / looks), rel=5e-4)


@pytest.mark.parametrize("order", [0.1, 1.0, 7.0, 40.0])
@pytest.mark.parametrize("level", [0.5, 5.0, 40.0])
def test_k_tails_of_one_look_are_the_closed_form(order, level):
    root = 2 * np.sqrt(order * level)
    exact = 2 / special.gamma(order) * (root / 2) ** order * special.kv(order, root)
    (found,) = k_exceedance(np.full(1, level), order=np.full(1, order), looks=1.0)
    assert found == pytest.approx(exact, rel=1e-6)


def test_k_thresholds_lie_where_the_tail_has_the_rate():
    looks, order, pfa = 4.0, 2.0, 1e-5
    std = np.sqrt((1 + 1 / looks) * (1 + 1 / order) - 1)
    level = threshold(ClutterKind.k, pfa, mean=1.0, std=std, looks=looks)
    (found,) = k_exceedance(np.full(1, level), order=np.full(1, order), looks=looks)
    assert found == pytest.approx(pfa, rel=0.01)


def test_a_k_distribution_without_texture_is_a_gamma_distribution():
    found = threshold(ClutterKind.k, 1e-6, mean=1.0, std=0.4, looks=4.0)
    assert found == pytest.approx(stats.gamma.isf(1e-6, 4.0, scale=0.25), rel=2e-3)


@pytest.mark.parametrize("count", [8, 50])
def test_small_rings_keep_the_rate_too(rng, count):
    """Each row: one pixel under test and the ring that its clutter is measured on."""
    trials, pfa = 100_000, 2e-3
    limit = 3.3 * np.sqrt(trials * pfa)
    normal = rng.normal(5, 2, (trials, count + 1))
    speckle = rng.gamma(3, 1 / 3, (trials, count + 1))
    counts = np.full(trials, float(count))
    for values, clutter in (
        (normal, Clutter(ClutterKind.gaussian, pfa)),
        (speckle, Clutter(ClutterKind.gamma, pfa, 3.0)),
    ):
        around = values[:, 1:]
        level = clutter.threshold(around.mean(axis=1), around.std(axis=1, ddof=1), counts)
        assert abs((values[:, 0] > level).sum() - trials * pfa) < limit


@pytest.mark.parametrize(
    "clutter",
    [
        Clutter(ClutterKind.gaussian, 1e-3),
        Clutter(ClutterKind.gamma, 1e-3),
        Clutter(ClutterKind.gamma, 1e-6, 4.0),
        Clutter(ClutterKind.k, 1e-3, 4.0),
    ],
    ids=lambda each: f"{each.kind.name}-{each.looks}",
)
def test_the_quick_bound_lies_below_every_threshold(rng, clutter):
    mean = 10 ** rng.uniform(-3, 3, 5000)
    std = mean * 10 ** rng.uniform(-2, 1.5, 5000)
    count = rng.integers(3, 5000, 5000).astype(float)
    assert (clutter.lowest(mean, std) <= clutter.threshold(mean, std, count)).all()


def test_a_ring_of_two_pixels_decides_nothing():
    found = threshold(ClutterKind.gaussian, 1e-3, mean=1.0, std=1.0, count=np.full(1, 2.0))
    assert np.isnan(found)


def test_k_without_looks_is_refused():
    with pytest.raises(ValueError, match="looks=None"):
        Clutter(ClutterKind.k, 1e-3)
