"""Clutter models: how bright a pixel must be so that clutter alone gets there with a given rate.

Three models, as functions of what the ring around a pixel shows: its mean, its standard deviation
and the number of its pixels.

* gaussian: two parameters, mean and standard deviation. Both are estimated, so the threshold is
  Student's: for independent normal pixels the rate holds for any size of the ring.
* gamma: speckle of L looks on a homogeneous ground (intensity). With known looks this is cell
  averaging, whose ratio follows Fisher's F for any size of the ring; else L = mean² / variance.
  On decibels the same speckle is log-gamma; its average over a window keeps the skewness of one
  over the square root of its pixels, and is taken for the scaled log-gamma with mean, variance
  and skewness of its own. L is where the trigamma function is the variance of the logarithm.
* k: speckle of L looks on a ground whose brightness is gamma distributed of order nu, as the sea
  at fine resolution: mean of squares / mean² = (1 + 1/L) (1 + 1/nu).

A shape that is estimated, L or nu, is now too large and now too small. Rare false alarms come from
the former, so that a threshold at the estimate's own quantile is exceeded too often. What is taken
instead is the quantile of a smaller rate, such that the rate over all estimates that a ring of so
many pixels gives, their spread by the delta method, is the one that was asked for.

Oliver and Quegan, "Understanding Synthetic Aperture Radar Images", SciTech 2004,
chapters 4, 5 and 10.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import special, stats
from scipy.interpolate import interpn

from sar_experiments.config import ClutterKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Field = NDArray[np.float64]

_MIN_COUNT = 3  # pixels; fewer give no standard deviation worth the name
_COUNTS = np.unique(np.geomspace(_MIN_COUNT, 1e6, 200).round())
_LOOKS = np.geomspace(0.05, 1e4, 600)
_ORDERS = np.geomspace(0.05, 1e4, 60)
_BELOW = 0.999  # interpolation between grid points errs by less
_QUADRATURE = 401  # points over the logarithm of the texture; more change nothing in 6 digits
_FEW_COUNTS = np.geomspace(16, 1e5, 20)  # grids of what corrects a rate, which is smooth
_FEW_SHAPES = np.geomspace(0.1, 1e3, 25)
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(11)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_SECANTS = 8  # steps to a corrected rate
_SMALLEST = 1e-30  # rate


@dataclass(frozen=True)
class Cells:
    """What is compared with what, where pixels are averaged over a window first.

    Attributes:
        window: Pixels in a whole window, at least 1. They are taken for independent.
        alike: For how many averaged pixels there is one independent mean. Averages of windows
            that overlap are correlated: by the sum of their correlations there are fewer.
        alike_squares: The same for the variance: by the sum of the squares of the correlations.
    """

    window: int = 1
    alike: float = 1.0
    alike_squares: float = 1.0

    @classmethod
    def of(cls, height: int, width: int) -> Cells:
        """Return those of a window; its correlation falls linearly to 0 over each side.

        >>> Cells.of(3, 3).alike, round(Cells.of(3, 3).alike_squares, 2)
        (9.0, 4.46)
        """
        squares = [(2 * side**2 + 1) / (3 * side) for side in (height, width)]
        return cls(height * width, float(height * width), squares[0] * squares[1])


@dataclass(frozen=True)
class Clutter:
    """A clutter model and a false-alarm rate.

    Attributes:
        kind: Which of the three.
        pfa: Probability that a pixel of clutter exceeds the threshold; in (0, 0.5).
        looks: Equivalent number of looks of a pixel before it is averaged, above 0; ``k`` needs
            it, ``gamma`` estimates it from the ring where it is None, ``gaussian`` does not know
            it.
        cells: What was averaged.
        is_db: Are values decibels? ``k`` knows none.

    Raises:
        ValueError: ``k`` without looks, or on decibels.
    """

    kind: ClutterKind
    pfa: float
    looks: float | None = None
    cells: Cells = Cells()
    is_db: bool = False

    def __post_init__(self) -> None:
        if self.kind is ClutterKind.k and self.looks is None:
            raise ValueError("looks=None: the K-distribution needs the number of looks")
        if self.kind is ClutterKind.k and self.is_db:
            raise ValueError("is_db=True: the K-distribution is one of intensity")

    def threshold(self, mean: Field, std: Field, count: Field, share: Field | None = None) -> Field:
        """Return the value that clutter exceeds with the probability ``pfa``.

        Args:
            mean: Of the ring's pixels, each the average of a whole window; (N,).
            std: Of the ring's pixels, with ``count - 1`` in the denominator.
            count: Number of the ring's pixels.
            share: How much of its own window the pixel has that is compared, in (0, 1], as at the
                border of an image; None has all of it.

        Returns:
            In the unit of the mean; NaN where the ring has fewer than three pixels.
        """
        share = np.ones_like(mean) if share is None else share
        means = np.maximum(count / self.cells.alike, 1.0)
        squares = np.maximum(count / self.cells.alike_squares, 2.0)
        if self.kind is ClutterKind.gaussian:
            student = _interpolated(squares, _COUNTS, _student_factors(self.pfa))
            level = mean + std * student * np.sqrt(1.0 / share + 1.0 / means)
        elif self.kind is ClutterKind.gamma and self.is_db:
            level = mean + self._log_gamma_rise(std, means, squares, share)
        elif self.kind is ClutterKind.k:
            level = mean * self._k_factor(mean, std, squares, share)
        elif self.looks is not None:
            level = mean * self._fisher_factor(means, share)
        else:
            level = mean * self._gamma_factor(mean, std, squares, share)
        return np.where(count >= _MIN_COUNT, level, np.nan)

    def lowest(self, mean: Field, std: Field) -> Field:
        """Return a bound below every ``threshold``, so that few pixels need a closer look."""
        if self.kind is ClutterKind.gaussian:
            return mean + std * _BELOW * float(stats.norm.isf(self.pfa))
        if self.kind is ClutterKind.gamma and self.is_db:
            rises = _log_gamma_rises(_LOOKS, np.full(len(_LOOKS), self.cells.window), self.pfa)
            if self.looks is None:
                return mean + std * _BELOW * float(rises.min())
            return mean + np.zeros_like(std)
        if self.kind is ClutterKind.gamma and self.looks is not None:
            looks = self._averaged_looks()
            return mean * _BELOW * float(special.gammainccinv(looks, self.pfa) / looks)
        if self.kind is ClutterKind.gamma:
            factors, spread = _gamma_factors(self.pfa), 1 / np.sqrt(_LOOKS)
        else:
            looks = self._averaged_looks()
            factors = _k_factors(self.pfa, looks)
            spread = np.sqrt((1 + 1 / looks) * (1 + 1 / _ORDERS) - 1)
        # Thresholds in standard deviations above the mean differ little over the grid; beyond its
        # lower end the threshold is a multiple of the mean alone.
        rise = _BELOW * float(((factors - 1) / spread).min())
        return np.minimum(mean + std * rise, mean * _BELOW * float(factors[0]))

    def _fisher_factor(self, means: Field, share: Field) -> Field:
        looks = self._averaged_looks()
        factor = np.empty_like(means)
        for each in np.unique(share):
            at = share == each
            table = _fisher_factors(self.pfa, looks * float(each), looks)
            factor[at] = _interpolated(means[at], _COUNTS, table)
        return factor

    def _gamma_factor(self, mean: Field, std: Field, squares: Field, share: Field) -> Field:
        looks = np.clip(_ratio(mean, std), _LOOKS[0], _LOOKS[-1])
        rate = self.pfa * _corrected(_gamma_corrections(self.pfa), looks, squares)
        return np.asarray(special.gammainccinv(looks * share, rate) / (looks * share))

    def _log_gamma_rise(self, std: Field, means: Field, squares: Field, share: Field) -> Field:
        window = self.cells.window
        if self.looks is not None:
            looks = np.full_like(std, self.looks)
            spread = np.sqrt(special.polygamma(1, looks) / window) / _LOG_OF_DB
            rate = np.full_like(std, self.pfa)
            wider = np.sqrt(1.0 / share + 1.0 / means)
        else:
            looks, spread = _looks_of_spread(std, window), std
            corrections = _log_gamma_corrections(self.pfa, self.cells)
            rate = self.pfa * _corrected(corrections, looks, squares)
            wider = np.sqrt(1.0 / share)
        return np.asarray(spread * wider * _log_gamma_rises(looks, window * share, rate))

    def _k_factor(self, mean: Field, std: Field, squares: Field, share: Field) -> Field:
        looks = self._averaged_looks()
        excess = (1.0 + 1.0 / _ratio(mean, std)) / (1.0 + 1.0 / looks) - 1.0
        order = 1.0 / np.maximum(excess, 1.0 / _ORDERS[-1])
        rate = self.pfa * _corrected(_k_corrections(self.pfa, looks), order, squares)
        factor = np.empty_like(mean)
        for each in np.unique(share):
            at = share == each
            tails = _k_log_tails(looks * float(each))
            factor[at] = _k_level(tails, order[at], np.log(rate[at]))
        return factor

    def _averaged_looks(self) -> float:
        assert self.looks is not None  # refused at construction
        return self.looks * self.cells.window


def k_exceedance(level: Field, *, order: Field, looks: float) -> Field:
    """Return the probability that K-distributed intensity of mean 1 exceeds a level.

    The integral of the gamma tail over the texture, by the trapezoidal rule over the logarithm of
    the texture, which converges exponentially for such a smooth integrand.

    Args:
        level: (N,), 0 or more.
        order: (N,), of the texture's gamma distribution, above 0.
        looks: Of the speckle.
    """
    order = np.asarray(order, dtype=np.float64)[:, None]
    smallest = np.maximum(special.gammaincinv(order[:, 0], 1e-30) / order[:, 0], 1e-8)
    largest = special.gammainccinv(order[:, 0], 1e-30) / order[:, 0]
    log_texture = np.linspace(np.log(smallest), np.log(largest), _QUADRATURE, axis=-1)
    texture = np.exp(log_texture)
    density = np.exp(order * (np.log(order) + log_texture - texture) - special.gammaln(order))
    tail = special.gammaincc(looks, looks * np.asarray(level)[:, None] / texture)
    return np.asarray(np.trapezoid(density * tail, log_texture, axis=1))


def _ratio(mean: Field, std: Field) -> Field:
    """Return mean² / variance, the looks of a homogeneous ground; infinite without variance."""
    variance = std**2
    return np.divide(mean**2, variance, out=np.full_like(mean, np.inf), where=variance > 0)


def _interpolated(at: Field, grid: Field, values: Field) -> Field:
    """Interpolate over the logarithm of a rising grid; its ends hold beyond it."""
    return np.asarray(np.interp(np.log(np.maximum(at, grid[0])), np.log(grid), values))


@cache
def _student_factors(pfa: float) -> Field:
    """Return quantiles of Student's t, per _COUNTS, of one degree of freedom less.

    A new pixel minus the mean of n, over their standard deviation, is t of n - 1 degrees times
    sqrt(1 + 1/n).
    """
    return np.asarray(stats.t.isf(pfa, _COUNTS - 1))


@cache
def _fisher_factors(pfa: float, looks: float, ring_looks: float) -> Field:
    """Return threshold over mean, per _COUNTS: F of 2L and 2nL degrees."""
    return np.asarray(stats.f.isf(pfa, 2 * looks, 2 * ring_looks * _COUNTS))


@cache
def _gamma_factors(pfa: float) -> Field:
    """Return threshold over mean, per _LOOKS, where mean and looks are known."""
    return np.asarray(special.gammainccinv(_LOOKS, pfa) / _LOOKS)


# --- Shapes that are estimated -------------------------------------------------------------------


def _corrected(logarithms: Field, shape: Field, count: Field) -> Field:
    """Return by what to multiply a rate, from its logarithm per _FEW_SHAPES and _FEW_COUNTS."""
    points = np.stack(
        [
            np.log(np.clip(shape, _FEW_SHAPES[0], _FEW_SHAPES[-1])),
            np.log(np.clip(count, _FEW_COUNTS[0], _FEW_COUNTS[-1])),
        ],
        axis=-1,
    )
    grid = (np.log(_FEW_SHAPES), np.log(_FEW_COUNTS))
    return np.asarray(np.exp(interpn(grid, logarithms, points, method="linear")))


def _solved(rate_of: Callable[[Field], Field], pfa: float) -> Field:
    """Return the logarithm of a rate over ``pfa`` with which the mean rate is ``pfa``.

    The logarithm of one rises nearly linearly with that of the other: secants.
    """
    shape = (len(_FEW_SHAPES), len(_FEW_COUNTS))
    low, high = np.full(shape, -1.0), np.zeros(shape)
    at_low, at_high = (np.log(rate_of(pfa * np.exp(each)) / pfa) for each in (low, high))
    for _ in range(_SECANTS):
        slope = np.maximum((at_high - at_low) / np.where(high == low, 1.0, high - low), 0.1)
        low, at_low = high, at_high
        high = np.clip(high - at_high / slope, np.log(_SMALLEST / pfa), 0.0)
        at_high = np.log(rate_of(pfa * np.exp(high)) / pfa)
    return np.asarray(high)


@cache
def _gamma_corrections(pfa: float) -> Field:
    """Return the logarithm of the rate's correction, per _FEW_SHAPES (looks) and _FEW_COUNTS.

    Of n pixels, mean² / variance varies by a share of sqrt(2 (1 + 1/L) / n), the mean by
    1 / sqrt(L n); to first order neither tells of the other.
    """
    looks = _FEW_SHAPES[:, None, None, None]
    count = _FEW_COUNTS[None, :, None, None]
    found = looks * np.exp(np.sqrt(2 * (1 + 1 / looks) / count) * _NODES[None, None, :, None])
    mean = np.exp(_NODES[None, None, None, :] / np.sqrt(looks * count))
    weights = _WEIGHTS[:, None] * _WEIGHTS[None, :]

    def rate_of(nominal: Field) -> Field:
        factor = special.gammainccinv(found, nominal[:, :, None, None]) / found
        return np.asarray((special.gammaincc(looks, looks * factor * mean) * weights).sum((2, 3)))

    return _solved(rate_of, pfa)


@cache
def _k_corrections(pfa: float, looks: float) -> Field:
    """Return the same for K, per _FEW_SHAPES (orders) and _FEW_COUNTS, looks known.

    The estimate is of the ratio of the mean of squares to mean², whose spread follows from the
    first four moments; so does how it goes with the mean.
    """
    order = _FEW_SHAPES
    first, second, third, fourth = (
        special.poch(looks, k) / looks**k * special.poch(order, k) / order**k for k in range(1, 5)
    )
    # Relative to their means: variance of the mean, of the mean of squares, and covariance.
    of_mean, of_squares = second - first**2, (fourth - second**2) / second**2
    both = (third - second) / second
    of_ratio = np.maximum(of_squares + 4 * of_mean - 4 * both, 0.0)
    slope = np.divide(both - 2 * of_mean, of_ratio, out=np.zeros_like(both), where=of_ratio > 0)
    rest = np.maximum(of_mean - slope**2 * of_ratio, 0.0)
    count = _FEW_COUNTS[None, :]
    away = np.sqrt(of_ratio[:, None] / count)[:, :, None] * _NODES
    ratio = second[:, None, None] * np.exp(away)
    excess = ratio / (1 + 1 / looks) - 1
    found = 1 / np.maximum(excess, 1 / _ORDERS[-1])
    # Of the logarithm of the mean: what goes with the ratio, and the rest.
    along = (slope[:, None, None] * away)[:, :, :, None]
    across = np.sqrt(rest[:, None] / count)[:, :, None, None] * _NODES
    mean = np.exp(along + across)
    weights = _WEIGHTS[:, None] * _WEIGHTS[None, :]
    tails = _k_log_tails(looks)
    truth = np.broadcast_to(order[:, None, None, None], mean.shape)

    def rate_of(nominal: Field) -> Field:
        logarithm = np.broadcast_to(np.log(nominal)[:, :, None], found.shape)
        level = _k_level(tails, found.ravel(), logarithm.ravel()).reshape(found.shape)
        exceeded = np.exp(_k_log_tail(tails, truth.ravel(), (level[..., None] * mean).ravel()))
        return np.asarray((exceeded.reshape(mean.shape) * weights).sum((2, 3)))

    return _solved(rate_of, pfa)


# --- Speckle in decibels -------------------------------------------------------------------------

_LOG_OF_DB = np.log(10.0) / 10.0
_WIDE_LOOKS = np.geomspace(0.02, 1e7, 2000)
_LOG_VARIANCES = np.log(special.polygamma(1, _WIDE_LOOKS))
_LOG_SKEWNESS = np.log(-special.polygamma(2, _WIDE_LOOKS)) - 1.5 * _LOG_VARIANCES


def _looks_of_spread(std_db: Field, window: int) -> Field:
    """Return the looks of pixels whose averages over a window have a standard deviation."""
    variance = np.maximum((std_db * _LOG_OF_DB) ** 2 * window, 1e-12)
    found = np.interp(-np.log(variance), -_LOG_VARIANCES, np.log(_WIDE_LOOKS))
    return np.asarray(np.clip(np.exp(found), _LOOKS[0], _LOOKS[-1]))


def _as_skew(looks: Field, pixels: Field) -> Field:
    """Return the looks whose log-gamma is as skewed as the average of so many pixels."""
    skewness = np.interp(np.log(looks), np.log(_WIDE_LOOKS), _LOG_SKEWNESS) - np.log(pixels) / 2
    return np.asarray(np.exp(np.interp(-skewness, -_LOG_SKEWNESS, np.log(_WIDE_LOOKS))))


def _log_gamma_rises(looks: Field, pixels: Field, rate: Field | float) -> Field:
    """Return the threshold in standard deviations above the mean."""
    alike = _as_skew(looks, pixels)
    quantile = np.log(special.gammainccinv(alike, rate))
    return np.asarray((quantile - special.digamma(alike)) / np.sqrt(special.polygamma(1, alike)))


@cache
def _log_gamma_corrections(pfa: float, cells: Cells) -> Field:
    """Return the logarithm of the rate's correction, per _FEW_SHAPES (looks) and _FEW_COUNTS.

    Of n averages the standard deviation varies by a share of sqrt((2 + excess) / (4 n)), the mean
    by the standard deviation over sqrt(n); they go together by the skewness.
    """
    looks = _FEW_SHAPES[:, None, None, None]
    count = _FEW_COUNTS[None, :, None, None]
    alike = _as_skew(_FEW_SHAPES, np.full(len(_FEW_SHAPES), cells.window))[:, None, None, None]
    variance = special.polygamma(1, alike)
    skewness = special.polygamma(2, alike) / variance**1.5
    excess = special.polygamma(3, alike) / variance**2
    away = _NODES[None, None, :, None]
    std = np.exp(np.sqrt((2 + excess) / (4 * count)) * away)
    together = skewness / np.sqrt(2 + excess)
    # The mean has fewer independent averages than the variance.
    fewer = np.sqrt(cells.alike / cells.alike_squares / count)
    mean = fewer * (together * away + np.sqrt(1 - together**2) * _NODES[None, None, None, :])
    spread_db = np.sqrt(special.polygamma(1, looks) / cells.window) / _LOG_OF_DB
    found = _looks_of_spread(spread_db * std, cells.window)
    weights = _WEIGHTS[:, None] * _WEIGHTS[None, :]
    pixels = np.full(found.shape, cells.window)

    def rate_of(nominal: Field) -> Field:
        rise = std * _log_gamma_rises(found, pixels, nominal[:, :, None, None]) + mean
        logarithm = special.digamma(alike) + np.sqrt(variance) * rise
        return np.asarray((special.gammaincc(alike, np.exp(logarithm)) * weights).sum((2, 3)))

    return _solved(rate_of, pfa)


# --- K -------------------------------------------------------------------------------------------

_LOG_LEVELS = np.linspace(np.log(0.3), np.log(3e3), 500)


@cache
def _k_log_tails(looks: float) -> Field:
    """Return logarithms of tails, (orders, levels), falling along the levels."""
    level, order = np.tile(np.exp(_LOG_LEVELS), len(_ORDERS)), np.repeat(_ORDERS, len(_LOG_LEVELS))
    parts = [
        k_exceedance(level[at : at + _AT_ONCE], order=order[at : at + _AT_ONCE], looks=looks)
        for at in range(0, len(level), _AT_ONCE)
    ]
    tails = np.log(np.maximum(np.concatenate(parts), 1e-300)).reshape(len(_ORDERS), -1)
    # Below what floating point holds they go on falling, so that they can be inverted.
    return np.asarray(tails - 1e-6 * np.arange(len(_LOG_LEVELS)))


_AT_ONCE = 2000


def _k_log_tail(tails: Field, order: Field, level: Field) -> Field:
    """Return the logarithm of the probability that clutter of mean 1 exceeds a level; (N,)."""
    points = np.stack(
        [
            np.log(np.clip(order, _ORDERS[0], _ORDERS[-1])),
            np.clip(np.log(level), _LOG_LEVELS[0], _LOG_LEVELS[-1]),
        ],
        axis=-1,
    )
    return np.asarray(interpn((np.log(_ORDERS), _LOG_LEVELS), tails, points))


def _k_level(tails: Field, order: Field, log_rate: Field) -> Field:
    """Return the level that clutter of mean 1 exceeds with a rate; (N,)."""
    position = np.interp(np.log(order), np.log(_ORDERS), np.arange(len(_ORDERS)))
    lower = np.minimum(position.astype(np.int64), len(_ORDERS) - 2)
    part = position - lower
    low, high = np.zeros(len(order), np.int64), np.full(len(order), len(_LOG_LEVELS) - 1)

    def tail_at(index: NDArray[np.int64]) -> Field:
        return np.asarray((1 - part) * tails[lower, index] + part * tails[lower + 1, index])

    while (high - low > 1).any():
        middle = (low + high) // 2
        too_low = tail_at(middle) > log_rate
        low, high = np.where(too_low, middle, low), np.where(too_low, high, middle)
    before, after = tail_at(low), tail_at(high)
    along = np.clip((before - log_rate) / (before - after), 0.0, 1.0)
    return np.asarray(np.exp(_LOG_LEVELS[low] + along * (_LOG_LEVELS[high] - _LOG_LEVELS[low])))


@cache
def _k_factors(pfa: float, looks: float) -> Field:
    """Return threshold over mean for L looks, per _ORDERS, where mean and order are known."""
    rates = np.full(len(_ORDERS), np.log(pfa))
    return _k_level(_k_log_tails(looks), _ORDERS, rates)
