"""What a training makes of its config."""

import pytest

from sar_experiments.pruning import Pruning

pytestmark = pytest.mark.detectron2


def test_a_run_of_no_sweep_is_not_pruned_and_says_so(typed_config, tmp_path, caplog):
    from sar_experiments.tasks.train import pruning_of

    config = typed_config("sweep.prune=median", "sweep.prune_min_step=10")
    assert pruning_of(config, tmp_path) is None
    assert "sweep.prune=median has no effect: the run is none of a sweep" in caplog.text
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "hydra.yaml").write_text("hydra: {mode: MULTIRUN}")
    assert pruning_of(config, tmp_path) == Pruning(tmp_path, "AP50", 4, 10)
