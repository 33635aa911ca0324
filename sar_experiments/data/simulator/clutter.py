"""Sea and land before the sensor: mean intensity, relative to that of the sea."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sar_experiments.data.simulator.chance import (
    WAVE_STEPS,
    below,
    between,
    draw_direction,
    draw_from,
    fractal_noise,
    gamma_table,
    gamma_texture_table,
    lognormal_table,
    on_grid,
    through,
    wave_table,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sar_experiments.data.simulator.canvas import Canvas
    from sar_experiments.data.simulator.settings import Direction, Field


@dataclass(frozen=True)
class SeaState:
    """What images of one acquisition share."""

    texture_shape: int
    swell_per_px: Direction  # waves per pixel, times the steps of the wave table
    swell_depth: float
    wind_spread: float
    rolls_per_px: Direction  # wind rolls per pixel, times the steps of the wave table
    rolls_depth: float
    range_slope: float
    level: float


def draw_sea_state(rng: np.random.Generator, pixel_m: float) -> SeaState:
    """Draw swell of 120 to 350 m, wind rolls of 900 to 2500 m, and how rough the sea is."""
    cosine, sine = draw_direction(rng)
    wave_px = max(between(rng, 120, 350) / pixel_m, 6)
    across, along = draw_direction(rng)
    roll_px = between(rng, 900, 2500) / pixel_m
    return SeaState(
        texture_shape=(5, 10, 20, 40)[below(rng, 4)],
        swell_per_px=(WAVE_STEPS * cosine / wave_px, WAVE_STEPS * sine / wave_px),
        swell_depth=0.55 * rng.random() ** 2,
        wind_spread=(0.1, 0.2, 0.3, 0.4)[below(rng, 4)],
        rolls_per_px=(WAVE_STEPS * across / roll_px, WAVE_STEPS * along / roll_px),
        rolls_depth=0.35 * rng.random() ** 2,
        range_slope=between(rng, 0.0, 0.5),
        level=between(rng, 0.5, 1.3),
    )


def paint_ground(canvas: Canvas, sea_state: SeaState, layout: str) -> None:
    """Paint sea, and land unless the layout is ``open``; what was there is gone."""
    canvas.intensity = _sea(canvas, sea_state)
    canvas.land = np.zeros((canvas.size_px, canvas.size_px), np.bool_)
    if layout == "open":
        return
    canvas.inland = draw_direction(canvas.rng)
    shore = _shore_distance(canvas, layout)
    canvas.land = shore > 0
    np.copyto(canvas.intensity, _land(canvas, shore), where=canvas.land)


def _sea(canvas: Canvas, state: SeaState) -> Field:
    """Return the sea before speckle; the speckle makes it K-distributed."""
    rng, size_px = canvas.rng, canvas.size_px
    columns, _ = axes(size_px)
    texture = through(
        fractal_noise(rng, size_px, cell_px=8, octaves=3),
        gamma_texture_table(state.texture_shape),
    )
    bend = fractal_noise(rng, size_px, cell_px=32) * 40  # wave fronts are not straight
    swell = 1 + state.swell_depth * _waves(size_px, state.swell_per_px, bend)
    rolls = 1 + state.rolls_depth * _waves(size_px, state.rolls_per_px, bend)
    wind = through(
        fractal_noise(rng, size_px, cell_px=quarter(size_px), octaves=2),
        lognormal_table(state.wind_spread),
    )
    slope = 1 + state.range_slope * (0.5 - columns / size_px)
    sea: Field = texture * swell * rolls * wind * (slope * state.level)
    return sea


def _waves(size_px: int, per_px: Direction, bend: Field) -> Field:
    """Return a wave train in [-1, 1]; ``bend`` is in steps of the wave table."""
    columns, rows = axes(size_px)
    phase = bend + columns * per_px[0] + rows * per_px[1]
    waves: Field = wave_table().take(phase.astype(np.int32) & (WAVE_STEPS - 1))
    return waves


def axes(size_px: int) -> tuple[Field, Field]:
    """Return the columns as (1, W) and the rows as (H, 1), at pixel centres."""
    centres = np.arange(size_px, dtype=np.float32) + np.float32(0.5)
    return centres[None, :], centres[:, None]


def _shore_distance(canvas: Canvas, layout: str) -> Field:
    """Return roughly the distance to the shore in pixels, positive on land."""
    rng, size_px = canvas.rng, canvas.size_px
    columns, rows = axes(size_px)
    cosine, sine = canvas.inland
    columns, rows = columns - size_px / 2, rows - size_px / 2
    cell_px = quarter(size_px)
    rough = fractal_noise(rng, size_px, cell_px=cell_px, octaves=6) * (cell_px * 0.22)
    across = columns * cosine + rows * sine + rough
    if layout == "channel":
        bank: Field = np.abs(across) - _half_channel_px(canvas)
        return bank
    coast: Field = across - between(rng, 0.0, 0.25) * size_px
    if layout == "coast":
        return coast
    middle = between(rng, -0.2, 0.2) * size_px
    along = rows * cosine - columns * sine + rough - middle
    estuary: Field = np.minimum(coast, np.abs(along) - 1.5 * _half_channel_px(canvas))
    return estuary


def quarter(size_px: int) -> int:
    """Return the largest power of two up to a quarter of the size."""
    return 1 << ((size_px // 4).bit_length() - 1)


def _half_channel_px(canvas: Canvas) -> float:
    """Draw half the width of a river, 160 to 500 m, within what the image can show."""
    widest = canvas.settings.image_size_px / 7
    return min(between(canvas.rng, 80, 250) / canvas.settings.pixel_m + 4, widest)


def _land(canvas: Canvas, shore: Field) -> Field:
    """Return the intensity of land, wherever there is any."""
    rng, size_px = canvas.rng, canvas.size_px
    kind = fractal_noise(rng, size_px, cell_px=64, octaves=5)
    texture = through(fractal_noise(rng, size_px, cell_px=8, octaves=3), lognormal_table(0.4))
    country = _fields(canvas) * through(kind, lognormal_table(0.3))
    brightness = texture * country * (between(rng, 3.0, 5.5) * _relief(canvas))
    built_up = np.clip((kind - between(rng, 0.2, 1.5)) * 2, 0, 1) * (shore > _BEACH_PX)
    land: Field = brightness + built_up * (_town(canvas) - 0.5 * brightness)
    return land


_BEACH_PX = 2.0


def _fields(canvas: Canvas) -> Field:
    """Return plots of differing brightness, some parted by dark roads."""
    rng = canvas.rng
    u, v = _turned_axes(canvas, draw_direction(rng))
    bend = fractal_noise(rng, canvas.size_px, cell_px=64)
    u = (u + bend * 6) / canvas.px(180, 500, at_least_px=14)
    v = (v + bend * 9) / canvas.px(150, 700, at_least_px=10)
    strip = np.floor(u)
    number = strip.astype(np.int32) * 53
    v = v * (0.6 + (number & 31) * (1 / 32)) + (number & 63) * (1 / 64)
    plot = number + np.floor(v).astype(np.int32) * 31
    brightness: Field = on_grid(0.6 + 0.8 * rng.random(WAVE_STEPS)).take(plot & (WAVE_STEPS - 1))
    brightness[(u - strip < _ROAD_SHARE) & (number & 3 == 0)] = 0.3
    return brightness


_ROAD_SHARE = 0.07  # of a field's width


def _turned_axes(canvas: Canvas, direction: Direction) -> tuple[Field, Field]:
    """Return (H, W) distances along and across a direction."""
    columns, rows = axes(canvas.size_px)
    cosine, sine = direction
    return columns * cosine + rows * sine, rows * cosine - columns * sine


def _relief(canvas: Canvas) -> Field | float:
    """Return hills: slopes that face the sensor are bright and short, the others in shadow."""
    steepness = canvas.rng.random() ** 2 * 9 - 1
    if steepness <= 0:
        return 1.0
    height = fractal_noise(canvas.rng, canvas.size_px + 1, cell_px=32, octaves=3)
    slope = height[:-1, 1:] - height[:-1, :-1]
    brightening: Field = np.clip(1 + steepness * slope, 0.12, 4.0)
    return brightening


def _town(canvas: Canvas) -> Field:
    """Return blocks of strong scatterers between dark streets."""
    rng, size_px = canvas.rng, canvas.size_px
    u, v = _turned_axes(canvas, draw_direction(rng))
    block_px = canvas.px(70, 160, at_least_px=6)
    u, v = u / block_px, v / (block_px * between(rng, 1.0, 2.5))
    across, along = np.floor(u), np.floor(v)
    street = (u - across < _STREET_SHARE) | (v - along < _STREET_SHARE)
    number = across.astype(np.int32) * 53 + along.astype(np.int32) * 31
    density = on_grid(rng.random(WAVE_STEPS)).take(number & (WAVE_STEPS - 1))
    houses: Field = draw_from(rng, gamma_table(0.12), (size_px, size_px)) * (density * 22) + 4.5
    houses[street] = 2.5
    return houses


_STREET_SHARE = 0.12  # of a block's width


def swath(size_px: int) -> NDArray[np.bool_]:
    """Return where the sensor looked: a band between slanted edges, as in a geocoded product."""
    columns, rows = axes(size_px)
    left, right = size_px * 0.07 - rows * 0.06, size_px * 0.99 - rows * 0.06
    return np.asarray((columns > left) & (columns < right))
