"""Chance that is the same on every machine: uniform numbers and tables of quantiles.

All arithmetic on arrays is ``+ - * / sqrt`` and table look-up, which IEEE 754 fixes; tables are
rounded to binary grids far coarser than the differences between math libraries.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import gammaincinv, ndtr, ndtri

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sar_experiments.data.simulator.settings import Direction, Field

_GRID = 2.0**20  # tables are rounded to multiples of its inverse
_LEVELS = 65536  # of a 16-bit random number
_BELL_STEPS = 128  # table entries per standard deviation
_BELL_REACH = 6  # standard deviations: one value in a thousand million lies beyond
ANGLES = 4096
WAVE_STEPS = 256


def on_grid(values: NDArray[Any]) -> Field:
    """Round to multiples of 2 to the power of -20."""
    return (np.round(values * _GRID) / _GRID).astype(np.float32)


@cache
def _normal_table() -> Field:
    """Quantiles of the normal distribution."""
    return on_grid(ndtri((np.arange(_LEVELS) + 0.5) / _LEVELS))


@cache
def _normal_tail_table() -> Field:
    """Quantiles of what lies beyond the normal table's last interval, as magnitudes."""
    return on_grid(-ndtri((np.arange(_LEVELS) + 0.5) / _LEVELS**2))


def draw_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Field:
    """Draw independent normal values of mean 0 and variance 1.

    The outermost of 65,536 intervals is split into as many again, so that tails are right down
    to probabilities of 1e-9, where a table's would end at 8e-6.

    >>> float(draw_normal(np.random.default_rng(0), (100_000,)).std().round(2))
    1.0
    """
    drawn = rng.integers(0, _LEVELS, shape, dtype=np.uint16)
    values = _normal_table().take(drawn)
    outermost = np.flatnonzero(drawn + np.uint16(1) <= 1)  # 65535 wraps to 0
    if len(outermost):
        tail = draw_from(rng, _normal_tail_table(), len(outermost))
        sign = np.where(drawn.flat[outermost] == 0, np.float32(-1), np.float32(1))
        values.flat[outermost] = sign * tail
    return values


@cache
def gamma_table(shape: float) -> Field:
    """Quantiles of the gamma distribution of unit mean and variance ``1 / shape``."""
    quantiles = gammaincinv(shape, (np.arange(_LEVELS) + 0.5) / _LEVELS)
    return on_grid(quantiles / quantiles.mean())


def _bell_positions() -> NDArray[Any]:
    positions: Field = np.arange(2 * _BELL_REACH * _BELL_STEPS) / _BELL_STEPS - _BELL_REACH
    return positions


@cache
def gamma_texture_table(shape: float) -> Field:
    """Normal value to gamma value of unit mean."""
    return on_grid(gammaincinv(shape, ndtr(_bell_positions())) / shape)


@cache
def lognormal_table(spread: float) -> Field:
    """Normal value to log-normal value of unit mean; ``spread`` is that of the logarithm."""
    return on_grid(np.exp(spread * _bell_positions() - spread**2 / 2))


@cache
def wave_table() -> Field:
    """Sines of angles counted in 1/256 of a turn."""
    return on_grid(np.sin(2 * np.pi * np.arange(WAVE_STEPS) / WAVE_STEPS))


@cache
def angle_table() -> Field:
    """Cosines and sines, (4096, 2), of angles counted in 1/4096 of a turn."""
    angles = 2 * np.pi * np.arange(ANGLES) / ANGLES
    return on_grid(np.stack([np.cos(angles), np.sin(angles)], axis=1))


def through(noise: Field, table: Field) -> Field:
    """Look each normal value up in a table over ``_bell_positions``."""
    positions = noise * _BELL_STEPS + _BELL_REACH * _BELL_STEPS
    return table.take(positions.astype(np.int32), mode="clip")


def draw_from(rng: np.random.Generator, table: Field, shape: tuple[int, ...] | int) -> Field:
    """Draw independent values of the distribution whose quantiles the table holds."""
    return table.take(rng.integers(0, _LEVELS, shape, dtype=np.uint16))


def below(rng: np.random.Generator, end: int) -> int:
    """Draw a whole number from 0 to ``end - 1``."""
    return int(rng.integers(0, end))


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a number between two."""
    return low + (high - low) * rng.random()


def draw_direction(rng: np.random.Generator) -> Direction:
    """Draw a unit vector of any direction."""
    return direction_of(below(rng, ANGLES))


def direction_of(angle: int) -> Direction:
    """Return the unit vector of an angle counted in 1/4096 of a turn."""
    cosine, sine = angle_table()[angle % ANGLES].tolist()
    return cosine, sine


def level_to_power(level_db: float) -> float:
    """Return the intensity of a level in dB, which is rounded to 0.1."""
    return float(_power_table()[round(level_db * 10) + 1000])


@cache
def _power_table() -> Field:
    return on_grid(10 ** ((np.arange(2000) - 1000) / 100))


def fractal_noise(
    rng: np.random.Generator, size_px: int, *, cell_px: int, octaves: int = 1
) -> Field:
    """Return (size, size) noise of about unit variance, correlated over ``cell_px``.

    Values on a coarse lattice are doubled in size by quadratic splines again and again. Each
    further octave adds detail of half the size and half the strength.

    Args:
        rng: Where the lattice comes from.
        size_px: Side of the result.
        cell_px: Distance of the coarsest lattice, a power of two.
        octaves: Number of lattices; 2 to the power of it must not exceed ``2 * cell_px``.
    """
    doublings = cell_px.bit_length() - 1
    lattice_size = -(-size_px // cell_px) + 2
    noise = draw_normal(rng, (lattice_size, lattice_size))
    strength = 1.0
    for octave in range(1, doublings + 1):
        noise = _doubled(_doubled(noise).T).T
        if octave < octaves:
            strength /= 2
            noise += strength * draw_normal(rng, noise.shape)
    variance = (1 - 0.25**octaves) / 0.75
    scaled: Field = noise[:size_px, :size_px] * (1 / (_SPLINE_SPREAD * variance**0.5))
    return scaled


_SPLINE_SPREAD = 0.55  # standard deviation that spline interpolation leaves of white noise


def _doubled(noise: Field) -> Field:
    """Double the rows by the quadratic spline (Chaikin's corner cutting)."""
    quarter = (noise[1:] - noise[:-1]) * 0.25
    result = np.empty((2 * len(quarter), noise.shape[1]), np.float32)
    np.add(noise[:-1], quarter, out=result[0::2])
    np.subtract(noise[1:], quarter, out=result[1::2])
    return result
