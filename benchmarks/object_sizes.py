"""How far length_m, width_m and axis_deg are from the truth, on simulated ships of known size.

    python benchmarks/object_sizes.py [--images 40] [--grow-px -1.5]

Ships are measured in their true boxes, so that no detector's error is in the numbers: what is left
is the measurement of ``sar_experiments.predict.objects``. True length and width are those of the
hull (the simulator's outline without the half resolution cell around it). ``Sentinel-1 like`` is
the same with 1.6 pixels for each, so that a resolution cell spans two, as in IW GRD. With
``--grow-px`` the boxes are larger on each side by so many pixels, as a detector's may be.

Printed are the median error in percent (the bias), the interval that holds 68 % of the errors, and
the same in metres for widths, with the resolution known and unknown.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from sar_experiments.data.simulator import SimulatorSettings, simulate_image
from sar_experiments.detections import Detections
from sar_experiments.geometry import AffineTransform, Window
from sar_experiments.predict.detector import SceneHeader, Tile
from sar_experiments.predict.objects import describe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

CELL_PX = 1.25  # the simulator's pixels per resolution cell
SIZE_PX = 512
SETTINGS = (
    ("8 bits, 10 m, 4 looks", "uint8", 10.0, 4.0, 1.0),
    ("decibels, 10 m, 4 looks", "float32", 10.0, 4.0, 1.0),
    ("decibels, 5 m, 4 looks", "float32", 5.0, 4.0, 1.0),
    ("decibels, 3 m, 1 look", "float32", 3.0, 1.0, 1.0),
    ("decibels, 20 m, 4 looks", "float32", 20.0, 4.0, 1.0),
    ("decibels, Sentinel-1 like", "float32", 10.0, 4.0, 1.6),
)


@dataclass(frozen=True, eq=False)
class Table:
    """Ships' truth and what was measured, an array each; NaN where no axis is told."""

    length_m: NDArray[np.float64]
    width_m: NDArray[np.float64]
    axis_deg: NDArray[np.float64]
    found_length_m: NDArray[np.float64]
    found_width_m: NDArray[np.float64]
    found_axis_deg: NDArray[np.float64]

    @property
    def turned_deg(self) -> NDArray[np.float64]:
        """How far axes are apart, from 0 to 90."""
        return np.asarray(np.abs((self.found_axis_deg - self.axis_deg + 90) % 180 - 90))


def table(**settings: Any) -> Table:
    """Measure the ships of simulated images."""
    ships = measure(**settings)
    return Table(*np.array([tuple(vars(each).values()) for each in ships]).T)


@dataclass(frozen=True)
class Measured:
    """A ship's truth and what was measured, metres and degrees; NaN where no axis is told."""

    length_m: float
    width_m: float
    axis_deg: float
    found_length_m: float
    found_width_m: float
    found_axis_deg: float


def measure(  # noqa: PLR0913 - a setting
    *,
    dtype: str,
    pixel_m: float,
    looks: float,
    zoom: float,
    images: int,
    is_known: bool,
    grow_px: float,
) -> Iterator[Measured]:
    """Yield the ships of simulated images."""
    settings = SimulatorSettings(
        seed=3, image_size_px=SIZE_PX, pixel_m=pixel_m, looks=looks, classes=("ship",),
        train_images=1, val_images=0, test_images=0, scene_size_px=0, empty_share=0.0,
        max_objects=12, dtype=dtype,
    )  # fmt: skip
    for index in range(images):
        image = simulate_image(settings, split="test", index=index)
        pixels = enlarged(image.pixels, zoom)
        size_m = pixel_m / zoom
        # On its zone's meridian, whose scale on the ground is 1 / 0.9996 and where up is north.
        transform = AffineTransform(
            (size_m * 0.9996, 0, 5e5, 0, -size_m * 0.9996, 4e6), "EPSG:32633"
        )
        header = SceneHeader(
            name="", files=(), height=pixels.shape[0], width=pixels.shape[1], bands=("1",),
            dtype=dtype, georeference=transform, pixel_m=(size_m, size_m),
            resolution_m=CELL_PX * pixel_m if is_known else None,
        )  # fmt: skip
        grow = np.array([-grow_px, -grow_px, grow_px, grow_px])
        boxes = [zoom * np.array(each.box) + grow for each in image.objects]
        found = describe(
            Detections.of(boxes, [1.0] * len(boxes), [0] * len(boxes)),
            [""] * len(boxes),
            ["ship"],
            header,
            lambda window, pixels=pixels: tile_of(pixels, window),
        )
        for ship, each in zip(image.objects, found, strict=True):
            corners = np.array(ship.polygon)
            sides = np.roll(corners, -1, axis=0)[:2] - corners[:2]
            width, length = sorted(np.hypot(*sides.T) - 1.0)
            along = sides[np.argmax(np.hypot(*sides.T))]
            has_axis = each.axis_deg is not None
            yield Measured(
                length * pixel_m,
                width * pixel_m,
                math.degrees(math.atan2(along[0], -along[1])),
                each.length_m if has_axis and each.length_m else math.nan,
                each.width_m if has_axis and each.width_m else math.nan,
                each.axis_deg if each.axis_deg is not None else math.nan,
            )


def enlarged(pixels: NDArray[Any], zoom: float) -> NDArray[Any]:
    """Return the same with more pixels; decibels through amplitudes."""
    if zoom == 1:
        return pixels
    amplitude = 10.0 ** (pixels.astype(np.float64) / 20.0)
    larger = cv2.resize(amplitude, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
    return np.asarray(20.0 * np.log10(np.maximum(larger, 1e-5)), np.float32)


def tile_of(pixels: NDArray[Any], window: Window) -> Tile:
    """Return a window of an image as a scene would."""
    cut = window.of(pixels)
    return Tile(cut[:, :, None], np.ones(cut.shape, bool), window)


def spread(values: NDArray[np.float64], unit: str) -> str:
    """Return median and the interval of 68 %."""
    low, middle, high = np.nanpercentile(values, [16, 50, 84])
    return f"{middle:+.0f} [{low:+.0f}, {high:+.0f}] {unit}"


def main() -> None:
    """Print a table of all settings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=40, help="of each setting")
    parser.add_argument("--grow-px", type=float, default=0.0, help="of every box, on each side")
    options = parser.parse_args()
    print("| ships | resolution | n | axis told | length | width | width | axis, median and 90 % |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, dtype, pixel_m, looks, zoom in SETTINGS:
        for is_known in (True, False):
            ships = table(
                dtype=dtype, pixel_m=pixel_m, looks=looks, zoom=zoom, images=options.images,
                is_known=is_known, grow_px=options.grow_px,
            )  # fmt: skip
            middle, most = np.nanpercentile(ships.turned_deg, [50, 90])
            print(
                f"| {name} | {'known' if is_known else 'unknown'} | {len(ships.length_m)}"
                f" | {np.isfinite(ships.found_axis_deg).mean():.0%}"
                f" | {spread(100 * (ships.found_length_m / ships.length_m - 1), '%')}"
                f" | {spread(100 * (ships.found_width_m / ships.width_m - 1), '%')}"
                f" | {spread(ships.found_width_m - ships.width_m, 'm')}"
                f" | {middle:.1f}°, {most:.1f}° |"
            )


if __name__ == "__main__":
    main()
