"""Bridges, storage tanks and harbours."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sar_experiments.data.simulator.canvas import (
    MARGIN_PX,
    Bar,
    add_bar,
    add_point,
    claim,
    window_of,
)
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
    from sar_experiments.data.simulator.settings import Direction


def _shore_point(canvas: Canvas) -> tuple[float, float, Direction] | None:
    """Return a place on the shore and the direction inland; None if none was met."""
    rng, size_px = canvas.rng, canvas.size_px
    cosine, sine = canvas.inland
    if below(rng, 2):  # either bank of a river
        cosine, sine = -cosine, -sine
    x, y = canvas.point()
    steps = np.arange(-size_px, size_px)
    columns = np.floor(x + steps * cosine).astype(int)
    rows = np.floor(y + steps * sine).astype(int)
    inside = (columns >= 0) & (rows >= 0) & (columns < size_px) & (rows < size_px)
    columns, rows = columns[inside], rows[inside]
    on_land = canvas.land[rows, columns]
    landings = np.flatnonzero(on_land[1:] & ~on_land[:-1]) + 1
    if not len(landings):
        return None
    chosen = landings[below(rng, len(landings))]
    return float(columns[chosen]) + 0.5, float(rows[chosen]) + 0.5, (cosine, sine)


def place_bridge(canvas: Canvas) -> bool:
    """Place a deck from bank to bank, with the echoes off the water behind it."""
    rng = canvas.rng
    start = _shore_point(canvas)
    if start is None:
        return False
    x, y, (cosine, sine) = start
    steps = np.arange(2, int(canvas.size_px * _LONGEST_BRIDGE))
    columns = np.floor(x - steps * cosine).astype(int)
    rows = np.floor(y - steps * sine).astype(int)
    inside = (columns >= 0) & (rows >= 0) & (columns < canvas.size_px) & (rows < canvas.size_px)
    landed = np.flatnonzero(canvas.land[rows[inside], columns[inside]])
    if not len(landed) or steps[landed[0]] < canvas.settings.shortest_px:
        return False
    length = float(steps[landed[0]]) + 4
    middle = length / 2 - 2
    width = canvas.px(20, 35, at_least_px=2.0)
    deck = Bar(x - middle * cosine, y - middle * sine, (cosine, sine), length, width)
    if not claim(canvas, "bridge", deck, on_land=None):
        return False
    _draw_bridge(canvas, deck, between(rng, 11, 17))
    return True


_LONGEST_BRIDGE = 0.5  # of the image's side


def _draw_bridge(canvas: Canvas, deck: Bar, level_db: float) -> None:
    rng = canvas.rng
    add_bar(canvas, deck, level_to_power(level_db))
    for _ in range(int(deck.length / 3)):
        place = deck.at(between(rng, -0.5, 0.5) * deck.length, 0)
        add_point(canvas, *place, level_to_power(level_db + between(rng, -3, 8)))
    # Double and triple bounce travel further: weaker lines at larger range, over water only.
    step_px = max(between(rng, 20, 60) / canvas.settings.pixel_m, 3.0)
    for bounce in range(1, 1 + below(rng, 3)):
        echo = replace(deck, x=deck.x + bounce * step_px, length=deck.length - 6, width=1.2)
        add_bar(canvas, echo, level_to_power(level_db - 4 - 4 * bounce))


def place_storage_tank(canvas: Canvas) -> bool:
    """Place a farm of tanks on cleared land near the shore."""
    rng = canvas.rng
    start = _shore_point(canvas)
    if start is None:
        return False
    x, y, (cosine, sine) = start
    radius = canvas.px(35, 100, at_least_px=canvas.settings.shortest_px) / 2
    spacing = 2 * radius + MARGIN_PX + 3 + between(rng, 0, 2)
    inland_px = between(rng, 1, 3) * spacing
    farm = Bar(x + inland_px * cosine, y + inland_px * sine, draw_direction(rng), 0, 0)
    placed = False
    for row in range(1 + below(rng, 3)):
        for column in range(1 + below(rng, 4)):
            place = farm.at(column * spacing, row * spacing)
            placed |= canvas.has_room and _draw_tank(canvas, place, radius)
    return placed


def _draw_tank(canvas: Canvas, place: tuple[float, float], radius: float) -> bool:
    """Draw a dark roof, the bright wall that faces the sensor, and the rim in front of it."""
    rng = canvas.rng
    x, y = place
    layover_px = max(between(rng, 8, 16) / canvas.settings.pixel_m, 1.0)
    extent = Bar(x - layover_px / 2, y, (1.0, 0.0), 2 * radius + layover_px, 2 * radius)
    if not claim(canvas, "storage_tank", extent, on_land=True):
        return False
    window, dx, dy = window_of(
        canvas, replace(extent, length=extent.length + 4, width=extent.width + 4)
    )
    dx = dx - layover_px / 2  # from the tank's axis
    distance = np.sqrt(dx * dx + dy * dy)
    ground = canvas.intensity[window]
    ground[distance < radius + 2] = 1.2
    wall = np.clip(1.2 - np.abs(distance - radius), 0, 1)
    facing = np.clip(0.15 - dx / radius, 0.08, 1)
    ground += 90 * wall * facing
    rim = np.sqrt((dx + layover_px) ** 2 + dy * dy)
    ground += 35 * np.clip(1.0 - np.abs(rim - radius), 0, 1) * np.clip(-dx / radius, 0, 1)
    add_point(canvas, x - radius, y, level_to_power(between(rng, 24, 31)))
    add_point(canvas, x + 0.6 * radius, y + between(rng, -0.3, 0.3) * radius, level_to_power(18))
    return True


def place_harbour(canvas: Canvas) -> bool:
    """Place a quay along the shore, piers that reach into a basin, and small craft."""
    rng = canvas.rng
    start = _shore_point(canvas)
    if start is None:
        return False
    x, y, (cosine, sine) = start
    largest = 0.4 * canvas.settings.image_size_px * canvas.settings.pixel_m
    length = canvas.px(min(300, largest * 0.7), min(700, largest), at_least_px=24)
    depth = length * between(rng, 0.4, 0.6)
    # Along the shore, so that across it water lies at positive distances; a third is on land.
    seaward = depth / 6
    site = Bar(x - seaward * cosine, y - seaward * sine, (-sine, cosine), length, depth)
    if not _is_shore(canvas, site) or not claim(canvas, "harbour", site, on_land=None):
        return False
    _draw_quay(canvas, site)
    piers = 2 + below(rng, 3)
    for number in range(piers):
        _draw_pier(canvas, site, (number + 0.5) / piers - 0.5)
    return True


def _is_shore(canvas: Canvas, site: Bar) -> bool:
    """Tell whether most of the site's outer two thirds are water and most of the rest is land."""
    window, along, across = window_of(canvas, site)
    inside = (np.abs(along) <= site.length / 2) & (np.abs(across) <= site.width / 2)
    quay = inside & (across < -site.width / 6)
    land, basin = canvas.land[window], inside & ~quay
    return bool(
        (land & quay).sum() > _MOSTLY * quay.sum() and (basin & ~land).sum() > _MOSTLY * basin.sum()
    )


_MOSTLY = 0.6


def _draw_quay(canvas: Canvas, site: Bar) -> None:
    """Turn the inner third of the site into a built-up quay, the rest into calm water."""
    rng = canvas.rng
    window, along, across = window_of(canvas, site)
    inside = (np.abs(along) <= site.length / 2) & (np.abs(across) <= site.width / 2)
    quay = inside & (across < -site.width / 6)
    ground, land = canvas.intensity[window], canvas.land[window]
    ground[inside] = 0.5
    ground[quay] = 4.0
    ground += quay * draw_from(rng, gamma_table(0.35), quay.shape) * 12
    land[inside] = quay[inside]
    edge = Bar(*site.at(0, -site.width / 6), site.along, site.length, 1.5)
    add_bar(canvas, edge, level_to_power(18))
    for _ in range(4 + int(site.length / 5)):  # cranes and sheds
        place = site.at(
            between(rng, -0.48, 0.48) * site.length, between(rng, -0.47, -0.2) * site.width
        )
        add_point(canvas, *place, level_to_power(between(rng, 20, 32)))


def _draw_pier(canvas: Canvas, site: Bar, position: float) -> None:
    """Draw a pier across the site at a position in [-0.5, 0.5] of its length."""
    rng = canvas.rng
    reach = site.width * between(rng, 0.5, 0.66)
    start_across = -site.width / 6
    outward = (-site.along[1], site.along[0])
    x, y = site.at(position * site.length, start_across + reach / 2)
    pier = Bar(x, y, outward, reach, canvas.px(20, 35, at_least_px=2.5))
    window, along, across = window_of(canvas, pier)
    on_pier = (np.abs(along) <= pier.length / 2) & (np.abs(across) <= pier.width / 2)
    canvas.land[window] |= on_pier
    add_bar(canvas, pier, level_to_power(10))
    for side in (-0.5, 0.5):
        edge = Bar(*pier.at(0, side * pier.width), outward, reach, 0.6)
        add_bar(canvas, edge, level_to_power(15))
    for _ in range(int(reach / 2.5)):  # small craft, too small to be ships
        side = 2 * below(rng, 2) - 1
        place = pier.at(between(rng, -0.45, 0.45) * reach, side * (pier.width / 2 + 1))
        add_point(canvas, *place, level_to_power(between(rng, 12, 22)))
