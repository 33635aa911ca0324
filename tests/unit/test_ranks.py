"""Ranks decide alike: one flag is everybody's, one answer is everybody's."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("detectron2")

from sar_experiments import ranks  # noqa: E402

pytestmark = pytest.mark.detectron2


def vote(rank, store, answers):
    """Be one of two ranks: only the second one votes, only the first one computes."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", world_size=2, rank=rank
    )
    votes = [ranks.any_of(rank == 1), ranks.any_of(False)]
    answers.put((rank, votes, ranks.from_first(lambda: f"computed by {rank}")))
    torch.distributed.destroy_process_group()


def test_alone_a_process_agrees_with_itself():
    assert ranks.any_of(True)
    assert not ranks.any_of(False)
    assert ranks.from_first(lambda: 7) == 7


def test_one_rank_decides_for_all(tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    context = torch.multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    torch.multiprocessing.spawn(vote, args=(tmp_path / "store", answers), nprocs=2)
    found = sorted(answers.get() for _ in range(2))
    assert found == [(rank, [True, False], "computed by 0") for rank in (0, 1)]
