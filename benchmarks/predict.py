"""Speed, memory and agreement of prediction, against a plain loop and SAHI.

The same network on the same tiles: ``ours`` is predict(), ``loop`` reads the scene whole and calls
Detectron2's DefaultPredictor on each tile, ``sahi`` is SAHI's get_sliced_prediction around that
predictor. Each runs in a process of its own; its peak memory and its processor time are the
kernel's. With a busy machine compare processor times, not wall times.

    python benchmarks/predict.py --weights=multirun/RUN --sahi-python=/path/to/venv/bin/python

The run must be of one channel and radiometry=amplitude_8bit (such as the demo's). The others want
three channels of 0 to 255: their stem gets a third of ours per channel, which is the same function.
SAHI is no dependency of ours: make an environment that holds both, and name its Python.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MATCH_IOU = 0.5


def main() -> None:
    """Compare all methods, or, with --method, measure one."""
    arguments = _arguments()
    if arguments.method:
        print(json.dumps(measure(arguments)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
        work = Path(folder)
        scene = arguments.scene or simulated_scene(work, arguments.size)
        write_three_channels(arguments.weights, work, arguments.tile)
        methods = ["ours", "ours_bf16", "loop"] + ["sahi"] * bool(arguments.sahi_python)
        results = {each: run_method(each, arguments, scene, work) for each in methods}
    print(table(results))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--scene", type=Path, help="8-bit scene; left out, one is simulated")
    parser.add_argument("--size", type=int, default=2048, help="of the simulated scene")
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--overlap", type=int, default=128)
    parser.add_argument("--batch", type=int, default=4, help="of our tiles at once")
    parser.add_argument("--rounds", type=int, default=3, help="the cheapest counts")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--min-score", type=float, default=0.5)
    parser.add_argument("--sahi-python", default="")
    parser.add_argument("--work", type=Path, help="folder for what is made")
    parser.add_argument("--method", default="")
    return parser.parse_args()


def simulated_scene(work: Path, size: int) -> Path:
    """Make a scene like the demo's."""
    from sar_experiments.data.simulator import SimulatorSettings, simulate_dataset

    settings = SimulatorSettings(
        seed=11, image_size_px=256, pixel_m=10.0, looks=4.0, classes=("ship", "platform"),
        train_images=1, val_images=0, test_images=0, scene_size_px=size, empty_share=0.1,
    )  # fmt: skip
    simulate_dataset(settings, work / "simulated")
    return work / "simulated" / "scene.tif"


def write_three_channels(run: Path, work: Path, tile: int) -> None:
    """Write the run's network as one of three channels of 0 to 255, as DefaultPredictor reads."""
    import torch

    from sar_experiments import run_folder
    from sar_experiments.model import build, weights

    path = run_folder.resolve_weights(run)
    about = weights.read_about(path)
    radiometry = about.config["radiometry"]
    if radiometry["channels"] != 1 or radiometry["name"] != "amplitude_8bit":
        sys.exit(f"{run} must be of one channel and radiometry=amplitude_8bit")
    spec = build.ModelSpec(about.config["model"]["base"], about.config["d2"], about.classes)
    cfg = build.detectron2_config(spec, device="cpu").clone()
    cfg.defrost()
    for key in ("PIXEL_MEAN", "PIXEL_STD"):
        cfg.MODEL[key] = [255.0 * cfg.MODEL[key][0]] * 3
    cfg.INPUT.MIN_SIZE_TEST = cfg.INPUT.MAX_SIZE_TEST = tile
    cfg.MODEL.WEIGHTS = str(work / "three.pth")
    state = weights.read_checkpoint(path)["model"]
    for key in [key for key in state if key.endswith("stem.conv1.weight")]:
        state[key] = state[key].repeat(1, 3, 1, 1) / 3
    for key in [key for key in state if key in ("pixel_mean", "pixel_std")]:
        del state[key]
    torch.save({"model": state}, work / "three.pth")
    (work / "three.yaml").write_text(cfg.dump())


def run_method(method: str, arguments: argparse.Namespace, scene: Path, work: Path) -> Any:
    """Measure one method in a process of its own."""
    python = arguments.sahi_python if method == "sahi" else sys.executable
    command = [
        python, __file__, f"--method={method}", f"--weights={arguments.weights}",
        f"--scene={scene}", f"--work={work}", f"--tile={arguments.tile}",
        f"--overlap={arguments.overlap}", f"--threads={arguments.threads}",
        f"--min-score={arguments.min_score}", f"--batch={arguments.batch}",
        f"--rounds={arguments.rounds}",
    ]  # fmt: skip
    threads = str(arguments.threads)
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one method and return its cost and detections."""
    import torch

    torch.set_num_threads(arguments.threads)
    find = {"ours": ours, "ours_bf16": ours, "loop": loop, "sahi": sahi}[arguments.method](
        arguments
    )
    loaded_mb, costs = peak_mb(), []
    for _ in range(arguments.rounds):
        began_s, used_s = time.perf_counter(), time.process_time()
        boxes, scores, mpx = find()
        costs.append((time.process_time() - used_s, time.perf_counter() - began_s))
    processor_s, wall_s = min(costs)  # what other work on the machine adds is not the method's
    return {
        "wall_s": wall_s,
        "processor_s": processor_s,
        "mpx": mpx,
        "loaded_mb": loaded_mb,
        "peak_mb": peak_mb(),
        "boxes": boxes,
        "scores": scores,
    }


def peak_mb() -> float:
    """Return the largest resident memory of this process so far, which getrusage would inherit."""
    (line,) = (
        each for each in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in each
    )
    return int(line.split()[1]) / 1024


def ours(arguments: argparse.Namespace) -> Any:
    """Return what runs predict()."""
    import torch

    from sar_experiments import run_folder
    from sar_experiments.config import MergeRule, PredictConfig
    from sar_experiments.data.radiometry import from_dict
    from sar_experiments.model import build, weights
    from sar_experiments.model.inference import for_inference
    from sar_experiments.predict.network import NetworkDetector
    from sar_experiments.predict.runner import predict
    from sar_experiments.predict.sources import find_scenes

    path = run_folder.resolve_weights(arguments.weights)
    about = weights.read_about(path)
    spec = build.ModelSpec(about.config["model"]["base"], about.config["d2"], about.classes)
    model = build.build_model(build.detectron2_config(spec, device="cpu"))
    weights.load_exactly(model, path)
    fields = {k: v for k, v in about.config["radiometry"].items() if k != "name"}
    precision = torch.bfloat16 if arguments.method == "ours_bf16" else None
    detector = NetworkDetector(
        for_inference(model), from_dict(fields), about.classes,
        autocast=precision,
    )  # fmt: skip
    settings = PredictConfig(
        tile_px=arguments.tile, overlap_px=arguments.overlap, scale=1.0,
        batch_size=arguments.batch, readers=1, min_score=arguments.min_score,
        merge=MergeRule.interior_nms, merge_overlap=0.5, merge_nested=None, merge_classes=False,
        bands=None, polarisations=None, land=None, land_buffer_m=0.0, avoid=[],
        avoid_buffer_m=0.0, outputs=[], overview_px=1000, crop_px=0,
    )  # fmt: skip

    def find() -> Any:
        scenes = find_scenes(str(arguments.scene))
        (found,) = predict(
            scenes,
            lambda _header: detector,
            settings,
            min_score=arguments.min_score,
        )
        boxes = [each.box for each in found.objects]
        return (
            boxes,
            [each.score for each in found.objects],
            found.header.height * found.header.width / 1e6,
        )

    return find


def loop(arguments: argparse.Namespace) -> Any:
    """Return the loop that one writes first: scene in memory, tile by tile, one suppression."""
    import numpy as np
    import rasterio
    import torch
    from detectron2.engine import DefaultPredictor
    from torchvision.ops import batched_nms

    predictor = DefaultPredictor(other_config(arguments))

    def find() -> Any:
        with rasterio.open(arguments.scene) as raster:
            scene = np.repeat(raster.read(1)[:, :, None], 3, axis=2)
        height, width, step = *scene.shape[:2], arguments.tile - arguments.overlap
        parts = []
        for top in starts(height, arguments.tile, step):
            for left in starts(width, arguments.tile, step):
                tile = scene[top : top + arguments.tile, left : left + arguments.tile]
                found = predictor(tile)["instances"]
                shift = torch.tensor([left, top, left, top])
                parts.append((found.pred_boxes.tensor + shift, found.scores, found.pred_classes))
        boxes, scores, classes = (torch.cat(each) for each in zip(*parts, strict=True))
        good = scores >= arguments.min_score
        boxes, scores, classes = boxes[good], scores[good], classes[good]
        kept = batched_nms(boxes, scores, classes, 0.5)
        return boxes[kept].tolist(), scores[kept].tolist(), height * width / 1e6

    return find


def starts(size: int, tile: int, step: int) -> list[int]:
    """Return where tiles begin; the last one ends with the scene."""
    return [*range(0, max(1, size - tile), step), max(0, size - tile)]


def sahi(arguments: argparse.Namespace) -> Any:
    """Return SAHI's sliced prediction with its own defaults, without the whole image once more."""
    from PIL import Image
    from sahi.models.detectron2 import Detectron2DetectionModel
    from sahi.predict import get_sliced_prediction

    import sar_experiments.model.backbones  # noqa: F401 - the tiny model's

    Image.MAX_IMAGE_PIXELS = None
    model = Detectron2DetectionModel(
        model_path=str(arguments.work / "three.pth"),
        config_path=str(arguments.work / "three.yaml"),
        confidence_threshold=arguments.min_score,
        device="cpu",
    )
    ratio = arguments.overlap / arguments.tile

    def find() -> Any:
        result = get_sliced_prediction(
            str(arguments.scene), model, slice_height=arguments.tile, slice_width=arguments.tile,
            overlap_height_ratio=ratio, overlap_width_ratio=ratio, perform_standard_pred=False,
            verbose=0,
        )  # fmt: skip
        found = result.object_prediction_list
        boxes = [each.bbox.to_xyxy() for each in found]
        mpx = result.image_width * result.image_height / 1e6
        return boxes, [float(each.score.value) for each in found], mpx

    return find


def other_config(arguments: argparse.Namespace) -> Any:
    """Return the yacs config of the network of three channels."""
    from detectron2.config import get_cfg

    import sar_experiments.model.backbones  # noqa: F401 - the tiny model's

    cfg = get_cfg()
    cfg.merge_from_file(str(arguments.work / "three.yaml"))
    return cfg


def agreement(one: Any, other: Any) -> tuple[int, float]:
    """Return how many detections of one meet one of the other, and the largest edge apart."""
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    if not one["boxes"] or not other["boxes"]:
        return 0, 0.0
    a, b = np.array(one["boxes"]), np.array(other["boxes"])
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    area = [np.prod(each[:, 2:] - each[:, :2], axis=1) for each in (a, b)]
    iou = shared / (area[0][:, None] + area[1][None] - shared)
    rows, cols = linear_sum_assignment(-iou)
    hit = iou[rows, cols] >= MATCH_IOU
    apart = np.abs(a[rows] - b[cols]).max(axis=1)[hit]
    return int(hit.sum()), float(np.median(apart)) if hit.any() else 0.0


def table(results: dict[str, Any]) -> str:
    """Return the comparison as Markdown."""
    base = results["ours"]
    lines = [
        "| method | Mpx per processor second | its time over ours | peak memory, MB"
        " | of it before the scene | detections | found by ours too | median edge apart, px |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, each in results.items():
        matched, apart = agreement(each, base)
        lines.append(
            f"| {name} | {each['mpx'] / each['processor_s']:.2f}"
            f" | {each['processor_s'] / base['processor_s']:.2f}"
            f" | {each['peak_mb']:.0f} | {each['loaded_mb']:.0f} | {len(each['boxes'])}"
            f" | {matched} | {apart:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
