"""TensorBoard's own reader finds the curves with their counts, the texts and the hparams."""

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.util import tensor_util

from sar_experiments.train.board import ScoredCurve, write_curves, write_hparams, write_texts


def read(folder):
    return EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()


def curve_rows(folder, title):
    """Return TP, FP, TN, FN, precision and recall over rising thresholds."""
    (event,) = read(folder).Tensors(title)
    return tensor_util.make_ndarray(event.tensor_proto)


def test_a_curve_has_the_counts_of_each_threshold(tmp_path):
    # Scores 0.9 hit, 0.6 false alarm, 0.3 hit, of two objects.
    curve = ScoredCurve(
        np.array([0.9, 0.6, 0.3]), np.array([1, 0.5, 2 / 3]), np.array([0.5, 0.5, 1]), 2
    )
    write_curves(tmp_path, {"val/ship": curve}, step=7)
    hits, false_alarms, _, misses, precision, recall = curve_rows(tmp_path, "val/ship")
    at = {threshold: round(threshold * 100) for threshold in (0.1, 0.5, 0.8, 0.95)}
    assert [hits[i] for i in at.values()] == pytest.approx([2, 1, 1, 0])
    assert [false_alarms[i] for i in at.values()] == pytest.approx([1, 1, 0, 0])
    assert [misses[i] for i in at.values()] == pytest.approx([0, 1, 1, 2])
    assert [precision[i] for i in at.values()] == pytest.approx([2 / 3, 0.5, 1, 0])
    assert [recall[i] for i in at.values()] == pytest.approx([1, 0.5, 0.5, 0])


def test_a_curve_without_detections_is_empty(tmp_path):
    nothing = np.zeros(0)
    write_curves(tmp_path, {"val/ship": ScoredCurve(nothing, nothing, nothing, 2)}, step=1)
    assert not curve_rows(tmp_path, "val/ship")[0].any()


def test_a_text_is_shown_line_by_line(tmp_path):
    write_texts(tmp_path, {"config": "seed: 1\ntask:\n  name: train"})
    text = read(tmp_path).Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert text.splitlines()[2] == "      name: train"


def test_hparams_are_the_scalars_of_the_groups_that_matter(tmp_path):
    config = {"solver": {"base_lr": 0.1, "steps": [1]}, "seed": 3, "output": "/tmp"}
    write_hparams(tmp_path, config, {"AP50": 0.5, "APl": None})
    events = read(tmp_path)
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    session = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert set(session.hparams) == {"solver.base_lr", "seed"}
    assert events.Scalars("final/AP50")[0].value == 0.5
    assert "final/APl" not in events.Tags()["scalars"]
