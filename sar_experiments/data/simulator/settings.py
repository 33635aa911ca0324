"""What a synthetic dataset looks like, and what an image of it holds."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator

CLASSES = ("ship", "bridge", "harbour", "storage_tank", "platform", "wind_turbine")
"""What can be simulated."""

SPLITS = ("train", "val", "test")

FORMAT = 3
"""Raised whenever the same settings begin to give other images."""

Field = NDArray[Any]
"""(H, W) float32 unless said otherwise."""

Direction = tuple[float, float]
"""A unit vector in the image: x to the right, y down."""

# (lowest, highest) accepted.
_RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**31 - 1),
    "image_size_px": (64, 4096),
    "pixel_m": (0.5, 40),  # above, no ship spans 8 px
    "shortest_px": (3, 32),
    "looks": (1, 1000),
    "train_images": (1, 10**6),
    "val_images": (0, 10**6),
    "test_images": (0, 10**6),
    "scene_size_px": (0, 4096),
    "empty_share": (0, 1),
    "max_objects": (1, 100),
    "ambiguity_m": (500, 20_000),
    "ambiguity_db": (-60, -10),
}

_DTYPES = ("uint8", "uint16", "float32")


@dataclass(frozen=True, kw_only=True)
class SimulatorSettings:
    """What a synthetic dataset looks like.

    Attributes:
        seed: Another seed, other images.
        image_size_px: Height and width of an image; 64 to 4096.
        pixel_m: Ground distance between pixels, in metres; 0.5 to 40.
        looks: Number of looks L of the speckle, 1 to 1000; its variance is 1/L.
        classes: Which of CLASSES appear, in the order of their category ids.
        train_images: Images of the training part; at least 1.
        val_images: Images of the validation part; may be 0.
        test_images: Images of the test part; may be 0.
        scene_size_px: Height and width of the geo-referenced scene; 64 to 4096, 0 makes none.
        empty_share: Share of images without any object, in [0, 1].
        dtype: ``uint8`` (amplitude, sea near 40, strong targets saturate), ``uint16`` (sixteen
            times that, so that hardly anything saturates) or ``float32`` (decibels, sea near
            -20, nothing saturates; the images are TIFF). Zero is kept for no data.
        max_objects: Most objects in an image; the number is uniform from 1 up to it.
        class_weights: How often each of the classes is drawn relative to the others, in their
            order; empty draws ships more often than the rest, and wind turbines and storage
            tanks, which come in groups, less often.
        shortest_px: Length of the shortest objects, where that in metres spans fewer pixels; 3
            to 32. Large pixels show real ships shorter than the default.
        ambiguity_m: Distance in azimuth from a point to its two ghosts, in metres, 500 to 20,000;
            the default is about that of Sentinel-1's wide swath.
        ambiguity_db: Power of a ghost relative to its point, -60 (none) to -10.

    Raises:
        ValueError: A value lies outside what is accepted.
    """

    seed: int
    image_size_px: int
    pixel_m: float
    looks: float
    classes: tuple[str, ...]
    train_images: int
    val_images: int
    test_images: int
    scene_size_px: int
    empty_share: float
    dtype: str = "uint8"
    max_objects: int = 5
    class_weights: tuple[float, ...] = ()
    shortest_px: float = 8.0
    ambiguity_m: float = 5300.0
    ambiguity_db: float = -26.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "class_weights", tuple(self.class_weights))
        problem = next(problems(self), None)
        if problem:
            raise ValueError(problem)


@dataclass(frozen=True)
class SimulatedObject:
    """One object of the ground truth.

    Attributes:
        class_name: One of CLASSES.
        polygon: Four corners ``(x, y)`` of the oriented rectangle, in pixels, inside the image.
    """

    class_name: str
    polygon: tuple[tuple[float, float], ...]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """``left, top, right, bottom`` in pixels, tight around the polygon."""
        xs, ys = zip(*self.polygon, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    @property
    def area(self) -> float:
        """Area of the polygon in square pixels."""
        following = self.polygon[1:] + self.polygon[:1]
        pairs = zip(self.polygon, following, strict=True)
        return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairs)) / 2


@dataclass(frozen=True, eq=False)
class SimulatedImage:
    """An image and what is in it.

    Attributes:
        pixels: (H, W) amplitude, uint8 or uint16, or decibels, float32; zero marks no data.
        objects: In the order they were painted.
    """

    pixels: NDArray[Any]
    objects: tuple[SimulatedObject, ...]


def problems(settings: SimulatorSettings) -> Iterator[str]:
    """Yield what is wrong with settings."""
    for name, (lowest, highest) in _RANGES.items():
        value = getattr(settings, name)
        if not lowest <= value <= highest:
            yield f"{name}={value} must lie from {lowest} to {highest}"
    if 0 < settings.scene_size_px < _RANGES["image_size_px"][0]:
        yield f"scene_size_px={settings.scene_size_px} must be 0 (none) or from 64 to 4096"
    classes, weights = settings.classes, settings.class_weights
    if not classes or len(set(classes)) != len(classes) or not set(classes) <= set(CLASSES):
        yield f"classes={list(classes)} must name some of {', '.join(CLASSES)}, each once"
    if settings.dtype not in _DTYPES:
        yield f"dtype={settings.dtype!r} must be one of {', '.join(_DTYPES)}"
    if weights and (len(weights) != len(classes) or min(weights) < 0 or sum(weights) == 0):
        yield f"class_weights={list(weights)} must hold a number of 0 or more for each of {classes}"


def split_sizes(settings: SimulatorSettings) -> dict[str, int]:
    """Return split -> number of images."""
    sizes = (settings.train_images, settings.val_images, settings.test_images)
    return dict(zip(SPLITS, sizes, strict=True))


def record(settings: SimulatorSettings) -> dict[str, Any]:
    """Return what decides the content of a dataset, as JSON gives it back."""
    record: dict[str, Any] = json.loads(json.dumps({"format": FORMAT, **asdict(settings)}))
    return record
