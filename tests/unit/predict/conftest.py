"""Scenes made here, with objects at known places, and a detector that finds bright pixels."""

import numpy as np
import pytest
import rasterio
from scipy import ndimage

from sar_experiments.detections import Detections
from sar_experiments.predict.detector import Tile

UTM = "EPSG:32611"
TRANSFORM = rasterio.Affine(10.0, 0.0, 377000.0, 0.0, -10.0, 3739000.0)


class BrightPixels:
    """Connected pixels above a level; counts the tiles it sees."""

    classes = ("bright",)

    def __init__(self, level=100.0):
        self.level = level
        self.batches = []

    def __call__(self, tiles):
        self.batches.append([tile.window for tile in tiles])
        return [self.find(tile) for tile in tiles]

    def find(self, tile: Tile):
        lit = (tile.pixels[:, :, 0] > self.level) & tile.valid
        patches, _ = ndimage.label(lit)
        slices = ndimage.find_objects(patches)
        boxes = [[c.start, r.start, c.stop, r.stop] for r, c in slices]
        return Detections.of(boxes, [0.9] * len(boxes), [0] * len(boxes))


@pytest.fixture
def detector():
    return BrightPixels()


@pytest.fixture
def write_scene(tmp_path):
    """Write pixels (H, W) or (C, H, W) as a raster and return its path."""

    def write(name, pixels, *, scales=None, offsets=None, **profile):
        pixels = np.asarray(pixels)
        bands = pixels if pixels.ndim == 3 else pixels[None]
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        settings = {"driver": "GTiff", "crs": UTM, "transform": TRANSFORM} | profile
        settings = {key: value for key, value in settings.items() if value is not None}
        with rasterio.open(
            path,
            "w",
            count=bands.shape[0],
            height=bands.shape[1],
            width=bands.shape[2],
            **{"dtype": bands.dtype} | settings,
        ) as raster:
            raster.write(bands)
            if scales is not None:
                raster.scales = scales
            if offsets is not None:
                raster.offsets = offsets
        return path

    return write


@pytest.fixture
def sea(rng):
    """Dim speckle of a size, with bright bars ``left, top, right, bottom`` in it."""

    def make(height, width, bars=(), dtype=np.uint8):
        pixels = rng.integers(5, 40, (height, width)).astype(dtype)
        for left, top, right, bottom in bars:
            pixels[top:bottom, left:right] = 200
        return pixels

    return make
