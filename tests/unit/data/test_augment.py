"""Pipelines are a function of chip and generator, move boxes with pixels, and name mistakes."""

import os
import pickle
import random

import numpy as np
import pytest

from sar_experiments.config import AugmentConfig, MapperKind
from sar_experiments.data.augment import ClassAware, alone, build_augmentation, build_pipeline
from sar_experiments.data.chip import CROWD, Chip
from sar_experiments.errors import ConfigError

HORIZONTAL = {"_target_": "albumentations.HorizontalFlip", "p": 1.0}
VERTICAL = {"_target_": "albumentations.VerticalFlip", "p": 1.0}
ROTATION = {"_target_": "albumentations.Rotate", "limit": [10, 10], "border_mode": 0, "p": 1.0}
EVERYTHING = {
    "flip": {"_target_": "albumentations.HorizontalFlip", "p": 0.5},
    "brightness": {"_target_": "albumentations.RandomBrightnessContrast", "p": 0.5},
    "rotation": {"_target_": "albumentations.Rotate", "limit": 10, "border_mode": 0, "p": 0.5},
    "noise": {"_target_": "albumentations.GaussNoise", "p": 0.5},
    "one_of": {
        "_target_": "albumentations.OneOf",
        "transforms": [
            {"_target_": "albumentations.GaussianBlur", "p": 1.0},
            {"_target_": "albumentations.RandomGamma", "p": 1.0},
        ],
    },
    "crop": {"_target_": "sar_experiments.data.augment.ObjectCrop", "size_px": 40},
    "speckle": {"_target_": "sar_experiments.data.augment.GammaSpeckle"},
    "gain": {"_target_": "sar_experiments.data.augment.GainJitter"},
}


def pipeline(*transforms, min_visible_share=0.3):
    named = {f"t{index}": each for index, each in enumerate(transforms)}
    return build_pipeline(named, min_visible_share=min_visible_share)


def marked(channels=1, size=(60, 90), box=(10, 20, 25, 28)):
    """A chip whose box is filled with its brightest pixels, each channel differently."""
    image = np.full((*size, channels), 0.1, np.float32)
    left, top, right, bottom = box
    image[top:bottom, left:right] = 0.5 + 0.1 * np.arange(channels)
    return Chip.of(image, [box], [3])


def area(chip):
    left, top, right, bottom = chip.boxes[0]
    return (right - left) * (bottom - top)


def config(mapper=MapperKind.plain, **settings):
    return AugmentConfig(
        name="test",
        mapper=mapper,
        min_size_train=[],
        max_size_train=1333,
        min_size_test=0,
        max_size_test=1333,
        repeat_threshold=0.0,
        min_visible_share=0.3,
        **settings,
    )


def sample(*classes):
    annotations = [{"category_id": each, "iscrowd": 0} for each in classes]
    return {"annotations": annotations}


# --- Deterministic


def test_one_seed_gives_one_result_and_another_seed_another(rng):
    noisy = Chip.of(rng.random((64, 64, 2), dtype=np.float32), [(5, 5, 30, 40)], [0])
    augment = build_pipeline(EVERYTHING, min_visible_share=0.3)
    first = [augment(noisy, np.random.default_rng([7, k])) for k in range(12)]
    again = [augment(noisy, np.random.default_rng([7, k])) for k in reversed(range(12))][::-1]
    other = [augment(noisy, np.random.default_rng([8, k])) for k in range(12)]
    for one, two in zip(first, again, strict=True):
        assert np.array_equal(one.image, two.image)
        assert np.array_equal(one.boxes, two.boxes)
    assert len({each.image.tobytes() for each in first + other}) == 24


def test_a_pickled_pipeline_gives_the_same_result():
    augment = build_pipeline(EVERYTHING, min_visible_share=0.3)
    copied = pickle.loads(pickle.dumps(augment))
    for seed in range(8):
        one, two = (each(marked(), np.random.default_rng(seed)) for each in (augment, copied))
        assert np.array_equal(one.image, two.image)


def test_global_generators_are_neither_read_nor_moved():
    augment = build_pipeline(EVERYTHING, min_visible_share=0.3)
    results = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the global state is what is tested
        before = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
        results.append([augment(marked(), np.random.default_rng(k)).image for k in range(8)])
        assert random.getstate() == before[0]
        assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    for one, two in zip(*results, strict=True):
        assert np.array_equal(one, two)


def test_the_chip_that_is_handed_in_is_not_altered():
    chip = marked()
    before = chip.image.copy()
    augment = build_pipeline(EVERYTHING, min_visible_share=0.3)
    for seed in range(8):
        augment(chip, np.random.default_rng(seed))
    assert np.array_equal(chip.image, before)
    assert chip.boxes.tolist() == [[10, 20, 25, 28]]


def test_albumentations_does_not_ask_the_internet_for_news():
    assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"


# --- Pixels and boxes move together


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize(
    ("transform", "axis"), [(HORIZONTAL, 1), (VERTICAL, 0)], ids=["horizontal", "vertical"]
)
def test_flips_are_exact_in_every_channel(rng, channels, transform, axis):
    image = rng.random((31, 47, channels), dtype=np.float32)
    flipped = pipeline(transform)(Chip.of(image, [(3, 4, 10.5, 20)], [0]), rng)
    assert np.array_equal(flipped.image, np.flip(image, axis))
    expected = [36.5, 4, 44, 20] if axis == 1 else [3, 11, 10.5, 27]
    assert flipped.boxes[0] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize(
    "transform",
    [
        HORIZONTAL,
        VERTICAL,
        {"_target_": "albumentations.RandomRotate90", "p": 1.0},
        {"_target_": "albumentations.Transpose", "p": 1.0},
        {"_target_": "albumentations.RandomCrop", "height": 50, "width": 80, "p": 1.0},
        {"_target_": "sar_experiments.data.augment.ObjectCrop", "size_px": 40},
    ],
    ids=lambda each: each["_target_"].rpartition(".")[2],
)
def test_the_box_still_holds_exactly_its_pixels(channels, transform):
    augment = pipeline(transform)
    for seed in range(6):
        result = augment(marked(channels), np.random.default_rng(seed))
        assert result.image.shape[2] == channels
        bright = np.argwhere(result.image[:, :, -1] > 0.3)
        low, high = bright.min(axis=0), bright.max(axis=0) + 1
        box = [low[1], low[0], high[1], high[0]]
        assert result.boxes[0] == pytest.approx(box, abs=1e-3)


def test_a_small_rotation_does_not_inflate_the_box_of_an_outline(rng):
    ship = np.array([[10, 28], [50, 10], [52, 14], [12, 32]], float)
    box = [*ship.min(axis=0), *ship.max(axis=0)]
    chip = Chip.of(np.zeros((60, 60, 1), np.float32), [box], [0], ((ship,),))
    result = pipeline(ROTATION)(chip, rng)
    assert result.outlines is not None
    turned = result.outlines[0][0]
    hull = [*turned.min(axis=0), *turned.max(axis=0)]
    assert result.boxes[0] == pytest.approx(hull)
    without_outline = pipeline(ROTATION)(Chip.of(chip.image, [box], [0]), rng)
    assert area(result) < 0.9 * area(without_outline)


def test_the_outline_turns_with_the_pixels(rng):
    chip = marked(size=(101, 101), box=(20, 40, 80, 60))
    left, top, right, bottom = chip.boxes[0]
    outline = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    with_outline = Chip.of(chip.image, chip.boxes, [0], ((outline,),))
    result = pipeline({**ROTATION, "limit": [30, 30]})(with_outline, rng)
    bright = np.argwhere(result.image[:, :, 0] > 0.3)
    low, high = bright.min(axis=0), bright.max(axis=0) + 1
    assert result.boxes[0] == pytest.approx([low[1], low[0], high[1], high[0]], abs=1.5)


def test_a_rotation_as_ellipse_hardly_changes_a_box_without_outline(rng):
    chip = marked(size=(101, 101), box=(20, 45, 80, 60))
    ellipse = pipeline({**ROTATION, "rotate_method": "ellipse"})(chip, rng).boxes[0]
    corners = pipeline(ROTATION)(chip, rng).boxes[0]
    assert 15 < ellipse[3] - ellipse[1] < 19
    assert corners[3] - corners[1] > 24


def test_boxes_cropped_away_go_with_their_classes(rng):
    chip = Chip.of(np.zeros((60, 60, 1), np.float32), [(0, 0, 10, 10), (45, 45, 55, 55)], [4, 9])
    crop = {"_target_": "albumentations.Crop", "x_min": 30, "y_min": 30, "x_max": 60, "y_max": 60}
    result = pipeline({**crop, "p": 1.0})(chip, rng)
    assert result.classes.tolist() == [9]
    assert result.boxes.tolist() == [[15, 15, 25, 25]]


def test_what_a_crop_cut_off_does_not_come_back_with_a_rotation(rng):
    chip = Chip.of(np.zeros((60, 60, 1), np.float32), [(0, 0, 10, 10)], [0])
    crop = {"_target_": "albumentations.Crop", "x_min": 11, "y_min": 0, "x_max": 60, "y_max": 60}
    half_turn = {**ROTATION, "limit": [45, 45]}
    assert len(pipeline({**crop, "p": 1.0}, half_turn)(chip, rng)) == 0


@pytest.mark.parametrize(
    "box", [(10, 10, 10, 30), (30, 10, 20, 30), (-20, -20, -5, -5), (10, 10, 10.4, 12)]
)
def test_degenerate_boxes_are_dropped_instead_of_failing(rng, box):
    chip = Chip.of(np.zeros((60, 60, 1), np.float32), [box, (20, 20, 40, 40)], [0, 1])
    assert pipeline(HORIZONTAL, ROTATION)(chip, rng).classes.tolist() == [1]


def test_a_chip_without_objects_is_augmented_too(rng):
    empty = Chip.of(rng.random((64, 64, 1), dtype=np.float32))
    augment = build_pipeline(EVERYTHING, min_visible_share=0.3)
    results = [augment(empty, np.random.default_rng(k)) for k in range(10)]
    assert all(len(each) == 0 for each in results)
    assert any(each.image.shape != empty.image.shape for each in results)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("name", EVERYTHING)
def test_every_transform_keeps_channels_type_and_range(rng, channels, name):
    image = rng.random((64, 80, channels), dtype=np.float32)
    result = alone(build_pipeline({name: EVERYTHING[name]}, min_visible_share=0.3), name)(
        Chip.of(image, [(10, 10, 40, 30)], [0]), rng
    )
    assert result.image.shape[2] == channels
    assert result.image.dtype == np.float32
    assert result.image.min() >= 0
    assert result.image.max() <= 1


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_brightness_treats_all_channels_alike(rng, channels):
    image = rng.uniform(0.3, 0.6, (20, 20, 1)).astype(np.float32).repeat(channels, axis=2)
    brightness = {"_target_": "albumentations.RandomBrightnessContrast", "p": 1.0}
    result = pipeline(brightness)(Chip.of(image), rng).image
    assert np.ptp(result, axis=2).max() < 1e-6
    assert not np.array_equal(result, image)


def test_brightness_of_the_mean_does_not_turn_a_dark_image_black(compose_config):
    transforms = compose_config("augment=sar_ships").augment.transforms
    augment = pipeline({**transforms["brightness_contrast"], "p": 1.0})
    dark = Chip.of(np.full((20, 20, 1), 200 / 65535, np.float32))  # 16-bit digital numbers
    for seed in range(30):
        ratio = augment(dark, np.random.default_rng(seed)).image / dark.image
        assert 0.5 < ratio.min() <= ratio.max() < 1.5


# --- Mistakes


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (
            {"_target_": "albumentations.HorizntalFlip"},
            r"augment\.transforms\.mine\._target_=albumentations\.HorizntalFlip: .*"
            r"did you mean albumentations\.HorizontalFlip",
        ),
        ({"_target_": "albumentatoins.Rotate"}, r"mine\._target_=.* cannot be imported"),
        ({"_target_": "builtins.dict"}, r"mine\._target_=builtins\.dict is no transform; accepted"),
        ({"p": 0.5}, r"transforms\.mine=.* must have a _target_"),
        ("flip", r"transforms\.mine=flip must have a _target_"),
        (
            {"_target_": "albumentations.Rotate", "limt": 5},
            r"transforms\.mine .*'limt' are not valid.*accepted are .*limit",
        ),
        (
            {"_target_": "sar_experiments.data.augment.GammaSpeckle", "loks": [1, 2]},
            "'loks'; accepted are .*looks",
        ),
        ({"_target_": "albumentations.Rotate", "p": 2}, r"transforms\.mine .*\bp\b"),
        ({"_target_": "albumentations.Rotate", "limit": "wide"}, "limit"),
        (
            {"_target_": "sar_experiments.data.augment.GammaSpeckle", "looks": [0, 2]},
            "looks=.*must be two rising numbers",
        ),
        (
            {
                "_target_": "albumentations.OneOf",
                "transforms": [{"_target_": "albumentations.Rotate", "limt": 5}],
            },
            "limt",
        ),
        (
            {
                "_target_": "albumentations.OneOf",
                "transforms": [{"_target_": "sar_experiments.data.augment.GainJitter"}],
            },
            r"transforms\[0\]\._target_=.*GainJitter cannot be nested",
        ),
        (
            {"_target_": "albumentations.RandomSizedBBoxSafeCrop", "height": 8, "width": 8},
            "needs bboxes.*ObjectCrop",
        ),
        ({"_target_": "albumentations.MaskDropout"}, "needs mask"),
    ],
)
def test_a_mistake_in_a_transform_is_named(transform, message):
    with pytest.raises(ConfigError, match=message):
        build_pipeline({"mine": transform}, min_visible_share=0.3)


@pytest.mark.parametrize("place", ["target", "argument", "argument of a nested one", "positional"])
def test_only_transforms_are_called_whatever_a_config_asks_for(tmp_path, place):
    call = {"_target_": "os.mkdir", "_args_": [str(tmp_path / "made")]}
    flip = {"_target_": "albumentations.HorizontalFlip", "p": call}
    transform = {
        "target": call,
        "argument": flip,
        "argument of a nested one": {"_target_": "albumentations.OneOf", "transforms": [flip]},
        "positional": {"_target_": "albumentations.Rotate", "_args_": [{"deep": [call]}]},
    }[place]
    with pytest.raises(ConfigError, match=r"augment\.transforms\.mine.*accepted are"):
        build_pipeline({"mine": transform}, min_visible_share=0.3)
    assert not list(tmp_path.iterdir())


def test_a_transform_that_cannot_take_the_image_is_named(rng):
    colours = pipeline({"_target_": "albumentations.HueSaturationValue", "p": 1.0})
    with pytest.raises(ConfigError, match=r"transform t0 failed on .*\(60, 90, 2\)"):
        colours(marked(2), rng)


def test_null_takes_a_transform_out():
    augment = build_pipeline({"flip": HORIZONTAL, "turn": None}, min_visible_share=0.3)
    assert list(augment.steps) == ["flip"]


# --- Class-aware


def class_aware(policies, samples, classes=("ship", "tank", "crane")):
    return build_augmentation(
        config(MapperKind.class_aware, transforms={"flip": HORIZONTAL}, policies=policies),
        classes=classes,
        samples=samples,
    )


TRAINING_SET = [sample(0), sample(0, 1), sample(0, 1), sample(2), sample()]


def test_an_image_takes_the_policy_of_its_rarest_class():
    augment = class_aware({"tank": {"turn": ROTATION}, "ship": {}}, TRAINING_SET)
    assert isinstance(augment, ClassAware)
    assert list(augment.pipeline_for([0, 1, 0]).steps) == ["flip", "turn"]
    assert augment.pipeline_for([0]) is augment.policies[0]
    assert augment.pipeline_for([0, 1, 2]) is augment.plain  # crane is rarest, without a policy


def test_an_image_without_objects_takes_the_plain_transforms():
    augment = class_aware({"tank": {"turn": ROTATION}}, TRAINING_SET)
    assert augment.pipeline_for([]) is augment.plain
    assert augment.pipeline_for([CROWD]) is augment.plain


def test_a_policy_replaces_joins_and_removes_by_name():
    policies = {"tank": {"flip": VERTICAL}, "crane": {"flip": None, "turn": ROTATION}}
    augment = class_aware(policies, TRAINING_SET)
    assert [list(augment.policies[index].steps) for index in (1, 2)] == [["flip"], ["turn"]]
    chip, rng = marked(), np.random.default_rng(0)
    tank = Chip.of(chip.image, chip.boxes, [1])
    assert np.array_equal(augment(tank, rng).image, np.flip(chip.image, 0))


def test_class_aware_without_policies_is_the_plain_pipeline():
    assert list(class_aware({}, []).steps) == ["flip"]


def test_class_aware_is_refused_for_one_class():
    with pytest.raises(ConfigError, match=r"there is only the class 'ship'.*augment=sar_ships"):
        class_aware({"ship": {"turn": ROTATION}}, [sample(0)], classes=("ship",))


def test_a_policy_for_an_unknown_class_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"policies\.tnk names no class; did you mean tank"):
        class_aware({"tnk": {}}, TRAINING_SET)


def test_a_mistake_in_a_policy_is_named_with_its_class():
    policy = {"turn": {"_target_": "albumentations.Rotate", "limt": 5}}
    with pytest.raises(ConfigError, match=r"augment\.policies\.tank\.turn .*limt"):
        class_aware({"tank": policy}, TRAINING_SET)


def test_a_policy_must_be_named_transforms():
    with pytest.raises(ConfigError, match=r"augment\.policies\.tank=flip must map names"):
        class_aware({"tank": "flip"}, TRAINING_SET)


@pytest.mark.parametrize("name", ["none", "flips", "sar_ships", "sar_strong", "class_aware"])
@pytest.mark.parametrize("radiometry", ["amplitude_8bit", "uint16_amplitude"])
def test_every_shipped_policy_can_be_built_and_used(typed_config, name, radiometry):
    augment = typed_config(
        f"augment={name}", f"radiometry={radiometry}", "usecase.classes=[ship,tank]"
    ).augment
    pipeline = build_augmentation(augment, classes=("ship", "tank"), samples=[sample(0)])
    for seed in range(4):
        result = pipeline(
            marked(size=(700, 700)), np.random.default_rng(seed), lambda _: marked(size=(200, 200))
        )
        assert result.image.dtype == np.float32
