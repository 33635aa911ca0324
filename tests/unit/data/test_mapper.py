"""One sample becomes one model input, whatever the file stores and however few objects it has."""

import pickle

import numpy as np
import pytest

from sar_experiments.config import AugmentConfig, MapperKind
from sar_experiments.data.images import write_image
from sar_experiments.errors import ConfigError, DatasetError

torch = pytest.importorskip("torch")
pytest.importorskip("detectron2")

from sar_experiments.data.mapper import SarMapper  # noqa: E402

pytestmark = pytest.mark.detectron2

FLIP = {"_target_": "albumentations.HorizontalFlip", "p": 1.0}


class Linear:
    """Stands in for Radiometry: stored numbers over the largest of them."""

    nodata = None

    def __init__(self, largest=255.0):
        self.largest = largest

    def encode(self, pixels, valid=None):
        return (pixels.astype(np.float32) / self.largest).clip(0, 1)


class Data:
    def __init__(self, samples, classes=("ship", "tank")):
        self.samples, self.classes = samples, classes


def config(**settings):
    defaults = {
        "name": "test",
        "mapper": MapperKind.plain,
        "min_size_train": [],
        "max_size_train": 1333,
        "min_size_test": 0,
        "max_size_test": 1333,
        "transforms": {},
        "policies": {},
        "repeat_threshold": 0.0,
        "min_visible_share": 0.3,
    }
    return AugmentConfig(**(defaults | settings))


def annotation(*box, category_id=0, iscrowd=0, outlined=False):
    left, top, right, bottom = box
    made = {"bbox": list(box), "bbox_mode": 0, "category_id": category_id, "id": 17, "area": 1.0}
    if outlined:
        made["segmentation"] = [[left, top, right, top, right, bottom, left, bottom]]
    return made | {"iscrowd": iscrowd}


@pytest.fixture
def make_sample(tmp_path):
    """Write an image and return its sample."""

    def make(pixels, *annotations, name="chip.tif", image_id=5):
        path = tmp_path / name
        write_image(path, pixels)
        height, width = pixels.shape[:2]
        return {
            "file_name": str(path),
            "image_id": image_id,
            "height": height,
            "width": width,
            "scene": "a",
            "annotations": list(annotations),
        }

    return make


def gray(height=40, width=60, channels=1, dtype=np.uint8, value=100):
    return np.full((height, width, channels), value, dtype)


def train_mapper(*, radiometry=None, with_masks=False, dataset=None, **settings):
    return SarMapper(
        radiometry or Linear(),
        config(**settings),
        is_train=True,
        with_masks=with_masks,
        dataset=dataset,
    )


def eval_mapper(**settings):
    return SarMapper(Linear(), config(**settings), is_train=False)


# --- Pixels


def test_an_image_becomes_a_float_tensor_of_channels_rows_and_columns(make_sample):
    record = eval_mapper()(make_sample(gray(value=51)))
    assert record["image"].shape == (1, 40, 60)
    assert record["image"].dtype == torch.float32
    assert torch.all(record["image"] == 0.2)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_not_saturated(make_sample, rng, suffix):
    pixels = rng.integers(0, 65536, (30, 30, 1)).astype(np.uint16)
    mapper = SarMapper(Linear(65535.0), config(), is_train=False)
    image = mapper(make_sample(pixels, name=f"chip.{suffix}"))["image"]
    assert np.allclose(image[0].numpy() * 65535, pixels[:, :, 0], atol=0.02)


def test_a_dark_sixteen_bit_image_is_not_blackened_by_brightness(make_sample, compose_config):
    transforms = compose_config("augment=sar_ships").augment.transforms
    brightness = {**transforms["brightness_contrast"], "p": 1.0}
    mapper = train_mapper(radiometry=Linear(65535.0), transforms={"b": brightness})
    sample = make_sample(gray(dtype=np.uint16, value=200))
    for seed in range(20):
        image = mapper(sample, np.random.default_rng(seed))["image"] * 65535
        assert 100 < image.min() <= image.max() < 300


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_resizing_mixes_no_channels(make_sample, rng, channels):
    pixels = rng.integers(0, 256, (48, 64, channels)).astype(np.uint8)
    pixels[:, :, 0] = 255
    pixels[:, :, 1:] //= 8
    together = eval_mapper(min_size_test=36)(make_sample(pixels))["image"]
    for channel in range(channels):
        single = make_sample(np.ascontiguousarray(pixels[:, :, channel : channel + 1]))
        assert torch.equal(together[channel], eval_mapper(min_size_test=36)(single)["image"][0])


# --- Sizes


@pytest.mark.parametrize(
    ("size", "longest", "expected"),
    [((40, 60), 1333, (80, 120)), ((60, 40), 1333, (120, 80)), ((40, 60), 90, (60, 90))],
)
def test_the_shortest_edge_is_resized_and_the_longest_capped(make_sample, size, longest, expected):
    record = eval_mapper(min_size_test=80, max_size_test=longest)(make_sample(gray(*size)))
    assert record["image"].shape[1:] == expected
    assert (record["height"], record["width"]) == size  # of the file


def test_training_draws_a_size_per_image(make_sample):
    mapper, sample = train_mapper(min_size_train=[20, 40, 80]), make_sample(gray())
    rows = [mapper(sample, np.random.default_rng(k))["image"].shape[1] for k in range(30)]
    assert set(rows) == {20, 40, 80}


def test_boxes_are_resized_with_the_image(make_sample):
    sample = make_sample(gray(), annotation(10, 20, 30, 40))
    boxes = eval_mapper(min_size_test=80)(sample)["instances"].gt_boxes.tensor
    assert boxes.tolist() == [[20, 40, 60, 80]]


# --- Objects


def test_boxes_and_classes_stay_together_under_augmentation(make_sample):
    sample = make_sample(
        gray(), annotation(0, 0, 10, 10, category_id=1), annotation(50, 0, 60, 20, category_id=0)
    )
    instances = train_mapper(transforms={"flip": FLIP})(sample, np.random.default_rng(0))[
        "instances"
    ]
    assert torch.allclose(
        instances.gt_boxes.tensor, torch.tensor([[50.0, 0, 60, 10], [0, 0, 10, 20]]), atol=1e-3
    )
    assert instances.gt_classes.tolist() == [1, 0]
    assert instances.gt_classes.dtype == torch.int64


@pytest.mark.parametrize("is_train", [True, False])
def test_an_image_without_objects_gives_all_fields(make_sample, is_train):
    mapper = SarMapper(Linear(), config(), is_train=is_train, with_masks=True)
    record = mapper(make_sample(gray()), np.random.default_rng(0))
    instances = record["instances"]
    assert len(instances) == len(instances.gt_boxes) == len(instances.gt_masks) == 0
    assert instances.gt_boxes.tensor.shape == (0, 4)


def test_crowds_are_not_learnt(make_sample):
    sample = make_sample(gray(), annotation(0, 0, 9, 9, iscrowd=1), annotation(20, 20, 30, 30))
    boxes = train_mapper()(sample, np.random.default_rng(0))["instances"].gt_boxes.tensor
    assert boxes.tolist() == [[20, 20, 30, 30]]


def test_degenerate_boxes_are_no_targets(make_sample):
    sample = make_sample(
        gray(), annotation(5, 5, 5, 9), annotation(55, 5, 75, 15), annotation(70, 5, 90, 15)
    )
    boxes = eval_mapper(min_visible_share=0.2)(sample)["instances"].gt_boxes.tensor
    assert boxes.tolist() == [[55, 5, 60, 15]]  # clipped; the others are empty or outside


def test_masks_are_flipped_like_boxes(make_sample):
    sample = make_sample(gray(), annotation(0, 0, 10, 10, outlined=True))
    mapper = train_mapper(with_masks=True, transforms={"flip": FLIP})
    instances = mapper(sample, np.random.default_rng(0))["instances"]
    assert np.allclose(
        instances.gt_masks.get_bounding_boxes().tensor, instances.gt_boxes.tensor, atol=1e-3
    )
    assert instances.gt_boxes.tensor[0, 0] == pytest.approx(50, abs=1e-3)


def test_an_annotation_without_outline_is_refused_where_masks_are_learnt(make_sample):
    sample = make_sample(gray(), annotation(0, 0, 10, 10))
    with pytest.raises(DatasetError, match=r"chip\.tif: annotation 17 has no polygons"):
        train_mapper(with_masks=True)(sample, np.random.default_rng(0))


# --- Files


def test_a_file_that_cannot_be_read_is_named(make_sample, tmp_path):
    sample = make_sample(gray())
    (tmp_path / "chip.tif").unlink()
    with pytest.raises(DatasetError, match=r"chip\.tif is missing"):
        eval_mapper()(sample)


def test_a_file_of_another_size_than_annotated_is_named(make_sample):
    sample = make_sample(gray()) | {"height": 41}
    with pytest.raises(DatasetError, match=r"chip\.tif is 40 x 60, but .* 41 x 60"):
        eval_mapper()(sample)


def test_a_file_that_does_not_fit_the_radiometry_is_named(make_sample):
    class OneChannel:
        nodata = None

        def encode(self, pixels, valid=None):
            raise DatasetError("the image has 2 channels")

    mapper = SarMapper(OneChannel(), config(), is_train=False)
    with pytest.raises(DatasetError, match=r"chip\.tif: the image has 2 channels"):
        mapper(make_sample(gray(channels=2)))


def test_the_sample_is_not_altered(make_sample):
    sample = make_sample(gray(), annotation(0, 0, 10, 10))
    before = pickle.dumps(sample)
    train_mapper(transforms={"flip": FLIP}, min_size_train=[80])(sample, np.random.default_rng(0))
    assert pickle.dumps(sample) == before


# --- The mapper itself


def test_a_pickled_mapper_maps_alike(make_sample):
    noise = {"_target_": "albumentations.GaussNoise", "p": 1.0}
    mapper = train_mapper(transforms={"noise": noise}, min_size_train=[30, 60])
    copied = pickle.loads(pickle.dumps(mapper))
    sample = make_sample(gray())
    for seed in range(5):
        one, two = (each(sample, np.random.default_rng(seed)) for each in (mapper, copied))
        assert torch.equal(one["image"], two["image"])


def test_a_mistake_in_the_transforms_shows_when_the_mapper_is_made():
    with pytest.raises(ConfigError, match="limt"):
        train_mapper(transforms={"turn": {"_target_": "albumentations.Rotate", "limt": 3}})


def test_class_aware_on_one_class_is_refused():
    with pytest.raises(ConfigError, match="there is only the class 'ship'"):
        train_mapper(mapper=MapperKind.class_aware, dataset=Data([], ("ship",)))


def test_pasting_takes_objects_of_another_image(make_sample):
    paste = {"_target_": "sar_experiments.data.augment.CopyPaste", "max_objects": 1, "p": 1.0}
    donor_pixels = gray(128, 128)
    donor_pixels[60:68, 52:68] = 250
    donor = make_sample(donor_pixels, annotation(52, 60, 68, 68, category_id=1), name="a.tif")
    empty = make_sample(gray(128, 128), name="b.tif", image_id=6)
    mapper = train_mapper(
        transforms={"paste": paste}, min_size_train=[256], dataset=Data([donor, empty])
    )
    instances = mapper(empty, np.random.default_rng(1))["instances"]
    assert instances.gt_classes.tolist() == [1]
    left, top, right, bottom = instances.gt_boxes.tensor[0].tolist()
    assert (right - left, bottom - top) == (32, 16)  # enlarged like the image


@pytest.mark.parametrize(
    "settings",
    [
        {"transforms": {"p": {"_target_": "sar_experiments.data.augment.CopyPaste"}}},
        {"mapper": MapperKind.class_aware, "policies": {"ship": {}}},
    ],
)
def test_the_training_set_is_asked_for_where_it_is_needed(settings):
    with pytest.raises(ValueError, match="dataset=None"):
        train_mapper(**settings)


def test_a_training_mapper_asks_for_a_generator(make_sample):
    with pytest.raises(ValueError, match="rng=None"):
        train_mapper()(make_sample(gray()))
