"""TensorBoard's own reader finds the curves with their counts, the texts and the hparams."""

import numpy as np
import pytest
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import backend_context, plugin_data_pb2
from tensorboard.util import tensor_util
from torch.utils.tensorboard import SummaryWriter

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


def experiment_of(folder):
    """Return what the HPARAMS tab is told about all runs in a folder."""
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(folder)).Reload()
    provider = MultiplexerDataProvider(multiplexer, str(folder))
    tensorboard = base_plugin.TBContext(data_provider=provider)
    request = RequestContext()
    context = backend_context.Context(tensorboard)
    return context.experiment_from_metadata(
        request,
        "",
        include_metrics=True,
        hparams_run_to_tag_to_content=context.hparams_metadata(request, ""),
        data_provider_hparams=context.hparams_from_data_provider(request, "", 0),
    )


def test_hparams_are_the_scalars_of_the_groups_that_matter(tmp_path):
    config = {"solver": {"base_lr": 0.1, "steps": [1]}, "seed": 3, "output": "/tmp"}
    write_hparams(tmp_path, config, {"AP50": 0.5, "APl": None})
    events = read(tmp_path / "final")
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    session = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert set(session.hparams) == {"solver.base_lr", "seed"}
    assert events.Scalars("final/AP50")[0].value == 0.5
    assert "final/APl" not in events.Tags()["scalars"]


def test_the_hparams_tab_names_first_what_the_runs_of_a_sweep_differ_in(tmp_path):
    for number, rate in enumerate((0.1, 0.2)):
        config = {"augment": {"max_size": 800}, "solver": {"base_lr": rate, f"only_{number}": 1}}
        write_hparams(tmp_path / str(number), config, {"AP": 0.5, "AP50": 0.7})
        with SummaryWriter(str(tmp_path / str(number))) as writer:
            writer.add_scalar("data_time", 1.0, 1)
    experiment = experiment_of(tmp_path)
    names = [info.name for info in experiment.hparam_infos]
    assert names[0] == "solver.base_lr"
    assert {"augment.max_size", "solver.only_0", "solver.only_1"} < set(names)
    assert [info.name.tag for info in experiment.metric_infos] == ["final/AP", "final/AP50"]
