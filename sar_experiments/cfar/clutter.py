"""Clutter models: how bright a pixel must be so that clutter alone gets there with a given rate.

Three models, as functions of what the ring around a pixel shows: its mean, its standard deviation
and the number of its pixels.

* gaussian: two parameters, mean and standard deviation. Both are estimated, so the threshold is
  Student's: for independent normal pixels the rate holds for any size of the ring.
* gamma: speckle of L looks on a homogeneous ground (intensity). With known looks this is cell
  averaging, whose ratio follows Fisher's F for any size of the ring; else L = mean² / variance.
* k: speckle of L looks on a ground whose brightness is gamma distributed of order nu, as the sea
  at fine resolution: mean of squares / mean² = (1 + 1/L) (1 + 1/nu).

Oliver and Quegan, "Understanding Synthetic Aperture Radar Images", SciTech 2004,
chapters 4, 5 and 10.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import special, stats

from sar_experiments.config import ClutterKind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Field = NDArray[np.float64]

_MIN_COUNT = 3  # pixels; fewer give no standard deviation worth the name
_COUNTS = np.unique(np.geomspace(_MIN_COUNT, 1e6, 200).round())
_LOOKS = np.geomspace(0.05, 1e4, 600)
_ORDERS = np.geomspace(0.05, 1e4, 100)
_BELOW = 0.999  # interpolation between grid points errs by less
_QUADRATURE = 801  # points over the logarithm of the texture; more change nothing in 6 digits
_BISECTIONS = 34  # of the logarithm of a threshold, to nine digits


@dataclass(frozen=True)
class Clutter:
    """A clutter model and a false-alarm rate.

    Attributes:
        kind: Which of the three.
        pfa: Probability that a pixel of clutter exceeds the threshold; in (0, 0.5).
        looks: Equivalent number of looks, above 0; ``k`` needs it, ``gamma`` estimates it from
            the ring where it is None, ``gaussian`` does not know it.

    Raises:
        ValueError: ``k`` without looks.
    """

    kind: ClutterKind
    pfa: float
    looks: float | None = None

    def __post_init__(self) -> None:
        if self.kind is ClutterKind.k and self.looks is None:
            raise ValueError("looks=None: the K-distribution needs the number of looks")

    def threshold(self, mean: Field, std: Field, count: Field) -> Field:
        """Return the value that clutter exceeds with the probability ``pfa``.

        Args:
            mean: Of the ring's pixels; any shape.
            std: Of the ring's pixels, with ``count - 1`` in the denominator.
            count: Number of the ring's pixels.

        Returns:
            In the unit of the mean; NaN where the ring has fewer than three pixels.
        """
        if self.kind is ClutterKind.gaussian:
            level = mean + std * _interpolated(count, _COUNTS, _student_factors(self.pfa))
        elif self.kind is ClutterKind.k:
            level = mean * self._k_factor(mean, std)
        elif self.looks is not None:
            level = mean * _interpolated(count, _COUNTS, _fisher_factors(self.pfa, self.looks))
        else:
            level = mean * _interpolated(_ratio(mean, std), _LOOKS, _gamma_factors(self.pfa))
        return np.where(count >= _MIN_COUNT, level, np.nan)

    def lowest(self, mean: Field, std: Field) -> Field:
        """Return a bound below every ``threshold``, so that few pixels need a closer look."""
        if self.kind is ClutterKind.gaussian:
            return mean + std * float(_student_factors(self.pfa).min())
        if self.kind is ClutterKind.gamma and self.looks is not None:
            return mean * float(_fisher_factors(self.pfa, self.looks).min())
        if self.kind is ClutterKind.gamma:
            factors, spread = _gamma_factors(self.pfa), 1 / np.sqrt(_LOOKS)
        else:
            looks = self._known_looks()
            factors = _k_factors(self.pfa, looks)
            spread = np.sqrt((1 + 1 / looks) * (1 + 1 / _ORDERS) - 1)
        # Thresholds in standard deviations above the mean differ little over the grid; beyond its
        # lower end the threshold is a multiple of the mean alone.
        rise = _BELOW * float(((factors - 1) / spread).min())
        return np.minimum(mean + std * rise, mean * _BELOW * float(factors[0]))

    def _k_factor(self, mean: Field, std: Field) -> Field:
        looks = self._known_looks()
        excess = (1.0 + 1.0 / _ratio(mean, std)) / (1.0 + 1.0 / looks) - 1.0
        order = 1.0 / np.maximum(excess, 1.0 / _ORDERS[-1])
        return _interpolated(order, _ORDERS, _k_factors(self.pfa, looks))

    def _known_looks(self) -> float:
        assert self.looks is not None  # refused at construction
        return self.looks


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
    """Return the threshold's distance from the mean in standard deviations, per _COUNTS.

    A new pixel minus the mean of n, over their standard deviation, is Student's t of n - 1
    degrees of freedom times sqrt(1 + 1/n).
    """
    return np.asarray(stats.t.isf(pfa, _COUNTS - 1) * np.sqrt(1 + 1 / _COUNTS))


@cache
def _fisher_factors(pfa: float, looks: float) -> Field:
    """Return threshold over mean for L known looks, per _COUNTS: F of 2L and 2nL degrees."""
    return np.asarray(stats.f.isf(pfa, 2 * looks, 2 * looks * _COUNTS))


@cache
def _gamma_factors(pfa: float) -> Field:
    """Return threshold over mean, per _LOOKS."""
    return np.asarray(special.gammainccinv(_LOOKS, pfa) / _LOOKS)


@cache
def _k_factors(pfa: float, looks: float) -> Field:
    """Return threshold over mean for L looks, per _ORDERS, by bisection of the logarithm."""
    low, high = np.zeros(len(_ORDERS)), np.full(len(_ORDERS), np.log(1e7))
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        too_low = k_exceedance(np.exp(middle), order=_ORDERS, looks=looks) > pfa
        low, high = np.where(too_low, middle, low), np.where(too_low, high, middle)
    return np.exp(low)
