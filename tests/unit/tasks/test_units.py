"""A scene in decibels never goes through a network of amplitudes, nor the other way round."""

import numpy as np
import pytest

from sar_experiments.data.images import write_geotiff, write_image
from sar_experiments.errors import SceneError
from sar_experiments.predict.scene import Scene
from sar_experiments.predict.sources import find_scenes
from sar_experiments.tasks.units import check_units


@pytest.fixture
def check(typed_config, tmp_path):
    def check_pixels(pixels, *options, nodata=None):
        path = tmp_path / "scene.tif"
        write_geotiff(
            path, np.asarray(pixels)[:, :, None], transform=(10.0, 0, 5e5, 0, -10.0, 4e6),
            crs="EPSG:32633", nodata=nodata, tags={},
        )  # fmt: skip
        header = Scene(find_scenes(str(path))[0]).header
        check_units(header, typed_config(*options).radiometry, "the network")

    return check_pixels


@pytest.fixture
def sea_db(rng):
    return (-20 + 3 * rng.standard_normal((300, 400))).astype(np.float32)


@pytest.mark.parametrize("stored_as", ["amplitude", "intensity"])
def test_decibels_are_no_amplitude(check, sea_db, stored_as):
    wanted = f"radiometry.stored_as={stored_as}"
    with pytest.raises(SceneError, match=rf"scene\.tif holds mostly negative .*{stored_as}\)"):
        check(sea_db, wanted)
    check(sea_db, "radiometry=sentinel1_vv_db")


def test_borders_without_data_hide_no_decibels(check, sea_db):
    sea_db[:, 150:] = 0
    with pytest.raises(SceneError, match="mostly negative"):
        check(sea_db, "radiometry=amplitude_8bit", nodata=0)


def test_whole_numbers_without_sign_are_no_decibels(check, sea_db):
    with pytest.raises(SceneError, match="stores uint16, which holds no negative decibels"):
        check(np.full((300, 400), 90, np.uint16), "radiometry=sentinel1_vv_db")
    check(np.round(sea_db).astype(np.int16), "radiometry=sentinel1_vv_db")


def test_a_few_negative_powers_are_noise_that_was_subtracted(check, rng):
    power = (0.01 + 0.01 * rng.standard_normal((300, 400))).astype(np.float32)
    assert 0.1 < (power < 0).mean() < 0.2
    check(power, "radiometry=sentinel1_db")


def test_images_of_a_few_pixels_are_looked_at_too(typed_config, tmp_path):
    write_image(tmp_path / "small.tif", np.full((3, 2), -12.0, np.float32))
    header = Scene(find_scenes(str(tmp_path / "small.tif"))[0]).header
    with pytest.raises(SceneError, match="mostly negative"):
        check_units(header, typed_config().radiometry, "the network")
