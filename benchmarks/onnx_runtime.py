"""ONNX Runtime beside PyTorch on the CPU: the same network, the same tiles, one thread each.

    python benchmarks/onnx_runtime.py tiny faster_rcnn_r50_fpn

Weights are random, with scores spread as a trained network's are, so that as many boxes reach
NMS; rounds alternate, and the medians and their ratio are printed, with agreement first.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir

from sar_experiments import cli, run_folder
from sar_experiments.config import to_plain
from sar_experiments.data.radiometry import Radiometry
from sar_experiments.detections import Detections
from sar_experiments.export import agreement
from sar_experiments.export.onnx_file import BoxesOfOneImage, export_onnx
from sar_experiments.export.session import OnnxAbout, open_onnx
from sar_experiments.model import build
from sar_experiments.model.inference import for_inference

ROUNDS, TILE_PX, THREADS = 7, 512, 1
SPREAD = 30.0  # factor on the last layers' random weights


def main() -> None:
    """Print a line per model."""
    torch.set_num_threads(THREADS)
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            sys.stdout.write(f"{measured(name, Path(folder) / 'model.onnx')}\n")


def measured(name: str, path: Path) -> str:
    """Export a model, compare it, time both runtimes in turns."""
    with initialize_config_dir(cli.conf_dir(), version_base="1.3"):
        overrides = [f"model={name}", "model.weights=none", "hardware=cpu"]
        config = cli.typed(compose("config", overrides=overrides))
    torch.manual_seed(3)
    spec = build.ModelSpec(config.model.base, config.d2, ("ship",))
    model = build.build_model(build.detectron2_config(spec, device="cpu")).eval()
    for key, weights in model.named_parameters():
        if key.endswith(("cls_score.weight", "objectness_logits.weight", "bbox_pred.weight")):
            weights.data *= SPREAD
    radiometry = Radiometry.from_config(config.radiometry).to_dict()
    versions = run_folder.versions()
    about = OnnxAbout(to_plain(config), ("ship",), radiometry, 0, name, None, None, versions)
    export_onnx(model, path, about, channels=1)
    exported, live = open_onnx(path, threads=THREADS), BoxesOfOneImage(for_inference(model)).eval()
    image = np.random.default_rng(1).random((TILE_PX, TILE_PX, 1), dtype=np.float32)
    chw = torch.from_numpy(image.transpose(2, 0, 1).copy())

    def by_torch() -> Detections:
        with torch.inference_mode():
            return Detections.of(*(each.numpy() for each in live(chw)))

    def by_onnx() -> Detections:
        return exported.find_encoded(image, input_height=TILE_PX, input_width=TILE_PX)

    found = agreement.compare([(by_torch(), by_onnx())])
    seconds: dict[str, list[float]] = {"torch": [], "onnx": []}
    for turn in range(ROUNDS):
        order = [("torch", by_torch), ("onnx", by_onnx)]
        for runtime, call in order if turn % 2 else reversed(order):
            start = time.perf_counter()
            call()
            seconds[runtime].append(time.perf_counter() - start)
    torch_s, onnx_s = (statistics.median(seconds[each]) for each in ("torch", "onnx"))
    return (
        f"{name}: PyTorch {torch_s:.3f} s, ONNX Runtime {onnx_s:.3f} s a tile of {TILE_PX} px"
        f" ({torch_s / onnx_s:.2f} times as fast); {found.sentence()}"
    )


if __name__ == "__main__":
    main()
