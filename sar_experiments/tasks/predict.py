"""task=predict: objects of whole scenes, as maps, tables and pictures."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

from sar_experiments import run_folder
from sar_experiments.data.object_lengths import say_too_long
from sar_experiments.errors import SarError, SceneError
from sar_experiments.exit_codes import DONE, INTERRUPTED
from sar_experiments.predict.outputs import write_outputs
from sar_experiments.predict.pictures import write_pictures
from sar_experiments.predict.runner import (
    SceneFailure,
    ScenePrediction,
    predict,
    why_unseen,
    with_tile_sizes,
)
from sar_experiments.predict.sources import find_scenes
from sar_experiments.tasks.detectors import choose_detector
from sar_experiments.tasks.progress import counted, progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sar_experiments.config import Config, PredictConfig
    from sar_experiments.predict.sources import SceneFiles
    from sar_experiments.tasks.detectors import Choice
    from sar_experiments.tasks.interruption import Interruption

logger = logging.getLogger(__name__)

_SHOWN = 5  # scenes or failures that the console names one by one


def run(config: Config, folder: Path, interruption: Interruption) -> int:
    """Find objects in all scenes; scenes that cannot be read are named at the end."""
    choice = choose_detector(config, folder)
    scenes = find_scenes(
        config.source, polarisations=config.predict.polarisations, channels=choice.channels
    )
    settings = with_tile_sizes(config.predict, choice.native_px)
    say_too_long(choice.lengths_px, settings)
    logger.info(
        "scenes: %d; tiles of %d px, overlap %d px, %d at once",
        len(scenes),
        settings.tile_px,
        settings.overlap_px,
        settings.batch_size,
    )
    done, failed = predict_scenes(
        config, folder, choice, interruption, scenes, settings,
        on_scene=lambda each: _show(config, folder, each, choice.nodata, count=len(scenes)),
    )  # fmt: skip
    if len(done) + len(failed) < len(scenes):
        why = (
            f"interrupted after {len(done)} of {len(scenes)} scenes;"
            f" {run_folder.how_to_go_on(folder)}"
        )
        run_folder.update_result(folder, status="interrupted", why=why)
        logger.info("%s", why)
        return INTERRUPTED
    interruption.can_wait = False
    code = _write(config, folder, done, failed)
    # Only now: whatever ends the writing, or scenes that failed, leave it to be gone on from.
    (folder / run_folder.TILE_LOG).unlink(missing_ok=True)
    return code


def predict_scenes(  # noqa: PLR0913 - what is read, by what, how, and who is told
    config: Config,
    folder: Path,
    choice: Choice,
    interruption: Interruption,
    scenes: Sequence[SceneFiles],
    settings: PredictConfig,
    *,
    lowest_score: float | None = None,
    on_scene: Callable[[ScenePrediction], None] = lambda _: None,
) -> tuple[list[ScenePrediction], list[SceneFailure]]:
    """Return what was found in all scenes, and those that failed; fewer if interrupted.

    Args:
        config: Of the run.
        folder: Run folder, where the tiles that are done are written down.
        choice: The detector.
        interruption: Ends it early.
        scenes: What is read.
        settings: Of the prediction, tile sizes included.
        lowest_score: See ``predict``.
        on_scene: Called after each scene that was finished.
    """
    interruption.can_wait = True
    done: list[ScenePrediction] = []
    failed: list[SceneFailure] = []
    with progress_bar(config.task.name, unit="tile") as show:
        for each in predict(
            scenes,
            choice.detector_for,
            settings,
            min_score=choice.min_scores,
            lowest_score=lowest_score,
            nodata=choice.nodata,
            log=folder / run_folder.TILE_LOG,
            identity=choice.identity,
            on_tiles=show,
            is_interrupted=lambda: interruption.requested,
        ):
            if isinstance(each, SceneFailure):
                failed.append(each)
                if len(scenes) > 1:  # of a single one the end tells
                    logger.warning("%s: %s", each.name, each.why)
                continue
            done.append(each)
            unseen = why_unseen(each, nodata=choice.nodata)
            if unseen is not None:
                logger.warning("%s", unseen)
            on_scene(each)
    return done, failed


def _show(
    config: Config, folder: Path, prediction: ScenePrediction, nodata: float | None, *, count: int
) -> None:
    _draw(config, folder, prediction, nodata)
    if count <= _SHOWN:
        _say(prediction)


def _draw(config: Config, folder: Path, prediction: ScenePrediction, nodata: float | None) -> None:
    """Write the pictures that are asked for; maps and tables are worth more than a missing one."""
    if "overview" not in config.predict.outputs and not config.predict.crop_px:
        return
    try:
        write_pictures(prediction, folder, config.predict, nodata=nodata)
    except (SarError, OSError) as error:
        logger.warning("%s: no picture, or not all: %s", prediction.header.name, error)


def _write(
    config: Config, folder: Path, done: Sequence[ScenePrediction], failed: Sequence[SceneFailure]
) -> int:
    written = write_outputs(done, folder, outputs=config.predict.outputs) if done else []
    counts = _counts(done)
    if done:
        logger.info(
            "found %s in %s, filtered %d",
            counted(int(counts["objects"] or 0), "object"),
            counted(len(done), "scene"),
            counts["filtered"],
        )
    if "overview" in config.predict.outputs and done:
        logger.info("%s", folder / "overview")
    for path in written:
        logger.info("%s", path)
    if failed:
        named = "; ".join(list(dict.fromkeys(each.why for each in failed))[:_SHOWN])
        rest = ", the rest is done" if done else ""
        share = f"{len(failed)} of {len(done) + len(failed)} scenes failed{rest}: "
        msg = (share if done or len(failed) > 1 else "") + named
        run_folder.update_result(folder, metrics=dict(counts))
        raise SceneError(msg)
    run_folder.update_result(folder, status="completed", metrics=dict(counts))
    return DONE


def _counts(done: Sequence[ScenePrediction]) -> dict[str, float | None]:
    counts: Counter[str] = Counter({"objects": 0, "filtered": 0, "scenes_unseen": 0})
    for each in done:
        counts["objects"] += len(each.objects)
        counts["filtered"] += len(each.filtered)
        counts["scenes_unseen"] += not each.tiles.seen
        counts["tiles"] += each.tiles.seen
        counts["tiles_no_data"] += each.tiles.no_data
        counts["tiles_hidden"] += each.tiles.hidden
        counts.update(f"filtered/{found.reason}" for found in each.filtered)
        counts.update(f"objects/{found.class_name}" for found in each.objects)
    return {name: float(count) for name, count in counts.items()}


def _say(prediction: ScenePrediction) -> None:
    header, tiles = prediction.header, prediction.tiles
    where = "no geo-reference"
    if header.pixel_m is not None:
        where = f"{header.crs}, {header.pixel_m[1]:.3g} x {header.pixel_m[0]:.3g} m"
    kinds = Counter(each.class_name for each in prediction.objects)
    found = ", ".join(f"{count} {name}" for name, count in kinds.most_common()) or "nothing"
    logger.info(
        "%s: %d x %d px, bands %s, %s; %s seen, %d without data, %d on land; found %s, filtered %d",
        header.name,
        header.width,
        header.height,
        "+".join(header.bands),
        where,
        counted(tiles.seen, "tile"),
        tiles.no_data,
        tiles.hidden,
        found,
        len(prediction.filtered),
    )
