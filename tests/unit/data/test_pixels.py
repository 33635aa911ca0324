"""A pixel has data where every band has, and its values are numbers times scale plus offset."""

import numpy as np
import pytest
import rasterio

from sar_experiments.data.images import image_size, read_image, read_pixels
from sar_experiments.data.pixels import has_data
from sar_experiments.errors import DatasetError


@pytest.fixture
def write(tmp_path):
    """Write (C, H, W) numbers as a TIFF with scales and offsets, and return its path."""

    def write_tiff(bands, *, scales=None, offsets=None, mask=None, **profile):
        bands = np.asarray(bands)
        count, height, width = bands.shape
        path = tmp_path / "chip.tif"
        settings = {"dtype": bands.dtype, "count": count, "height": height, "width": width}
        settings |= {"crs": "EPSG:32611", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 4e6)}
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(path, "w", driver="GTiff", **settings | profile) as raster,
        ):
            raster.write(bands)
            if scales is not None:
                raster.scales = scales
            if offsets is not None:
                raster.offsets = offsets
            if mask is not None:
                raster.write_mask(mask)
        return path

    return write_tiff


def test_a_pixel_has_data_where_every_band_has():
    bands = np.float32([[[1, 0, np.nan, 4, 5]], [[1, 2, 3, np.inf, -9]]])
    assert has_data(bands).tolist() == [[True, True, False, False, True]]
    assert has_data(bands, [(0.0,), (-9.0,)]).tolist() == [[True, False, False, False, False]]


def test_a_mark_that_the_type_cannot_hold_marks_nothing():
    """-9999 as 8 bits would be 241, and 0.5 would be 0."""
    bands = np.uint8([[[241, 0, 255]]])
    assert has_data(bands, [(-9999.0, 0.5, float("nan"), float("inf"))]).all()
    assert has_data(bands, [(255.0,)]).tolist() == [[True, True, False]]


@pytest.mark.parametrize("fill", [-3.4028235e38, 1e20, 9.96921e36, 1e300])
def test_numbers_that_no_radar_measures_are_fill_values(fill):
    assert has_data(np.array([[[fill, -99.0]]])).tolist() == [[False, True]]


def test_every_band_has_its_own_scale_and_offset_and_its_own_number_of_no_data(write):
    stored = np.int16([[[-2000, -32768, 0]], [[100, 200, -32768]]])
    path = write(stored, scales=[0.01, 0.5], offsets=[0.0, -60.0], nodata=-32768)
    pixels, valid = read_pixels(path)
    assert pixels.dtype == np.float32
    assert pixels[0, 0].tolist() == [-20.0, -10.0]  # -2000 * 0.01 + 0, 100 * 0.5 - 60
    assert pixels[0, 2, 0] == 0.0
    assert valid.tolist() == [[True, False, False]]


def test_no_data_is_tested_on_the_stored_numbers(write):
    path = write(np.int16([[[0, 2000, -2000]]]), scales=[0.01], offsets=[-20.0], nodata=0)
    pixels, valid = read_pixels(path, nodata=-2000)
    assert pixels.ravel().tolist() == [-20.0, 0.0, -40.0]  # 0 as a value is data
    assert valid.tolist() == [[False, True, False]]


def test_numbers_without_scale_keep_their_type(write):
    path = write(np.int16([[[-2000, 7]]]), scales=[1.0], offsets=[0.0])
    assert read_image(path).dtype == np.int16
    assert read_image(path).ravel().tolist() == [-2000, 7]


@pytest.mark.parametrize(("scale", "offset"), [(0.0, 1.0), (float("nan"), 0.0), (1.0, np.inf)])
def test_a_scale_that_makes_no_values_is_refused(write, scale, offset):
    path = write(np.int16([[[1, 2]]]), scales=[scale], offsets=[offset])
    with pytest.raises(DatasetError, match=r"chip\.tif: band 1 has scale=.*the scale not 0"):
        read_image(path)


def test_alpha_and_a_mask_hide_pixels_of_chips_as_of_scenes(write):
    gray = np.uint8([[[5, 6, 7]]])
    hidden = write(gray, mask=np.array([[True, False, True]]))
    assert read_pixels(hidden)[1].tolist() == [[True, False, True]]
    with_alpha = write(np.concatenate([gray, np.uint8([[[255, 255, 0]]])]), alpha="YES")
    pixels, valid = read_pixels(with_alpha)
    assert pixels.shape == image_size(with_alpha) == (1, 3, 1)
    assert valid.tolist() == [[True, True, False]]
