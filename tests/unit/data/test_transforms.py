"""Radar's own transforms do what radar does, follow their generator and refuse wrong values."""

import numpy as np
import pytest

from sar_experiments.config import StoredAs
from sar_experiments.data.chip import CROWD, Chip
from sar_experiments.data.transforms import CopyPaste, Encoded, GainJitter, GammaSpeckle, ObjectCrop


def flat(value=0.2, size=(200, 200), channels=1):
    return Chip.of(np.full((*size, channels), value, np.float32))


def radiometry(encoding, low, high, stored_as="amplitude"):
    return {"encoding": encoding, "stored_as": stored_as, "low": low, "high": high}


def sea_with_ship(rng, *, box=(80, 90, 120, 110), size=(200, 200), outlines=None):
    image = (0.1 + 0.02 * rng.standard_normal((*size, 1))).astype(np.float32)
    left, top, right, bottom = box
    image[top:bottom, left:right] = 0.9
    return Chip.of(np.clip(image, 0, 1), [box], [1], outlines)


# --- Brightness


@pytest.mark.parametrize("looks", [1.0, 4.0, 16.0])
def test_speckle_keeps_the_mean_intensity_and_has_variance_one_over_l(rng, looks):
    image = GammaSpeckle(looks=(looks, looks), p=1.0)(flat(0.1), rng).image
    intensity = (image / 0.1).astype(np.float64) ** 2
    assert intensity.mean() == pytest.approx(1, abs=0.03)
    assert intensity.var() == pytest.approx(1 / looks, rel=0.1)


def test_each_channel_has_its_own_speckle(rng):
    image = GammaSpeckle(looks=(2, 2), p=1.0)(flat(0.2, channels=2), rng).image
    correlation = np.corrcoef(image[:, :, 0].ravel(), image[:, :, 1].ravel())[0, 1]
    assert abs(correlation) < 0.05


def test_speckle_of_a_db_image_is_the_same_speckle(rng):
    low, high = [-30.0], [10.0]
    in_db = GammaSpeckle(looks=(4, 4), radiometry=radiometry("db", low, high), p=1.0)
    image = in_db(flat(0.5), rng).image.astype(np.float64)
    intensity = 10 ** ((image - 0.5) * 40 / 10)
    assert intensity.mean() == pytest.approx(1, abs=0.03)
    assert intensity.var() == pytest.approx(1 / 4, rel=0.1)


@pytest.mark.parametrize(
    ("encoding", "low", "high", "value", "expected"),
    [
        ("linear", None, None, 0.2, 0.4),
        ("linear", [0.0], [255.0], 0.2, 0.4),
        ("linear", [-0.5], [1.5], 0.5, 0.75),  # 0.5 encoded, doubled 1.0
        ("db", [-30.0], [10.0], 0.5, 0.5 + 20 * np.log10(2) / 40),
    ],
)
def test_a_factor_on_amplitude_becomes_what_the_encoding_makes_of_it(
    encoding, low, high, value, expected
):
    scaled = Encoded(radiometry(encoding, low, high)).scaled(flat(value).image, 2.0)
    assert scaled == pytest.approx(expected, abs=1e-5)


def test_a_factor_on_amplitude_is_squared_where_the_image_is_intensity():
    linear = radiometry("linear", [0.0], [1.0], stored_as=StoredAs.intensity)
    assert Encoded(linear).scaled(flat(0.1).image, 2.0) == pytest.approx(0.4, abs=1e-5)


def test_a_factor_on_a_sigmoid_image_shifts_its_decibels():
    def encode(decibels):
        return 1 / (1 + np.exp(-0.18 * (decibels + 20)))

    scaled = Encoded(radiometry("db_sigmoid", [0.0], [1.0])).scaled(
        flat(encode(-15)).image, 10 ** (3 / 20)
    )
    assert scaled == pytest.approx(encode(-12), abs=1e-4)


def test_low_and_high_belong_to_their_channels():
    encoded = Encoded(radiometry("db", [-30.0, -40.0], [10.0, 0.0]))
    scaled = encoded.scaled(flat(0.5, channels=2).image, 10.0)
    assert scaled[0, 0].tolist() == pytest.approx([1.0, 1.0])
    encoded = Encoded(radiometry("db", [-30.0, -40.0], [10.0, 40.0]))
    assert encoded.scaled(flat(0.5, channels=2).image, 10.0)[0, 0] == pytest.approx([1.0, 0.75])


@pytest.mark.parametrize("encoding", ["linear", "db", "db_sigmoid"])
def test_no_data_stays_no_data(rng, encoding):
    transform = GammaSpeckle(radiometry=radiometry(encoding, [0.1], [0.9]), p=1.0)
    assert not transform(flat(0.0), rng).image.any()


def test_gain_changes_all_pixels_by_one_factor_within_the_limit(rng):
    image = rng.uniform(0.1, 0.4, (50, 50, 2)).astype(np.float32)
    gains = []
    for _ in range(50):
        ratio = GainJitter(limit_db=3.0, p=1.0)(Chip.of(image), rng).image / image
        assert np.ptp(ratio) < 1e-5
        gains.append(20 * np.log10(ratio.mean()))
    assert -3.001 < min(gains) < -1.5
    assert 1.5 < max(gains) < 3.001


def test_brightness_never_leaves_zero_to_one(rng):
    image = GammaSpeckle(looks=(1, 1), p=1.0)(flat(0.9), rng).image
    assert image.dtype == np.float32
    assert image.min() >= 0
    assert image.max() == 1


# --- Crops


def test_a_centred_crop_holds_an_object_whole(rng):
    chip = sea_with_ship(rng, box=(5, 150, 45, 170))
    crop = ObjectCrop(64, centred_share=1.0)
    for _ in range(30):
        cut = crop(chip, rng)
        assert cut.image.shape == (64, 64, 1)
        left, top, right, bottom = cut.boxes[0].astype(int)
        assert left >= 0
        assert right <= 64
        assert np.all(cut.image[top:bottom, left:right] == np.float32(0.9))


def test_a_box_between_pixels_is_held_whole_too(rng):
    chip = Chip.of(np.zeros((200, 200, 1), np.float32), [(70.4, 70.6, 90.3, 99.7)], [0])
    for _ in range(50):
        left, top, right, bottom = ObjectCrop(32, centred_share=1.0)(chip, rng).boxes[0]
        assert min(left, top) >= 0
        assert max(right, bottom) <= 32


def test_crops_lie_anywhere_around_the_object(rng):
    chip = sea_with_ship(rng)
    lefts = {int(ObjectCrop(100, centred_share=1.0)(chip, rng).boxes[0, 0]) for _ in range(60)}
    assert len(lefts) > 25


def test_a_crop_without_objects_shows_background(rng):
    assert ObjectCrop(64)(flat(), rng).image.shape == (64, 64, 1)


def test_crowds_are_not_cropped_to(rng):
    crowd = Chip.of(np.zeros((400, 400, 1), np.float32), [(0, 0, 20, 20)], [CROWD])
    lefts = [ObjectCrop(100, centred_share=1.0)(crowd, rng).boxes[0, 0] for _ in range(20)]
    assert min(lefts) < -100


@pytest.mark.parametrize("size", [200, 500])
def test_a_chip_smaller_than_the_crop_stays_whole(rng, size):
    chip = sea_with_ship(rng)
    cut = ObjectCrop(size)(chip, rng)
    assert np.array_equal(cut.image, chip.image)
    assert np.array_equal(cut.boxes, chip.boxes)


def test_an_object_larger_than_the_crop_fills_it(rng):
    chip = sea_with_ship(rng, box=(20, 20, 180, 180))
    cut = ObjectCrop(50, centred_share=1.0)(chip, rng)
    assert np.all(cut.image == np.float32(0.9))


# --- Copy and paste


def pasted(chip, donor, rng, **settings):
    return CopyPaste(**{"max_objects": 1, "p": 1.0, **settings})(chip, rng, lambda _: donor)


def test_a_pasted_object_brings_box_class_and_pixels(rng):
    donor = sea_with_ship(rng)
    result = pasted(flat(0.1), donor, rng)
    assert result.classes.tolist() == [1]
    left, top, right, bottom = result.boxes[0].astype(int)
    assert (right - left, bottom - top) == (40, 20)
    assert np.allclose(result.image[top:bottom, left:right], 0.9, atol=0.02)


def test_no_edge_shows_around_a_pasted_object(rng):
    quiet = flat(0.13, size=(300, 300))
    donor = flat(0.1)
    donor.image[90:110, 80:120] = 0.9
    result = pasted(quiet, Chip.of(donor.image, [(80, 90, 120, 110)], [0]), rng)
    left, top, right, bottom = result.boxes[0].astype(int)
    outside = np.ones(result.image.shape[:2], bool)
    outside[top:bottom, left:right] = False
    assert np.abs(result.image[outside] - 0.13).max() < 1e-5


def test_objects_are_not_pasted_over_others(rng):
    chip = sea_with_ship(rng, box=(20, 20, 180, 180))
    assert len(pasted(chip, sea_with_ship(rng), rng)) == 1


def test_objects_are_not_pasted_over_crowds(rng):
    crowd = Chip.of(np.full((200, 200, 1), 0.1, np.float32), [(10, 10, 190, 190)], [CROWD])
    assert len(pasted(crowd, sea_with_ship(rng), rng)) == 1


def test_ships_stay_off_bright_land(rng):
    half = flat(0.6, size=(200, 400))
    half.image[:, :200] = 0.1
    for _ in range(10):
        result = pasted(half, sea_with_ship(rng), rng, tries=40)
        assert (result.boxes[:, 2] < 200).all()
    assert len(pasted(flat(0.6), sea_with_ship(rng), rng)) == 0


def test_an_object_with_a_neighbour_in_its_margin_is_not_copied(rng):
    chip = sea_with_ship(rng)
    crowded = Chip.of(chip.image, [(80, 90, 120, 110), (122, 90, 150, 110)], [0, 0])
    assert len(pasted(flat(0.1), crowded, rng)) == 0


def test_an_object_at_the_edge_of_its_image_is_not_copied(rng):
    assert len(pasted(flat(0.1), sea_with_ship(rng, box=(2, 90, 40, 110)), rng)) == 0


def test_pasting_leaves_both_chips_as_they_were(rng):
    chip, donor = flat(0.1), sea_with_ship(rng)
    before = chip.image.copy(), donor.image.copy()
    pasted(chip, donor, rng)
    assert np.array_equal(chip.image, before[0])
    assert np.array_equal(donor.image, before[1])


def test_an_outline_comes_along(rng):
    outline = (np.array([[80, 90], [120, 90], [120, 110], [80, 110]], float),)
    donor = sea_with_ship(rng, outlines=(outline,))
    result = pasted(flat(0.1), donor, rng)
    assert result.outlines is not None
    assert result.outlines[0][0].min(axis=0).tolist() == result.boxes[0, :2].tolist()


def test_a_chip_with_outlines_takes_no_object_without(rng):
    outline = (np.array([[5, 5], [15, 5], [15, 15]], float),)
    chip = Chip.of(flat(0.1).image, [(5, 5, 15, 15)], [0], (outline,))
    assert len(pasted(chip, sea_with_ship(rng), rng)) == 1


def test_an_empty_chip_takes_objects_with_and_without_outlines(rng):
    empty = Chip.of(flat(0.1).image, (), (), ())
    assert pasted(empty, sea_with_ship(rng), rng).outlines is None


def test_without_a_donor_nothing_is_pasted(rng):
    assert len(CopyPaste(p=1.0)(flat(0.1), rng, None)) == 0


# --- Settings


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GammaSpeckle(looks=(0.5, 2)), r"looks=\[0\.5, 2\] must be two rising numbers"),
        (lambda: GammaSpeckle(looks=(8, 2)), "rising"),
        (lambda: GammaSpeckle(p=1.5), r"p=1\.5 must lie in \[0, 1\]"),
        (lambda: GainJitter(radiometry={"encoding": "db"}), r"encoding=db needs radiometry\.low"),
        (lambda: GainJitter(limit_db=0), "limit_db=0 must be above 0"),
        (lambda: ObjectCrop(0), "size_px=0 must be 1 or more"),
        (lambda: ObjectCrop(64, centred_share=2), r"centred_share=2 in \[0, 1\]"),
        (lambda: CopyPaste(max_objects=0), "max_objects=0"),
    ],
)
def test_a_wrong_setting_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "transform",
    [GammaSpeckle(p=0.5), GainJitter(p=0.5), ObjectCrop(64, p=0.5), CopyPaste(p=0.5)],
    ids=lambda transform: type(transform).__name__,
)
def test_p_is_the_share_of_chips_that_are_changed(rng, transform):
    chip, donor = sea_with_ship(rng), sea_with_ship(rng)
    changed = [transform(chip, rng, lambda _: donor) is not chip for _ in range(200)]
    assert 70 < sum(changed) < 130
