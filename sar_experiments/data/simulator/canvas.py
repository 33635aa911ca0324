"""An image being painted: reflectivity of the ground, point scatterers, and places taken."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sar_experiments.data.simulator.settings import SimulatedObject

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sar_experiments.data.simulator.settings import Direction, Field, SimulatorSettings


@dataclass
class Canvas:
    """An image being painted.

    Attributes:
        intensity: (H, W) mean intensity of what is extended, before the sensor, relative to the
            mean of the sea.
        points: Point scatterers ``(x, y, power)``, which may lie outside; power is the intensity
            at the peak of the response.
        land: (H, W) bool.
        valid: (H, W) bool, False outside the swath; None where all is inside.
        inland: Roughly the direction from sea to land.
    """

    settings: SimulatorSettings
    rng: np.random.Generator
    size_px: int
    max_objects: int
    intensity: Field = field(init=False)
    land: NDArray[np.bool_] = field(init=False)
    valid: NDArray[np.bool_] | None = None
    inland: Direction = (1.0, 0.0)
    objects: list[SimulatedObject] = field(default_factory=list)
    points: list[tuple[float, float, float]] = field(default_factory=list)

    def px(self, low_m: float, high_m: float, *, at_least_px: float = 1.0) -> float:
        """Draw a length between two in metres, return it in pixels; short ones are commoner."""
        low = max(low_m / self.settings.pixel_m, at_least_px)
        high = max(high_m / self.settings.pixel_m, low * 1.2)
        return low + (high - low) * self.rng.random() ** 2

    def point(self) -> tuple[float, float]:
        """Draw a position anywhere in the image."""
        return self.rng.random() * self.size_px, self.rng.random() * self.size_px

    @property
    def has_room(self) -> bool:
        """May the image hold one more object?"""
        return len(self.objects) < self.max_objects


# --- Placing objects ---------------------------------------------------------------------------

MARGIN_PX = 6  # between boxes
_HALF_CELL_PX = 0.5  # by which a sharp edge is blurred


@dataclass(frozen=True)
class Bar:
    """An oriented rectangle: centre, direction of its length, and both sides in pixels."""

    x: float
    y: float
    along: Direction
    length: float
    width: float

    def at(self, along: float, across: float) -> tuple[float, float]:
        """Return the position that lies so many pixels from the centre."""
        cosine, sine = self.along
        return self.x + along * cosine - across * sine, self.y + along * sine + across * cosine

    def corners(self, *, margin: float = 0.0) -> tuple[tuple[float, float], ...]:
        """Return the corners of the rectangle, larger by ``margin`` on each side."""
        half_length, half_width = self.length / 2 + margin, self.width / 2 + margin
        signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
        return tuple(self.at(a * half_length, b * half_width) for a, b in signs)


def claim(canvas: Canvas, class_name: str, bar: Bar, *, on_land: bool | None) -> bool:
    """Reserve the place for an object; False where it is not free.

    Args:
        canvas: The object is added to its ground truth.
        class_name: One of CLASSES.
        bar: The object's extent.
        on_land: What the ground must be; None takes any.
    """
    corners = bar.corners(margin=_HALF_CELL_PX)
    polygon = tuple((round(x, 2), round(y, 2)) for x, y in corners)
    found = SimulatedObject(class_name, polygon)
    left, top, right, bottom = found.box
    if min(left, top) < 1 or max(right, bottom) > canvas.size_px - 1:
        return False
    if any(_near(found.box, other.box) for other in canvas.objects):
        return False
    window = (
        slice(max(int(top) - 2, 0), int(bottom) + 3),
        slice(max(int(left) - 2, 0), int(right) + 3),
    )
    if canvas.valid is not None and not canvas.valid[window].all():
        return False
    if on_land is not None and not (canvas.land[window] == on_land).all():
        return False
    canvas.objects.append(found)
    return True


def _near(box: tuple[float, ...], other: tuple[float, ...]) -> bool:
    apart_x = max(box[0] - other[2], other[0] - box[2])
    apart_y = max(box[1] - other[3], other[1] - box[3])
    return max(apart_x, apart_y) < MARGIN_PX


def window_of(canvas: Canvas, bar: Bar) -> tuple[tuple[slice, slice], NDArray[Any], NDArray[Any]]:
    """Return the window around a bar, and there the distances along and across it."""
    corners = np.array(bar.corners(margin=2))
    left, top = np.clip(np.floor(corners.min(axis=0)), 0, canvas.size_px).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(axis=0)), 0, canvas.size_px).astype(int)
    dx = (np.arange(left, right) + 0.5 - bar.x)[None, :]
    dy = (np.arange(top, bottom) + 0.5 - bar.y)[:, None]
    cosine, sine = bar.along
    along, across = dx * cosine + dy * sine, dy * cosine - dx * sine
    return (slice(top, bottom), slice(left, right)), along, across


def add_bar(canvas: Canvas, bar: Bar, power: float) -> None:
    """Brighten a bar, its edges blurred over a pixel."""
    window, along, across = window_of(canvas, bar)
    canvas.intensity[window] += power * cover(along, bar.length) * cover(across, bar.width)


def cover(distance: NDArray[Any], extent: NDArray[Any] | float) -> NDArray[Any]:
    """Return the share of a pixel that lies within ``extent`` around 0."""
    share: NDArray[Any] = np.clip(extent / 2 - np.abs(distance) + 0.5, 0, 1)
    return share


def add_point(canvas: Canvas, x: float, y: float, power: float) -> None:
    """Add a point scatterer of so much intensity at the peak of its response."""
    canvas.points.append((x, y, power))
