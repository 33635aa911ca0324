"""Ships, platforms and wind turbines."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sar_experiments.data.simulator.canvas import Bar, add_bar, add_point, claim, cover, window_of
from sar_experiments.data.simulator.chance import (
    below,
    between,
    draw_direction,
    draw_from,
    gamma_table,
    level_to_power,
)

if TYPE_CHECKING:
    from sar_experiments.data.simulator.canvas import Canvas

_SHIP_M = (40.0, 330.0)
_LONGEST_SHIP_PX = 60.0


def place_ship(canvas: Canvas) -> bool:
    """Place a ship, with or without a wake."""
    rng, pixel_m = canvas.rng, canvas.settings.pixel_m
    longest_m = min(_SHIP_M[1], _LONGEST_SHIP_PX * pixel_m)
    length = canvas.px(_SHIP_M[0], longest_m, at_least_px=canvas.settings.shortest_px)
    hull = Bar(*canvas.point(), draw_direction(rng), length, max(length / 6.5, 2.5))
    if not claim(canvas, "ship", hull, on_land=False):
        return False
    if rng.random() < _MOVING_SHARE:
        _draw_wake(canvas, hull)
    _draw_ship(canvas, hull)
    return True


_MOVING_SHARE = 0.35


def _draw_ship(canvas: Canvas, hull: Bar) -> None:
    rng = canvas.rng
    window, along, across = window_of(canvas, hull)
    to_bow = np.clip((hull.length / 2 - along) / (0.22 * hull.length) + 0.25, 0.25, 1)
    covered = cover(along, hull.length) * cover(across, hull.width * to_bow)
    deck_db = between(rng, 9, 19)
    grain = draw_from(rng, gamma_table(1.0), covered.shape)
    canvas.intensity[window] += level_to_power(deck_db) * covered * (0.4 + 0.6 * grain)
    for _ in range(3 + int(hull.length / 2.5)):
        place = hull.at(between(rng, -0.46, 0.44) * hull.length, _off_centre(rng, hull))
        add_point(canvas, *place, level_to_power(deck_db + between(rng, -2, 9)))
    # The superstructure near the stern: corner reflectors, the strongest of the ship.
    for _ in range(1 + below(rng, 3)):
        place = hull.at(between(rng, -0.42, -0.3) * hull.length, _off_centre(rng, hull))
        add_point(canvas, *place, level_to_power(deck_db + between(rng, 6, 22)))


def _off_centre(rng: np.random.Generator, hull: Bar) -> float:
    return between(rng, -0.3, 0.3) * hull.width


def _draw_wake(canvas: Canvas, hull: Bar) -> None:
    """Draw dark turbulent water and two bright arms behind where the ship truly is.

    The ship itself is imaged off its wake, in azimuth, by its speed towards the sensor.
    """
    rng = canvas.rng
    shift_px = -hull.along[0] * min(between(rng, 50, 200) / canvas.settings.pixel_m, 14)
    length = hull.length * between(rng, 2.5, 6)
    wake = Bar(hull.x, hull.y + shift_px, hull.along, 2 * length, length * 0.5)
    window, along, across = window_of(canvas, wake)
    behind = -along - hull.length * 0.3
    fading = np.clip(1 - behind / length, 0, 1) * (behind > 0)
    water = ~canvas.land[window]
    turbulent = cover(across, hull.width * 0.7 + 0.04 * behind)
    arms = np.clip(1.3 - np.abs(np.abs(across) - 0.5 - _ARM_SLOPE * behind), 0, 1)
    factor = (1 - 0.75 * fading * turbulent) * (1 + between(rng, 0.3, 1.6) * fading * arms)
    canvas.intensity[window] *= np.where(water, factor, 1)


_ARM_SLOPE = 0.12  # narrow V; Kelvin's 19.5 degrees is rarely seen by radar


def place_platform(canvas: Canvas) -> bool:
    """Place a platform: a deck crowded with strong scatterers."""
    rng = canvas.rng
    side = canvas.px(70, 140, at_least_px=canvas.settings.shortest_px)
    deck = Bar(*canvas.point(), draw_direction(rng), side, side * between(rng, 0.7, 1.0))
    if not claim(canvas, "platform", deck, on_land=False):
        return False
    add_bar(canvas, deck, level_to_power(between(rng, 9, 14)))
    for _ in range(10 + int(side * deck.width / 12)):
        place = deck.at(between(rng, -0.5, 0.5) * side, between(rng, -0.5, 0.5) * deck.width)
        add_point(canvas, *place, level_to_power(between(rng, 18, 29)))
    for _ in range(2):
        place = deck.at(between(rng, -0.25, 0.25) * side, between(rng, -0.25, 0.25) * side)
        add_point(canvas, *place, level_to_power(between(rng, 35, 42)))
    return True


def place_wind_turbine(canvas: Canvas) -> bool:
    """Place a regular array of turbines, as many as there is room for."""
    rng = canvas.rng
    spacing = canvas.px(450, 800, at_least_px=25)
    tower_px = canvas.px(80, 130, at_least_px=canvas.settings.shortest_px)
    level_db = between(rng, 26, 33)
    array = Bar(*canvas.point(), draw_direction(rng), 0, 0)
    placed = False
    for row in range(1 + below(rng, 3)):
        for column in range(1 + below(rng, 4)):
            foot = array.at(column * spacing, row * spacing * 1.2)
            placed |= canvas.has_room and _draw_turbine(canvas, foot, tower_px, level_db)
    return placed


def _draw_turbine(
    canvas: Canvas, foot: tuple[float, float], tower_px: float, level_db: float
) -> bool:
    """Draw the bright foot and the tower, which lies towards the sensor (layover)."""
    x, y = foot
    tower = Bar(x - tower_px / 2 + 1, y, (1.0, 0.0), tower_px, 3.0)
    if not claim(canvas, "wind_turbine", tower, on_land=False):
        return False
    add_bar(canvas, replace(tower, width=1.2), level_to_power(12))
    add_point(canvas, x - 0.5, y, level_to_power(level_db + between(canvas.rng, -2, 2)))
    nacelle_x = x - tower_px + 2
    add_point(canvas, nacelle_x, y, level_to_power(level_db - 8 + between(canvas.rng, -2, 2)))
    for _ in range(3):  # blades
        blade_x = nacelle_x + between(canvas.rng, 0, 3)
        add_point(canvas, blade_x, y + between(canvas.rng, -1.5, 1.5), level_to_power(17))
    return True
