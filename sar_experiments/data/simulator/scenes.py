"""Images of a split and the large scene: what is placed where."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sar_experiments.data.simulator.canvas import Canvas
from sar_experiments.data.simulator.chance import below
from sar_experiments.data.simulator.clutter import SeaState, draw_sea_state, paint_ground, swath
from sar_experiments.data.simulator.sensor import expose
from sar_experiments.data.simulator.settings import SPLITS, SimulatedImage, SimulatorSettings
from sar_experiments.data.simulator.targets_at_coast import (
    place_bridge,
    place_harbour,
    place_storage_tank,
)
from sar_experiments.data.simulator.targets_at_sea import (
    place_platform,
    place_ship,
    place_wind_turbine,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def simulate_image(settings: SimulatorSettings, *, split: str, index: int) -> SimulatedImage:
    """Make image ``index`` of a split.

    Args:
        settings: The numbers of images and ``scene_size_px`` change nothing here.
        split: One of SPLITS.
        index: From 0, with no upper end.

    Raises:
        ValueError: The split is unknown, or none of the classes fits into such images.
    """
    if split not in SPLITS:
        msg = f"split={split!r} must be one of {', '.join(SPLITS)}"
        raise ValueError(msg)
    number = SPLITS.index(split)
    rng = np.random.default_rng([settings.seed, number, index])
    sea_rng = np.random.default_rng([settings.seed, number, _SEA_STREAM, scene_of(index)])
    sea_state = draw_sea_state(sea_rng, settings.pixel_m)
    wanted = 0 if rng.random() < settings.empty_share else 1 + below(rng, settings.max_objects)
    for _ in range(_MAX_REDRAWS):
        canvas = _paint_image(settings, rng, sea_state, wanted)
        if canvas.objects or wanted == 0:
            return SimulatedImage(expose(canvas), tuple(canvas.objects))
    msg = (
        f"image_size_px={settings.image_size_px} at pixel_m={settings.pixel_m} leaves no room for"
        f" classes={', '.join(settings.classes)}; make the images larger"
    )
    raise ValueError(msg)


def simulate_scene(settings: SimulatorSettings) -> SimulatedImage:
    """Make the large scene: estuary, all classes, and slanted borders without data.

    Raises:
        ValueError: ``scene_size_px`` is 0.
    """
    size_px = settings.scene_size_px
    if size_px == 0:
        raise ValueError("scene_size_px=0 asks for no scene; it must be from 64 to 4096 for one")
    rng = np.random.default_rng([settings.seed, len(SPLITS)])
    crowd = (size_px / settings.image_size_px) ** 2 * settings.max_objects / 2
    most = max(int(crowd), 2 * len(settings.classes))
    valid = swath(size_px)
    canvas = Canvas(settings, rng, size_px, most, valid=valid)
    paint_ground(canvas, draw_sea_state(rng, settings.pixel_m), "estuary")
    for name in (*settings.classes, *draw_classes(canvas, settings.classes, most)):
        place(canvas, name)
    pixels = expose(canvas)
    pixels[~valid] = 0
    return SimulatedImage(pixels, tuple(canvas.objects))


def scene_of(index: int) -> int:
    """Return the number of the acquisition that an image is cut from."""
    return index // _IMAGES_PER_SCENE


_IMAGES_PER_SCENE = 8


def _paint_image(
    settings: SimulatorSettings, rng: np.random.Generator, sea_state: SeaState, wanted: int
) -> Canvas:
    canvas = Canvas(settings, rng, settings.image_size_px, wanted)
    first = draw_classes(canvas, settings.classes, 1)[0]
    layout = _LAYOUT_OF.get(first) or _LAYOUTS[below(rng, len(_LAYOUTS))]
    paint_ground(canvas, sea_state, layout)
    if wanted:
        fitting = [name for name in settings.classes if name in _CLASSES_OF[layout]]
        for name in (first, *draw_classes(canvas, tuple(fitting), wanted - 1)):
            place(canvas, name)
    return canvas


# Every second image without a class that asks for land shows open sea.
_LAYOUTS = ("open", "open", "coast", "channel")
_LAYOUT_OF = {
    "bridge": "channel",
    "harbour": "coast",
    "storage_tank": "coast",
    "platform": "open",
    "wind_turbine": "open",
}
_CLASSES_OF = {
    "open": ("ship", "platform", "wind_turbine"),
    "coast": ("ship", "harbour", "storage_tank"),
    "channel": ("ship", "bridge", "storage_tank"),
}
_USUAL_WEIGHTS = {
    "ship": 4.0,
    "bridge": 2.0,
    "harbour": 2.0,
    "storage_tank": 1.0,
    "platform": 2.0,
    "wind_turbine": 1.0,
}
_MAX_REDRAWS = 20
_TRIES = 25
_SEA_STREAM = 10**6  # keeps the seeds of sea states apart from those of images


def draw_classes(canvas: Canvas, classes: tuple[str, ...], count: int) -> list[str]:
    """Draw classes by their weights."""
    settings = canvas.settings
    weights = dict(zip(settings.classes, settings.class_weights, strict=False)) or _USUAL_WEIGHTS
    limits = np.cumsum([weights[name] for name in classes])
    if not len(limits) or limits[-1] == 0:
        return []
    drawn = canvas.rng.random(count) * limits[-1]
    return [classes[position] for position in np.searchsorted(limits, drawn, side="right")]


def place(canvas: Canvas, class_name: str) -> None:
    """Try to place an object, or a group, of the class; give up where there is no room."""
    if not canvas.has_room:
        return
    for _ in range(_TRIES):
        if _PLACERS[class_name](canvas):
            return


_PLACERS: dict[str, Callable[[Canvas], bool]] = {
    "ship": place_ship,
    "bridge": place_bridge,
    "harbour": place_harbour,
    "storage_tank": place_storage_tank,
    "platform": place_platform,
    "wind_turbine": place_wind_turbine,
}
