"""Batches depend on seed and step alone: not on processes, GPUs, or where a run was resumed."""

import multiprocessing
import os
import pickle
import signal
from itertools import islice

import numpy as np
import pytest

from sar_experiments import cores as host
from sar_experiments.errors import ConfigError, DatasetError

torch = pytest.importorskip("torch")
pytest.importorskip("detectron2")

from sar_experiments.data.loader import (  # noqa: E402
    TrainingOrder,
    class_frequencies,
    default_workers,
    eval_loader,
    repeat_factors,
    train_loader,
)

pytestmark = pytest.mark.detectron2


def sample(index, *classes, crowd=False):
    annotations = [{"category_id": each, "iscrowd": int(crowd)} for each in classes]
    return {"image_id": index, "file_name": f"{index}.png", "annotations": annotations}


SAMPLES = [sample(index, 0) for index in range(10)]


def mapper(sample, rng=None):
    """Stand in for SarMapper: an image of noise that only the generator decides."""
    noise = np.zeros(3) if rng is None else rng.random(3)
    return {"image_id": sample["image_id"], "image": torch.from_numpy(noise)}


def failing_mapper(sample, rng=None):
    if sample["image_id"] == 7:
        raise DatasetError("7.png is missing")
    return mapper(sample, rng)


def mapper_with_a_bug(sample, rng):
    raise KeyError("no such thing")


def mapper_that_tells_its_threads(sample, rng):
    import cv2

    return {"image_id": (cv2.getNumThreads(), torch.get_num_threads())}


def batches(steps, *, samples=SAMPLES, map_with=mapper, **settings):
    settings = {"ims_per_batch": 4, "seed": 3, "num_workers": 0} | settings
    loader = train_loader(samples, map_with, **settings)
    return [
        [(each["image_id"], tuple(each["image"].tolist())) for each in batch]
        for batch in islice(loader, steps)
    ]


def ids(steps, **settings):
    return [[each[0] for each in batch] for batch in batches(steps, **settings)]


# --- Order


def test_every_epoch_shows_every_sample_once_in_another_order():
    order = sum(ids(5), [])  # noqa: RUF017 - five short lists
    assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))
    assert order[:10] != order[10:]


def test_one_seed_gives_one_stream_and_another_seed_another():
    assert batches(6) == batches(6)
    assert batches(6) != batches(6, seed=4)


def test_the_same_image_is_augmented_anew_in_every_epoch():
    images = {}
    for batch in batches(10):
        for image_id, pixels in batch:
            images.setdefault(image_id, []).append(pixels)
    assert all(len(set(each)) == len(each) == 4 for each in images.values())


@pytest.mark.parametrize("num_workers", [1, 2])
def test_loader_processes_change_nothing(num_workers):
    assert batches(7, num_workers=num_workers) == batches(7)


@pytest.mark.slow
def test_spawned_processes_change_nothing_either():
    assert batches(2, num_workers=1, start_method="spawn") == batches(2)


@pytest.mark.parametrize("start_step", [1, 4, 23])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_stream_is_the_rest_of_the_uninterrupted_one(start_step, num_workers):
    whole = batches(start_step + 4)
    assert batches(4, start_step=start_step, num_workers=num_workers) == whole[start_step:]


def test_resuming_works_with_repeat_factors():
    factors = [2.3 if index < 3 else 1.0 for index in range(10)]
    whole = batches(30, repeat_factors=factors)
    assert batches(5, repeat_factors=factors, start_step=25) == whole[25:]


def test_several_ranks_share_the_batches_of_one():
    whole = batches(6)
    parts = [batches(6, rank=rank, world_size=2) for rank in (0, 1)]
    assert [one + two for one, two in zip(*parts, strict=True)] == whole


def test_global_generators_are_not_moved():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    batches(3, num_workers=1)
    batches(3)
    assert torch.equal(torch.get_rng_state(), before)


def test_order_and_augmentations_share_no_draws():
    order = TrainingOrder(1000, seed=3).epoch(0)
    assert order != np.random.default_rng([3, 0]).permutation(1000).tolist()


def test_a_batch_may_be_larger_than_the_training_set():
    assert [len(batch) for batch in ids(2, ims_per_batch=24)] == [24, 24]


# --- Rare classes


def test_repeat_factors_are_those_of_lvis():
    samples = [sample(0, 0, 1)] + [sample(index, 0) for index in range(1, 9)] + [sample(9)]
    factors = repeat_factors(samples, 0.4)
    assert factors == pytest.approx([2.0] + [1.0] * 9)  # sqrt(0.4 / 0.1)


def test_crowds_make_no_class_rare():
    assert repeat_factors([sample(0, 1, crowd=True), *SAMPLES[1:]], 0.5)[0] == 1.0


def test_a_fraction_is_how_often_a_sample_comes_once_more():
    order = TrainingOrder(4, seed=1, factors=[2.3, 1.0, 1.0, 1.5])
    counts = np.mean([np.bincount(order.epoch(k), minlength=4) for k in range(600)], axis=0)
    assert counts == pytest.approx([2.3, 1, 1, 1.5], abs=0.07)


def test_class_frequencies_tell_before_and_after():
    samples = [sample(0, 1), *[sample(index, 0, 0) for index in range(1, 9)], sample(9)]
    assert class_frequencies(samples, None, 3) == pytest.approx([0.8, 0.1, 0])
    factors = [3.0] + [1.0] * 9
    assert class_frequencies(samples, factors, 3) == pytest.approx([8 / 12, 3 / 12, 0])


# --- Evaluation


@pytest.mark.parametrize("num_workers", [0, 2])
def test_evaluation_sees_every_sample_once_in_order(num_workers):
    loader = eval_loader(SAMPLES, mapper, batch_size=4, num_workers=num_workers)
    for _ in range(2):  # again and again, as while training
        assert [[each["image_id"] for each in batch] for batch in loader] == [
            [0, 1, 2, 3],
            [4, 5, 6, 7],
            [8, 9],
        ]


@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 12])
def test_evaluation_is_shared_by_ranks_without_gap_or_overlap(world_size):
    seen = []
    for rank in range(world_size):
        settings = {"num_workers": 0, "rank": rank, "world_size": world_size}
        for batch in eval_loader(SAMPLES, mapper, batch_size=2, **settings):
            seen += [each["image_id"] for each in batch]
    assert seen == list(range(10))


def test_nothing_to_evaluate_gives_no_batch():
    assert list(eval_loader([], mapper, batch_size=2, num_workers=2)) == []


# --- Failures


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_bad_sample_is_told_in_its_own_sentence(num_workers):
    with pytest.raises(DatasetError) as caught:
        batches(5, map_with=failing_mapper, num_workers=num_workers)
    assert str(caught.value) == "7.png is missing"


def test_a_bad_sample_is_told_in_evaluation_too():
    with pytest.raises(DatasetError, match=r"^7\.png is missing$"):
        list(eval_loader(SAMPLES, failing_mapper, batch_size=4, num_workers=1))


def test_a_bug_keeps_its_traceback_and_leaves_no_process_behind():
    with pytest.raises(KeyError, match="mapper_with_a_bug"):
        batches(1, map_with=mapper_with_a_bug, num_workers=2)
    assert not multiprocessing.active_children()


def test_a_batch_that_ranks_cannot_share_is_refused():
    with pytest.raises(ConfigError, match=r"solver\.ims_per_batch=4 must be a multiple of the 3"):
        train_loader(SAMPLES, mapper, ims_per_batch=4, seed=0, num_workers=0, world_size=3)


def test_an_empty_training_set_is_refused():
    with pytest.raises(DatasetError, match="no training images"):
        train_loader([], mapper, ims_per_batch=4, seed=0, num_workers=0)


# --- Processes


def test_a_loader_process_keeps_to_one_core():
    loader = train_loader(
        SAMPLES, mapper_that_tells_its_threads, ims_per_batch=1, seed=0, num_workers=1
    )
    assert next(iter(loader))[0]["image_id"] == (1, 1)


def test_samples_cross_to_processes_as_one_block():
    loader = train_loader(SAMPLES, mapper, ims_per_batch=1, seed=0, num_workers=0)
    samples = loader.loader.dataset.samples
    assert samples[3] == SAMPLES[3]
    assert samples[3] is not SAMPLES[3]
    assert pickle.loads(pickle.dumps(samples))[3] == SAMPLES[3]


@pytest.mark.parametrize(
    ("cores", "quota", "runs", "expected"),
    [
        (2, "max 100000", 1, 1),
        (1, "max 100000", 1, 0),
        (64, "max 100000", 1, 12),
        (64, "400000 100000", 1, 3),
        (16, "max 100000", 4, 3),
        (16, None, 1, 12),
        (8, None, 1, 7),
    ],
)
def test_the_default_number_of_processes_follows_the_cores(
    monkeypatch, tmp_path, cores, quota, runs, expected
):
    monkeypatch.setattr(host.os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(host, "CPU_QUOTA", tmp_path / "cpu.max")
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota)
    assert default_workers(runs_at_once=runs) == expected


def test_a_loader_process_lives_on_while_the_run_saves():
    loader = train_loader(SAMPLES, mapper, ims_per_batch=1, seed=3, num_workers=1)
    batches = iter(loader)
    first = next(batches)
    (worker,) = multiprocessing.active_children()
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):  # a cluster's, to all
        os.kill(worker.pid, number)
    rest = [next(batches) for _ in range(8)]
    assert worker.is_alive()
    assert [each["image_id"] for (each,) in [first, *rest]] == sum(ids(9, ims_per_batch=1), [])  # noqa: RUF017
    batches.close()
    assert not multiprocessing.active_children()
