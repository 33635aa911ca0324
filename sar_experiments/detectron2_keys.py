"""Detectron2's keys: which exist, which would have no effect here, what type they take."""

from __future__ import annotations

import difflib
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Keys that would change nothing, because the part that reads them is ours, and what to set.
DETECTRON2_KEYS_WITHOUT_EFFECT = {
    "DATASETS": "usecase.train, usecase.val, usecase.test",
    "DATALOADER": "hardware.num_workers, augment.repeat_threshold, usecase.max_empty_share",
    "INPUT": "augment",
    "MODEL.DEVICE": "hardware.device",
    "MODEL.WEIGHTS": "model.weights",
    "MODEL.ROI_HEADS.NUM_CLASSES": "usecase.classes",
    "MODEL.RETINANET.NUM_CLASSES": "usecase.classes",
    "OUTPUT_DIR": "output",
    "SEED": "seed",
    "SOLVER.AMP": "hardware.precision",
    "SOLVER.REFERENCE_WORLD_SIZE": "solver.ims_per_batch",
    "TEST.AUG": "augment.min_size_test",
    "TEST.EXPECTED_RESULTS": "evaluation",
    "TEST.EVAL_PERIOD": "solver.eval_period",
    "VIS_PERIOD": "solver.eval_period",
}


@cache
def detectron2_defaults() -> dict[str, Any]:
    """Return Detectron2's default config as plain values, without importing it."""
    text = Path(__file__).with_name("detectron2_defaults.json").read_text(encoding="utf-8")
    defaults: dict[str, Any] = json.loads(text)
    return defaults


def check_detectron2_keys(tree: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each key under ``d2`` that Detectron2 or this package cannot use."""
    return list(_detectron2_problems(tree, detectron2_defaults(), ""))


def fit_detectron2_values(tree: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tree with numbers of the type that ``reference`` has.

    yacs takes no int for a float key and no float for an int key, which YAML mixes freely.
    """
    fitted: dict[str, Any] = {}
    for name, value in tree.items():
        default = reference.get(name)
        if isinstance(value, dict) and isinstance(default, dict):
            fitted[name] = fit_detectron2_values(value, default)
        elif type(value) is int and type(default) is float:
            fitted[name] = float(value)
        elif type(value) is float and type(default) is int and value.is_integer():
            fitted[name] = int(value)
        else:
            fitted[name] = value
    return fitted


def _detectron2_problems(
    tree: Mapping[str, Any], reference: Mapping[str, Any], prefix: str
) -> Iterator[str]:
    for name, value in tree.items():
        path = f"{prefix}{name}"
        if path in DETECTRON2_KEYS_WITHOUT_EFFECT:
            ours = DETECTRON2_KEYS_WITHOUT_EFFECT[path]
            yield f"d2.{path} would have no effect here; set {ours} instead"
        elif name not in reference:
            yield f"d2.{path} is no key of Detectron2{_hint(name, reference, f'd2.{prefix}')}"
        elif isinstance(reference[name], dict):
            if isinstance(value, dict):
                yield from _detectron2_problems(value, reference[name], f"{path}.")
            else:
                yield f"d2.{path}={value!r} is a group of keys, not a value"
        elif not _fits(value, reference[name]):
            kind = type(reference[name]).__name__
            yield f"d2.{path}={value!r} must be of type {kind}, such as {reference[name]!r}"


def _hint(name: str, known: Mapping[str, Any], prefix: str) -> str:
    close = difflib.get_close_matches(str(name), list(known), 1)
    return f"; did you mean {prefix}{close[0]}?" if close else ""


def _fits(value: object, default: object) -> bool:
    """Tell whether yacs would take the value, once numbers are fitted."""
    if value is None or default is None or isinstance(value, str):
        return value is None or default is None or isinstance(default, str)
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, int) and isinstance(value, float):
        return value.is_integer()
    if isinstance(default, float):
        return isinstance(value, int | float)
    return isinstance(value, type(default))
