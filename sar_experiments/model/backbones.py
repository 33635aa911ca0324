"""Backbones that Detectron2 does not have, under names that MODEL.BACKBONE.NAME can give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import FPN
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, ResNet

if TYPE_CHECKING:
    from detectron2.layers import ShapeSpec

STAGES = ("res2", "res3", "res4", "res5")


@BACKBONE_REGISTRY.register()  # type: ignore[untyped-decorator]  # Detectron2 is untyped
def build_narrow_resnet_fpn_backbone(cfg: Any, input_shape: ShapeSpec) -> FPN:  # noqa: ANN401 - yacs
    """Build a ResNet of one basic block per stage and any width, with FPN.

    Detectron2's own ResNet-18 is fixed to 64 channels, four times the arithmetic of 32.
    Reads MODEL.RESNETS.{STEM_OUT_CHANNELS, RES2_OUT_CHANNELS, NORM, OUT_FEATURES} and
    MODEL.FPN.{IN_FEATURES, OUT_CHANNELS, NORM, FUSE_TYPE}; channels double per stage.
    """
    keys = cfg.MODEL.RESNETS
    stem = BasicStem(input_shape.channels, keys.STEM_OUT_CHANNELS, norm=keys.NORM)
    names = STAGES[: max(STAGES.index(name) for name in keys.OUT_FEATURES) + 1]
    stages, channels_in, channels = [], keys.STEM_OUT_CHANNELS, keys.RES2_OUT_CHANNELS
    for name in names:
        stages.append(
            ResNet.make_stage(
                BasicBlock,
                1,
                stride_per_block=[1 if name == "res2" else 2],
                in_channels=channels_in,
                out_channels=channels,
                norm=keys.NORM,
            )
        )
        channels_in, channels = channels, 2 * channels
    return FPN(
        bottom_up=ResNet(stem, stages, out_features=keys.OUT_FEATURES),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
