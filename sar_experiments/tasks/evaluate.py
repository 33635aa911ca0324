"""task=evaluate: measure a checkpoint again, or a CFAR."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from detectron2.utils import comm

from sar_experiments import ranks, run_folder
from sar_experiments.config import Config, to_yaml
from sar_experiments.exit_codes import DONE
from sar_experiments.model import build, weights
from sar_experiments.tasks.cfar import detect_part
from sar_experiments.tasks.detectors import stored_thresholds
from sar_experiments.tasks.measuring import measure_parts, record_parts
from sar_experiments.tasks.parts import load_parts, usable_parts
from sar_experiments.tasks.trained import as_trained, overrides_of

if TYPE_CHECKING:
    from sar_experiments.tasks.interruption import Interruption

logger = logging.getLogger(__name__)


def run(config: Config, folder: Path, _interruption: Interruption) -> int:
    """Measure a checkpoint; the network, its classes and radiometry are the checkpoint's."""
    if config.model.cfar is not None:
        return _measure_cfar(config, folder)
    assert config.weights is not None  # the door checked
    path = run_folder.resolve_weights(Path(config.weights))
    about = weights.read_about(path)
    config = as_trained(config, about, overrides_of(folder))
    parts = ranks.from_first(lambda: usable_parts(config, load_parts(config, folder), folder))
    spec = build.ModelSpec(config.model.base, config.d2, about.classes)
    cfg = build.detectron2_config(spec, device=config.hardware.device.name)
    if comm.is_main_process():
        run_folder.write_atomically(folder / run_folder.CONFIG, to_yaml(config))
        run_folder.write_atomically(folder / run_folder.DETECTRON2, cfg.dump())
    model = build.build_model(cfg)
    weights.load_exactly(model, path)
    logger.info("model: %s, %s, step %d", config.model.name, path, about.step)
    thresholds = stored_thresholds(about.thresholds, path, about.classes)
    logger.info(
        "thresholds: %s",
        "chosen on this validation split, as the checkpoint has none"
        if thresholds is None
        else thresholds.described(),
    )
    measure_parts(config, folder, model, parts, thresholds)
    return DONE


def _measure_cfar(config: Config, folder: Path) -> int:
    """Measure a CFAR, which has no checkpoint: radiometry and classes are the command's."""
    parts = ranks.from_first(lambda: usable_parts(config, load_parts(config, folder), folder))
    record_parts(config, folder, parts, lambda part: detect_part(config, part), names_classes=False)
    return DONE
