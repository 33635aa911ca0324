"""task=convert: annotations in any known format -> COCO files."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

from sar_experiments import run_folder
from sar_experiments.data import parts as data_parts
from sar_experiments.data.coco import write_coco
from sar_experiments.errors import DatasetError
from sar_experiments.exit_codes import DONE, FAILED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from sar_experiments.config import Config
    from sar_experiments.data.annotations import Dataset
    from sar_experiments.tasks.interruption import Interruption

logger = logging.getLogger(__name__)

SHOWN = 3
"""Faults per kind on the console; convert.json holds all."""


def run(config: Config, folder: Path, _interruption: Interruption) -> int:
    """Write train.json, val.json and test.json of the parts that the use case names.

    Raises:
        DatasetError: The annotations cannot be read, or a file would be overwritten.
    """
    parts = data_parts.read_named_parts(config.usecase)
    files = {name: folder / f"{name}.json" for name in parts}
    for path in files.values():
        if path.exists():
            msg = f"{path} exists already and is not overwritten; remove it or set another output="
            raise DatasetError(msg)
    for name, part in parts.items():
        logger.info("%s", data_parts.describe(part))
        _tell_faults(part)
        write_coco(part, files[name])
    logger.info("%s", "\n".join(_table(parts)))
    faults = {name: [vars(fault) for fault in part.faults] for name, part in parts.items()}
    run_folder.write_json(folder / "convert.json", {"faults": faults})
    lost = [name for name, part in parts.items() if _has_lost_all(part)]
    if lost:
        why = f"every object of {', '.join(lost)} was left out; {folder / 'convert.json'} says why"
        logger.error("%s", why)
        run_folder.update_result(folder, status="failed", why=why)
        return FAILED
    run_folder.update_result(folder, status="completed")
    for name, part in parts.items():
        keys = {"images": part.images, "annotations": files[name]}
        logger.info("%s", " ".join(f"usecase.{name}.{key}={path}" for key, path in keys.items()))
    return DONE


def _has_lost_all(part: Dataset) -> bool:
    """Tell whether something was left out, and no object is left."""
    is_empty = not any(sample["annotations"] for sample in part.samples)
    return is_empty and any(fault.severity == "error" for fault in part.faults)


def _table(parts: Mapping[str, Dataset]) -> Iterator[str]:
    """Yield the lines of a table: records read, kept, and left out by reason."""
    yield f"{'split':<8}{'':<28}{'read':>8}{'kept':>8}{'left out':>10}"
    for name, part in parts.items():
        reasons = Counter(fault.code for fault in part.faults if fault.severity == "error")
        images, objects = len(part.samples), sum(part.class_counts().values())
        kept, left_out = images + objects, sum(reasons.values())
        yield f"{name:<8}{'images and objects':<28}{kept + left_out:>8}{kept:>8}{left_out:>10}"
        yield f"{'':<8}{'  of them images':<28}{'':>8}{images:>8}"
        yield f"{'':<8}{'  of them objects':<28}{'':>8}{objects:>8}"
        for reason, count in reasons.most_common():
            yield f"{'':<8}{'  ' + reason:<28}{'':>8}{'':>8}{count:>10}"


def _tell_faults(part: Dataset) -> None:
    """Say what is left out of the new file, and why."""
    for (code, severity), count in Counter((f.code, f.severity) for f in part.faults).items():
        outcome = "left out" if severity == "error" else "kept"
        logger.warning("%s: %s: %d %s", part.name, code, count, outcome)
        sentences = [fault.sentence for fault in part.faults if fault.code == code]
        for sentence in sentences[:SHOWN]:
            logger.warning("    %s", sentence)
        if count > SHOWN:
            logger.warning("    and %d more, see convert.json", count - SHOWN)
