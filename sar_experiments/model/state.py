"""Tensors of a weights file, and which of them fit a model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from detectron2.checkpoint.c2_model_loading import convert_c2_detectron_names

from sar_experiments.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

logger = logging.getLogger(__name__)

Tensors = dict[str, torch.Tensor]

_COUNTER = "num_batches_tracked"  # frozen norms have none; momentum makes up for it
_WRAPPER = "module."  # of a model that was saved as trained data-parallel
_STATISTICS = "running_mean"


@dataclass(frozen=True)
class State:
    """What a file calls the model.

    Attributes:
        tensors: Name -> tensor.
        is_by_ending: Names lack the place in the model: ``res2.0.conv1.weight`` belongs to what
            ends so.
    """

    tensors: Tensors
    is_by_ending: bool


@dataclass(frozen=True)
class Fit:
    """How the tensors of a file fit a model.

    Attributes:
        tensors: Those that fit, under the model's names.
        missing: What the model has and the file has not, or in another shape: one phrase each.
        backbone: The same of what turns pixels into features, without feature pyramid and heads,
            and there also what the file has and the model has not: another depth, other norms.
        unused: How many tensors of the file the model has no place for.
    """

    tensors: Tensors
    missing: Mapping[str, str]
    backbone: Mapping[str, str]
    unused: int


def state_of(content: Mapping[str, Any], path: Path) -> State:
    """Return the model of a weights file, of whichever of the known layouts.

    Raises:
        CheckpointError: It holds none; ``path`` is named.
    """
    found = next(
        (content[key] for key in ("model", "blobs", "model_state") if key in content), None
    )
    found = content if found is None else found
    if not isinstance(found, dict):
        kind = type(found).__name__
        msg = f"{path} holds a {kind} where a checkpoint holds tensors by name"
        raise CheckpointError(msg)
    named = {str(name): value for name, value in dict.items(found)}
    tensors = {name: value for name, value in named.items() if isinstance(value, torch.Tensor)}
    if tensors and not any("." in name for name in tensors):
        return State(_of_caffe2(tensors, path), is_by_ending=True)
    if not tensors or len(tensors) < len(named):
        odd = next((name for name in named if name not in tensors), None)
        kind = "nothing" if odd is None else f"{odd}, a {type(named[odd]).__name__},"
        msg = f"{path} holds {kind} where a checkpoint holds tensors alone (under 'model')"
        raise CheckpointError(msg)
    if all(name.startswith(_WRAPPER) for name in tensors):
        tensors = {name.removeprefix(_WRAPPER): value for name, value in tensors.items()}
    is_by_ending = content.get("matching_heuristics") is True or "model_state" in content
    return State(tensors, is_by_ending)


def fit(state: State, model: torch.nn.Module) -> Fit:
    """Compare by name and shape; a stem of other channels is adapted, see ``adapt_stem``."""
    target = model.state_dict()
    features = _features(target)
    source = _placed(state.tensors, target, features) if state.is_by_ending else {**state.tensors}
    adapt_stem(source, target)
    tensors = {
        name: source[name]
        for name, value in target.items()
        if name in source and source[name].shape == value.shape
    }
    missing = {
        name: _difference(source.get(name), value)
        for name, value in target.items()
        if name not in tensors and not name.endswith(_COUNTER)
    }
    beyond = {name: source[name] for name in source if name not in target}
    backbone = {name: what for name, what in missing.items() if name.startswith(features)}
    backbone |= {
        name: _difference(value, None)
        for name, value in beyond.items()
        if _is_of(name, features, target)
    }
    return Fit(tensors, missing, backbone, len(beyond))


def adapt_stem(source: Tensors, target: Mapping[str, torch.Tensor]) -> None:
    """Change the first convolution's weights in ``source`` to the channels of the target.

    Three channels fed with one gray image equal their sum fed with that image once, so C channels
    get the mean over the stored ones, scaled to keep the sum: nothing learnt is dropped.

    Args:
        source: State dict, changed in place; the stem's weight is (K, C_stored, h, w).
        target: State dict of the model; the stem's weight is (K, C, h, w).
    """
    for key in _stem_keys(target):
        stored, wanted = source.get(key), target[key].shape
        if stored is None or stored.shape == wanted or stored.dim() != len(wanted):
            continue
        if (stored.shape[0], *stored.shape[2:]) != (wanted[0], *wanted[2:]):
            continue
        mean = stored.sum(dim=1, keepdim=True) / wanted[1]
        source[key] = mean.expand(wanted).clone()
        logger.info("stem: %d channels of the weights adapted to %d", stored.shape[1], wanted[1])


def _stem_keys(state: Mapping[str, torch.Tensor]) -> list[str]:
    return [key for key in state if key.endswith(("stem.conv1.weight", "patch_embed.proj.weight"))]


def _features(target: Mapping[str, torch.Tensor]) -> str:
    """Return what the names of the backbone begin with, without those of the feature pyramid."""
    bottom_up = "backbone.bottom_up."
    return bottom_up if any(name.startswith(bottom_up) for name in target) else "backbone."


def _is_of(name: str, features: str, target: Mapping[str, torch.Tensor]) -> bool:
    """Tell whether a tensor that the model lacks belongs into a stage that it has.

    A later stage is not used where the model ends before it; more blocks of a stage are another
    depth, statistics of norms other norms. The classifier of ImageNet (``fc``) is no matter.
    """
    if not name.startswith(features) or name.endswith(_COUNTER) or ".fc." in name:
        return False
    return _stage(name, features) in {
        _stage(each, features) for each in target if each.startswith(features)
    }


def _stage(name: str, features: str) -> str:
    return name.removeprefix(features).partition(".")[0]


def _difference(stored: torch.Tensor | None, wanted: torch.Tensor | None) -> str:
    in_file = "not" if stored is None else f"{tuple(stored.shape)}"
    return f"{in_file} in the file, {'not' if wanted is None else tuple(wanted.shape)} in the model"


def _placed(source: Tensors, target: Mapping[str, torch.Tensor], features: str) -> Tensors:
    """Give tensors the names of the model that end as theirs do: the longest such one counts.

    One that fits several places gets none. What is left over and belongs to a stage of the
    backbone is put there, so that it is noticed.
    """
    places: dict[str, list[str]] = {}
    for name in target:
        ending = next((each for each in _endings(name) if each in source), None)
        if ending is not None:
            places.setdefault(ending, []).append(name)
    placed = {names[0]: source[each] for each, names in places.items() if len(names) == 1}
    for name, value in source.items():
        if name not in places:
            placed[f"{features}{name}" if _is_of(features + name, features, target) else name] = (
                value
            )
    return placed


def _endings(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.partition(".")[2]


def _of_caffe2(tensors: Tensors, path: Path) -> Tensors:
    """Return Caffe2's tensors under Detectron2's names.

    Its batch norms are one factor and one offset, as frozen ones with mean 0 and variance 1 are.
    """
    kept = {name: value for name, value in tensors.items() if not name.endswith("_momentum")}
    try:
        renamed: Tensors = convert_c2_detectron_names(kept)[0]
    except (AssertionError, ValueError, IndexError, RuntimeError) as error:
        msg = f"{path} holds other names than those of Caffe2's model zoo ({error!r})"
        raise CheckpointError(msg) from error
    if not any("_bn_" in name for name in kept):
        return renamed
    scales = [name for name in renamed if name.endswith("norm.weight")]
    for name in scales:
        stem = name.removesuffix("weight")
        renamed.setdefault(f"{stem}{_STATISTICS}", torch.zeros_like(renamed[name]))
        renamed.setdefault(f"{stem}running_var", torch.ones_like(renamed[name]))
    return renamed
