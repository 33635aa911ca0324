"""The contact sheet shows every transform and every class, and is written whole."""

import numpy as np
import pytest

from sar_experiments.config import AugmentConfig, MapperKind
from sar_experiments.data.images import read_image, write_image

pytest.importorskip("detectron2")

from sar_experiments.data import browse
from sar_experiments.data.browse import contact_sheet
from sar_experiments.data.drawing import class_colour, visible
from sar_experiments.data.mapper import SarMapper

pytestmark = pytest.mark.detectron2

TILE_PX = 64
ROW_PX = TILE_PX + browse._CAPTION_PX + browse._GAP_PX
LEGEND_PX = browse._LINE_PX + browse._GAP_PX


class Linear:
    """Stands in for Radiometry."""

    nodata = None

    def encode(self, pixels, *, valid=None):
        return pixels.astype(np.float32) / 255


class Data:
    def __init__(self, samples):
        self.samples, self.classes = samples, ("ship", "tank")


@pytest.fixture
def samples(tmp_path, rng):
    """Two images with a bright ship or tank, and one without objects."""
    made = []
    for index, classes in enumerate([[0], [1], []]):
        pixels = rng.integers(10, 40, (80, 80, 1)).astype(np.uint8)
        pixels[30:40, 20:50] = 240
        path = tmp_path / f"{index}.png"
        write_image(path, pixels)
        boxes = [
            {"bbox": [20, 30, 50, 40], "bbox_mode": 0, "category_id": each, "iscrowd": 0}
            for each in classes
        ]
        keys = {"file_name": str(path), "image_id": index, "height": 80, "width": 80}
        made.append({**keys, "scene": "a", "annotations": boxes})
    return made


def mapper_for(samples, *, is_train=True, policies=None):
    augment = AugmentConfig(
        name="test",
        mapper=MapperKind.class_aware if policies else MapperKind.plain,
        min_size_train=[],
        max_size_train=1333,
        min_size_test=0,
        max_size_test=1333,
        transforms={
            "flip": {"_target_": "albumentations.HorizontalFlip", "p": 0.0},
            "speckle": {"_target_": "sar_experiments.data.augment.GammaSpeckle", "p": 0.0},
        },
        policies=policies or {},
        repeat_threshold=0.0,
        min_visible_share=0.3,
    )
    return SarMapper(Linear(), augment, is_train=is_train, dataset=Data(samples))


def sheet_of(samples, path, **settings):
    mapper = mapper_for(samples, **settings)
    contact_sheet(samples, mapper, ("ship", "tank"), path, columns=2, tile_px=TILE_PX)
    return read_image(path)


def row(sheet, index):
    start = LEGEND_PX + index * ROW_PX
    return sheet[start : start + TILE_PX, browse.LABEL_PX : browse.LABEL_PX + TILE_PX]


def test_there_is_a_row_per_transform_per_class_and_for_background(samples, tmp_path):
    sheet = sheet_of(samples, tmp_path / "sheet.png")
    # as it is, flip, speckle, all on ship, all on tank, all without objects
    assert sheet.shape[0] == LEGEND_PX + 6 * ROW_PX


def test_a_transform_is_shown_whatever_its_probability(samples, tmp_path):
    sheet = sheet_of(samples, tmp_path / "sheet.png").astype(int)
    as_it_is, flipped, speckled, together = (row(sheet, index) for index in range(4))
    assert np.abs(as_it_is - np.flip(flipped, 1)).mean() < 8  # box lines are not mirrored exactly
    assert np.abs(as_it_is - flipped).mean() > 8
    assert np.abs(as_it_is - speckled).mean() > 2
    assert not np.array_equal(as_it_is, speckled)
    assert together.shape == as_it_is.shape


def test_a_policy_gets_rows_for_what_it_changes(samples, tmp_path):
    policies = {"tank": {"turn": {"_target_": "albumentations.RandomRotate90"}}}
    sheet = sheet_of(samples, tmp_path / "sheet.png", policies=policies)
    plain = sheet_of(samples, tmp_path / "plain.png")
    assert sheet.shape[0] >= plain.shape[0] + ROW_PX


def test_boxes_are_drawn_in_the_colour_of_their_class(samples, tmp_path):
    sheet = sheet_of(samples, tmp_path / "sheet.png")
    for index in (0, 1):
        of_class = row(sheet, 3 + index)
        colour = np.array(class_colour(index))
        assert (np.abs(of_class.astype(int) - colour).sum(axis=2) == 0).sum() > 30


def test_one_seed_gives_one_sheet(samples, tmp_path):
    first = sheet_of(samples, tmp_path / "a.png")
    assert np.array_equal(first, sheet_of(samples, tmp_path / "b.png"))


def test_only_the_sheet_is_left_behind(samples, tmp_path):
    before = set(tmp_path.iterdir())
    sheet_of(samples, tmp_path / "sheet.png")
    assert set(tmp_path.iterdir()) - before == {tmp_path / "sheet.png"}


def test_a_mapper_that_does_not_augment_is_refused(samples, tmp_path):
    with pytest.raises(ValueError, match="is_train=False must be True"):
        sheet_of(samples, tmp_path / "sheet.png", is_train=False)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_number_of_channels_can_be_shown(channels):
    shown = visible(np.full((4, 4, channels), 0.5, np.float32))
    assert shown.shape == (4, 4, 3)
    assert shown.dtype == np.uint8
