"""What each way of prediction finds in whole scenes whose objects are known.

    python benchmarks/scene_accuracy.py [RUN ...] [--models tiny ...] [--steps 600] [--json FILE]

Scenes are the demo's and a crowded one of 240 objects. Ways are PyTorch with several tiles at once
(``predict.batch_size``), ONNX and the service. Without RUN a network of each of ``--models`` is
trained first, on the demo's images, narrow enough for CPUs, and kept below ``--work`` for the
next time.

Recall and precision are counted here, from the written detections against the simulator's truth:
the best first, each truth once, of the same class, from an intersection over union of 0.5. AP and
AP50, of all detections down to ``evaluation.min_score``, are those of ``task=evaluate``. ``same``
counts the objects that one tile at a time finds too (intersection over union from 0.9), and
``score`` is the largest difference of their scores.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

MATCH_IOU, SAME_IOU = 0.5, 0.9
TINY, MASK = "tiny", "mask_rcnn_r50_fpn"
MODELS = (TINY, "faster_rcnn_r50_fpn", "retinanet_r50_fpn", "cascade_rcnn_r50_fpn", MASK)
EXPORTED = (TINY, "faster_rcnn_r50_fpn", "retinanet_r50_fpn")
DEMO = ("usecase=demo", "hardware=cpu")
NARROW = (
    "model.weights=none", "model.anchor_sizes=[[8],[16],[32],[64],[128]]",
    "+d2.MODEL.RESNETS.STEM_OUT_CHANNELS=32", "+d2.MODEL.RESNETS.RES2_OUT_CHANNELS=64",
    "+d2.MODEL.RESNETS.WIDTH_PER_GROUP=32", "+d2.MODEL.FPN.OUT_CHANNELS=64",
    "+d2.MODEL.ROI_BOX_HEAD.FC_DIM=256",
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """What a way finds in a scene.

    Attributes:
        boxes: (N, 4), pixels of the scene.
        scores: (N,).
        classes: (N,), category ids.
        ap: Average precision of detections down to the lowest score; None where not told.
        ap50: The same from an intersection over union of 0.5.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    classes: NDArray[np.int64]
    ap: float | None = None
    ap50: float | None = None


def main() -> None:
    """Print a table of all networks, scenes and ways."""
    options = _options()
    options.work.mkdir(parents=True, exist_ok=True)
    scenes = {
        "demo": demo_scene(options.work, options.seed),
        "crowded": crowded_scene(options.work, options.seed),
    }
    runs = options.runs or [trained(each, options) for each in options.models]
    rows = []
    print("| model | scene | way | objects | recall | precision | AP50 | AP | same | score |")
    print("| --- | --- | --- | --: | --: | --: | --: | --: | --: | --: |", flush=True)
    for run in runs:
        for name, (scene, labels) in scenes.items():
            first = None
            for way, found in ways(run, scene, labels, options):
                first = first or found
                row = measured(found, first, labels)
                rows.append({"model": model_of(run), "scene": name, "way": way, **row})
                print(line(rows[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("runs", nargs="*", type=Path, help="trained on the demo's classes")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--steps", type=int, default=600, help="of a training")
    parser.add_argument("--seed", type=int, default=1, help="of the simulator")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument("--work", type=Path, default=Path("multirun/.bench_scenes"))
    parser.add_argument("--json", type=Path, help="the same as a file")
    parser.add_argument("--set", nargs="*", default=[], help="further overrides of a training")
    return parser.parse_args()


# --- Scenes and networks -------------------------------------------------------------------------


def demo_scene(work: Path, seed: int) -> tuple[Path, Path]:
    """Return the demo's scene and its truth."""
    folder = work / f"demo_{seed}"
    if not (folder / "scene.json").is_file():
        data = (f"usecase.simulator.folder={folder}", f"usecase.simulator.seed={seed}")
        call("task=check", *DEMO, *data, f"output={work / 'check'}")
    return folder / "scene.tif", folder / "scene.json"


def crowded_scene(work: Path, seed: int) -> tuple[Path, Path]:
    """Return a scene of 15 objects in the area of a training image."""
    from sar_experiments.data.simulator import SimulatorSettings, simulate_dataset

    folder = work / f"crowded_{seed}"
    if not (folder / "scene.json").is_file():
        settings = SimulatorSettings(
            seed=20 + seed, image_size_px=256, pixel_m=10.0, looks=4.0,
            classes=("ship", "platform"), train_images=1, val_images=0, test_images=0,
            scene_size_px=1024, empty_share=0.0, max_objects=30,
        )  # fmt: skip
        simulate_dataset(settings, folder)
    return folder / "scene.tif", folder / "scene.json"


def trained(model: str, options: argparse.Namespace) -> Path:
    """Return a finished training of this model, which is made if there is none."""
    folder = options.work / f"{model}_{options.steps}"
    if (folder / "result.json").is_file() and result_of(folder)["status"] == "completed":
        return Path(folder)
    data = f"usecase.simulator.folder={options.work / f'demo_{options.seed}'}"
    call(
        *DEMO, data, f"usecase.simulator.seed={options.seed}", f"model={model}",
        *(() if model == TINY else NARROW), f"solver.max_iter={options.steps}",
        f"solver.eval_period={options.steps}", f"solver.checkpoint_period={options.steps}",
        f"output={folder}", *options.set,
    )  # fmt: skip
    return Path(folder)


def model_of(run: Path) -> str:
    """Return the name of a run's model."""
    from omegaconf import OmegaConf

    return str(OmegaConf.load(run / "config.yaml").model.name)


# --- Ways ----------------------------------------------------------------------------------------


def ways(
    run: Path, scene: Path, labels: Path, options: argparse.Namespace
) -> Iterator[tuple[str, Found]]:
    """Yield each way's name and what it finds, one tile at a time first."""
    at_once = [1, *(each for each in options.batches if each != 1)]
    for each in at_once:
        yield f"{each} at once", by_command(run, scene, labels, options, each)
    if model_of(run) in EXPORTED:
        onnx = run / "model.onnx"
        if not onnx.is_file():
            call("task=export", "hardware=cpu", f"weights={run}")
        yield "ONNX", by_command(onnx, scene, labels, options, 1, "runtime=onnx")
    yield "service", by_service(run, scene, options)


def by_command(
    weights: Path,
    scene: Path,
    labels: Path,
    options: argparse.Namespace,
    at_once: int,
    *further: str,
) -> Found:
    """Find objects by task=evaluate, which keeps what task=predict keeps."""
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        output = Path(folder) / "run"
        call(
            "task=evaluate", "hardware=cpu", f"weights={weights}", f"source={scene}",
            f"labels={labels}", f"predict.batch_size={at_once}", *further, "predict.outputs=[]",
            f"output={output}",
        )  # fmt: skip
        found = json.loads((output / "detections_coco.json").read_text())["annotations"]
        metrics = result_of(output)["metrics"]
    boxes = np.array([each["bbox"] for each in found], float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Found(
        boxes,
        np.array([each["score"] for each in found]),
        np.array([each["category_id"] for each in found], int),
        metrics["AP"],
        metrics["AP50"],
    )


def by_service(run: Path, scene: Path, options: argparse.Namespace) -> Found:
    """Ask a service for the scene."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    service = subprocess.Popen(
        [
            sys.executable, "-m", "sar_experiments", "task=serve", "hardware=cpu",
            f"weights={run}", f"serve.port={port}", f"serve.root={scene.parent.resolve()}",
            f"output={options.work / f'service_{port}'}",
        ],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                about = json.load(urllib.request.urlopen(f"{address}/health"))
                break
            except OSError:
                if service.poll() is not None:
                    raise
                time.sleep(0.5)
        request = urllib.request.Request(
            f"{address}/detect/path",
            json.dumps({"path": scene.name}).encode(),
            {"Content-Type": "application/json"},
        )
        rows = [
            each["properties"] for each in json.load(urllib.request.urlopen(request))["features"]
        ]
    finally:
        service.terminate()
        service.wait(60)
    names = list(about["classes"])
    sides = ("left_px", "top_px", "right_px", "bottom_px")
    return Found(
        np.array([[each[side] for side in sides] for each in rows], float).reshape(-1, 4),
        np.array([each["score"] for each in rows]),
        np.array([1 + names.index(each["class"]) for each in rows], int),
    )


def call(*arguments: str) -> None:
    """Run the command line to its end; its output is shown where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "sar_experiments", *arguments],
        env={"OMP_NUM_THREADS": "2", **os.environ}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{' '.join(arguments)}\n{done.stdout}")


def result_of(folder: Path) -> dict[str, Any]:
    """Return what a run says of itself."""
    return dict(json.loads((folder / "result.json").read_text()))


# --- Counting ------------------------------------------------------------------------------------


def measured(found: Found, first: Found, labels: Path) -> dict[str, float | None]:
    """Compare with the truth and with what one tile at a time finds."""
    truth = json.loads(labels.read_text())
    boxes = np.array([each["bbox"] for each in truth["annotations"]], float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    classes = np.array([each["category_id"] for each in truth["annotations"]])
    hits = len(pairs(found, boxes, classes, MATCH_IOU))
    same = pairs(found, first.boxes, first.classes, SAME_IOU)
    apart = np.abs(found.scores[same[:, 0]] - first.scores[same[:, 1]])
    return {
        "objects": len(found.scores),
        "recall": hits / max(len(boxes), 1),
        "precision": hits / max(len(found.scores), 1),
        "ap50": found.ap50,
        "ap": found.ap,
        "same": len(same),
        "score": float(apart.max(initial=0.0)),
    }


def pairs(
    found: Found, boxes: NDArray[np.float64], classes: NDArray[np.int64], least: float
) -> NDArray[np.int64]:
    """Give the best first the box of its class that it overlaps most; (N, 2) indices."""
    given: list[tuple[int, int]] = []
    free = np.ones(len(boxes), bool)
    for index in np.argsort(-found.scores, kind="stable"):
        box = found.boxes[index]
        sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
        common = sides.clip(0).prod(axis=1)
        union = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) - common
        overlap = np.where(free & (classes == found.classes[index]), common / union, 0.0)
        if len(overlap) and overlap.max() >= least:
            best = int(overlap.argmax())
            free[best] = False
            given.append((int(index), best))
    return np.array(given, int).reshape(-1, 2)


def line(row: dict[str, Any]) -> str:
    """Return a row of the table."""
    shown = [row["model"], row["scene"], row["way"], str(row["objects"])]
    for name in ("recall", "precision", "ap50", "ap"):
        shown.append("" if row[name] is None else f"{row[name]:.3f}")
    shown += [str(row["same"]), f"{row['score']:.4f}"]
    return f"| {' | '.join(shown)} |"


if __name__ == "__main__":
    main()
