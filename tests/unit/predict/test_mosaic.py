"""Tiles on one canvas find what each would find alone, with true surroundings instead of a rim."""

import numpy as np
import pytest
import torch
from detectron2.modeling.postprocessing import detector_postprocess

from sar_experiments.data.radiometry import Radiometry
from sar_experiments.geometry import Window
from sar_experiments.model import build
from sar_experiments.predict.detector import Tile
from sar_experiments.predict.mosaic import Place, detect_on_canvas, grid_of, shared_stride
from sar_experiments.predict.network import NetworkDetector

FROZEN = ("model.weights=zoo",)  # frozen norms, as pretrained weights have
SLOW = pytest.mark.slow
FAMILIES = [
    ("tiny", ()),
    pytest.param("faster_rcnn_r50_fpn", FROZEN, marks=SLOW),
    pytest.param("cascade_rcnn_r50_fpn", FROZEN, marks=SLOW),
    pytest.param("mask_rcnn_r50_fpn", FROZEN, marks=SLOW),
    ("retinanet_r50_fpn", FROZEN),
]


@pytest.fixture
def make_detector(typed_config):
    def make(name="tiny", *overrides, scale=1.0):
        config = typed_config("usecase=demo", f"model={name}", *overrides)
        spec = build.ModelSpec(config.model.base, config.d2, ("ship", "platform"))
        torch.manual_seed(0)
        model = build.build_model(build.detectron2_config(spec, device="cpu")).eval()
        radiometry = Radiometry.from_config(config.radiometry)
        return NetworkDetector(model, radiometry, ("ship", "platform"), scale)

    return make


def tiles_of(pixels, *windows, scene="a"):
    parts = [window.of(pixels)[:, :, None] for window in windows]
    return [
        Tile(part, np.ones(part.shape[:2], bool), window, scene)
        for part, window in zip(parts, windows, strict=True)
    ]


@pytest.mark.parametrize(("name", "overrides"), FAMILIES)
@torch.inference_mode()
def test_a_single_tile_on_a_canvas_is_an_image(make_detector, rng, name, overrides):
    model = make_detector(name, *overrides).model
    image = torch.from_numpy(rng.random((1, 96, 128), np.float32))
    (alone,) = model([{"image": image, "height": 96, "width": 128}])
    (found,) = detect_on_canvas(model, image, [Place(0, 0, 96, 128)])
    found = detector_postprocess(found, 96, 128)
    expected = alone["instances"]
    assert len(found) == len(expected) > 0
    assert torch.allclose(found.pred_boxes.tensor, expected.pred_boxes.tensor, atol=1e-2)
    assert torch.allclose(found.scores, expected.scores, atol=1e-4)
    assert torch.equal(found.pred_classes, expected.pred_classes)


@torch.inference_mode()
def test_places_with_equal_surroundings_find_the_same(make_detector, rng):
    model = make_detector().model
    pattern = rng.random((1, 128, 128), np.float32)
    canvas = torch.from_numpy(np.tile(pattern, (1, 5, 6)))
    one, other = detect_on_canvas(
        model, canvas, [Place(256, 256, 128, 128), Place(256, 384, 128, 128)]
    )
    assert len(one) == len(other) > 0
    assert torch.allclose(one.pred_boxes.tensor, other.pred_boxes.tensor, atol=1e-2)


def test_a_network_that_looks_at_the_whole_image_shares_nothing(make_detector):
    assert shared_stride(make_detector("faster_rcnn_r50_fpn", "model.weights=none").model) is None
    assert shared_stride(make_detector("faster_rcnn_r50_fpn", *FROZEN).model) == 64
    assert shared_stride(make_detector("retinanet_r50_fpn", *FROZEN).model) == 128
    assert shared_stride(make_detector().model) == 16


def test_a_radiometry_that_looks_at_the_whole_image_shares_nothing(make_detector):
    assert (
        make_detector(
            "tiny", "radiometry=percentile", "radiometry.mean=[0.3]", "radiometry.std=[0.2]"
        ).grid_px
        == 1
    )
    assert make_detector("tiny", "radiometry.lee_filter_px=5").grid_px == 1
    assert make_detector("tiny").grid_px == 16


@pytest.mark.parametrize(
    ("stride", "scale", "grid"),
    [(64, 1.0, 64), (16, 3.0, 16), (16, 0.5, 32), (16, 1.5625, 256), (16, np.pi, 1), (None, 1, 1)],
)
def test_a_grid_of_the_scene_is_one_of_the_network(stride, scale, grid):
    assert grid_of(stride, scale) == grid
    assert stride is None or grid == 1 or (grid * scale) % stride == 0


class Counting(torch.nn.Module):
    """Counts what goes through a backbone."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone, self.shapes = backbone, []
        self.size_divisibility = backbone.size_divisibility
        self.padding_constraints = backbone.padding_constraints

    def forward(self, images):
        self.shapes.append(tuple(images.shape))
        return self.backbone(images)

    def output_shape(self):
        return self.backbone.output_shape()


def seen_by(detector, tiles):
    assert detector.grid_px > 1  # looked at before the backbone is hidden behind a counter
    counting = Counting(detector.model.backbone)
    detector.model.backbone = counting
    found = detector(tiles)
    assert len(found) == len(tiles)
    return counting.shapes


NEIGHBOURS = (
    Window(0, 0, 128, 128),
    Window(96, 0, 224, 128),
    Window(0, 96, 128, 224),
    Window(96, 96, 224, 224),
)


def test_neighbours_go_through_the_backbone_as_one_image(make_detector, rng):
    pixels = rng.integers(0, 255, (256, 256), np.uint8)
    tiles = tiles_of(pixels, *NEIGHBOURS)
    assert seen_by(make_detector(), tiles) == [(1, 1, 224, 224)]
    assert seen_by(make_detector(scale=2.0), tiles) == [(1, 1, 448, 448)]


@pytest.mark.parametrize(
    ("windows", "scenes", "shapes"),
    [
        (NEIGHBOURS[:1], "a", [(1, 1, 128, 128)]),
        (NEIGHBOURS[:2], "ab", [(2, 1, 128, 128)]),  # of two scenes
        (NEIGHBOURS[::3], "aa", [(2, 1, 128, 128)]),  # a canvas would hold more that is no tile's
        ((*NEIGHBOURS[:2], Window(120, 0, 248, 128)), "aaa", [(1, 1, 128, 224), (1, 1, 128, 128)]),
    ],
)
def test_what_gains_nothing_or_lies_off_the_grid_goes_alone(
    make_detector, rng, windows, scenes, shapes
):
    pixels = rng.integers(0, 255, (256, 256), np.uint8)
    tiles = [tiles_of(pixels, w, scene=s)[0] for w, s in zip(windows, scenes, strict=True)]
    assert seen_by(make_detector(), tiles) == shapes


def test_tiles_come_back_in_their_order_and_their_own_pixels(make_detector, rng):
    pixels = rng.integers(0, 255, (256, 256), np.uint8)
    detector = make_detector(scale=2.0)
    stray = Window(121, 0, 249, 128)
    tiles = tiles_of(pixels, NEIGHBOURS[0], stray, *NEIGHBOURS[1:])
    found = detector(tiles)
    alone = detector(tiles[1:2])[0]
    assert np.array_equal(found[1].boxes, alone.boxes)
    for each in found:
        assert len(each)
        assert each.boxes.min() >= 0
        assert each.boxes.max() <= 128


@pytest.mark.parametrize(
    ("scale", "windows"),
    [
        (0.5, [Window(0, top, 1, top + 256) for top in (0, 192)]),  # half a pixel wide
        (7 / 6, [Window(0, top, 801, top + 801) for top in (0, 768)]),  # 1830.5 px together
        (7 / 6, [Window(0, top, 64, top + 117) for top in (0, 96)]),
    ],
)
def test_sizes_that_a_scale_halves_fit_their_canvas(make_detector, rng, scale, windows):
    pixels = rng.integers(0, 255, (1600, 801), np.uint8)
    tiles = tiles_of(pixels, *windows)
    (shape,) = seen_by(make_detector(scale=scale), tiles)
    assert shape[0] == 1
