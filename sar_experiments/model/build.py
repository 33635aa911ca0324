"""FRONT DOOR build_model(), detectron2_config(): the only yacs in the house."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode

with warnings.catch_warnings():
    # Detectron2 scripts one function at import; new PyTorch deprecates scripting altogether.
    warnings.filterwarnings("ignore", message=r".*torch\.jit\.script.*", category=FutureWarning)
    from detectron2 import model_zoo
    from detectron2.config import CfgNode, get_cfg
    from detectron2.engine.defaults import create_ddp_model
    from detectron2.modeling import build_model as build_detectron2_model

import sar_experiments.model.backbones  # noqa: F401 - registers them with Detectron2
from sar_experiments.detectron2_keys import check_detectron2_keys, fit_detectron2_values
from sar_experiments.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelSpec:
    """What a detector is built from; plain values, so that a checkpoint can carry it.

    Attributes:
        base: Detectron2 zoo config under the tree, or None.
        tree: Detectron2's keys, laid over the base.
        classes: Class names in the order of the network's outputs.
    """

    base: str | None
    tree: Mapping[str, Any]
    classes: tuple[str, ...]


def detectron2_config(spec: ModelSpec, *, device: str) -> CfgNode:
    """Return the frozen yacs config: Detectron2's defaults, the base, the tree, the classes.

    Raises:
        ConfigError: A key does not exist, has the wrong type, or the base is not in the zoo.
    """
    problems = check_detectron2_keys(spec.tree)
    if problems:
        raise ConfigError("\n".join(problems))
    cfg = get_cfg()
    if spec.base is not None:
        cfg.merge_from_file(_base_file(spec.base))
    cfg.merge_from_other_cfg(CfgNode(fit_detectron2_values(spec.tree, cfg)))
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(spec.classes)
    cfg.MODEL.RETINANET.NUM_CLASSES = len(spec.classes)
    cfg.MODEL.DEVICE = device
    cfg.MODEL.WEIGHTS = ""  # loaded by model/weights.py, which adapts the stem
    cfg.VIS_PERIOD = 0  # Detectron2's training pictures take 8-bit RGB only
    cfg.freeze()
    return cfg


def with_shared_norms(cfg: CfgNode, count: int) -> CfgNode:
    """Return the config with batch norms that take their statistics over all processes.

    Each process would else normalise by its own few images, and only the first one's running
    statistics would be saved. Weights and their names stay the same, so that a checkpoint of
    several processes is one of a single process, which needs no such norm.

    Args:
        cfg: Frozen.
        count: Processes that share a step; 1 changes nothing.
    """
    if count == 1:
        return cfg
    # Detectron2's name for PyTorch's own, which knows CUDA alone.
    norm = "SyncBN" if cfg.MODEL.DEVICE.startswith("cuda") else "naiveSyncBN"
    shared = cfg.clone()
    shared.defrost()
    changed = _replace_norms(shared, norm)
    shared.freeze()
    if changed:
        logger.info("norms: BN over all %d processes (%s)", count, norm)
    return shared


def shared_by_ranks(model: torch.nn.Module) -> torch.nn.Module:
    """Return the model as the ranks train it together: gradients are means over all of them."""
    on_cuda = next(model.parameters()).is_cuda
    # Buffers are running statistics, equal on all ranks already.
    kwargs = {} if on_cuda else {"device_ids": None}
    shared: torch.nn.Module = create_ddp_model(model, broadcast_buffers=False, **kwargs)
    return shared


def build_model(cfg: CfgNode) -> torch.nn.Module:
    """Build the detector with random weights on the device that the config names.

    Raises:
        ConfigError: Detectron2 cannot build it; its reason is passed on.
    """
    try:
        model: torch.nn.Module = build_detectron2_model(cfg)
    except (AssertionError, KeyError, ValueError) as error:
        name = cfg.MODEL.META_ARCHITECTURE
        msg = f"Detectron2 cannot build {name} from these d2 keys: {error or type(error).__name__}"
        raise ConfigError(msg) from error
    return model


def has_masks(cfg: CfgNode) -> bool:
    """Tell whether the detector learns outlines as well as boxes."""
    return bool(cfg.MODEL.MASK_ON)


def zoo_url(base: str | None) -> str:
    """Return where the model zoo keeps the COCO-pretrained weights of a base.

    Raises:
        ConfigError: The base has none.
    """
    try:
        url: str = model_zoo.get_checkpoint_url(base)
    except (RuntimeError, AttributeError) as error:
        msg = (
            f"model.weights=zoo, but the zoo has no weights for model.base={base};"
            " set model.weights=none or to a checkpoint"
        )
        raise ConfigError(msg) from error
    return url


def summary(model: torch.nn.Module, example: dict[str, Any]) -> str:
    """Describe the model in one line: parameters, trainable and in all, and its arithmetic.

    Args:
        model: The detector.
        example: One model input.
    """
    count = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    height, width = example["image"].shape[-2:]
    return (
        f"{type(model).__name__}, {count / 1e6:.2f} M parameters, {trainable / 1e6:.2f} M"
        f" trainable, {count_flops(model, example) / 1e9:.2f} GFLOPs for {width} x {height} px"
    )


def _replace_norms(node: CfgNode, norm: str) -> bool:
    """Replace BN in every key NORM below a node, and tell whether there was any."""
    changed = False
    for key, value in node.items():
        if isinstance(value, CfgNode):
            changed |= _replace_norms(value, norm)
        elif key == "NORM" and value == "BN":
            node[key] = norm
            changed = True
    return changed


def count_flops(model: torch.nn.Module, example: dict[str, Any]) -> int:
    """Return the floating point operations of detecting on one input.

    Those of convolutions and matrix products, a multiplication and an addition each counted;
    what comes after the proposals depends on how many there are.

    Args:
        model: The detector; its mode is put back.
        example: One model input.
    """
    was_training = model.training
    counter = FlopCounterMode(display=False)
    try:
        model.eval()
        with torch.no_grad(), counter:
            model([example])
    finally:
        model.train(was_training)
    return int(counter.get_total_flops())


def parameter_table(model: torch.nn.Module) -> str:
    """Return a line per part of the model, two levels deep: its parameters and its class."""
    lines = [f"{'part':<40} {'parameters':>12}  class"]
    for name, module in model.named_modules():
        if name and name.count(".") < 2:  # noqa: PLR2004 - levels
            count = sum(p.numel() for p in module.parameters())
            lines.append(f"{name:<40} {count:>12,}  {type(module).__name__}")
    return "\n".join(lines)


def _base_file(base: str) -> str:
    """Return a file of the zoo; of no other folder, since Detectron2 runs what such a file asks."""
    msg = (
        f"model.base={base} is not in Detectron2's model zoo; accepted are paths such as"
        " COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml, or null"
    )
    if PurePath(base).is_absolute() or ".." in PurePath(base).parts:
        raise ConfigError(msg)
    try:
        path: str = model_zoo.get_config_file(base)
    except RuntimeError as error:
        raise ConfigError(msg) from error
    return path
