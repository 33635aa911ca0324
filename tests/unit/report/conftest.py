"""Run folders as a training leaves them: tiny images, seeded detections, measured numbers."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir

from sar_experiments import cli, run_folder
from sar_experiments.config import SplitConfig, to_plain
from sar_experiments.data.images import write_image
from sar_experiments.data.parts import read_parts
from sar_experiments.detections import Detections
from sar_experiments.evaluate.metrics import (
    coco_results,
    flat,
    measure,
    measure_any_class,
    of_one_class,
)

SIDE_PX = 120
CLASSES = ("ship", "platform")
SIZES_PX = (6, 12, 20, 40)


class Folders:
    """Makes annotated images, and runs that found some of the objects in them."""

    def __init__(self, root, composed):
        self.root = root
        self.runs = root / "runs"
        for name, count in (("train", 3), ("val", 6), ("test", 4)):
            self.write_part(name, count)
        training, self.classic, self.report_config = composed
        parts = {
            name: SplitConfig(str(root / name), str(root / f"{name}.json"))
            for name in ("train", "val", "test")
        }
        usecase = replace(training.usecase, simulator=None, name="infra", classes=None, **parts)
        self.config = replace(training, usecase=usecase)
        self.plain = to_plain(self.config)

    def write_part(self, name, count):
        rng = np.random.default_rng(len(name) + count)
        (self.root / name).mkdir(exist_ok=True)
        images, annotations = [], []
        for number in range(1, count + 1):
            file = f"{name}_{number}.png"
            write_image(
                self.root / name / file, rng.integers(0, 90, (SIDE_PX, SIDE_PX), dtype=np.uint8)
            )
            images.append({"id": number, "file_name": file, "height": SIDE_PX, "width": SIDE_PX})
            for place, size in enumerate(SIZES_PX):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": 1 + place % len(CLASSES),
                        "bbox": [5 + 50 * (place % 2), 5 + 50 * (place // 2), size, size],
                        "area": size * size,
                        "iscrowd": 0,
                    }
                )
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": k + 1, "name": name} for k, name in enumerate(CLASSES)],
        }
        (self.root / f"{name}.json").write_text(json.dumps(content))

    def run(  # noqa: PLR0913 - what runs may differ in
        self, name, *, seed=1, lr=0.1, share=0.7, model=None, overrides=None, names=True,
        is_old=False, **result,
    ):  # fmt: skip
        """Write a run that found a share of the objects, and some clutter.

        Without names all that it finds is a ship; an old one recorded nothing class-agnostic.
        """
        folder = self.runs / name
        folder.mkdir(parents=True)
        config, plain = self.config, self.plain
        plain = {**plain, "seed": seed, "solver": {**plain["solver"], "base_lr": lr}}
        plain["model"] = model or plain["model"]
        (folder / "config.yaml").write_text(yaml.safe_dump(plain))
        parts = read_parts(config.usecase)
        metrics, thresholds = {}, None
        for part, prefix in (("val", ""), ("test", "test/")):
            found = detections(parts[part].samples, share=share, seed=seed)
            how = {
                "max_detections": config.evaluation.max_detections,
                "match_iou": config.evaluation.match_iou, "thresholds": thresholds,
            }  # fmt: skip
            if not names:
                found = of_one_class(found)
            if names or is_old:
                told = measure(parts[part].samples, found, CLASSES, **how)
            else:
                told = measure_any_class(parts[part].samples, found, **how)
            thresholds = told.thresholds
            file = "detections.json" if part == "val" else "test_detections.json"
            run_folder.write_json(folder / file, coco_results(found))
            metrics |= {f"{prefix}{key}": value for key, value in flat(told).items()}
        metrics |= thresholds.as_metrics()
        if is_old:
            metrics = {k: v for k, v in metrics.items() if not k.endswith("_any_class")}
            thresholds = replace(thresholds, any_class=None)
        run_folder.write_json(folder / "thresholds.json", thresholds.to_plain())
        if overrides is None:
            overrides = ["usecase=infra", f"solver.base_lr={lr}", f"seed={seed}"]
        known = {
            "status": "completed", "task": "train", "metrics": metrics, "overrides": overrides,
            "seconds": 60.0, "config_hash": f"{seed}{lr}", "ended": f"2026-01-0{seed}",
            "names_classes": names or is_old,
        }  # fmt: skip
        run_folder.write_result(folder, run_folder.Result(**{**known, **result}))
        lines = [{"iteration": step, "total_loss": 1 / (step + 1)} for step in range(9)]
        (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
        return folder

    def cfar(self, name, **more):
        """Write the evaluation of a CFAR."""
        return self.run(
            name, model=to_plain(self.classic)["model"], task="evaluate", names=False,
            overrides=["task=evaluate", "model=cfar", "usecase=infra"], **{"share": 0.3, **more},
        )  # fmt: skip

    def asked(self, *, source=None, **changes):
        """Return the config of a report."""
        return replace(
            self.report_config,
            source=str(source or self.runs),
            report=replace(self.report_config.report, **changes),
        )


def detections(samples, *, share, seed):
    """Return found objects, off by up to a fifth of their size, and false alarms."""
    rng = np.random.default_rng(seed)
    found = {}
    for sample in samples:
        rows = []
        for each in sample["annotations"]:
            if rng.random() < share:
                box = np.asarray(each["bbox"]) + rng.uniform(-0.1, 0.1) * (
                    each["bbox"][2] - each["bbox"][0]
                )
                rows.append((box, rng.uniform(0.3, 1), each["category_id"]))
        for _ in range(2):
            left, top = rng.uniform(0, SIDE_PX - 15, 2)
            box = (left, top, left + 12, top + 12)
            rows.append((box, rng.uniform(0, 0.6), int(rng.integers(2))))
        rows.sort(key=lambda row: -row[1])
        found[sample["image_id"]] = Detections.of(*zip(*rows, strict=True))
    return found


@pytest.fixture(scope="session")
def composed():
    """Compose a training, a CFAR's evaluation and a report; each takes half a second."""
    asked = (
        ("usecase=demo", "hardware=cpu"),
        ("usecase=demo", "hardware=cpu", "task=evaluate", "model=cfar", "model.cfar.pixel_m=10"),
        ("task=report", "hardware=cpu", f"source={Path(__file__).parent}", "report.pictures=3"),
    )
    with initialize_config_dir(cli.conf_dir(), version_base="1.3"):
        return [cli.typed(compose("config", overrides=list(each))) for each in asked]


@pytest.fixture
def folders(tmp_path, composed):
    return Folders(tmp_path, composed)
