"""Files of a synthetic dataset: images, COCO, a geo-referenced scene, and what made them."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sar_experiments.data.images import write_geotiff, write_image
from sar_experiments.data.simulator.scenes import scene_of, simulate_image, simulate_scene
from sar_experiments.data.simulator.sensor import CELL_PX
from sar_experiments.data.simulator.settings import (
    SimulatedImage,
    SimulatorSettings,
    record,
    split_sizes,
)
from sar_experiments.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


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
    total = sum(split_sizes(settings).values())
    done = 0
    suffix = "tif" if settings.dtype == "float32" else "png"
    with _appearing(folder, settings) as partial:
        for split, count in split_sizes(settings).items():
            (partial / split / "images").mkdir(parents=True)
            truth = _Truth(settings, split)
            for index in range(count):
                image = simulate_image(settings, split=split, index=index)
                name = f"{split}_{index:06d}.{suffix}"
                write_image(partial / split / "images" / name, image.pixels)
                truth.add(name, f"{split}_{scene_of(index):05d}", image)
                done += 1
                if progress:
                    progress(done, total)
            truth.write(partial / f"{split}.json")
        if settings.scene_size_px:
            _write_scene(settings, partial)
        _write_json(partial / "settings.json", record(settings))


UTM_ZONE = "EPSG:32611"
_UPPER_LEFT_M = (380_000.0, 3_735_000.0)  # easting, northing: off southern California


def _is_complete(folder: Path, settings: SimulatorSettings) -> bool:
    """Tell whether the folder holds this dataset; refuse one that holds anything else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    file = folder / "settings.json"
    if not file.is_file():
        msg = f"{folder} exists and is no simulated dataset (no settings.json); name another folder"
        raise DatasetError(msg)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        msg = f"{file} is no JSON file; name another folder, or remove this one"
        raise DatasetError(msg) from error
    wanted = record(settings)
    if isinstance(found, dict):  # made before a key was there: as its default has it
        found = {**_DEFAULTS, **found}
    if found == wanted:
        return True
    if isinstance(found, dict) and found.get("format") != wanted["format"]:
        msg = (
            f"{folder} was made by an earlier version of the simulator;"
            f" usecase.simulator.folder={folder}_{wanted['format']} makes it anew, or remove this"
        )
        raise DatasetError(msg)
    differing = [
        key for key in wanted if not isinstance(found, dict) or found.get(key) != wanted[key]
    ]
    msg = (
        f"{folder} was simulated with other settings ({', '.join(differing) or 'unknown keys'});"
        " choose another folder, or remove this one"
    )
    raise DatasetError(msg)


_DEFAULTS = {
    name: SimulatorSettings.__dataclass_fields__[name].default
    for name in ("shortest_px", "ambiguity_m", "ambiguity_db")
}


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
            "settings": record(settings),
        }
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, name: str, scene: str, image: SimulatedImage) -> None:
        height, width = image.pixels.shape
        image_id = len(self._images) + 1
        image_record = {"id": image_id, "file_name": name, "height": height, "width": width}
        self._images.append({**image_record, "scene": scene})
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
        crs=UTM_ZONE,
        nodata=0,
        tags={
            "content": f"synthetic SAR {unit(settings)}",
            "seed": str(settings.seed),
            "resolution_m": f"{settings.pixel_m * CELL_PX:g}",
        },
    )
    truth = _Truth(settings, "scene")
    truth.add("scene.tif", "scene", scene)
    truth.write(folder / "scene.json")


def unit(settings: SimulatorSettings) -> str:
    """Return what pixels are, in a word."""
    return "decibels" if settings.dtype == "float32" else "amplitude"


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
