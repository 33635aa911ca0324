"""Window (whole pixels) and GeoTransform (pixel -> longitude and latitude)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""(..., 2): x, y in pixels, or longitude, latitude in degrees."""


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of whole pixels; right and bottom are exclusive.

    Raises:
        ValueError: It is turned inside out.
    """

    left: int
    top: int
    right: int
    bottom: int

    def __post_init__(self) -> None:
        if self.right < self.left or self.bottom < self.top:
            msg = f"{self} must have left <= right and top <= bottom"
            raise ValueError(msg)

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    def clipped(self, *, height: int, width: int) -> Window:
        """Return the part inside an image; empty, at its border, where nothing is inside."""
        xs = [min(max(x, 0), width) for x in (self.left, self.right)]
        ys = [min(max(y, 0), height) for y in (self.top, self.bottom)]
        return Window(xs[0], ys[0], xs[1], ys[1])

    def of(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the view of an (H, W, ...) array that lies inside."""
        return array[self.top : self.bottom, self.left : self.right]


class GeoTransform(Protocol):
    """Where the pixels of a scene lie on the Earth."""

    def to_lonlat(self, points: Points) -> Points:
        """Return longitude and latitude on WGS84, in degrees.

        Args:
            points: (..., 2) x, y in pixels. Continuous: pixel k covers ``[k, k + 1]``, its
                centre is k + 0.5.
        """
        ...
