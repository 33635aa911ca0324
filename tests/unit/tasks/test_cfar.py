"""A CFAR made from a config: pixels in metres are told, never guessed; channels fit as anywhere."""

import numpy as np
import pytest
import rasterio

from sar_experiments.data.images import write_geotiff
from sar_experiments.errors import ConfigError, DatasetError, SceneError
from sar_experiments.geometry import Window
from sar_experiments.predict.detector import SceneHeader, Tile
from sar_experiments.predict.scene import Scene
from sar_experiments.predict.sources import find_scenes
from sar_experiments.tasks.cfar import make_cfar
from sar_experiments.tasks.detectors import choose_detector


@pytest.fixture
def config(typed_config, tmp_path):
    """The use case that every command has by default."""
    folder = tmp_path / "simulated"
    return typed_config(
        "model=cfar", "task=evaluate", "usecase=demo", f"usecase.simulator.folder={folder}"
    )


def header_of(path, bands=("1",), pixel_m=None):
    return SceneHeader(
        name="scene", files=(path,), height=100, width=100, bands=bands, dtype="uint8",
        pixel_m=pixel_m,
    )  # fmt: skip


def test_only_the_simulators_own_images_have_its_size_of_a_pixel(config, tmp_path):
    detector_for = choose_detector(config, tmp_path).detector_for
    own, real = tmp_path / "simulated" / "val" / "a.png", tmp_path / "real.png"
    metres = config.usecase.simulator.pixel_m
    assert detector_for(header_of(own)).pixel_m == (metres, metres)
    assert detector_for(header_of(real, pixel_m=(3.0, 4.0))).pixel_m == (3.0, 4.0)
    with pytest.raises(ConfigError, match=r"model\.cfar\.pixel_m must be set, in metres"):
        detector_for(header_of(real))
    with pytest.raises(ConfigError, match=r"model\.cfar\.pixel_m must be set"):
        make_cfar(config, ("ship",), [own, real], pixel_m=None)


def test_a_gray_colour_picture_gives_prediction_what_it_gives_evaluation(config, tmp_path, rng):
    gray = np.clip(40 * np.sqrt(rng.gamma(4, 1 / 4, (150, 160, 1))), 0, 255).astype(np.uint8)
    gray[70:73, 40:48] = 255
    colour = np.repeat(gray, 3, axis=2)
    choice = choose_detector(config, tmp_path)
    assert choice.channels == 1
    cfar = choice.detector_for(header_of(tmp_path / "a.png", ("1", "2", "3"), (10.0, 10.0)))
    valid = np.ones((150, 160), bool)
    (found,) = cfar([Tile(colour, valid, None)])
    alone = cfar.find(gray, valid)
    assert len(found) >= 1
    assert (found.boxes.tolist(), found.scores.tolist()) == (
        alone.boxes.tolist(), alone.scores.tolist(),
    )  # fmt: skip
    colour[0, 0, 0] += 1
    with pytest.raises(DatasetError, match=r"3 channels, radiometry\.channels=1 takes one"):
        cfar([Tile(colour, valid, None)])


def test_other_bands_than_the_radiometrys_are_refused(typed_config, tmp_path):
    config = typed_config("model=cfar", "task=evaluate", "radiometry=sentinel1_db")
    detector_for = choose_detector(config, tmp_path).detector_for
    header = header_of(tmp_path / "a.tif", ("1", "2", "3"), (10.0, 10.0))
    with pytest.raises(SceneError, match=r"has the bands 1, 2, 3, the CFAR takes 2"):
        detector_for(header)


def test_hundredths_of_decibels_with_a_scale_tag_find_what_decibels_find(
    typed_config, tmp_path, rng
):
    level_db = 10 * np.log10(0.01 * rng.gamma(4, 1 / 4, (300, 320)))
    for number in range(16):
        row, col = 30 + 70 * (number // 4), 30 + 70 * (number % 4)
        level_db[row : row + 3, col : col + 9] = 0.0
    hundredths = np.round(100 * level_db).astype(np.int16)
    config = typed_config("model=cfar", "task=evaluate", "radiometry=sentinel1_vv_db")

    def boxes(name, pixels, scale):
        path = tmp_path / name
        write_geotiff(
            path, pixels, transform=(10.0, 0, 5e5, 0, -10.0, 4e6), crs="EPSG:32633",
            nodata=None, tags={},
        )  # fmt: skip
        with rasterio.open(path, "r+") as raster:
            raster.scales = [scale]
        scene = Scene(find_scenes(str(path))[0])
        (found,) = choose_detector(config, tmp_path).detector_for(scene.header)(
            [scene.read(Window(0, 0, 320, 300))]
        )
        return sorted(found.boxes.tolist())

    plain = boxes("plain.tif", (hundredths * 0.01).astype(np.float32), 1.0)
    assert len(plain) == 16
    assert boxes("scaled.tif", hundredths, 0.01) == plain
