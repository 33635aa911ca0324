"""Policies that turn a chip and a random generator into one and the same chip every time.

A pipeline is a list of named transforms in order: those of albumentations, and radar's own in
``transforms``, which can be addressed here too. All randomness comes from the generator that is
handed in; nothing global is read or altered, so neither the number of loader processes nor what
else a process draws can change a training image.
"""

from __future__ import annotations

import copy
import difflib
import importlib
import inspect
import os
import random
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from hydra.errors import HydraException
from hydra.utils import instantiate

from sar_experiments.config import AugmentConfig, MapperKind
from sar_experiments.config_checks import one_class_sentence
from sar_experiments.data.chip import CROWD, Chip, marks, settled, with_marks
from sar_experiments.data.transforms import (
    ChipTransform,
    CopyPaste,
    Donor,
    GainJitter,
    GammaSpeckle,
    ObjectCrop,
    Rng,
)
from sar_experiments.errors import ConfigError

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # or its import asks the internet for news
import albumentations as A  # noqa: N812 - the name that its documentation uses
from albumentations.core.composition import BaseCompose
from albumentations.core.transforms_interface import BasicTransform

if TYPE_CHECKING:
    from sar_experiments.data.annotations import Sample

__all__ = [
    "Augmentation",
    "ClassAware",
    "CopyPaste",
    "GainJitter",
    "GammaSpeckle",
    "ObjectCrop",
    "Pipeline",
    "alone",
    "build_augmentation",
    "build_pipeline",
    "images_per_class",
]

# Albumentations puts pixel centres at whole numbers, we put their corners there.
_PIXEL_CENTRE = 0.5

_TRANSFORMS = (ChipTransform, BasicTransform, BaseCompose)


# --- Pipelines ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pipeline:
    """Named transforms, one after the other.

    Attributes:
        steps: Name -> transform, in order.
        min_visible_share: Objects of which less is left are dropped, see ``chip.settled``.
    """

    steps: Mapping[str, Any]
    min_visible_share: float

    @property
    def needs_donor(self) -> bool:
        """Whether a transform takes objects from other chips."""
        return any(isinstance(step, CopyPaste) for step in self.steps.values())

    def __call__(self, chip: Chip, rng: Rng, donor: Donor | None = None) -> Chip:
        """Return the augmented chip, a function of the chip and the state of ``rng``.

        Args:
            chip: As it was read and resized.
            rng: Of this image alone.
            donor: Where objects to paste come from; None pastes nothing.

        Raises:
            ConfigError: A transform cannot be used on such an image.
        """
        chip = settled(chip, min_visible_share=self.min_visible_share)
        python_rng = random.Random(int(rng.integers(2**63)))
        for name, step in self.steps.items():
            if isinstance(step, ChipTransform):
                chip = step(chip, rng, donor)
            else:
                step.set_random_state(rng, python_rng)
                chip = _albumentated(chip, step, name)
            chip = settled(chip, min_visible_share=self.min_visible_share)
        return chip


@dataclass(frozen=True)
class ClassAware:
    """The pipeline of an image's rarest class.

    Attributes:
        plain: For images without objects and for classes without a policy.
        policies: Class -> its pipeline.
        images_per_class: Training images in which each class appears.
    """

    plain: Pipeline
    policies: Mapping[int, Pipeline]
    images_per_class: Sequence[int]

    @property
    def needs_donor(self) -> bool:
        """Whether a transform takes objects from other chips."""
        return any(each.needs_donor for each in (self.plain, *self.policies.values()))

    def pipeline_for(self, classes: Sequence[int]) -> Pipeline:
        """Return the pipeline of an image with objects of these classes."""
        present = {int(each) for each in classes if each != CROWD}
        if not present:
            return self.plain
        rarest = min(present, key=lambda each: (self.images_per_class[each], each))
        return self.policies.get(rarest, self.plain)

    def __call__(self, chip: Chip, rng: Rng, donor: Donor | None = None) -> Chip:
        """Augment with the pipeline of the rarest class, see ``Pipeline``."""
        return self.pipeline_for(chip.classes.tolist())(chip, rng, donor)


Augmentation = Pipeline | ClassAware


def build_augmentation(
    augment: AugmentConfig, *, classes: Sequence[str], samples: Sequence[Sample]
) -> Augmentation:
    """Build what training images go through.

    Args:
        augment: The group ``augment`` of the config.
        classes: Names in the order of the network's outputs.
        samples: The training set; tells which classes are rare.

    Raises:
        ConfigError: A transform, an argument, a value or a class name is wrong.
    """
    share = augment.min_visible_share
    plain = build_pipeline(augment.transforms, min_visible_share=share)
    if augment.mapper is not MapperKind.class_aware:
        return plain
    if len(classes) == 1:
        raise ConfigError(one_class_sentence(list(classes)))
    if not augment.policies:
        return plain  # rare classes are seen more often, but look the same
    policies = {}
    for name, policy in augment.policies.items():
        index = _class_index(name, classes)
        if not isinstance(policy, Mapping):
            msg = f"augment.policies.{name}={policy} must map names to transforms"
            raise ConfigError(msg)
        transforms = {**augment.transforms, **policy}
        policies[index] = build_pipeline(
            transforms, min_visible_share=share, names=_names(augment.transforms, name, policy)
        )
    return ClassAware(plain, policies, images_per_class(samples, len(classes)))


def build_pipeline(
    transforms: Mapping[str, Mapping[str, Any] | None],
    *,
    min_visible_share: float,
    names: Mapping[str, str] | None = None,
) -> Pipeline:
    """Build transforms from their names and arguments.

    Args:
        transforms: Name -> ``_target_`` and arguments, in order; None leaves a transform out.
        min_visible_share: See ``chip.settled``.
        names: Name -> config key for messages; ``augment.transforms.<name>`` by default.

    Raises:
        ConfigError: Names the key, the value and what is accepted.
    """
    keys = {name: f"augment.transforms.{name}" for name in transforms} | dict(names or {})
    steps = {
        name: _step(keys[name], arguments)
        for name, arguments in transforms.items()
        if arguments is not None
    }
    return Pipeline(steps, min_visible_share)


def alone(pipeline: Pipeline, name: str) -> Pipeline:
    """Return one transform of a pipeline, applied to every chip."""
    step = copy.deepcopy(pipeline.steps[name])
    single = step if isinstance(step, ChipTransform) else step.transforms[0]
    single.p = 1.0
    return Pipeline({name: step}, pipeline.min_visible_share)


def images_per_class(samples: Sequence[Sample], n_classes: int) -> list[int]:
    """Count the images in which each class appears."""
    counts: Counter[int] = Counter()
    for sample in samples:
        annotations = sample["annotations"]
        counts.update({each["category_id"] for each in annotations if not each["iscrowd"]})
    return [counts[index] for index in range(n_classes)]


def _names(
    transforms: Mapping[str, Any], class_name: str, policy: Mapping[str, Any]
) -> dict[str, str]:
    keys = {name: f"augment.transforms.{name}" for name in transforms}
    return keys | {name: f"augment.policies.{class_name}.{name}" for name in policy}


def _class_index(name: str, classes: Sequence[str]) -> int:
    if name in classes:
        return list(classes).index(name)
    near = difflib.get_close_matches(name, classes, 1)
    hint = f"; did you mean {near[0]}?" if near else ";"
    msg = f"augment.policies.{name} names no class{hint} The classes are {', '.join(classes)}"
    raise ConfigError(msg)


# --- From config to transforms -----------------------------------------------------------------


def _step(key: str, arguments: Mapping[str, Any]) -> Any:  # noqa: ANN401 - two kinds of transform
    """Instantiate one transform, ready to be called."""
    targets = _targets(key, arguments)
    for each_key, each in targets.items():
        _check_target(each_key, each)
    target = targets[f"{key}._target_"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # albumentations only warns of wrong names
        try:
            transform = instantiate(arguments, _convert_="all")
        except HydraException as error:
            cause = error.__cause__ or error
            msg = f"{key} ({target}): {_reason(cause)}{_accepted_arguments(target, arguments)}"
            raise ConfigError(msg) from error
    if isinstance(transform, ChipTransform):
        return transform
    for leaf in _leaves(transform):
        _check_usable(key, leaf)
    points = A.KeypointParams("xy", remove_invisible=False) if _moves(transform) else None
    return A.Compose([transform], keypoint_params=points)


def _targets(key: str, arguments: object) -> dict[str, str]:
    """Return config key -> class of a transform and of those nested in it."""
    target = arguments.get("_target_") if isinstance(arguments, Mapping) else None
    if not isinstance(arguments, Mapping) or not isinstance(target, str):
        msg = f"{key}={arguments} must have a _target_, such as albumentations.HorizontalFlip"
        raise ConfigError(msg)
    targets = {f"{key}._target_": target}
    for name, value in arguments.items():
        if name != "transforms" and _calls_something(value):
            msg = f"{key}.{name}={value} holds a _target_; accepted are plain values"
            raise ConfigError(msg)
    for index, each in enumerate(arguments.get("transforms") or ()):
        nested = _targets(f"{key}.transforms[{index}]", each)
        for nested_key, name in nested.items():
            if name.startswith(__package__):
                msg = f"{nested_key}={name} cannot be nested; give it a name of its own"
                raise ConfigError(msg)
        targets |= nested
    return targets


def _calls_something(value: object) -> bool:
    if isinstance(value, Mapping):
        return "_target_" in value or any(_calls_something(each) for each in value.values())
    return isinstance(value, list | tuple) and any(_calls_something(each) for each in value)


def _check_target(key: str, target: str) -> None:
    """Refuse, before it is called, what is no transform; a misspelt class with the nearest one."""
    module_name, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        msg = f"{key}={target} cannot be imported: {error}; an example is albumentations.Rotate"
        raise ConfigError(msg) from error
    if not hasattr(module, name):
        near = difflib.get_close_matches(name, dir(module), 1)
        hint = f"; did you mean {module_name}.{near[0]}?" if near else ""
        msg = f"{key}={target}: {module_name} has no {name}{hint}"
        raise ConfigError(msg)
    found = getattr(module, name)
    if not (isinstance(found, type) and issubclass(found, _TRANSFORMS)):
        msg = (
            f"{key}={target} is no transform; accepted are those of albumentations and of"
            " sar_experiments.data.augment, and classes derived from theirs"
        )
        raise ConfigError(msg)


def _reason(error: BaseException) -> str:
    """Return pydantic's many lines, or any other message, as one."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and "errors.pydantic.dev" not in line)


def _accepted_arguments(target: str, arguments: Mapping[str, Any]) -> str:
    """Name the known arguments where one of those given is unknown."""
    module_name, _, name = target.rpartition(".")
    known = set(inspect.signature(getattr(importlib.import_module(module_name), name)).parameters)
    unknown = [each for each in arguments if not each.startswith("_") and each not in known]
    return f"; accepted are {', '.join(sorted(known))}" if unknown else ""


def _leaves(transform: Any) -> list[Any]:  # noqa: ANN401 - albumentations is untyped
    """Return the single transforms inside OneOf and the like."""
    if isinstance(transform, BaseCompose):
        return [leaf for each in transform.transforms for leaf in _leaves(each)]
    return [transform]


def _check_usable(key: str, leaf: Any) -> None:  # noqa: ANN401 - albumentations is untyped
    """Refuse transforms that boxes cannot follow, or that ask for more than the image."""
    name = type(leaf).__name__
    if not isinstance(leaf, A.ImageOnlyTransform) and "keypoints" not in leaf.available_keys:
        msg = f"{key}: {name} moves pixels but cannot move the objects with them"
        raise ConfigError(msg)
    foreign = set(leaf.targets_as_params) - {"image"}
    if "BBox" in name:  # these ask for boxes where they can do without
        foreign.add("bboxes")
    if foreign:
        msg = (
            f"{key}: {name} needs {', '.join(sorted(foreign))}, which it cannot have here; crops"
            " around objects are sar_experiments.data.augment.ObjectCrop"
        )
        raise ConfigError(msg)


def _moves(transform: Any) -> bool:  # noqa: ANN401 - albumentations is untyped
    return any(not isinstance(leaf, A.ImageOnlyTransform) for leaf in _leaves(transform))


def _albumentated(chip: Chip, compose: Any, name: str) -> Chip:  # noqa: ANN401 - untyped
    """Apply a transform of albumentations to image and objects at once."""
    inputs: dict[str, Any] = {"image": chip.image}
    if "keypoints" in compose.processors:
        inputs["keypoints"] = np.asarray(marks(chip) - _PIXEL_CENTRE, np.float32)
    try:
        output = compose(**inputs)
    except (ValueError, TypeError, IndexError, cv2.error) as error:
        msg = f"augment: transform {name} failed on an image of shape {chip.image.shape}: {error}"
        raise ConfigError(msg) from error
    image = np.ascontiguousarray(output["image"], dtype=np.float32)
    if image.ndim != chip.image.ndim or image.shape[2] != chip.image.shape[2]:
        msg = f"augment: transform {name} turned shape {chip.image.shape} into {image.shape}"
        raise ConfigError(msg)
    if "keypoints" not in compose.processors:
        return replace(chip, image=image)
    moved = np.asarray(output["keypoints"], np.float64).reshape(-1, 2) + _PIXEL_CENTRE
    if len(moved) != len(inputs["keypoints"]):
        msg = f"augment: transform {name} drops or adds points, so boxes cannot follow it"
        raise ConfigError(msg)
    methods = {getattr(leaf, "rotate_method", None) for leaf in _leaves(compose)}
    return with_marks(chip, image, moved, as_ellipse="ellipse" in methods)
