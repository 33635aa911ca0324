"""What an interrupted prediction goes on from: one line per tile, in the order they were done."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from sar_experiments.detections import Detections

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

Key = tuple[int, int]
"""Number of the scene, number of the tile."""


class TileLog:
    """Detections of the tiles that are done; a torn or damaged line is forgotten.

    Args:
        path: None keeps nothing.
        identity: Everything the detections depend on; a log of another identity is begun anew.

    Attributes:
        done: What an earlier process left. Tiles without data have no detections, like empty ones.
    """

    def __init__(self, path: Path | None, identity: Mapping[str, Any]) -> None:
        self._path = path
        self._head = {"identity": _digest(identity)}
        self.done: dict[Key, Detections | None] = {}
        if path is None:
            return
        if not self._restore(path):
            self.done.clear()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(self._head) + "\n", encoding="utf-8")

    def add(self, records: Iterable[tuple[Key, Detections | None]]) -> None:
        """Write tiles down, on disk when this returns; None is a tile without data."""
        if self._path is None:
            return
        lines = [json.dumps(_plain(key, found)) + "\n" for key, found in records]
        if not lines:
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())

    def _restore(self, path: Path) -> bool:
        """Read what is whole, cut off the rest; False where the log is another's."""
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return False
        whole = content[: content.rfind(b"\n") + 1]
        head, *lines = whole.splitlines() or [b""]
        if head != json.dumps(self._head).encode():
            return False
        for line in lines:
            # A machine that lost its power may leave anything where it was writing.
            with contextlib.suppress(ValueError, KeyError, TypeError):
                record = json.loads(line)
                self.done[record["scene"], record["tile"]] = _detections(record)
        if len(whole) < len(content):
            with path.open("r+b") as file:
                file.truncate(len(whole))
        return True


def _digest(identity: Mapping[str, Any]) -> str:
    text = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(key: Key, found: Detections | None) -> dict[str, Any]:
    record: dict[str, Any] = {"scene": key[0], "tile": key[1]}
    if found is None:
        return record
    # A float32 as the nearest double is written with digits enough to come back the same.
    boxes = found.boxes.astype(np.float64).tolist()
    scores = found.scores.astype(np.float64).tolist()
    return {**record, "boxes": boxes, "scores": scores, "classes": found.classes.tolist()}


def _detections(record: Mapping[str, Any]) -> Detections | None:
    if "boxes" not in record:
        return None
    return Detections.of(record["boxes"], record["scores"], record["classes"])
