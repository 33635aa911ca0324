"""task=evaluate source=SCENE labels=FILE: what task=predict finds in scenes against their truth."""

from __future__ import annotations

import csv
import io
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sar_experiments import run_folder
from sar_experiments.data.images import write_image
from sar_experiments.data.object_lengths import say_too_long
from sar_experiments.detections import Detections
from sar_experiments.errors import SceneError
from sar_experiments.evaluate.metrics import FALSE_ALARM, ON_CROWD, flat, metrics_table
from sar_experiments.evaluate.scenes import measure_scenes
from sar_experiments.exit_codes import DONE, INTERRUPTED
from sar_experiments.predict.objects import describe
from sar_experiments.predict.outputs import as_coco, write_json_text, write_outcomes
from sar_experiments.predict.pictures import draw_outcomes, gray_overview
from sar_experiments.predict.runner import masks_of, with_tile_sizes
from sar_experiments.predict.scene import Scene
from sar_experiments.predict.scene_truth import read_truth, set_aside
from sar_experiments.predict.sources import SceneFiles, find_scenes
from sar_experiments.tasks.detectors import BRIGHT, choose_detector
from sar_experiments.tasks.predict import predict_scenes
from sar_experiments.tasks.progress import counted
from sar_experiments.thresholds import Threshold, Thresholds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sar_experiments.config import Config
    from sar_experiments.data.annotations import Sample
    from sar_experiments.evaluate.metrics import Assignment
    from sar_experiments.predict.outputs import Outcome
    from sar_experiments.predict.runner import ScenePrediction
    from sar_experiments.tasks.interruption import Interruption

logger = logging.getLogger(__name__)

AS_PREDICTED = "those that task=predict takes"
SCENES_CSV = "scenes.csv"


def run(config: Config, folder: Path, interruption: Interruption) -> int:
    """Predict the scenes as task=predict does, compare what it keeps with the labels."""
    choice = choose_detector(config, folder)
    sources = find_scenes(
        config.source, polarisations=config.predict.polarisations, channels=choice.channels
    )
    settings = with_tile_sizes(config.predict, choice.native_px)
    say_too_long(choice.lengths_px, settings)
    any_class = config.model.cfar is not None
    classes = (BRIGHT,) if any_class else choice.classes
    truth = _truth(config, sources, classes, nodata=choice.nodata)
    done, failed = predict_scenes(
        config, folder, choice, interruption, sources, settings,
        lowest_score=config.evaluation.min_score,
    )  # fmt: skip
    if failed:
        raise SceneError("; ".join(dict.fromkeys(each.why for each in failed)))
    if len(done) < len(sources):
        why = f"interrupted after {len(done)} of {len(sources)} scenes"
        why = f"{why}; {run_folder.how_to_go_on(folder)}"
        run_folder.update_result(folder, status="interrupted", why=why)
        logger.info("%s", why)
        return INTERRUPTED
    objects = {n: _detections(each, classes) for n, each in enumerate(done, start=1)}
    scored = {n: _scored(each, any_class) for n, each in enumerate(done, start=1)}
    scores = dict.fromkeys(classes, 0.0) if any_class else choice.min_scores
    result = measure_scenes(
        truth,
        objects,
        scored,
        classes,
        match_iou=config.evaluation.match_iou,
        thresholds=Thresholds(
            {n: Threshold(scores[n]) for n in classes},
            AS_PREDICTED,
            any_class=Threshold(min(scores.values())),  # what is kept has passed that of its class
        ),
    )
    rows = [
        _row(sample, result.assignments[sample["image_id"]], objects[sample["image_id"]])
        for sample in truth
    ]
    logger.info(
        "%s, hits from an IoU of %g on:\n%s",
        counted(len(truth), "scene"),
        config.evaluation.match_iou,
        metrics_table(result.metrics),
    )
    if any_class:
        logger.info("a CFAR does not tell classes: all objects count as one")
    _write(config, folder, done, truth, result.assignments, rows)
    counts = {
        "scenes": float(len(truth)),
        **{f"{name}": float(sum(int(row[name]) for row in rows)) for name in _COUNTED},
    }
    found = flat(result.metrics)
    if any_class:  # by the names that a network's class-agnostic numbers have
        found |= {f"{name}{run_folder.ANY_CLASS}": value for name, value in found.items()}
    run_folder.update_result(
        folder, status="completed", metrics={**found, **counts}, names_classes=not any_class
    )
    (folder / run_folder.TILE_LOG).unlink(missing_ok=True)
    return DONE


_COUNTED = ("truths", "hits", "misses", "false_alarms")


def _truth(
    config: Config, sources: Sequence[SceneFiles], classes: Sequence[str], *, nodata: float | None
) -> list[Sample]:
    """Return the truth of each scene; what nobody could find or was asked to look for is aside."""
    labels = [config.labels] if isinstance(config.labels, str) else list(config.labels or [])
    scenes = [Scene(each, bands=config.predict.bands, nodata=nodata) for each in sources]
    try:
        samples = read_truth(
            [Path(each) for each in labels],
            [each.header for each in scenes],
            classes,
            any_class=config.model.cfar is not None,
        )
        return [
            set_aside(sample, scene.read, masks_of(scene.header, config.predict))
            for sample, scene in zip(samples, scenes, strict=True)
        ]
    finally:
        for each in scenes:
            each.close()


def _detections(prediction: ScenePrediction, classes: Sequence[str]) -> Detections:
    """Return what is kept; one class means that names do not count."""
    index_of = dict.fromkeys(prediction.classes, 0) if len(classes) == 1 else None
    index_of = index_of or {name: index for index, name in enumerate(classes)}
    found = prediction.objects
    return Detections.of(
        [each.box for each in found],
        [each.score for each in found],
        [index_of[each.class_name] for each in found],
    )


def _scored(prediction: ScenePrediction, any_class: bool) -> Detections:
    assert prediction.scored is not None
    found = prediction.scored
    return replace(found, classes=np.zeros_like(found.classes)) if any_class else found


def _row(sample: Sample, assignment: Assignment, found: Detections) -> dict[str, str | int]:
    hits = int((assignment.truth_of >= 0).sum())
    return {
        "scene": sample["scene"],
        "truths": hits + len(assignment.missed),
        "hits": hits,
        "misses": len(assignment.missed),
        "false_alarms": int((assignment.truth_of == FALSE_ALARM).sum()),
        "detections": len(found),
    }


# --- Outputs -----------------------------------------------------------------------------------


def _write(
    config: Config,
    folder: Path,
    done: Sequence[ScenePrediction],
    truth: Sequence[Sample],
    assignments: Mapping[int, Assignment],
    rows: Sequence[Mapping[str, str | int]],
) -> None:
    run_folder.write_atomically(folder / SCENES_CSV, _csv(rows))
    write_json_text(folder / "detections_coco.json", as_coco(done))
    outcomes: list[Outcome] = []
    for prediction, sample in zip(done, truth, strict=True):
        assignment = assignments[sample["image_id"]]
        source = SceneFiles(prediction.header.name, prediction.header.files, ())
        scene = Scene(source, bands=config.predict.bands)
        try:
            of_scene = _outcomes(config, prediction, sample, assignment, scene)
            if "overview" in config.predict.outputs:
                gray = gray_overview(scene, longest_px=config.predict.overview_px)
                picture = draw_outcomes(
                    gray, of_scene, config.predict, width=prediction.header.width
                )
                path = folder / "overview" / f"{prediction.header.name}.png"
                path.parent.mkdir(exist_ok=True)
                write_image(path, picture)
        finally:
            scene.close()
        outcomes += of_scene
    for path in write_outcomes(folder, outcomes):
        logger.info("%s", path)


def _outcomes(
    config: Config,
    prediction: ScenePrediction,
    sample: Sample,
    assignment: Assignment,
    scene: Scene,
) -> list[Outcome]:
    """Return what became of each object that was found, and those that were not."""
    named = {FALSE_ALARM: "false alarm", ON_CROWD: "aside"}
    outcomes: list[Outcome] = [
        (each, prediction.header, named.get(int(truth), "hit"))
        for each, truth in zip(prediction.objects, assignment.truth_of, strict=True)
    ]
    missed = [sample["annotations"][index] for index in assignment.missed.tolist()]
    classes = prediction.classes if config.model.cfar is None else (BRIGHT,)
    missing = describe(
        Detections.of(
            [each["bbox"] for each in missed],
            [0.0] * len(missed),
            [each["category_id"] for each in missed],
        ),
        [""] * len(missed),
        classes,
        prediction.header,
        scene.read,
        resolution_m=config.predict.resolution_m,
    )
    return outcomes + [(each, prediction.header, "miss") for each in missing]


def _csv(rows: Sequence[Mapping[str, str | int]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
