"""CFAR on images: the rate holds on clutter, ships are found whatever the files store."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from sar_experiments.cfar.detect import Cfar, find_objects, intensity_of, windows_px
from sar_experiments.config import ChannelRule, ClutterKind, StoredAs
from sar_experiments.data.radiometry import Radiometry
from sar_experiments.errors import ConfigError

PIXEL_M = (10.0, 10.0)


@pytest.fixture
def config(typed_config):
    """Gamma clutter, single pixels, every size: what follows from the rate alone."""
    cfar = typed_config("model=cfar", "task=evaluate").model.cfar
    return replace(
        cfar, distribution=ClutterKind.gamma, scale=StoredAs.intensity, target_m=0.0,
        min_size_m=0.0, merge_gap_m=0.0, passes=1,
    )  # fmt: skip


def speckle(rng, shape, looks=4.0):
    return rng.gamma(looks, 1 / looks, shape)


def everywhere(image):
    return np.ones(image.shape[:2], bool)


def found_in(image, config, valid=None, pixel_m=PIXEL_M):
    valid = everywhere(image) if valid is None else valid
    return find_objects(image.reshape(*valid.shape, -1), valid, config, pixel_m=pixel_m)


def with_ship(image, *, top, left, height=3, width=8, level=60.0):
    image[top : top + height, left : left + width] = level
    return image


CLUTTERS = {
    "gaussian": (ClutterKind.gaussian, None, lambda rng, n: rng.normal(50, 4, n)),
    "gamma": (ClutterKind.gamma, None, lambda rng, n: rng.gamma(4, 0.25, n)),
    "gamma, looks known": (ClutterKind.gamma, 4.0, lambda rng, n: rng.gamma(4, 0.25, n)),
    "k": (ClutterKind.k, 4.0, lambda rng, n: rng.gamma(4, 0.25, n) * rng.gamma(3, 1 / 3, n)),
}


@pytest.mark.parametrize("name", CLUTTERS)
@pytest.mark.parametrize("share_valid", [1.0, 0.7])
def test_clutter_alone_keeps_the_false_alarm_rate(rng, config, name, share_valid):
    """Single pixels are counted: as they are rare, hardly any two touch and count as one."""
    kind, looks, draw = CLUTTERS[name]
    size, pfa = 700, 5e-4
    clutter = draw(rng, (size, size))
    valid = rng.random(clutter.shape) < share_valid
    config = replace(config, distribution=kind, looks=looks, pfa=pfa, extent_pfa=pfa)
    found = found_in(np.where(valid, clutter, 1e9), config, valid)
    expected = pfa * valid.sum()
    # Binomial limits of 99.9 %, and 3 % for touching pixels and for looks estimated from a ring.
    assert abs(len(found) - expected) < 3.3 * np.sqrt(expected) + 0.03 * expected


def test_a_ship_is_boxed_to_the_pixel(rng, config):
    image = with_ship(speckle(rng, (150, 160)), top=70, left=40)
    config = replace(config, extent_pfa=1e-5)
    found = found_in(image, config)
    assert found.boxes[0].tolist() == [40, 70, 48, 73]
    assert 0.5 <= found.scores[0] < 1


def test_scores_rise_with_brightness_and_are_half_at_the_threshold(rng, config):
    image = with_ship(speckle(rng, (150, 300)), top=70, left=40, level=20.0)
    image = with_ship(image, top=70, left=240, level=200.0)
    bright, faint = found_in(image, replace(config, pfa=1e-5)).scores[:2]
    assert bright > faint > 0.5
    assert (np.diff(found_in(image, replace(config, pfa=1e-2)).scores) <= 0).all()
    assert found_in(image, replace(config, pfa=1e-2, extent_pfa=0.05)).scores.min() >= 0.5


def test_what_is_no_data_is_neither_found_nor_background(rng, config):
    image = with_ship(speckle(rng, (150, 160)), top=70, left=40)
    valid = everywhere(image)
    valid[:, 90:] = False
    image[:, 90:] = 1e6
    found = found_in(image, config, valid)
    assert found.boxes[0].tolist()[:2] == [40, 70]
    assert (found.boxes[:, 2] <= 90).all()


def test_the_same_ship_is_found_in_every_unit(rng, config):
    intensity = with_ship(speckle(rng, (150, 160, 1)), top=70, left=40)
    valid = everywhere(intensity)
    stored = {
        StoredAs.intensity: intensity,
        StoredAs.amplitude: np.sqrt(intensity),
        StoredAs.db: 10 * np.log10(intensity),
    }
    found = [
        find_objects(intensity_of(pixels, valid, unit), valid, config, pixel_m=PIXEL_M)
        for unit, pixels in stored.items()
    ]
    assert len(found[0]) >= 1
    assert all(each.boxes.tolist() == found[0].boxes.tolist() for each in found)


def test_a_zero_of_an_integer_file_is_half_a_step():
    pixels = np.array([[[0], [3]]], np.uint8)
    valid = np.array([[True, True]])
    assert intensity_of(pixels, valid, StoredAs.amplitude).ravel().tolist() == [0.25, 9.0]


def test_a_second_pass_finds_the_ship_beside_a_brighter_one(rng, config):
    image = with_ship(speckle(rng, (200, 200)), top=90, left=90, height=12, width=4, level=3000)
    image = with_ship(image, top=60, left=100, height=3, width=3, level=25.0)
    config = replace(config, guard_m=250.0, background_m=900.0)

    def is_found(passes):
        boxes = found_in(image, replace(config, passes=passes)).boxes
        return bool(((boxes[:, 1] < 63) & (boxes[:, 3] > 60)).any())

    assert not is_found(1)
    assert is_found(2)


def test_objects_outside_the_size_limits_are_left_out(rng, config):
    image = with_ship(speckle(rng, (200, 200)), top=50, left=50, height=2, width=2)
    image = with_ship(image, top=120, left=50, height=3, width=24)
    config = replace(config, extent_pfa=1e-5)

    def widths(**limits):
        boxes = found_in(image, replace(config, **limits)).boxes
        return sorted((boxes[:, 2] - boxes[:, 0]).tolist())[-2:]

    assert widths() == [2, 24]
    assert widths(min_size_m=100.0) == [24]
    assert 24 not in widths(max_size_m=100.0)


def test_a_ship_in_one_channel_is_enough(rng, config):
    image = speckle(rng, (150, 160, 2))
    image[70:73, 40:48, 1] = 60.0
    for rule in ChannelRule:
        found = find_objects(
            image, everywhere(image), replace(config, channels=rule), pixel_m=PIXEL_M
        )
        assert found.boxes[0].tolist()[0] == pytest.approx(40, abs=1)


def test_all_channels_together_keep_the_rate(rng, config):
    image = speckle(rng, (600, 600, 3))
    config = replace(config, pfa=1e-3, extent_pfa=1e-3)
    expected = 1e-3 * 600 * 600
    found = find_objects(image, everywhere(image), config, pixel_m=PIXEL_M)
    assert abs(len(found) - expected) < 3.3 * np.sqrt(expected) + 0.05 * expected


def test_contrast_below_the_limit_is_not_found(rng, config):
    image = with_ship(speckle(rng, (150, 160), looks=100.0), top=70, left=40, level=2.5)
    assert len(found_in(image, config)) == 1
    assert len(found_in(image, replace(config, min_contrast_db=6.0))) == 0


def test_windows_follow_the_pixels(config):
    windows = windows_px(config, (10.0, 40.0))
    assert windows.guard == (49, 13)
    assert windows.background == (81, 21)


def test_pixels_too_large_for_the_windows_are_refused(config):
    with pytest.raises(ConfigError, match=r"background_m=800 leave no ring of pixels of 500"):
        windows_px(config, (500.0, 500.0))


def test_a_class_that_is_not_there_is_refused(config, typed_config):
    radiometry = Radiometry.from_config(typed_config().radiometry)
    with pytest.raises(ConfigError, match="class_name=boat must be one of ship, platform"):
        Cfar(replace(config, class_name="boat"), radiometry, PIXEL_M, ("ship", "platform"))


def test_tiles_get_detections_of_the_named_class(rng, config, typed_config):
    radiometry = replace(
        Radiometry.from_config(typed_config().radiometry), stored_as=StoredAs.intensity
    )
    cfar = Cfar(replace(config, class_name="ship"), radiometry, PIXEL_M, ("platform", "ship"))
    image = with_ship(speckle(rng, (150, 160)), top=70, left=40)
    empty = np.zeros((150, 160, 1))
    tiles = [
        SimpleNamespace(pixels=image[:, :, None], valid=everywhere(image)),
        SimpleNamespace(pixels=empty, valid=everywhere(empty)),
        SimpleNamespace(pixels=empty, valid=~everywhere(empty)),
    ]
    found, *rest = cfar(tiles)
    assert found.classes.tolist() == [1] * len(found)
    assert len(found) >= 1
    assert [len(each) for each in rest] == [0, 0]


def test_a_ship_on_a_flat_sea_is_certain(config):
    image = with_ship(np.ones((150, 160)), top=70, left=40)
    found = found_in(image, config)
    assert found.boxes.tolist() == [[40, 70, 48, 73]]
    assert 0.99 < found.scores[0] <= 1.0


@pytest.mark.parametrize("scale", StoredAs)
@pytest.mark.parametrize("level", [0.1, 37.0**2, 255.0**2])
def test_a_flat_ground_holds_nothing_but_rounding(config, scale, level):
    image, valid = np.full((200, 200), level), np.ones((200, 200), bool)
    valid[50:120, 60:90] = False
    config = replace(config, distribution=ClutterKind.gaussian, scale=scale, target_m=30.0)
    assert len(found_in(np.where(valid, image, 0.0), config, valid)) == 0
