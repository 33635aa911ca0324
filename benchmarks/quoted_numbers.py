"""Measure again every number that README and docs quote, and compare or replace it.

    python benchmarks/quoted_numbers.py [--only sizes demo] [--update] [--json FILE]

A quoted number stands between two comments, ``<!--sizes.length_bias-->0<!--/-->``, which nobody
sees on the page. The first is its name here: group, dot, name. A group is measured at once. Printed
are name, file, what is quoted and what was measured; the end is 1 where they are apart by more than
the group allows. ``--update`` writes what was measured.

Numbers of ``benchmarks/RESULTS.md`` are records with a date, and are not touched.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ROOT = Path(__file__).parents[1]
MARK = re.compile(r"<!--(?P<name>\w+\.\w+)-->(?P<value>.*?)<!--/-->")


@dataclass(frozen=True)
class Group:
    """Numbers that one measurement gives.

    Attributes:
        command: What a reader types to see them.
        measure: Returns name -> value.
        formats: Name -> how it is written, a format specification.
        tolerance: How far quoted and measured may be apart: of its own size (``share``) or at all
            (``least``), as another processor rounds otherwise and clocks differ.
    """

    command: str
    measure: Callable[[], Mapping[str, float]]
    formats: Mapping[str, str]
    share: float = 0.0
    least: float = 0.0


@dataclass(frozen=True)
class Quoted:
    """A number in a file."""

    file: Path
    name: str
    text: str


def main() -> None:
    """Print, compare and, if asked, replace."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=sorted(GROUPS), default=sorted(GROUPS))
    parser.add_argument("--demo", type=Path, help="measure this finished demo, run none")
    parser.add_argument("--update", action="store_true", help="write what was measured")
    parser.add_argument("--json", type=Path, help="the measured values as a file")
    options = parser.parse_args()
    values: dict[str, float] = {}
    for name in options.only:
        print(f"{name}: {GROUPS[name].command}", flush=True)
        is_there = name == "demo" and options.demo
        measured = measured_demo(options.demo) if is_there else GROUPS[name].measure()
        values |= {f"{name}.{key}": value for key, value in measured.items()}
    if options.json:
        options.json.write_text(json.dumps(values, indent=1))
    apart = 0
    for each in quoted(documents()):
        if each.name not in values:
            continue
        is_near = agrees(each, values[each.name])
        apart += not is_near
        now = written(each.name, values[each.name])
        print(f"{'' if is_near else 'APART '}{each.name} {each.file.name}: {each.text}, now {now}")
    if options.update:
        for file in documents():
            replace_in(file, values)
    elif apart:
        sys.exit(f"{apart} numbers are no longer so; --update writes those measured")


def documents() -> list[Path]:
    """Return the files that quote numbers."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def quoted(files: Sequence[Path]) -> list[Quoted]:
    """Return all marked numbers of files.

    Raises:
        SystemExit: A name that no group knows.
    """
    found = [
        Quoted(file, match["name"], match["value"])
        for file in files
        for match in MARK.finditer(file.read_text())
    ]
    for each in found:
        group, _, name = each.name.partition(".")
        if group not in GROUPS or name not in GROUPS[group].formats:
            sys.exit(f"{each.file}: no measurement gives the number {each.name}")
    return found


def written(name: str, value: float) -> str:
    """Return a value as the documents write it."""
    group, _, key = name.partition(".")
    text = format(value, GROUPS[group].formats[key])
    if not float(text.rstrip("%")):
        text = text.lstrip("+-")
    return text.replace("-", "\N{MINUS SIGN}")


def agrees(each: Quoted, value: float) -> bool:
    """Is the quoted number what was measured, as far as the group asks?"""
    group = GROUPS[each.name.partition(".")[0]]
    now = float(written(each.name, value).replace("\N{MINUS SIGN}", "-"))
    then = float(each.text.replace("\N{MINUS SIGN}", "-"))
    return abs(now - then) <= max(group.least, group.share * abs(then)) + 1e-9


def replace_in(file: Path, values: Mapping[str, float]) -> None:
    """Write measured values into a file."""

    def renewed(match: re.Match[str]) -> str:
        name = match["name"]
        text = written(name, values[name]) if name in values else match["value"]
        return f"<!--{name}-->{text}<!--/-->"

    before = file.read_text()
    after = MARK.sub(renewed, before)
    if after != before:
        file.write_text(after)


# --- Sizes of ships ------------------------------------------------------------------------------


def sizes() -> dict[str, float]:
    """Measure ships of known size, as ``object_sizes.py`` does, 10 m pixels of decibels."""
    import object_sizes

    result: dict[str, float] = {}
    for key, dtype, is_known, grow_px in (
        ("", "float32", True, 0.0),
        ("plain_", "float32", False, 0.0),
        ("tight_", "float32", True, -1.5),
        ("bytes_", "uint8", True, 0.0),
    ):
        table = object_sizes.table(
            dtype=dtype, pixel_m=10.0, looks=4.0, zoom=1.0, images=40, is_known=is_known,
            grow_px=grow_px,
        )  # fmt: skip
        for side in ("length", "width"):
            error = 100 * (getattr(table, f"found_{side}_m") / getattr(table, f"{side}_m") - 1)
            low, middle, high = np.nanpercentile(error, [16, 50, 84])
            result |= {
                f"{key}{side}_low": low,
                f"{key}{side}_bias": middle,
                f"{key}{side}_high": high,
            }
        result[f"{key}axis_90"] = float(np.nanpercentile(table.turned_deg, 90))
    for side in ("length", "width"):
        most = max(abs(result[f"{side}_low"]), abs(result[f"{side}_high"]))
        result[f"{side}_within"] = 5 * math.ceil(most / 5)
        result[f"tight_{side}_cost"] = result[f"{side}_bias"] - result[f"tight_{side}_bias"]
    return {name: float(value) for name, value in result.items()}


SIZE_NAMES = [
    f"{key}{side}_{what}"
    for key in ("", "plain_", "tight_", "bytes_")
    for side in ("length", "width")
    for what in ("low", "bias", "high")
]


# --- The demo ------------------------------------------------------------------------------------


def demo() -> dict[str, float]:
    """Run ``make demo`` and measure its scene."""
    with tempfile.TemporaryDirectory() as work:
        run = Path(work) / "run"
        start = time.monotonic()
        call(["make", "--no-print-directory", "demo", f"DEMO={run}"])
        minutes = (time.monotonic() - start) / 60
        return {"minutes": minutes, **measured_demo(run)}


def measured_demo(run: Path) -> dict[str, float]:
    """Measure what a finished demo and the CFAR find in the demo's scene."""
    scene = ROOT / "multirun" / ".simulated" / "demo" / "scene"
    command = [sys.executable, "-m", "sar_experiments", "task=evaluate", "hardware=cpu"]
    places = [f"source={scene}.tif", f"labels={scene}.json"]
    with tempfile.TemporaryDirectory() as work:
        call([*command, f"weights={run}", *places, f"output={work}/scene"])
        call([*command, "model=cfar", "usecase=demo", *places, f"output={work}/cfar_scene"])
        trained = json.loads((run / "result.json").read_text())["metrics"]
        found, bright = (
            json.loads((Path(work) / name / "result.json").read_text())["metrics"]
            for name in ("scene", "cfar_scene")
        )
    return {
        "val_ap50": trained["AP50"],
        **{f"scene_{name}": found[name] for name in ("truths", "hits", "false_alarms")},
        **{f"scene_{name}": found[name] for name in ("recall", "precision", "AP50")},
        "any_class_AP50": found["AP50_any_class"],
        **{f"cfar_{name}": bright[name] for name in ("hits", "false_alarms")},
        **{f"cfar_{name}": bright[name] for name in ("recall", "precision", "AP50")},
    }


def call(command: Sequence[str]) -> None:
    """Run a command from the repository's root; its output is shown where it fails."""
    done = subprocess.run(
        command, cwd=ROOT, env=dict(os.environ), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}")


GROUPS: dict[str, Group] = {
    "demo": Group(
        "make demo, then task=evaluate source=multirun/.simulated/demo/scene.tif labels=…",
        demo,
        {
            "minutes": ".1f",
            "val_ap50": ".2f",
            **dict.fromkeys(("scene_truths", "scene_hits", "scene_false_alarms"), ".0f"),
            **dict.fromkeys(("cfar_hits", "cfar_false_alarms"), ".0f"),
            "any_class_AP50": ".2f",
            **dict.fromkeys(("scene_recall", "scene_precision", "scene_AP50"), ".2f"),
            **dict.fromkeys(("cfar_recall", "cfar_precision", "cfar_AP50"), ".2f"),
        },
        share=0.05,
        least=0.05,  # another processor, another rounding: one object more or less is not told
    ),
    "sizes": Group(
        "python benchmarks/object_sizes.py",
        sizes,
        {
            **dict.fromkeys(SIZE_NAMES, "+.0f"),
            "bytes_width_bias": ".0f",
            **dict.fromkeys(("tight_length_cost", "tight_width_cost"), ".0f"),
            **dict.fromkeys(("length_within", "width_within"), ".0f"),
            "axis_90": ".1f",
        },
        least=1.0,
    ),
}


if __name__ == "__main__":
    main()
