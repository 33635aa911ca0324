"""What a resumed training takes over from its last checkpoint besides the trainer's state."""

import pytest
import torch

from sar_experiments import run_folder
from sar_experiments.model.weights import Checkpointer
from sar_experiments.train.loop import _read_last_checkpoint

pytestmark = pytest.mark.detectron2

THRESHOLDS = {"origin": "validation", "classes": {"ship": {"score": 0.3, "f1": 0.8, "doubt": ""}}}


@pytest.mark.parametrize("about", [{"thresholds": THRESHOLDS}, {}])
def test_the_thresholds_of_the_last_evaluation_outlive_an_interruption(tmp_path, about):
    model = torch.nn.Linear(2, 1)
    Checkpointer(model, tmp_path, about).save_whole(
        "model_0000004.pth", state={"iteration": 3}, step=4
    )
    (tmp_path / run_folder.LAST_CHECKPOINT).write_text("model_0000004.pth")
    resumed = Checkpointer(torch.nn.Linear(2, 1), tmp_path, {"classes": ["ship"]})
    assert _read_last_checkpoint(tmp_path, resumed) == {"iteration": 3}
    assert resumed.about == {"classes": ["ship"], **about}
    assert torch.equal(resumed.model.weight, model.weight)
