"""Stored pixels become the same network input everywhere, and no data stays dark.

Decibels belong to power; 16 bits are not squeezed into 8; a filter changes no mean.
"""

from pathlib import Path

import numpy as np
import pytest

from sar_experiments.data.images import read_pixels
from sar_experiments.data.pixels import has_data
from sar_experiments.data.radiometry import (
    Radiometry,
    describe_difference,
    from_dict,
    intensity_to_db,
    lee_filter,
)
from sar_experiments.errors import DatasetError


@pytest.fixture
def radiometry(typed_config):
    return lambda *overrides: Radiometry.from_config(typed_config(*overrides).radiometry)


ONE_CHANNEL = (
    *("radiometry.channels=1", "radiometry.low=[-30]", "radiometry.high=[5]"),
    *("radiometry.mean=[0.39]", "radiometry.std=[0.14]"),
)
DB = ("radiometry.encoding=db", "radiometry.low=[-30]", "radiometry.high=[0]")


def column(*values, dtype):
    return np.asarray(values, dtype=dtype).reshape(-1, 1, 1)


def encoded(radiometry, *values, dtype, nodata=None):
    pixels = column(*values, dtype=dtype)
    marks = [mark for mark in (nodata, radiometry.nodata) if mark is not None]
    valid = has_data(np.moveaxis(pixels, 2, 0), [marks])
    return radiometry.encode(pixels, valid=valid).ravel().tolist()


def test_eight_bits_span_zero_to_one(radiometry):
    assert encoded(radiometry(), 0, 51, 255, dtype=np.uint8) == pytest.approx([0, 0.2, 1])


def test_sixteen_bits_are_clipped_not_saturated_at_255(radiometry):
    linear = radiometry("radiometry=uint16_amplitude")
    assert encoded(linear, 255, 500, 1000, 60000, dtype=np.uint16) == pytest.approx(
        [0.255, 0.5, 1, 1]
    )


@pytest.mark.parametrize(
    ("stored_as", "value", "dtype"),
    [("intensity", 0.1, np.float32), ("amplitude", 0.1**0.5, np.float64), ("db", -10, np.int16)],
)
def test_ten_decibels_below_one_is_ten_decibels_below_one(radiometry, stored_as, value, dtype):
    in_db = radiometry(f"radiometry.stored_as={stored_as}", *DB)
    assert encoded(in_db, value, dtype=dtype) == pytest.approx([20 / 30], abs=1e-6)


def test_a_nodata_of_zero_decibels_is_not_bright(radiometry):
    in_db = radiometry("radiometry.stored_as=db", "radiometry.nodata=0.0", *DB)
    assert encoded(in_db, 0.0, -3.0, dtype=np.float64) == pytest.approx([0.0, 0.9])


def test_the_files_own_nodata_and_nan_are_masked(radiometry):
    in_db = radiometry("radiometry.stored_as=db", *DB)
    levels = encoded(in_db, -9999.0, np.nan, -15.0, dtype=np.float32, nodata=-9999.0)
    assert levels == pytest.approx([0, 0, 0.5])


def test_the_sigmoid_is_half_at_minus_twenty_decibels(radiometry):
    sigmoid = radiometry(
        "radiometry.stored_as=db",
        "radiometry.encoding=db_sigmoid",
        "radiometry.low=[0]",
        "radiometry.high=[1]",
    )
    assert encoded(sigmoid, -20.0, -100.0, 60.0, dtype=np.float32) == pytest.approx(
        [0.5, 0.0, 1.0], abs=1e-4
    )


def test_percentiles_are_those_of_valid_pixels(radiometry):
    by_image = radiometry(
        "radiometry.low=null",
        "radiometry.high=null",
        "radiometry.percentiles=[0,100]",
        "radiometry.nodata=0",
    )
    assert encoded(by_image, 0, 100, 150, 200, dtype=np.uint16) == pytest.approx([0, 0, 0.5, 1])


def test_an_image_without_any_data_is_dark(radiometry):
    by_image = radiometry("radiometry.low=null", "radiometry.high=null", "radiometry.nodata=0")
    assert encoded(by_image, 0, 0, dtype=np.uint16) == [0, 0]


def test_gray_stored_three_times_is_one_channel(radiometry, rng):
    gray = rng.integers(0, 256, (4, 5, 1), dtype=np.uint8)
    one = radiometry().encode(np.repeat(gray, 3, axis=2))
    assert one.shape == (4, 5, 1)
    assert np.array_equal(one, radiometry().encode(gray))


def test_channels_that_differ_are_not_dropped(radiometry, rng):
    colour = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    with pytest.raises(DatasetError, match=r"3 channels, radiometry\.channels=1"):
        radiometry().encode(colour)


def test_two_polarisations_have_ranges_of_their_own(radiometry):
    both = radiometry(
        "radiometry.channels=2", "radiometry.low=[0,0]", "radiometry.high=[100,50]",
        "radiometry.mean=[0,0]", "radiometry.std=[1,1]",
    )  # fmt: skip
    pixels = np.full((2, 2, 2), 25, dtype=np.uint16)
    assert both.encode(pixels)[0, 0].tolist() == [0.25, 0.5]


def test_the_input_is_left_as_it_was(radiometry):
    pixels = column(np.nan, 1.0, dtype=np.float32)
    before = pixels.copy()
    radiometry("radiometry.stored_as=db", *DB).encode(pixels)
    np.testing.assert_array_equal(pixels, before)


def test_zero_intensity_is_the_floor():
    assert intensity_to_db(np.float32([0.0, 1.0]), floor_db=-40).tolist() == [-40, 0]


def test_the_lee_filter_smooths_speckle_and_keeps_the_mean(rng):
    speckle = rng.gamma(4, 1 / 4, (128, 128, 1)).astype(np.float32)
    smooth = lee_filter(speckle, window_px=7)
    assert smooth.mean() == pytest.approx(1.0, abs=0.02)
    assert smooth.var() < 0.4 * speckle.var()


def test_the_lee_filter_keeps_a_bright_target(rng):
    image = rng.gamma(4, 1 / 4, (64, 64, 1)).astype(np.float32)
    image[32, 32] = 500
    assert lee_filter(image, window_px=5)[32, 32, 0] > 250


def test_plain_values_bring_it_back_and_differences_are_named(radiometry):
    one, other = radiometry(), radiometry("radiometry.high=[200]")
    assert from_dict(one.to_dict()) == one
    assert describe_difference(one, one) == ""
    assert "high=(255.0,) and (200.0,)" in describe_difference(one, other)


@pytest.mark.parametrize("name", ["sentinel1_db", "xview3_sigmoid"])
def test_the_shipped_statistics_are_those_of_the_levels_they_cite(radiometry, name):
    both = radiometry(f"radiometry={name}")
    levels_db = np.float32([-16.4, -26.3])  # xView3's means of VV and VH
    stored = levels_db if both.stored_as.name == "db" else 10 ** (levels_db / 10)
    encoded_mean = both.encode(stored.reshape(1, 1, 2)).ravel()
    assert encoded_mean.tolist() == pytest.approx(list(both.mean), abs=0.01)


def test_a_real_scene_whose_zeros_mean_no_data_keeps_them_dark(radiometry):
    scene = Path(__file__).parents[4] / "shared" / "data" / "s1_port_la" / "2021-01-05.tif"
    if not scene.is_file():
        pytest.skip(f"{scene} is not there: real Sentinel-1 data is not part of the repository")
    pixels, valid = read_pixels(scene)
    sentinel = radiometry("radiometry=sentinel1_db", "radiometry.stored_as=db", *ONE_CHANNEL)
    image = sentinel.encode(pixels, valid=valid)
    assert pixels.dtype == np.float64
    assert (image[pixels == 0] == 0).all()
    assert 0.1 < np.median(image[pixels != 0]) < 0.7  # sea and land, neither black nor white
    # Without the mark, 0 dB would be brighter than nine tenths of the scene.
    unmarked = radiometry(
        "radiometry=sentinel1_db", "radiometry.stored_as=db", "radiometry.nodata=null", *ONE_CHANNEL
    )
    assert unmarked.encode(pixels)[pixels == 0].min() > np.percentile(image, 90)


@pytest.mark.parametrize("name", ["amplitude_8bit", "percentile", "sentinel1_db"])
@pytest.mark.parametrize("value", [7.0, 0.0, float("nan"), float("inf"), 1e300])
def test_an_image_of_one_value_is_encoded_to_finite_numbers(radiometry, name, value):
    one = radiometry(f"radiometry={name}")
    encoded = one.encode(np.full((4, 4, one.channels), value))
    assert np.isfinite(encoded).all()
    assert 0 <= encoded.min() <= encoded.max() <= 1
