"""Seeded synthetic SAR: sea, coast, ships and infrastructure, with exact ground truth.

The sensor looks from the left: columns run along range, rows along azimuth. A picture is
painted as intensity relative to the mean of the sea (1.0), multiplied once with speckle, and
stored as amplitude or in decibels:

    sea       K-distributed: gamma texture, correlated over some pixels, times speckle; swell,
              wind and a gradient from near to far range on top
    land      fields, roads, relief with bright fore slopes and shadows, towns of strong scatterers
    objects   hulls and decks with point scatterers; the strongest show the sensor's sinc-shaped
              response as a cross along range and azimuth; moving ships leave wakes, from which
              they are displaced in azimuth

Image ``k`` of a split depends on ``(seed, split, k)`` and the settings that describe an image,
never on how many images are made. Its pixels and its truth are the same on every machine with
the same NumPy: all arithmetic on arrays is ``+ - * / sqrt`` and table look-up, which IEEE 754
fixes, and tables, directions and decibels are rounded to binary grids far coarser than the
differences between math libraries. The bytes of a PNG may differ between versions of its library.

A box encloses what the object itself is imaged as (hull, deck, ring of a tank), half a
resolution cell around it included; neither wake nor sidelobes. Coordinates are continuous:
pixel k covers ``[k, k + 1]``.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv, ndtr, ndtri

from sar_experiments.data.images import write_geotiff, write_image
from sar_experiments.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CLASSES = ("ship", "bridge", "harbour", "storage_tank", "platform", "wind_turbine")
"""What can be simulated."""

SPLITS = ("train", "val", "test")

FORMAT = 1
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "class_weights", tuple(self.class_weights))
        problem = next(_problems(self), None)
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
    sea_rng = np.random.default_rng([settings.seed, number, _SEA_STREAM, _scene_of(index)])
    sea_state = _draw_sea_state(sea_rng, settings.pixel_m)
    wanted = 0 if rng.random() < settings.empty_share else 1 + _below(rng, settings.max_objects)
    for _ in range(_MAX_REDRAWS):
        canvas = _paint_image(settings, rng, sea_state, wanted)
        if canvas.objects or wanted == 0:
            return SimulatedImage(_expose(canvas), tuple(canvas.objects))
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
    valid = _swath(size_px)
    canvas = _Canvas(settings, rng, size_px, most, valid=valid)
    _paint_ground(canvas, _draw_sea_state(rng, settings.pixel_m), "estuary")
    for name in (*settings.classes, *_draw_classes(canvas, settings.classes, most)):
        _place(canvas, name)
    pixels = _expose(canvas)
    pixels[~valid] = 0
    return SimulatedImage(pixels, tuple(canvas.objects))


def draw_speckle(rng: np.random.Generator, shape: tuple[int, ...], *, looks: float) -> Field:
    """Draw multiplicative speckle of intensity: gamma, independent, mean 1, variance 1/looks."""
    return _draw_from(rng, _gamma_table(looks), shape)


def simulate_dataset(
    settings: SimulatorSettings,
    folder: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a dataset: images and COCO files of three splits, and a scene with its truth.

    ``train/images/*.png train.json``, likewise ``val`` and ``test``; ``scene.tif scene.json``;
    ``settings.json``; images of float32 are ``*.tif``. The folder appears whole or not at all; one
    that was made with the same settings is left as it is.

    Args:
        settings: Recorded in ``settings.json``.
        folder: Must be absent, empty, or made with the same settings.
        progress: Called with the numbers of images done and of all images.

    Raises:
        DatasetError: The folder holds something else.
    """
    if _is_complete(folder, settings):
        return
    total = sum(_split_sizes(settings).values())
    done = 0
    suffix = "tif" if settings.dtype == "float32" else "png"
    with _appearing(folder, settings) as partial:
        for split, count in _split_sizes(settings).items():
            (partial / split / "images").mkdir(parents=True)
            truth = _Truth(settings, split)
            for index in range(count):
                image = simulate_image(settings, split=split, index=index)
                name = f"{split}_{index:06d}.{suffix}"
                write_image(partial / split / "images" / name, image.pixels)
                truth.add(name, f"{split}_{_scene_of(index):05d}", image)
                done += 1
                if progress:
                    progress(done, total)
            truth.write(partial / f"{split}.json")
        if settings.scene_size_px:
            _write_scene(settings, partial)
        _write_json(partial / "settings.json", _record(settings))


# --- Settings --------------------------------------------------------------------------------


def _problems(settings: SimulatorSettings) -> Iterator[str]:
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


def _split_sizes(settings: SimulatorSettings) -> dict[str, int]:
    sizes = (settings.train_images, settings.val_images, settings.test_images)
    return dict(zip(SPLITS, sizes, strict=True))


def _record(settings: SimulatorSettings) -> dict[str, Any]:
    """Return what decides the content of a dataset, as JSON gives it back."""
    record: dict[str, Any] = json.loads(json.dumps({"format": FORMAT, **asdict(settings)}))
    return record


# --- Files -----------------------------------------------------------------------------------

_UTM_ZONE = "EPSG:32611"
_UPPER_LEFT_M = (380_000.0, 3_735_000.0)  # easting, northing: off southern California


def _is_complete(folder: Path, settings: SimulatorSettings) -> bool:
    """Tell whether the folder holds this dataset; refuse one that holds anything else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    record = folder / "settings.json"
    if not record.is_file():
        msg = f"{folder} exists and is no simulated dataset (no settings.json); name another folder"
        raise DatasetError(msg)
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except ValueError as error:
        msg = f"{record} is no JSON file; name another folder, or remove this one"
        raise DatasetError(msg) from error
    wanted = _record(settings)
    if isinstance(found, dict):  # made before a key was there: as its default has it
        found = {**_DEFAULTS, **found}
    if found == wanted:
        return True
    differing = [
        key for key in wanted if not isinstance(found, dict) or found.get(key) != wanted[key]
    ]
    msg = (
        f"{folder} was simulated with other settings ({', '.join(differing) or 'unknown keys'});"
        " choose another folder, or remove this one"
    )
    raise DatasetError(msg)


_DEFAULTS = {"shortest_px": SimulatorSettings.__dataclass_fields__["shortest_px"].default}


@contextmanager
def _appearing(folder: Path, settings: SimulatorSettings) -> Iterator[Path]:
    """Yield a hidden folder beside ``folder``, renamed to it at the end, removed on failure."""
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        try:
            partial.rename(folder)
        except OSError:
            # Another process made the same dataset meanwhile; anything else is refused here.
            if not _is_complete(folder, settings):
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class _Truth:
    """A COCO file in the making."""

    def __init__(self, settings: SimulatorSettings, split: str) -> None:
        self._ids = {name: number for number, name in enumerate(settings.classes, start=1)}
        self._info = {
            "description": f"Synthetic SAR, {split}",
            "seed": settings.seed,
            "settings": _record(settings),
        }
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, name: str, scene: str, image: SimulatedImage) -> None:
        height, width = image.pixels.shape
        image_id = len(self._images) + 1
        record = {"id": image_id, "file_name": name, "height": height, "width": width}
        self._images.append({**record, "scene": scene})
        for each in image.objects:
            left, top, right, bottom = each.box
            annotation = {
                "id": len(self._annotations) + 1,
                "image_id": image_id,
                "category_id": self._ids[each.class_name],
                "bbox": [round(n, 2) for n in (left, top, right - left, bottom - top)],
                "area": round(each.area, 2),
                "iscrowd": 0,
                "segmentation": [[n for corner in each.polygon for n in corner]],
            }
            self._annotations.append(annotation)

    def write(self, path: Path) -> None:
        categories = [{"id": number, "name": name} for name, number in self._ids.items()]
        content = {
            "info": self._info,
            "images": self._images,
            "annotations": self._annotations,
            "categories": categories,
        }
        _write_json(path, content)


def _write_scene(settings: SimulatorSettings, folder: Path) -> None:
    scene = simulate_scene(settings)
    east_m, north_m = _UPPER_LEFT_M
    write_geotiff(
        folder / "scene.tif",
        scene.pixels,
        transform=(settings.pixel_m, 0.0, east_m, 0.0, -settings.pixel_m, north_m),
        crs=_UTM_ZONE,
        nodata=0,
        tags={"content": f"synthetic SAR {_unit(settings)}", "seed": str(settings.seed)},
    )
    truth = _Truth(settings, "scene")
    truth.add("scene.tif", "scene", scene)
    truth.write(folder / "scene.json")


def _unit(settings: SimulatorSettings) -> str:
    return "decibels" if settings.dtype == "float32" else "amplitude"


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


# --- Chance: uniform numbers and tables, the same on every machine --------------------------------

_GRID = 2.0**20  # tables are rounded to multiples of its inverse
_LEVELS = 65536  # of a 16-bit random number
_BELL_STEPS = 128  # table entries per standard deviation
_BELL_REACH = 4  # standard deviations
_ANGLES = 4096
_WAVE_STEPS = 256
_SEA_STREAM = 10**6  # keeps the seeds of sea states apart from those of images


def _on_grid(values: NDArray[Any]) -> Field:
    return (np.round(values * _GRID) / _GRID).astype(np.float32)


@cache
def _normal_table() -> Field:
    """Quantiles of the normal distribution."""
    return _on_grid(ndtri((np.arange(_LEVELS) + 0.5) / _LEVELS))


@cache
def _gamma_table(shape: float) -> Field:
    """Quantiles of the gamma distribution of unit mean and variance ``1 / shape``."""
    quantiles = gammaincinv(shape, (np.arange(_LEVELS) + 0.5) / _LEVELS)
    return _on_grid(quantiles / quantiles.mean())


def _bell_positions() -> NDArray[Any]:
    positions: Field = np.arange(2 * _BELL_REACH * _BELL_STEPS) / _BELL_STEPS - _BELL_REACH
    return positions


@cache
def _gamma_texture_table(shape: float) -> Field:
    """Normal value to gamma value of unit mean."""
    return _on_grid(gammaincinv(shape, ndtr(_bell_positions())) / shape)


@cache
def _lognormal_table(spread: float) -> Field:
    """Normal value to log-normal value of unit mean; ``spread`` is that of the logarithm."""
    return _on_grid(np.exp(spread * _bell_positions() - spread**2 / 2))


@cache
def _wave_table() -> Field:
    return _on_grid(np.sin(2 * np.pi * np.arange(_WAVE_STEPS) / _WAVE_STEPS))


@cache
def _angle_table() -> Field:
    angles = 2 * np.pi * np.arange(_ANGLES) / _ANGLES
    return _on_grid(np.stack([np.cos(angles), np.sin(angles)], axis=1))


def _through(noise: Field, table: Field) -> Field:
    """Look each normal value up in a table over ``_bell_positions``."""
    positions = noise * _BELL_STEPS + _BELL_REACH * _BELL_STEPS
    return table.take(positions.astype(np.int32), mode="clip")


def _draw_from(rng: np.random.Generator, table: Field, shape: tuple[int, ...] | int) -> Field:
    """Draw independent values of the distribution whose quantiles the table holds."""
    return table.take(rng.integers(0, _LEVELS, shape, dtype=np.uint16))


def _below(rng: np.random.Generator, end: int) -> int:
    return int(rng.integers(0, end))


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * rng.random()


def _draw_direction(rng: np.random.Generator) -> Direction:
    return _direction(_below(rng, _ANGLES))


def _direction(angle: int) -> Direction:
    """Return the unit vector of an angle counted in 1/4096 of a turn."""
    cosine, sine = _angle_table()[angle % _ANGLES].tolist()
    return cosine, sine


def _power(level_db: float) -> float:
    """Return the intensity of a level in dB, which is rounded to 0.1."""
    return float(_power_table()[round(level_db * 10) + 1000])


@cache
def _power_table() -> Field:
    return _on_grid(10 ** ((np.arange(2000) - 1000) / 100))


def _fractal_noise(
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
    noise = _draw_from(rng, _normal_table(), (lattice_size, lattice_size))
    strength = 1.0
    for octave in range(1, doublings + 1):
        noise = _doubled(_doubled(noise).T).T
        if octave < octaves:
            strength /= 2
            noise += strength * _draw_from(rng, _normal_table(), noise.shape)
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


# --- The ground: sea and land ------------------------------------------------------------------


@dataclass(frozen=True)
class _SeaState:
    """What images of one acquisition share."""

    texture_shape: int
    swell_per_px: Direction  # waves per pixel, times the steps of the wave table
    swell_depth: float
    wind_spread: float
    range_slope: float
    level: float


@dataclass
class _Canvas:
    """An image being painted.

    Attributes:
        intensity: Relative to the mean of the sea.
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
        return len(self.objects) < self.max_objects


def _scene_of(index: int) -> int:
    return index // _IMAGES_PER_SCENE


_IMAGES_PER_SCENE = 8


def _draw_sea_state(rng: np.random.Generator, pixel_m: float) -> _SeaState:
    cosine, sine = _draw_direction(rng)
    wave_px = max(_between(rng, 120, 350) / pixel_m, 6)
    return _SeaState(
        texture_shape=(5, 10, 20, 40)[_below(rng, 4)],
        swell_per_px=(_WAVE_STEPS * cosine / wave_px, _WAVE_STEPS * sine / wave_px),
        swell_depth=0.55 * rng.random() ** 2,
        wind_spread=(0.1, 0.2, 0.3, 0.4)[_below(rng, 4)],
        range_slope=_between(rng, 0.0, 0.5),
        level=_between(rng, 0.5, 1.3),
    )


def _paint_image(
    settings: SimulatorSettings, rng: np.random.Generator, sea_state: _SeaState, wanted: int
) -> _Canvas:
    canvas = _Canvas(settings, rng, settings.image_size_px, wanted)
    first = _draw_classes(canvas, settings.classes, 1)[0]
    layout = _LAYOUT_OF.get(first) or _LAYOUTS[_below(rng, len(_LAYOUTS))]
    _paint_ground(canvas, sea_state, layout)
    if wanted:
        fitting = [name for name in settings.classes if name in _CLASSES_OF[layout]]
        for name in (first, *_draw_classes(canvas, tuple(fitting), wanted - 1)):
            _place(canvas, name)
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


def _draw_classes(canvas: _Canvas, classes: tuple[str, ...], count: int) -> list[str]:
    """Draw classes by their weights."""
    settings = canvas.settings
    weights = dict(zip(settings.classes, settings.class_weights, strict=False)) or _USUAL_WEIGHTS
    limits = np.cumsum([weights[name] for name in classes])
    if not len(limits) or limits[-1] == 0:
        return []
    drawn = canvas.rng.random(count) * limits[-1]
    return [classes[position] for position in np.searchsorted(limits, drawn, side="right")]


def _paint_ground(canvas: _Canvas, sea_state: _SeaState, layout: str) -> None:
    canvas.intensity = _sea(canvas, sea_state)
    canvas.land = np.zeros((canvas.size_px, canvas.size_px), np.bool_)
    if layout == "open":
        return
    canvas.inland = _draw_direction(canvas.rng)
    shore = _shore_distance(canvas, layout)
    canvas.land = shore > 0
    np.copyto(canvas.intensity, _land(canvas, shore), where=canvas.land)


def _sea(canvas: _Canvas, state: _SeaState) -> Field:
    """Return the sea before speckle; the speckle makes it K-distributed."""
    rng, size_px = canvas.rng, canvas.size_px
    columns, rows = _axes(size_px)
    texture = _through(
        _fractal_noise(rng, size_px, cell_px=8, octaves=3),
        _gamma_texture_table(state.texture_shape),
    )
    bend = _fractal_noise(rng, size_px, cell_px=32) * 40  # wave fronts are not straight
    phase = bend + columns * state.swell_per_px[0] + rows * state.swell_per_px[1]
    swell = _wave_table().take(phase.astype(np.int32) & (_WAVE_STEPS - 1))
    wind = _through(
        _fractal_noise(rng, size_px, cell_px=_quarter(size_px), octaves=2),
        _lognormal_table(state.wind_spread),
    )
    slope = 1 + state.range_slope * (0.5 - columns / size_px)
    sea: Field = texture * (1 + state.swell_depth * swell) * wind * (slope * state.level)
    return sea


def _axes(size_px: int) -> tuple[Field, Field]:
    """Return the columns as (1, W) and the rows as (H, 1), at pixel centres."""
    centres = np.arange(size_px, dtype=np.float32) + np.float32(0.5)
    return centres[None, :], centres[:, None]


def _shore_distance(canvas: _Canvas, layout: str) -> Field:
    """Return roughly the distance to the shore in pixels, positive on land."""
    rng, size_px = canvas.rng, canvas.size_px
    columns, rows = _axes(size_px)
    cosine, sine = canvas.inland
    columns, rows = columns - size_px / 2, rows - size_px / 2
    cell_px = _quarter(size_px)
    rough = _fractal_noise(rng, size_px, cell_px=cell_px, octaves=6) * (cell_px * 0.22)
    across = columns * cosine + rows * sine + rough
    if layout == "channel":
        bank: Field = np.abs(across) - _half_channel_px(canvas)
        return bank
    coast: Field = across - _between(rng, 0.0, 0.25) * size_px
    if layout == "coast":
        return coast
    middle = _between(rng, -0.2, 0.2) * size_px
    along = rows * cosine - columns * sine + rough - middle
    estuary: Field = np.minimum(coast, np.abs(along) - 1.5 * _half_channel_px(canvas))
    return estuary


def _quarter(size_px: int) -> int:
    """Return the largest power of two up to a quarter of the size."""
    return 1 << ((size_px // 4).bit_length() - 1)


def _half_channel_px(canvas: _Canvas) -> float:
    """Draw half the width of a river, 160 to 500 m, within what the image can show."""
    widest = canvas.settings.image_size_px / 7
    return min(_between(canvas.rng, 80, 250) / canvas.settings.pixel_m + 4, widest)


def _land(canvas: _Canvas, shore: Field) -> Field:
    """Return the intensity of land, wherever there is any."""
    rng, size_px = canvas.rng, canvas.size_px
    kind = _fractal_noise(rng, size_px, cell_px=64, octaves=5)
    texture = _through(_fractal_noise(rng, size_px, cell_px=8, octaves=3), _lognormal_table(0.4))
    country = _fields(canvas) * _through(kind, _lognormal_table(0.3))
    brightness = texture * country * (_between(rng, 3.0, 5.5) * _relief(canvas))
    built_up = np.clip((kind - _between(rng, 0.2, 1.5)) * 2, 0, 1) * (shore > _BEACH_PX)
    land: Field = brightness + built_up * (_town(canvas) - 0.5 * brightness)
    return land


_BEACH_PX = 2.0


def _fields(canvas: _Canvas) -> Field:
    """Return plots of differing brightness, some parted by dark roads."""
    rng = canvas.rng
    u, v = _turned_axes(canvas, _draw_direction(rng))
    bend = _fractal_noise(rng, canvas.size_px, cell_px=64)
    u = (u + bend * 6) / canvas.px(180, 500, at_least_px=14)
    v = (v + bend * 9) / canvas.px(150, 700, at_least_px=10)
    strip = np.floor(u)
    number = strip.astype(np.int32) * 53
    v = v * (0.6 + (number & 31) * (1 / 32)) + (number & 63) * (1 / 64)
    plot = number + np.floor(v).astype(np.int32) * 31
    brightness: Field = _on_grid(0.6 + 0.8 * rng.random(_WAVE_STEPS)).take(plot & (_WAVE_STEPS - 1))
    brightness[(u - strip < _ROAD_SHARE) & (number & 3 == 0)] = 0.3
    return brightness


_ROAD_SHARE = 0.07  # of a field's width


def _turned_axes(canvas: _Canvas, direction: Direction) -> tuple[Field, Field]:
    """Return (H, W) distances along and across a direction."""
    columns, rows = _axes(canvas.size_px)
    cosine, sine = direction
    return columns * cosine + rows * sine, rows * cosine - columns * sine


def _relief(canvas: _Canvas) -> Field | float:
    """Return hills: slopes that face the sensor are bright and short, the others in shadow."""
    steepness = canvas.rng.random() ** 2 * 9 - 1
    if steepness <= 0:
        return 1.0
    height = _fractal_noise(canvas.rng, canvas.size_px + 1, cell_px=32, octaves=3)
    slope = height[:-1, 1:] - height[:-1, :-1]
    brightening: Field = np.clip(1 + steepness * slope, 0.12, 4.0)
    return brightening


def _town(canvas: _Canvas) -> Field:
    """Return blocks of strong scatterers between dark streets."""
    rng, size_px = canvas.rng, canvas.size_px
    u, v = _turned_axes(canvas, _draw_direction(rng))
    block_px = canvas.px(70, 160, at_least_px=6)
    u, v = u / block_px, v / (block_px * _between(rng, 1.0, 2.5))
    across, along = np.floor(u), np.floor(v)
    street = (u - across < _STREET_SHARE) | (v - along < _STREET_SHARE)
    number = across.astype(np.int32) * 53 + along.astype(np.int32) * 31
    density = _on_grid(rng.random(_WAVE_STEPS)).take(number & (_WAVE_STEPS - 1))
    houses: Field = _draw_from(rng, _gamma_table(0.12), (size_px, size_px)) * (density * 22) + 4.5
    houses[street] = 2.5
    return houses


_STREET_SHARE = 0.12  # of a block's width


def _swath(size_px: int) -> NDArray[np.bool_]:
    """Return where the sensor looked: a band between slanted edges, as in a geocoded product."""
    columns, rows = _axes(size_px)
    left, right = size_px * 0.07 - rows * 0.06, size_px * 0.99 - rows * 0.06
    return np.asarray((columns > left) & (columns < right))


# --- The sensor --------------------------------------------------------------------------------

_SEA_GAIN = {"uint8": 40.0, "uint16": 640.0}  # amplitude that a sea of intensity 1 is stored as
_HIGHEST = {"uint8": 255, "uint16": 65535}


def _expose(canvas: _Canvas) -> NDArray[Any]:
    """Return what is stored: speckle, then decibels, or square root, gain, clip to [1, highest]."""
    dtype = canvas.settings.dtype
    looks = canvas.settings.looks
    speckle = draw_speckle(canvas.rng, canvas.intensity.shape, looks=looks)
    if dtype == "float32":
        return _in_decibels(canvas.intensity * speckle)
    amplitude = np.sqrt(canvas.intensity * speckle) * _SEA_GAIN[dtype] + np.float32(0.5)
    stored: NDArray[Any] = np.clip(amplitude, 1, _HIGHEST[dtype]).astype(dtype)
    return stored


_SEA_DB = -20.0  # Sentinel-1's VV at the incidence of its wide swath, in a light breeze
_DARKEST = 1e-3  # the noise of the instrument, of intensity relative to the sea
_DB_STEPS = 128  # per decibel; far below what speckle leaves to tell


def _in_decibels(intensity: Field) -> Field:
    level_db = 10.0 * np.log10(np.maximum(intensity.astype(np.float64), _DARKEST)) + _SEA_DB
    steps = np.round(level_db * _DB_STEPS)
    steps[steps == 0] = 1  # zero is kept for no data
    return np.asarray(steps / _DB_STEPS, np.float32)


_REACH_PX = 48  # of the point response
_STEPS_PER_PX = 8
_SAMPLES_PER_CELL = 1.25  # pixels per resolution cell


@cache
def _response() -> Field:
    """Return the response to a point over distance, in steps of 1/8 px: a squared sinc."""
    distance = np.arange(_REACH_PX * _STEPS_PER_PX + 1) / _STEPS_PER_PX
    return _on_grid(np.sinc(distance / _SAMPLES_PER_CELL) ** 2)


def _response_at(centre: float, first: int, end: int) -> Field:
    """Return the response of a point at ``centre`` in the pixels from ``first`` to ``end``."""
    distance = np.abs(np.arange(first, end) + 0.5 - centre)
    steps = (distance * _STEPS_PER_PX + 0.5).astype(np.int32)
    response: Field = _response().take(steps, mode="clip")
    return response


_CORE_PX = 3


def _add_point(canvas: _Canvas, x: float, y: float, power: float) -> None:
    """Add a point scatterer; a strong one gets sidelobes along range and azimuth."""
    column, row = int(x), int(y)
    if not (0 <= column < canvas.size_px and 0 <= row < canvas.size_px):
        return
    top, bottom = _clipped(row, _CORE_PX, canvas.size_px)
    left, right = _clipped(column, _CORE_PX, canvas.size_px)
    along_rows, along_columns = _response_at(y, top, bottom), _response_at(x, left, right)
    canvas.intensity[top:bottom, left:right] += np.outer(along_rows * power, along_columns)
    if power >= _STRONG:
        _add_cross(canvas, x, y, power)


def _add_cross(canvas: _Canvas, x: float, y: float, power: float) -> None:
    column, row = int(x), int(y)
    top, bottom = _clipped(row, _REACH_PX - 1, canvas.size_px)
    left, right = _clipped(column, _REACH_PX - 1, canvas.size_px)
    for from_row, to_row in ((top, row - _CORE_PX), (row + _CORE_PX + 1, bottom)):
        if to_row > from_row:
            canvas.intensity[from_row:to_row, column] += power * _response_at(y, from_row, to_row)
    for from_column, to_column in ((left, column - _CORE_PX), (column + _CORE_PX + 1, right)):
        if to_column > from_column:
            tail = power * _response_at(x, from_column, to_column)
            canvas.intensity[row, from_column:to_column] += tail


_STRONG = 600.0  # a weaker point's sidelobes vanish in the sea


def _clipped(middle: int, reach: int, size_px: int) -> tuple[int, int]:
    return max(middle - reach, 0), min(middle + reach + 1, size_px)


# --- Placing objects ---------------------------------------------------------------------------

_TRIES = 25
_MARGIN_PX = 6  # between boxes
_HALF_CELL_PX = 0.5  # by which a sharp edge is blurred


@dataclass(frozen=True)
class _Bar:
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
        half_length, half_width = self.length / 2 + margin, self.width / 2 + margin
        signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
        return tuple(self.at(a * half_length, b * half_width) for a, b in signs)


def _place(canvas: _Canvas, class_name: str) -> None:
    """Try to place an object, or a group, of the class; give up where there is no room."""
    if not canvas.has_room:
        return
    for _ in range(_TRIES):
        if _PLACERS[class_name](canvas):
            return


def _claim(canvas: _Canvas, class_name: str, bar: _Bar, *, on_land: bool | None) -> bool:
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
    return max(apart_x, apart_y) < _MARGIN_PX


def _window(canvas: _Canvas, bar: _Bar) -> tuple[tuple[slice, slice], NDArray[Any], NDArray[Any]]:
    """Return the window around a bar, and there the distances along and across it."""
    corners = np.array(bar.corners(margin=2))
    left, top = np.clip(np.floor(corners.min(axis=0)), 0, canvas.size_px).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(axis=0)), 0, canvas.size_px).astype(int)
    dx = (np.arange(left, right) + 0.5 - bar.x)[None, :]
    dy = (np.arange(top, bottom) + 0.5 - bar.y)[:, None]
    cosine, sine = bar.along
    along, across = dx * cosine + dy * sine, dy * cosine - dx * sine
    return (slice(top, bottom), slice(left, right)), along, across


def _add_bar(canvas: _Canvas, bar: _Bar, power: float) -> None:
    """Brighten a bar, its edges blurred over a pixel."""
    window, along, across = _window(canvas, bar)
    canvas.intensity[window] += power * _cover(along, bar.length) * _cover(across, bar.width)


def _cover(distance: NDArray[Any], extent: NDArray[Any] | float) -> NDArray[Any]:
    """Return the share of a pixel that lies within ``extent`` around 0."""
    share: NDArray[Any] = np.clip(extent / 2 - np.abs(distance) + 0.5, 0, 1)
    return share


# --- Ships -------------------------------------------------------------------------------------

_SHIP_M = (40.0, 330.0)
_LONGEST_SHIP_PX = 60.0


def _place_ship(canvas: _Canvas) -> bool:
    rng, pixel_m = canvas.rng, canvas.settings.pixel_m
    longest_m = min(_SHIP_M[1], _LONGEST_SHIP_PX * pixel_m)
    length = canvas.px(_SHIP_M[0], longest_m, at_least_px=canvas.settings.shortest_px)
    hull = _Bar(*canvas.point(), _draw_direction(rng), length, max(length / 6.5, 2.5))
    if not _claim(canvas, "ship", hull, on_land=False):
        return False
    if rng.random() < _MOVING_SHARE:
        _draw_wake(canvas, hull)
    _draw_ship(canvas, hull)
    return True


_MOVING_SHARE = 0.35


def _draw_ship(canvas: _Canvas, hull: _Bar) -> None:
    rng = canvas.rng
    window, along, across = _window(canvas, hull)
    to_bow = np.clip((hull.length / 2 - along) / (0.22 * hull.length) + 0.25, 0.25, 1)
    cover = _cover(along, hull.length) * _cover(across, hull.width * to_bow)
    deck_db = _between(rng, 9, 19)
    grain = _draw_from(rng, _gamma_table(1.0), cover.shape)
    canvas.intensity[window] += _power(deck_db) * cover * (0.4 + 0.6 * grain)
    for _ in range(3 + int(hull.length / 2.5)):
        place = hull.at(_between(rng, -0.46, 0.44) * hull.length, _off_centre(rng, hull))
        _add_point(canvas, *place, _power(deck_db + _between(rng, -2, 9)))
    # The superstructure near the stern: corner reflectors, the strongest of the ship.
    for _ in range(1 + _below(rng, 3)):
        place = hull.at(_between(rng, -0.42, -0.3) * hull.length, _off_centre(rng, hull))
        _add_point(canvas, *place, _power(deck_db + _between(rng, 6, 22)))


def _off_centre(rng: np.random.Generator, hull: _Bar) -> float:
    return _between(rng, -0.3, 0.3) * hull.width


def _draw_wake(canvas: _Canvas, hull: _Bar) -> None:
    """Draw dark turbulent water and two bright arms behind where the ship truly is.

    The ship itself is imaged off its wake, in azimuth, by its speed towards the sensor.
    """
    rng = canvas.rng
    shift_px = -hull.along[0] * min(_between(rng, 50, 200) / canvas.settings.pixel_m, 14)
    length = hull.length * _between(rng, 2.5, 6)
    wake = _Bar(hull.x, hull.y + shift_px, hull.along, 2 * length, length * 0.5)
    window, along, across = _window(canvas, wake)
    behind = -along - hull.length * 0.3
    fading = np.clip(1 - behind / length, 0, 1) * (behind > 0)
    water = ~canvas.land[window]
    turbulent = _cover(across, hull.width * 0.7 + 0.04 * behind)
    arms = np.clip(1.3 - np.abs(np.abs(across) - 0.5 - _ARM_SLOPE * behind), 0, 1)
    factor = (1 - 0.75 * fading * turbulent) * (1 + _between(rng, 0.3, 1.6) * fading * arms)
    canvas.intensity[window] *= np.where(water, factor, 1)


_ARM_SLOPE = 0.12  # narrow V; Kelvin's 19.5 degrees is rarely seen by radar


# --- Infrastructure at sea -----------------------------------------------------------------------


def _place_platform(canvas: _Canvas) -> bool:
    rng = canvas.rng
    side = canvas.px(70, 140, at_least_px=canvas.settings.shortest_px)
    deck = _Bar(*canvas.point(), _draw_direction(rng), side, side * _between(rng, 0.7, 1.0))
    if not _claim(canvas, "platform", deck, on_land=False):
        return False
    _add_bar(canvas, deck, _power(_between(rng, 9, 14)))
    for _ in range(10 + int(side * deck.width / 12)):
        place = deck.at(_between(rng, -0.5, 0.5) * side, _between(rng, -0.5, 0.5) * deck.width)
        _add_point(canvas, *place, _power(_between(rng, 18, 29)))
    for _ in range(2):
        place = deck.at(_between(rng, -0.25, 0.25) * side, _between(rng, -0.25, 0.25) * side)
        _add_point(canvas, *place, _power(_between(rng, 35, 42)))
    return True


def _place_wind_turbine(canvas: _Canvas) -> bool:
    """Place a regular array of turbines, as many as there is room for."""
    rng = canvas.rng
    spacing = canvas.px(450, 800, at_least_px=25)
    tower_px = canvas.px(80, 130, at_least_px=canvas.settings.shortest_px)
    level_db = _between(rng, 26, 33)
    array = _Bar(*canvas.point(), _draw_direction(rng), 0, 0)
    placed = False
    for row in range(1 + _below(rng, 3)):
        for column in range(1 + _below(rng, 4)):
            foot = array.at(column * spacing, row * spacing * 1.2)
            placed |= canvas.has_room and _draw_turbine(canvas, foot, tower_px, level_db)
    return placed


def _draw_turbine(
    canvas: _Canvas, foot: tuple[float, float], tower_px: float, level_db: float
) -> bool:
    """Draw the bright foot and the tower, which lies towards the sensor (layover)."""
    x, y = foot
    tower = _Bar(x - tower_px / 2 + 1, y, (1.0, 0.0), tower_px, 3.0)
    if not _claim(canvas, "wind_turbine", tower, on_land=False):
        return False
    _add_bar(canvas, replace(tower, width=1.2), _power(12))
    _add_point(canvas, x - 0.5, y, _power(level_db + _between(canvas.rng, -2, 2)))
    nacelle_x = x - tower_px + 2
    _add_point(canvas, nacelle_x, y, _power(level_db - 8 + _between(canvas.rng, -2, 2)))
    for _ in range(3):  # blades
        blade_x = nacelle_x + _between(canvas.rng, 0, 3)
        _add_point(canvas, blade_x, y + _between(canvas.rng, -1.5, 1.5), _power(17))
    return True


# --- Infrastructure at the coast -----------------------------------------------------------------


def _shore_point(canvas: _Canvas) -> tuple[float, float, Direction] | None:
    """Return a place on the shore and the direction inland; None if none was met."""
    rng, size_px = canvas.rng, canvas.size_px
    cosine, sine = canvas.inland
    if _below(rng, 2):  # either bank of a river
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
    chosen = landings[_below(rng, len(landings))]
    return float(columns[chosen]) + 0.5, float(rows[chosen]) + 0.5, (cosine, sine)


def _place_bridge(canvas: _Canvas) -> bool:
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
    deck = _Bar(x - middle * cosine, y - middle * sine, (cosine, sine), length, width)
    if not _claim(canvas, "bridge", deck, on_land=None):
        return False
    _draw_bridge(canvas, deck, _between(rng, 11, 17))
    return True


_LONGEST_BRIDGE = 0.5  # of the image's side


def _draw_bridge(canvas: _Canvas, deck: _Bar, level_db: float) -> None:
    rng = canvas.rng
    _add_bar(canvas, deck, _power(level_db))
    for _ in range(int(deck.length / 3)):
        place = deck.at(_between(rng, -0.5, 0.5) * deck.length, 0)
        _add_point(canvas, *place, _power(level_db + _between(rng, -3, 8)))
    # Double and triple bounce travel further: weaker lines at larger range, over water only.
    step_px = max(_between(rng, 20, 60) / canvas.settings.pixel_m, 3.0)
    for bounce in range(1, 1 + _below(rng, 3)):
        echo = replace(deck, x=deck.x + bounce * step_px, length=deck.length - 6, width=1.2)
        _add_bar(canvas, echo, _power(level_db - 4 - 4 * bounce))


def _place_storage_tank(canvas: _Canvas) -> bool:
    """Place a farm of tanks on cleared land near the shore."""
    rng = canvas.rng
    start = _shore_point(canvas)
    if start is None:
        return False
    x, y, (cosine, sine) = start
    radius = canvas.px(35, 100, at_least_px=canvas.settings.shortest_px) / 2
    spacing = 2 * radius + _MARGIN_PX + 3 + _between(rng, 0, 2)
    inland_px = _between(rng, 1, 3) * spacing
    farm = _Bar(x + inland_px * cosine, y + inland_px * sine, _draw_direction(rng), 0, 0)
    placed = False
    for row in range(1 + _below(rng, 3)):
        for column in range(1 + _below(rng, 4)):
            place = farm.at(column * spacing, row * spacing)
            placed |= canvas.has_room and _draw_tank(canvas, place, radius)
    return placed


def _draw_tank(canvas: _Canvas, place: tuple[float, float], radius: float) -> bool:
    """Draw a dark roof, the bright wall that faces the sensor, and the rim in front of it."""
    rng = canvas.rng
    x, y = place
    layover_px = max(_between(rng, 8, 16) / canvas.settings.pixel_m, 1.0)
    extent = _Bar(x - layover_px / 2, y, (1.0, 0.0), 2 * radius + layover_px, 2 * radius)
    if not _claim(canvas, "storage_tank", extent, on_land=True):
        return False
    window, dx, dy = _window(
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
    _add_point(canvas, x - radius, y, _power(_between(rng, 24, 31)))
    _add_point(canvas, x + 0.6 * radius, y + _between(rng, -0.3, 0.3) * radius, _power(18))
    return True


def _place_harbour(canvas: _Canvas) -> bool:
    """Place a quay along the shore, piers that reach into a basin, and small craft."""
    rng = canvas.rng
    start = _shore_point(canvas)
    if start is None:
        return False
    x, y, (cosine, sine) = start
    largest = 0.4 * canvas.settings.image_size_px * canvas.settings.pixel_m
    length = canvas.px(min(300, largest * 0.7), min(700, largest), at_least_px=24)
    depth = length * _between(rng, 0.4, 0.6)
    # Along the shore, so that across it water lies at positive distances; a third is on land.
    seaward = depth / 6
    site = _Bar(x - seaward * cosine, y - seaward * sine, (-sine, cosine), length, depth)
    if not _is_shore(canvas, site) or not _claim(canvas, "harbour", site, on_land=None):
        return False
    _draw_quay(canvas, site)
    piers = 2 + _below(rng, 3)
    for number in range(piers):
        _draw_pier(canvas, site, (number + 0.5) / piers - 0.5)
    return True


def _is_shore(canvas: _Canvas, site: _Bar) -> bool:
    """Tell whether most of the site's outer two thirds are water and most of the rest is land."""
    window, along, across = _window(canvas, site)
    inside = (np.abs(along) <= site.length / 2) & (np.abs(across) <= site.width / 2)
    quay = inside & (across < -site.width / 6)
    land, basin = canvas.land[window], inside & ~quay
    return bool(
        (land & quay).sum() > _MOSTLY * quay.sum() and (basin & ~land).sum() > _MOSTLY * basin.sum()
    )


_MOSTLY = 0.6


def _draw_quay(canvas: _Canvas, site: _Bar) -> None:
    """Turn the inner third of the site into a built-up quay, the rest into calm water."""
    rng = canvas.rng
    window, along, across = _window(canvas, site)
    inside = (np.abs(along) <= site.length / 2) & (np.abs(across) <= site.width / 2)
    quay = inside & (across < -site.width / 6)
    ground, land = canvas.intensity[window], canvas.land[window]
    ground[inside] = 0.5
    ground[quay] = 4.0
    ground += quay * _draw_from(rng, _gamma_table(0.35), quay.shape) * 12
    land[inside] = quay[inside]
    edge = _Bar(*site.at(0, -site.width / 6), site.along, site.length, 1.5)
    _add_bar(canvas, edge, _power(18))
    for _ in range(4 + int(site.length / 5)):  # cranes and sheds
        place = site.at(
            _between(rng, -0.48, 0.48) * site.length, _between(rng, -0.47, -0.2) * site.width
        )
        _add_point(canvas, *place, _power(_between(rng, 20, 32)))


def _draw_pier(canvas: _Canvas, site: _Bar, position: float) -> None:
    """Draw a pier across the site at a position in [-0.5, 0.5] of its length."""
    rng = canvas.rng
    reach = site.width * _between(rng, 0.5, 0.66)
    start_across = -site.width / 6
    outward = (-site.along[1], site.along[0])
    x, y = site.at(position * site.length, start_across + reach / 2)
    pier = _Bar(x, y, outward, reach, canvas.px(20, 35, at_least_px=2.5))
    window, along, across = _window(canvas, pier)
    on_pier = (np.abs(along) <= pier.length / 2) & (np.abs(across) <= pier.width / 2)
    canvas.land[window] |= on_pier
    _add_bar(canvas, pier, _power(10))
    for side in (-0.5, 0.5):
        edge = _Bar(*pier.at(0, side * pier.width), outward, reach, 0.6)
        _add_bar(canvas, edge, _power(15))
    for _ in range(int(reach / 2.5)):  # small craft, too small to be ships
        side = 2 * _below(rng, 2) - 1
        place = pier.at(_between(rng, -0.45, 0.45) * reach, side * (pier.width / 2 + 1))
        _add_point(canvas, *place, _power(_between(rng, 12, 22)))


_PLACERS: dict[str, Callable[[_Canvas], bool]] = {
    "ship": _place_ship,
    "bridge": _place_bridge,
    "harbour": _place_harbour,
    "storage_tank": _place_storage_tank,
    "platform": _place_platform,
    "wind_turbine": _place_wind_turbine,
}
