"""What the sensor makes of a painted image: speckle, point responses, ghosts, stored numbers.

Everything passes through one impulse response, along range and along azimuth:

    h(u) = sinc(u) + (1 - a) / (2 a) * (sinc(u - 1) + sinc(u + 1)),    u = distance / cell

That is a band of one cycle per resolution cell, weighted by a Hamming window of a = 0.75 as
processors do against sidelobes (Cumming and Wong, Digital Processing of Synthetic Aperture Radar
Data, 2005, chapter 3). A look is a complex field: circular Gaussian numbers filtered by h, times
the square root of the ground's intensity, plus every point scatterer's h with a phase of its own.
The image is the mean power of the looks. So its speckle has L looks at each pixel and is
correlated between pixels by h's own correlation, squared.

An azimuth ambiguity is a point's weak copy before and behind it: a sampled Doppler spectrum folds
(the same book, chapter 5). The distance on the ground is wavelength * range * sampling rate / (2 *
speed of the sensor).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from sar_experiments.data.simulator.chance import (
    ANGLES,
    below,
    direction_of,
    draw_normal,
    level_to_power,
    on_grid,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sar_experiments.data.simulator.canvas import Canvas
    from sar_experiments.data.simulator.settings import Field

CELL_PX = 1.25
"""Pixels in a resolution cell."""

_WINDOW = 0.75  # 1 would be no window; 0.54 is Hamming's own
_REACH_PX = 48  # of the response to a point along an axis
_STEPS_PER_PX = 8
_CORE_PX = 3  # around a point the response is full; beyond, only along the axes
_SPECKLE_REACH_PX = 8
_MOST_LOOKS = 16  # that are drawn one by one

_SEA_GAIN = {"uint8": 40.0, "uint16": 640.0}  # amplitude that a sea of intensity 1 is stored as
_HIGHEST = {"uint8": 255, "uint16": 65535}
_SEA_DB = -20.0  # Sentinel-1's VV at the incidence of its wide swath, in a light breeze
_DARKEST = 1e-3  # the noise of the instrument, of intensity relative to the sea
_DB_STEPS = 128  # per decibel; far below what speckle leaves to tell


def expose(canvas: Canvas) -> NDArray[Any]:
    """Return what is stored: mean power of the looks, as decibels or as clipped amplitude."""
    dtype = canvas.settings.dtype
    add_ghosts(canvas)
    intensity = detected(canvas.rng, canvas.intensity, canvas.points, looks=canvas.settings.looks)
    if dtype == "float32":
        return _in_decibels(intensity)
    amplitude = np.sqrt(intensity) * _SEA_GAIN[dtype] + np.float32(0.5)
    stored: NDArray[Any] = np.clip(amplitude, 1, _HIGHEST[dtype]).astype(dtype)
    return stored


def _in_decibels(intensity: Field) -> Field:
    level_db = 10.0 * np.log10(np.maximum(intensity.astype(np.float64), _DARKEST)) + _SEA_DB
    steps = np.round(level_db * _DB_STEPS)
    steps[steps == 0] = 1  # zero is kept for no data
    return np.asarray(steps / _DB_STEPS, np.float32)


# --- Impulse response ----------------------------------------------------------------------------


def impulse_response(distance_px: NDArray[Any]) -> NDArray[Any]:
    """Return the amplitude of the response, 1 at its peak.

    Args:
        distance_px: From the point along range or azimuth, in pixels.

    >>> impulse_response(np.array([0.0, 1.25])).round(3).tolist()
    [1.0, 0.167]
    """
    cells = np.asarray(distance_px) / CELL_PX
    beside = np.sinc(cells - 1) + np.sinc(cells + 1)
    return np.asarray(np.sinc(cells) + (1 - _WINDOW) / (2 * _WINDOW) * beside)


@cache
def _response_table() -> Field:
    """Return the response in steps of 1/8 px."""
    return on_grid(impulse_response(np.arange(_REACH_PX * _STEPS_PER_PX + 1) / _STEPS_PER_PX))


def _response_at(centre: float, first: int, end: int) -> Field:
    """Return the response to a point at ``centre`` in the pixels from ``first`` to ``end``."""
    distance = np.abs(np.arange(first, end) + 0.5 - centre)
    steps = (distance * _STEPS_PER_PX + 0.5).astype(np.int32)
    response: Field = _response_table().take(steps, mode="clip")
    return response


# --- Ghosts --------------------------------------------------------------------------------------


def add_ghosts(canvas: Canvas) -> None:
    """Add the azimuth ambiguities of what is in the image, and of what lies outside it."""
    settings = canvas.settings
    if settings.ambiguity_db <= _NO_AMBIGUITY_DB:
        return
    weakening = level_to_power(settings.ambiguity_db)
    shift_px = settings.ambiguity_m / settings.pixel_m
    near = [
        (x, y + side * shift_px, power * weakening)
        for x, y, power in canvas.points
        for side in (-1, 1)
        if -_REACH_PX < y + side * shift_px < canvas.size_px + _REACH_PX
    ]
    canvas.points += [each for each in near if each[2] >= _FAINTEST]
    # As many strong ships as there are objects on average lie where ghosts come from.
    unseen = min(shift_px / canvas.size_px, 1.0) * settings.max_objects / 4
    for _ in range(int(unseen) + (canvas.rng.random() < unseen % 1)):
        _add_unseen(canvas, weakening)


_NO_AMBIGUITY_DB = -60.0
_FAINTEST = 0.1  # of the sea; a weaker ghost is lost in it


def _add_unseen(canvas: Canvas, weakening: float) -> None:
    """Add the ghost of a ship outside: some scatterers along a line."""
    x, y = canvas.point()
    cosine, sine = direction_of(below(canvas.rng, ANGLES))
    length = canvas.px(40, 250)
    for _ in range(3):
        along = (canvas.rng.random() - 0.5) * length
        level_db = 30 + 12 * canvas.rng.random()
        power = level_to_power(level_db) * weakening
        canvas.points.append((x + along * cosine, y + along * sine, power))


# --- Looks ---------------------------------------------------------------------------------------


def draw_speckle(rng: np.random.Generator, shape: tuple[int, int], *, looks: float) -> Field:
    """Draw the speckle of intensity: gamma of ``looks`` looks, mean 1, variance ``1 / looks``.

    Neighbours are correlated as the impulse response says.

    Args:
        rng: Where it comes from.
        shape: ``(H, W)``.
        looks: From 1 on. Between whole numbers a look of less weight is added; above 16 what 16
            looks give is drawn nearer to its mean, so that the variance is right.
    """
    return detected(rng, np.ones(shape, np.float32), [], looks=looks)


def detected(
    rng: np.random.Generator,
    intensity: Field,
    points: Sequence[tuple[float, float, float]],
    *,
    looks: float,
) -> Field:
    """Return the mean power of the looks.

    Args:
        rng: Where speckle and phases come from.
        intensity: (H, W) mean intensity of what is extended.
        points: Scatterers ``(x, y, power)`` in pixels; power is that at the response's peak.
        looks: Equivalent number of looks.
    """
    ground = np.sqrt(intensity * np.float32(0.5))  # half of the power in each part
    patches = [
        patch
        for number, (x, y, strength) in enumerate(points)
        for patch in _patches(number, x, y, strength, intensity.shape)
    ]
    power = np.zeros(intensity.shape, np.float32)
    weights = look_weights(min(looks, _MOST_LOOKS))
    share = np.float32(1 / sum(weights))
    for weight in weights:
        phases = rng.integers(0, ANGLES, len(points)).tolist()
        turns = [direction_of(phase) for phase in phases]
        for part in (0, 1):
            field = _filtered(rng, intensity.shape)
            field *= ground
            for patch in patches:
                field[patch.window] += patch.amplitude * np.float32(turns[patch.point][part])
            field *= field
            power += field * (np.float32(weight) * share)
    if looks > _MOST_LOOKS:
        mean = intensity.copy()
        for patch in patches:
            mean[patch.window] += patch.amplitude * patch.amplitude
        power = mean + (power - mean) * np.float32(math.sqrt(_MOST_LOOKS / looks))
    return power


def look_weights(looks: float) -> list[float]:
    """Return the weights of looks whose sum has so many equivalent looks.

    With n whole looks and one of weight w there are (n + w)^2 / (n + w^2) of them.

    >>> [round(weight, 3) for weight in look_weights(2.5)]
    [1.0, 1.0, 0.279]
    """
    whole = int(looks)
    rest = looks - whole
    if rest < _LEAST_LOOK:
        return [1.0] * whole
    root = math.sqrt(whole**2 - (looks - 1) * rest * whole)
    return [*[1.0] * whole, (whole - root) / (looks - 1)]


_LEAST_LOOK = 1e-3


@dataclass(frozen=True, eq=False)
class _Patch:
    """Where a point scatterer shows, and how strongly."""

    point: int
    window: tuple[slice, slice]
    amplitude: Field


def _patches(point: int, x: float, y: float, power: float, size: tuple[int, int]) -> list[_Patch]:
    """Return where a point shows; a strong one's sidelobes along both axes, too."""
    strength = np.float32(math.sqrt(power))
    columns, rows = _around(x, _CORE_PX, size[1]), _around(y, _CORE_PX, size[0])
    spans = [(rows, columns)]
    if power >= _STRONG:
        column, row = _around(x, 0, size[1]), _around(y, 0, size[0])
        spans += [(each, column) for each in _beside(rows, _around(y, _REACH_PX - 1, size[0]))]
        spans += [(row, each) for each in _beside(columns, _around(x, _REACH_PX - 1, size[1]))]
    return [
        _Patch(
            point,
            (slice(*down), slice(*right)),
            np.outer(_response_at(y, *down) * strength, _response_at(x, *right)),
        )
        for down, right in spans
        if down[1] > down[0] and right[1] > right[0]
    ]


_STRONG = 300.0  # a weaker point's sidelobes vanish in the sea


def _around(centre: float, reach: int, size: int) -> tuple[int, int]:
    """Return the pixels within reach of that at a place, inside the image."""
    middle = math.floor(centre)
    return min(max(middle - reach, 0), size), max(min(middle + reach + 1, size), 0)


def _beside(inner: tuple[int, int], outer: tuple[int, int]) -> list[tuple[int, int]]:
    return [(outer[0], inner[0]), (inner[1], outer[1])]


def _filtered(rng: np.random.Generator, shape: tuple[int, ...]) -> Field:
    """Return normal numbers of variance 1, correlated by the impulse response."""
    reach = _SPECKLE_REACH_PX
    noise = draw_normal(rng, (shape[0] + 2 * reach, shape[1] + 2 * reach))
    return _along_rows(_along_rows(noise).T).T


@cache
def _taps() -> tuple[float, ...]:
    """Return the filter from its middle outwards; its energy is 1."""
    taps = impulse_response(np.arange(_SPECKLE_REACH_PX + 1))
    energy = taps[0] ** 2 + 2 * (taps[1:] ** 2).sum()
    return tuple(on_grid(taps / math.sqrt(energy)).tolist())


def _along_rows(noise: Field) -> Field:
    """Filter the columns, which loses the reach at both ends; sums in a fixed order."""
    middle, *tail = (np.float32(tap) for tap in _taps())
    reach = len(tail)
    size = len(noise) - 2 * reach
    result: Field = middle * noise[reach : reach + size]
    both = np.empty_like(result)
    for distance, tap in enumerate(tail, start=1):
        before, after = reach - distance, reach + distance
        np.add(noise[before : before + size], noise[after : after + size], out=both)
        both *= tap
        result += both
    return result
