"""A scene in decibels never goes through a network of amplitudes, nor the other way round."""

import numpy as np
import pytest
import rasterio

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


def test_the_unit_is_that_of_the_values_not_of_the_stored_numbers(tmp_path, typed_config, sea_db):
    """Decibels as 8 bits are -60 + 0.25 n; amplitudes may be stored below zero too."""
    path = tmp_path / "scene.tif"

    def check_stored(stored, scale, offset, radiometry):
        write_image(path, stored[:, :, None])
        with rasterio.open(path, "r+") as raster:
            raster.scales, raster.offsets = [scale], [offset]
        header = Scene(find_scenes(str(path))[0]).header
        check_units(header, typed_config(f"radiometry={radiometry}").radiometry, "the network")

    in_8_bits = np.round((sea_db + 60) / 0.25).astype(np.uint8)
    check_stored(in_8_bits, 0.25, -60, "sentinel1_vv_db")
    with pytest.raises(SceneError, match=r"scene\.tif holds mostly negative"):
        check_stored(in_8_bits, 0.25, -60, "amplitude_8bit")
    check_stored(np.full((300, 400), -30000, np.int16), 0.01, 327.68, "amplitude_8bit")


def test_hundredths_of_a_decibel_without_a_scale_tag_are_no_decibels(check, sea_db):
    with pytest.raises(
        SceneError, match=r"around -2\d{3}, which are no decibels; .*-a_scale 0\.01"
    ):
        check(np.round(100 * sea_db).astype(np.int16), "radiometry=sentinel1_vv_db")


def test_linear_numbers_where_decibels_are_expected_are_warned_about(check, sea_db, caplog):
    check(10 ** (sea_db / 10), "radiometry=sentinel1_vv_db")
    assert (
        "none of its numbers is negative, as decibels of radiometry.low=[-30.0] are" in caplog.text
    )


def test_numbers_that_the_network_would_see_white_are_warned_about(check, rng, caplog):
    """16 bits under a radiometry of 8."""
    pixels = (640 * np.sqrt(rng.gamma(4, 1 / 4, (300, 400)))).astype(np.uint16)
    check(pixels, "radiometry=amplitude_8bit")
    assert "100 % of its pixels lie outside radiometry.low=[0.0] to high=[255.0]" in caplog.text
    caplog.clear()
    check(pixels, "radiometry=uint16_amplitude")
    check(np.zeros((300, 400), np.uint8), "radiometry=amplitude_8bit")
    assert caplog.text == ""


def test_only_the_chosen_bands_are_looked_at(typed_config, tmp_path, sea_db):
    path = tmp_path / "scene.tif"
    amplitude = 100 * 10 ** (sea_db / 20)
    write_image(path, np.stack([sea_db, amplitude, sea_db], axis=2))
    header = Scene(find_scenes(str(path))[0], bands=[2]).header
    check_units(header, typed_config("radiometry=amplitude_8bit").radiometry, "the network")


def test_a_few_negative_powers_are_noise_that_was_subtracted(check, rng):
    power = (0.01 + 0.01 * rng.standard_normal((300, 400))).astype(np.float32)
    assert 0.1 < (power < 0).mean() < 0.2
    check(power, "radiometry=sentinel1_db")


def test_images_of_a_few_pixels_are_looked_at_too(typed_config, tmp_path):
    write_image(tmp_path / "small.tif", np.full((3, 2), -12.0, np.float32))
    header = Scene(find_scenes(str(tmp_path / "small.tif"))[0]).header
    with pytest.raises(SceneError, match="mostly negative"):
        check_units(header, typed_config().radiometry, "the network")
