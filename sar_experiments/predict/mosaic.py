"""Tiles that overlap on one canvas: what they share goes through the network once.

A convolution gives the same at a place whichever window it is seen in, but for the rim where a
window ends. So the backbone, and the heads that slide over its maps, see neighbouring tiles as one
image. Whatever chooses (the best proposals, suppression, the most detections of an image) sees
each tile by itself, as if it had come alone, with true surroundings instead of a rim.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import torch
from detectron2.modeling import FPN, GeneralizedRCNN, ResNet, RetinaNet
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import StandardROIHeads
from detectron2.structures import Boxes, ImageList

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_FINEST_SHARE = 64  # of a pixel, by which tiles may be scaled and still meet the grid


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tile lies on its canvas, in pixels of the network.

    Attributes:
        top: A multiple of the model's stride.
        left: A multiple of the model's stride.
        height: Of the tile.
        width: Of the tile.
    """

    top: int
    left: int
    height: int
    width: int


def shared_stride(model: Any) -> int | None:  # noqa: ANN401 - Detectron2's
    """Return the grid on which tiles can share a canvas, in pixels of the network.

    None where they cannot: what the model computes at a place depends on the whole image (group
    norms, attention), or is not known to depend on the surroundings alone.
    """
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, FPN) or not isinstance(backbone.bottom_up, ResNet):
        return None
    if any(isinstance(module, torch.nn.GroupNorm) for module in model.modules()):
        return None
    is_two_stage = (
        isinstance(model, GeneralizedRCNN)
        and type(model.proposal_generator) is RPN
        and isinstance(model.roi_heads, StandardROIHeads)
    )
    if not is_two_stage and not isinstance(model, RetinaNet):
        return None
    return int(max(backbone.output_shape()[name].stride for name in _names(model)))


def grid_of(stride: int | None, scale: float) -> int:
    """Return the grid in pixels of the scene, whose tiles are enlarged by ``scale``; 1 for none."""
    share = Fraction(scale).limit_denominator(_FINEST_SHARE)
    if stride is None or not math.isclose(share, scale, rel_tol=1e-9):
        return 1
    return math.lcm(share.numerator, stride * share.denominator) // share.numerator


def detect_on_canvas(
    model: Any,  # noqa: ANN401 - Detectron2's
    canvas: Tensor,
    places: Sequence[Place],
) -> list[Any]:
    """Return the Instances of each tile, in pixels of its own, as if the model had seen it alone.

    Args:
        model: One with a ``shared_stride``, in evaluation mode.
        canvas: (C, H, W), not yet standardised.
        places: Of tiles of one size.
    """
    images = model.preprocess_image([{"image": canvas}])
    maps = model.backbone(images.tensor)
    strides = {name: spec.stride for name, spec in model.backbone.output_shape().items()}
    on_canvas = _Canvas(maps, strides, places)
    sizes = [(place.height, place.width) for place in places]
    tiles = ImageList(images.tensor, sizes)  # of which only the sizes are read
    if isinstance(model, RetinaNet):
        found = _dense(model, on_canvas, tiles)
    else:
        proposals = _proposals(model.proposal_generator, on_canvas, sizes)
        cut = {name: on_canvas.cut(name) for name in _names(model)}
        found, _ = model.roi_heads(tiles, cut, proposals, None)
    return list(found)


@dataclass(frozen=True, eq=False, slots=True)
class _Canvas:
    """Maps of a canvas, and where the tiles lie on it.

    Attributes:
        maps: Name -> (1, C, H, W).
        strides: Name -> pixels of the network per cell of the map.
        places: Of the N tiles.
    """

    maps: dict[str, Tensor]
    strides: dict[str, int]
    places: Sequence[Place]

    def views(self, name: str, level: Tensor) -> list[Tensor]:
        """Return (1, C, h, w) per tile: its part of a map of the canvas; copies nothing."""
        stride, parts = self.strides[name], []
        for place in self.places:
            top, left = place.top // stride, place.left // stride
            height, width = math.ceil(place.height / stride), math.ceil(place.width / stride)
            parts.append(level[:, :, top : top + height, left : left + width])
        return parts

    def cut(self, name: str, level: Tensor | None = None) -> Tensor:
        """Return (N, C, h, w): the tiles' parts of a map, of the backbone's or another one."""
        parts = self.views(name, self.maps[name] if level is None else level)
        # Channels first, which RoIAlign would else copy it to once more.
        tiles = parts[0].new_empty((len(parts), *parts[0].shape[1:]))
        for tile, part in zip(tiles, parts, strict=True):
            tile.copy_(part[0])
        return tiles


def _names(model: Any) -> list[str]:  # noqa: ANN401
    """Return the maps that anything after the backbone looks at."""
    if isinstance(model, RetinaNet):
        return list(model.head_in_features)
    heads = model.roi_heads
    masks = heads.mask_in_features if heads.mask_on else []
    keypoints = heads.keypoint_in_features if heads.keypoint_on else []
    named = [*model.proposal_generator.in_features, *heads.box_in_features, *masks, *keypoints]
    return list(dict.fromkeys(named))


def _proposals(rpn: RPN, canvas: _Canvas, sizes: Sequence[tuple[int, int]]) -> list[Any]:
    """Slide the head over the canvas and choose proposals in each tile, as RPN does in an image.

    RPN turns the offsets of all anchors into boxes before it keeps the best ``pre_nms_topk`` of
    each map; here only those that it will keep are turned.
    """
    names = rpn.in_features
    logits, deltas = rpn.rpn_head([canvas.maps[name] for name in names])
    scores = [canvas.views(*each) for each in zip(names, logits, strict=True)]
    offsets = [canvas.views(*each) for each in zip(names, deltas, strict=True)]
    anchors = rpn.anchor_generator([parts[0] for parts in scores])
    found = []
    for number, size in enumerate(sizes):
        best = [
            _best(*level, most=rpn.pre_nms_topk[False])
            for level in zip(
                anchors,
                [parts[number] for parts in scores],
                [parts[number] for parts in offsets],
                strict=True,
            )
        ]
        found += rpn.predict_proposals(*(list(each) for each in zip(*best, strict=True)), [size])
    return found


def _best(
    anchors: Boxes, logits: Tensor, deltas: Tensor, *, most: int
) -> tuple[Boxes, Tensor, Tensor]:
    """Return the anchors of a map with the highest scores, (k, 4), (1, k) and (1, k, 4).

    Args:
        anchors: (h w A, 4).
        logits: (1, A, h, w).
        deltas: (1, 4 A, h, w).
        most: Of k.
    """
    flat = logits[0].permute(1, 2, 0).flatten()  # in the anchors' order
    values, index = flat.topk(min(most, len(flat)))
    _, per_place, height, width = logits.shape
    row, col, kind = torch.unravel_index(index, (height, width, per_place))
    chosen = deltas.view(per_place, -1, height, width)[kind, :, row, col]
    return Boxes(anchors.tensor[index]), values[None], chosen[None]


def _dense(model: RetinaNet, canvas: _Canvas, tiles: ImageList) -> list[Any]:
    """Slide RetinaNet's head over the canvas and choose detections in each tile."""
    names = model.head_in_features
    predictions = [
        [canvas.cut(*each) for each in zip(names, kind, strict=True)]
        for kind in model.head([canvas.maps[name] for name in names])
    ]
    maps = [canvas.cut(name) for name in names]
    found: list[Any] = model.forward_inference(tiles, maps, predictions)
    return found
