"""FRONT DOOR predict(): scenes through a detector, tile by tile, as objects on the Earth.

Threads read ahead, tiles without data or wholly on land never reach the detector, the rest goes
through it in batches, over scenes that share a detector. What is done is written down after each
batch, so that the same call again goes on from there.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sar_experiments.errors import SarError, SceneError
from sar_experiments.predict.merge import merge_tiles
from sar_experiments.predict.objects import SceneObject, describe
from sar_experiments.predict.scene import Scene, bound_cache
from sar_experiments.predict.tile_log import TileLog
from sar_experiments.predict.tiling import TilePlan, plan_tiles
from sar_experiments.thresholds import as_array

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from sar_experiments.config import PredictConfig
    from sar_experiments.detections import Detections
    from sar_experiments.predict.detector import DetectorFactory, SceneHeader, Tile, TileDetector
    from sar_experiments.predict.masks import Masks
    from sar_experiments.predict.sources import SceneFiles

logger = logging.getLogger(__name__)

FALLBACK_TILE_PX = 800


@dataclass(frozen=True, slots=True)
class TileCounts:
    """What became of a scene's tiles.

    Attributes:
        seen: Went through the detector.
        no_data: Held no valid pixel.
        hidden: Lay wholly on land.
    """

    seen: int
    no_data: int
    hidden: int


@dataclass(frozen=True, eq=False, slots=True)
class ScenePrediction:
    """What was found in a scene.

    Attributes:
        header: Of the scene.
        objects: Kept, best first.
        filtered: Found in places that are masked, with their reasons, best first.
        tiles: What became of the tiles.
        classes: Of the detector.
        scored: With ``lowest_score``, all detections from that score on, merged likewise and
            without those in places that are masked; None without.
    """

    header: SceneHeader
    objects: tuple[SceneObject, ...]
    filtered: tuple[SceneObject, ...]
    tiles: TileCounts
    classes: tuple[str, ...]
    scored: Detections | None = None


def why_unseen(prediction: ScenePrediction, *, nodata: float | None = None) -> str | None:
    """Return in one sentence why nothing of a scene was looked at; None where something was.

    Args:
        prediction: Without objects then.
        nodata: What the detector's radiometry calls no data, besides the file's own mark.
    """
    header, tiles = prediction.header, prediction.tiles
    if tiles.seen:
        return None
    if not tiles.no_data:
        return f"{header.files[0]} lies wholly on land (predict.land): nothing was looked at"
    own, theirs = ("none" if each is None else f"{each:g}" for each in (header.nodata, nodata))
    where = "outside land (predict.land) " if tiles.hidden else ""
    return (
        f"{header.files[0]} has no pixel {where}with data: all are its nodata ({own}),"
        f" radiometry.nodata ({theirs}), NaN, infinite or masked; nothing was looked at"
    )


@dataclass(frozen=True, slots=True)
class SceneFailure:
    """A scene that could not be finished; the others were.

    Attributes:
        name: Of the scene.
        why: One sentence.
    """

    name: str
    why: str


def predict(  # noqa: PLR0913 - what is read, by what, how, and who is told
    scenes: Sequence[SceneFiles],
    detector_for: DetectorFactory,
    settings: PredictConfig,
    *,
    min_score: float | Mapping[str, float],
    lowest_score: float | None = None,
    nodata: float | None = None,
    log: Path | None = None,
    identity: str = "",
    native_px: int | None = None,
    on_tiles: Callable[[int, int], None] = lambda _done, _total: None,
    is_interrupted: Callable[[], bool] = lambda: False,
) -> Iterator[ScenePrediction | SceneFailure]:
    """Yield each scene when it is done, in order.

    Args:
        scenes: From ``find_scenes``.
        detector_for: Called once per scene; where it returns the same object for several
            scenes, their tiles share batches.
        settings: Tiles, merging, masks; outputs are the caller's.
        min_score: Detections below it are dropped before merging; one for all classes, or class
            name -> score.
        lowest_score: Returns detections from there on too, for curves over all scores; what is
            merged to objects is the same.
        nodata: What the detector's radiometry calls no data, besides each file's own mark.
        log: Where to write down what is done, and to go on from; None does neither. It stays:
            the caller removes it once the results are safe.
        identity: Names the detector, so that a log of another one is not gone on from.
        native_px: Tile size that suits the detector, where the settings leave it open.
        on_tiles: Called with the tiles done and in all, of all scenes.
        is_interrupted: Asked between batches; True ends the iteration early, the log kept.

    Raises:
        SceneError: Before anything is computed: a scene has no readable header, or masks are
            asked for on a scene without geo-reference.
    """
    settings = with_tile_sizes(settings, native_px)
    jobs = [_job(number, each, settings, nodata) for number, each in enumerate(scenes)]
    bound_cache(max((_cache_bytes(job) for job in jobs), default=0))
    kept = min_score if lowest_score is None else lowest_score
    tile_log = TileLog(log, _identity(jobs, settings, kept, identity))
    for (number, tile), found in tile_log.done.items():
        jobs[number].found[tile] = found
    pipeline = _Pipeline(jobs, detector_for, settings, kept, tile_log)
    total = sum(len(job.plan) for job in jobs)
    if tile_log.done:
        logger.info("going on: %d of %d tiles were done already", len(tile_log.done), total)
    waiting = deque(jobs)
    for _ in pipeline.run(is_interrupted):
        on_tiles(sum(len(job.found) for job in jobs), total)
        while waiting and waiting[0].is_done:
            job = waiting.popleft()
            pipeline.detector(job)  # its classes, of a scene without a tile to look at too
            yield _finish(job, settings, as_array(min_score, job.classes), lowest_score)


def with_tile_sizes(settings: PredictConfig, native_px: int | None) -> PredictConfig:
    """Return the settings with the tile size and overlap that they leave open.

    Raises:
        SceneError: The overlap that was set is more than half a tile of the size that was not.
    """
    tile_px = settings.tile_px or native_px or FALLBACK_TILE_PX
    overlap_px = tile_px // 4 if settings.overlap_px is None else settings.overlap_px
    if 2 * overlap_px > tile_px:
        msg = (
            f"predict.overlap_px={overlap_px} must be at most half of a tile of {tile_px} px;"
            " set predict.tile_px too"
        )
        raise SceneError(msg)
    return replace(settings, tile_px=tile_px, overlap_px=overlap_px)


@dataclass(eq=False)
class _Job:
    """One scene under way.

    Attributes:
        number: Among the scenes.
        scene: Opened.
        plan: Its tiles.
        masks: None where none are asked for.
        hidden: Tiles on land.
        found: Tile -> detections in pixels of the tile, None without data; hidden ones count.
        classes: Of the detector, once it was made.
        failure: Why the scene cannot be finished.
    """

    number: int
    scene: Scene
    plan: list[TilePlan]
    masks: Masks | None
    hidden: frozenset[int]
    found: dict[int, Detections | None] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    failure: str = ""

    @property
    def is_done(self) -> bool:
        return bool(self.failure) or len(self.found) == len(self.plan)


def _job(number: int, source: SceneFiles, settings: PredictConfig, nodata: float | None) -> _Job:
    scene = Scene(source, bands=settings.bands, nodata=nodata)
    scene.close()  # of thousands of images only those under way stay open
    header = scene.header
    plan = plan_tiles(
        height=header.height,
        width=header.width,
        tile_px=settings.tile_px or FALLBACK_TILE_PX,
        overlap_px=settings.overlap_px or 0,
    )
    masks = masks_of(header, settings)
    hidden: frozenset[int] = frozenset()
    if masks is not None:
        hidden = frozenset(i for i, tile in enumerate(plan) if masks.hide(tile.window))
    job = _Job(number, scene, plan, masks, hidden)
    job.found.update(dict.fromkeys(hidden))
    return job


def _cache_bytes(job: _Job) -> int:
    """Return what a row of tiles decodes: the next row reads some of it again."""
    return job.scene.row_bytes * (job.plan[0].window.height + 2 * job.scene.block_rows)


def masks_of(header: SceneHeader, settings: PredictConfig) -> Masks | None:
    """Return the places of a scene whose detections are filtered; None where none are asked for.

    Raises:
        SceneError: A file cannot be read, or the scene has no geo-reference.
    """
    if settings.land is None and not settings.avoid:
        return None
    # Late: it loads GeoPandas where that is installed, 70 MB.
    from sar_experiments.predict.masks import MaskFile, Masks

    files = [MaskFile("avoid", Path(p), settings.avoid_buffer_m, False) for p in settings.avoid]
    if settings.land is not None:
        land = MaskFile("land", Path(settings.land), settings.land_buffer_m, True)
        files.insert(0, land)
    if header.georeference is None:
        msg = (
            f"{header.files[0]} has no geo-reference, so that predict.land and predict.avoid"
            " cannot be compared with it; leave both out"
        )
        raise SceneError(msg)
    return Masks(files, header.georeference, height=header.height, width=header.width)


def _identity(
    jobs: Sequence[_Job],
    settings: PredictConfig,
    min_score: float | Mapping[str, float],
    detector: str,
) -> dict[str, Any]:
    """Return everything that the detections of a tile depend on."""
    files = [file for job in jobs for file in job.scene.header.files]
    return {
        "files": [[str(file.absolute()), *_stamp(file)] for file in files],
        "hidden": [sorted(job.hidden) for job in jobs],
        "settings": [settings.tile_px, settings.overlap_px, settings.bands, settings.scale],
        "min_score": dict(min_score) if isinstance(min_score, Mapping) else min_score,
        "detector": detector,
    }


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


@dataclass(eq=False)
class _Pipeline:
    """Reading threads, one batch at a time, the log."""

    jobs: Sequence[_Job]
    detector_for: DetectorFactory
    settings: PredictConfig
    min_score: float | Mapping[str, float]
    log: TileLog

    def run(self, is_interrupted: Callable[[], bool]) -> Iterator[None]:
        """Do all tiles that are not done; yields after each batch and at least once per scene."""
        yield  # scenes that an earlier process finished
        batch: list[tuple[_Job, int, Tile]] = []
        detector: TileDetector | None = None
        for job, index, tile in self._tiles(is_interrupted):
            if not tile.valid.any():
                self._record([(job, index, None)])
                yield
                continue
            wanted = self.detector(job)
            if wanted is None:
                continue
            is_full = len(batch) == self.settings.batch_size
            if batch and (is_full or wanted is not detector or not _alike(batch[-1][2], tile)):
                self._detect(detector, batch)
                batch = []
                yield
            detector = wanted
            batch.append((job, index, tile))
        self._detect(detector, batch)
        yield

    def _tiles(self, is_interrupted: Callable[[], bool]) -> Iterator[tuple[_Job, int, Tile]]:
        """Yield tiles in order, read ahead by threads."""
        ahead = 2 * self.settings.batch_size + self.settings.readers
        pending: deque[tuple[_Job, int, Future[Tile]]] = deque()
        todo = (
            (job, index)
            for job in self.jobs
            for index in range(len(job.plan))
            if index not in job.found
        )
        with ThreadPoolExecutor(self.settings.readers, "reader") as pool:
            try:
                for job, index in todo:
                    pending.append((job, index, pool.submit(_read, job, index)))
                    if len(pending) > ahead:
                        yield from _ready(pending.popleft())
                    if is_interrupted():
                        return
                while pending and not is_interrupted():
                    yield from _ready(pending.popleft())
            finally:
                pool.shutdown(cancel_futures=True)

    def detector(self, job: _Job) -> TileDetector | None:
        """Return the detector of a scene; None, and the scene has failed, where there is none."""
        if job.failure:
            return None
        if job.number not in self._detectors:
            try:
                self._detectors[job.number] = self.detector_for(job.scene.header)
            except SarError as error:
                job.failure = str(error)
                return None
        detector = self._detectors[job.number]
        job.classes = detector.classes
        return detector

    def __post_init__(self) -> None:
        self._detectors: dict[int, TileDetector] = {}

    def _detect(
        self, detector: TileDetector | None, batch: Sequence[tuple[_Job, int, Tile]]
    ) -> None:
        if not batch or detector is None:
            return
        try:
            results = detector([tile for _, _, tile in batch])
        except SarError as error:
            if len(batch) > 1:
                for each in batch:
                    self._detect(detector, [each])
                return
            job, index, _ = batch[0]
            job.failure = job.failure or f"{job.scene.header.files[0]}, tile {index}: {error}"
            return
        least = as_array(self.min_score, detector.classes)
        self._record(
            (job, index, _on_data(found.above(least), tile))
            for (job, index, tile), found in zip(batch, results, strict=True)
        )

    def _record(self, records: Iterable[tuple[_Job, int, Detections | None]]) -> None:
        done = list(records)
        self.log.add(((job.number, index), found) for job, index, found in done)
        for job, index, found in done:
            job.found[index] = found


def _on_data(found: Detections, tile: Tile) -> Detections:
    """Return those of whose box at least half has data: a border is no object."""
    if tile.valid.all() or not len(found):
        return found
    height, width = tile.valid.shape
    total = np.zeros((height + 1, width + 1), np.int32)
    np.cumsum(tile.valid, axis=0, dtype=np.int32, out=total[1:, 1:])
    np.cumsum(total, axis=1, out=total)
    left, top = (np.floor(found.boxes[:, axis]).astype(int) for axis in (0, 1))
    right, bottom = (np.ceil(found.boxes[:, axis]).astype(int) for axis in (2, 3))
    left, right = np.clip(left, 0, width), np.clip(right, 0, width)
    top, bottom = np.clip(top, 0, height), np.clip(bottom, 0, height)
    count = total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left]
    return found.select(2 * count >= (bottom - top) * (right - left))


def _read(job: _Job, index: int) -> Tile:
    if job.failure:  # meanwhile: its files are about to be closed
        raise SceneError(job.failure)
    return job.scene.read(job.plan[index].window)


def _ready(
    read: tuple[_Job, int, Future[Tile]],
) -> Iterator[tuple[_Job, int, Tile]]:
    """Wait for a tile; where it cannot be read, its scene has failed."""
    job, index, future = read
    if job.failure:
        future.cancel()
        return
    try:
        yield job, index, future.result()
    except SarError as error:
        job.failure = str(error)


def _alike(one: Tile, other: Tile) -> bool:
    return one.pixels.shape == other.pixels.shape


def _finish(
    job: _Job,
    settings: PredictConfig,
    least: NDArray[np.float32],
    lowest_score: float | None,
) -> ScenePrediction | SceneFailure:
    """Merge the tiles of a scene, filter and describe its objects, close its files."""
    header = job.scene.header
    try:
        if job.failure:
            return SceneFailure(header.name, job.failure)
        found = [(index, each) for index, each in job.found.items() if each is not None]
        merged = _merged(
            job, settings, [(index, each.above(least)) for index, each in found], least
        )
        scored = None if lowest_score is None else _merged(job, settings, found, least)
        if scored is not None and job.masks:
            scored = scored.select(
                np.array([not each for each in job.masks.reasons(scored.boxes)], bool)
            )
        reasons = job.masks.reasons(merged.boxes) if job.masks else [""] * len(merged)
        objects = describe(
            merged,
            reasons,
            job.classes,
            header,
            job.scene.read,
            resolution_m=settings.resolution_m,
        )
        no_data = len(job.found) - len(found) - len(job.hidden)
        return ScenePrediction(
            header,
            tuple(each for each in objects if not each.reason),
            tuple(each for each in objects if each.reason),
            TileCounts(len(found), no_data, len(job.hidden)),
            job.classes,
            scored,
        )
    except SarError as error:
        return SceneFailure(header.name, str(error))
    finally:
        job.scene.close()


def _merged(
    job: _Job,
    settings: PredictConfig,
    found: Sequence[tuple[int, Detections]],
    least: NDArray[np.float32],
) -> Detections:
    return merge_tiles(
        found,
        job.plan,
        rule=settings.merge,
        overlap=settings.merge_overlap,
        nested=settings.merge_nested,
        across_classes=settings.merge_classes,
        thresholds=least,
    )
