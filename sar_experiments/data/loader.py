"""FRONT DOOR train_loader(), eval_loader(): batches whose content depends on the seed alone.

Step t of training takes the positions ``[t * B, (t + 1) * B)`` of one endless order, which is a
function of the seed and the epoch; the image at position p is augmented by a generator seeded
with (seed, p). So the number of loader processes and of GPUs, and where a run was resumed, change
nothing about the images of a step.

Detectron2's samplers are not used: they cannot start in the middle, and its loader seeds each
process instead of each image.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from detectron2.data import DatasetFromList
from detectron2.data.samplers import RepeatFactorTrainingSampler
from torch.utils.data import DataLoader, Dataset, Sampler

from sar_experiments.cores import usable_cores
from sar_experiments.errors import ConfigError, DatasetError, SarError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sar_experiments.data.annotations import Sample

Batch = list[dict[str, Any]]

Place = tuple[int, int]
"""Position in the order of training, index of the sample."""

MAX_WORKERS = 12  # more than one GPU can eat: a core maps 50 to 100 chips of 800 px a second

LINGER_S = 60
"""Seconds that a loader process lives on after a signal to end; it ends with its run anyway."""

# Set beside the seed, so that the order of an epoch and an image's augmentations share no draws.
_ORDER_STREAM = 1


def train_loader(  # noqa: PLR0913 - each says something else about the order
    samples: Sequence[Sample],
    mapper: Callable[[Sample, np.random.Generator], dict[str, Any]],
    *,
    ims_per_batch: int,
    seed: int,
    num_workers: int,
    start_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
    repeat_factors: Sequence[float] | None = None,
    pin_memory: bool = False,
    start_method: str = "fork",
) -> Iterable[Batch]:
    """Return endless training batches from a step on.

    Args:
        samples: What is learnt from; serialised once and shared by all loader processes.
        mapper: Sample and generator -> model input.
        ims_per_batch: Images of a step, over all ranks.
        seed: Of order and augmentations; 0 or more.
        num_workers: Loader processes; 0 loads in this one.
        start_step: Steps already done.
        rank: Which slice of each batch.
        world_size: How many slices.
        repeat_factors: How often each sample is seen per epoch, on average; None is once.
        pin_memory: For CUDA.
        start_method: Of the loader processes, ``fork`` or ``spawn``.

    Raises:
        ConfigError: The images of a step cannot be shared evenly by the ranks.
        DatasetError: There are no samples; later, while iterating: a sample cannot be read.
    """
    if not samples:
        raise DatasetError("there are no training images")
    if ims_per_batch < 1 or ims_per_batch % world_size:
        msg = (
            f"solver.ims_per_batch={ims_per_batch} must be a multiple of the {world_size}"
            " processes that share a step (hardware.num_gpus)"
        )
        raise ConfigError(msg)
    order = TrainingOrder(len(samples), seed, repeat_factors)
    batches = _TrainingBatches(order, ims_per_batch, start_step, rank, world_size)
    return _Checked(
        DataLoader(
            _TrainingImages(DatasetFromList(list(samples)), mapper, seed),
            batch_sampler=batches,
            pin_memory=pin_memory,
            **_process_settings(num_workers, start_method),
        )
    )


def eval_loader(  # noqa: PLR0913 - mirrors train_loader
    samples: Sequence[Sample],
    mapper: Callable[[Sample], dict[str, Any]],
    *,
    batch_size: int,
    num_workers: int,
    rank: int = 0,
    world_size: int = 1,
    start_method: str = "fork",
) -> Iterable[Batch]:
    """Return every sample once, in order; can be gone through again and again.

    Args:
        samples: What is measured on.
        mapper: Sample -> model input.
        batch_size: Images of a batch; the last may hold fewer.
        num_workers: Loader processes; 0 loads in this one.
        rank: Which share of the samples, contiguous.
        world_size: How many shares, equal to within one sample.
        start_method: Of the loader processes, ``fork`` or ``spawn``.

    Raises:
        DatasetError: While iterating: a sample cannot be read.
    """
    share = range(len(samples) * rank // world_size, len(samples) * (rank + 1) // world_size)
    batches = [
        list(share[start : start + batch_size]) for start in range(0, len(share), batch_size)
    ]
    dataset = DatasetFromList(list(samples)) if samples else []
    return _Checked(
        DataLoader(
            _EvaluationImages(dataset, mapper),
            batch_sampler=batches,
            **_process_settings(min(num_workers, len(batches)), start_method),
        )
    )


def default_workers(*, runs_at_once: int = 1) -> int:
    """Return how many loader processes a run should have.

    Leaves one core to the run itself.

    Args:
        runs_at_once: Runs, and ranks of them, that share the cores.
    """
    return max(0, min(usable_cores() // runs_at_once - 1, MAX_WORKERS))


def repeat_factors(samples: Sequence[Sample], threshold: float) -> list[float]:
    """Return how often each sample is to be seen per epoch, so that rare classes are seen more.

    A class in a share f of the images gets max(1, sqrt(threshold / f)), an image the largest of
    its classes (LVIS, appendix B.2).

    Args:
        samples: The training set.
        threshold: Share of images, in [0, 1].
    """
    learnt = [
        {"annotations": [each for each in sample["annotations"] if not each["iscrowd"]]}
        for sample in samples
    ]
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(learnt, threshold)
    return [float(each) for each in factors]


def class_frequencies(
    samples: Sequence[Sample], factors: Sequence[float] | None, n_classes: int
) -> list[float]:
    """Return the share of seen images that show each class, in [0, 1].

    Args:
        samples: The training set.
        factors: Of ``repeat_factors``; None is the training set as it is.
        n_classes: Length of the result.
    """
    weights = np.ones(len(samples)) if factors is None else np.asarray(factors, np.float64)
    seen = np.zeros(n_classes)
    for sample, weight in zip(samples, weights, strict=True):
        annotations = sample["annotations"]
        seen[list({each["category_id"] for each in annotations if not each["iscrowd"]})] += weight
    return [float(each) for each in seen / max(weights.sum(), 1e-12)]


@dataclass(frozen=True, eq=False)
class TrainingOrder:
    """The endless order in which samples are seen.

    Attributes:
        n_samples: Size of the training set, 1 or more.
        seed: Of the shuffles, and of the fractions of repeat factors.
        factors: How often each sample is seen per epoch, on average; None is once.
    """

    n_samples: int
    seed: int
    factors: Sequence[float] | None = None

    def epoch(self, number: int) -> list[int]:
        """Return the samples of an epoch, shuffled."""
        rng = np.random.default_rng([self.seed, number, _ORDER_STREAM])
        if self.factors is None:
            return [int(index) for index in rng.permutation(self.n_samples)]
        factors = np.asarray(self.factors, dtype=np.float64)
        # 2.3 is 2, and in three epochs of ten 3.
        times = np.floor(factors + rng.random(self.n_samples)).astype(np.int64)
        return [int(index) for index in rng.permutation(np.repeat(range(self.n_samples), times))]

    def places(self, start: int) -> Iterator[Place]:
        """Yield (position, index) from a position on."""
        position, number = 0, 0
        while True:
            indices = self.epoch(number)
            for offset in range(max(0, start - position), len(indices)):
                yield position + offset, indices[offset]
            position, number = position + len(indices), number + 1


class _TrainingBatches(Sampler[list[Place]]):
    """The places of each step that one rank maps."""

    def __init__(
        self, order: TrainingOrder, ims_per_batch: int, start_step: int, rank: int, world_size: int
    ) -> None:
        self.order, self.ims_per_batch, self.start_step = order, ims_per_batch, start_step
        share = ims_per_batch // world_size
        self.slice = slice(rank * share, (rank + 1) * share)

    def __iter__(self) -> Iterator[list[Place]]:
        places = self.order.places(self.start_step * self.ims_per_batch)
        while True:
            yield list(islice(places, self.ims_per_batch))[self.slice]


@dataclass(frozen=True)
class _Failure:
    """Carries a mistake of the user out of a loader process, without PyTorch's traceback."""

    kind: type[SarError]
    sentence: str


class _TrainingImages(Dataset[Any]):
    def __init__(self, samples: Any, mapper: Callable[..., Any], seed: int) -> None:  # noqa: ANN401
        self.samples, self.mapper, self.seed = samples, mapper, seed

    def __getitem__(self, place: Place) -> dict[str, Any] | _Failure:
        position, index = place
        rng = np.random.default_rng([self.seed, position])
        return _mapped(self.mapper, self.samples[index], rng)


class _EvaluationImages(Dataset[Any]):
    def __init__(self, samples: Any, mapper: Callable[..., Any]) -> None:  # noqa: ANN401
        self.samples, self.mapper = samples, mapper

    def __getitem__(self, index: int) -> dict[str, Any] | _Failure:
        return _mapped(self.mapper, self.samples[index])


class _Checked:
    """Batches of a loader; a failure in one of its processes is raised here."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Batch]:
        batches = iter(self.loader)
        try:
            for batch in batches:
                for each in batch:
                    if isinstance(each, _Failure):
                        raise each.kind(each.sentence)
                yield batch
        finally:
            # Left to the garbage collector after a failure, it takes five seconds per process.
            getattr(batches, "_shutdown_workers", _nothing)()


def _nothing() -> None:
    """Shut down no processes, where there are none."""


def _mapped(mapper: Callable[..., Any], *arguments: object) -> dict[str, Any] | _Failure:
    try:
        mapped: dict[str, Any] = mapper(*arguments)
    except SarError as error:
        return _Failure(type(error), str(error))
    return mapped


def _process_settings(num_workers: int, start_method: str) -> dict[str, Any]:
    # OpenCV rounds the last bit differently where threads share an image: here as in a process.
    cv2.setNumThreads(0)
    settings: dict[str, Any] = {
        "num_workers": num_workers,
        "collate_fn": _as_list,
        # Or PyTorch draws a seed for its processes from the global generator.
        "generator": torch.Generator(),
    }
    if num_workers:
        settings |= {
            "multiprocessing_context": start_method,
            "worker_init_fn": _settle,
        }
    return settings


def _as_list(batch: Batch) -> Batch:
    """Keep a batch as it is; whole batches cross between processes in one message."""
    return batch


def _settle(_worker: int) -> None:
    """Keep a loader process on its core, and alive while the run saves.

    OpenCV's threads would not survive a fork. A cluster sends its signals to every process of a
    job; without its loader the run would fail instead of saving.
    """
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, _end_later)


def _end_later(_number: int, _frame: object) -> None:
    signal.alarm(LINGER_S)  # whose default is to end the process
