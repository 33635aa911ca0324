"""A run is given up when it lies below the median of the others at the same step, never before."""

import json

import pytest

from sar_experiments.pruning import Pruning, best_until, is_of_sweep


@pytest.fixture
def sweep(tmp_path):
    def write(name, *values, period=100):
        (tmp_path / name).mkdir()
        lines = [{"iteration": 19, "total_loss": 1.0}]
        lines += [
            {"iteration": (k + 1) * period - 1, "val/AP50": value} for k, value in enumerate(values)
        ]
        text = "".join(json.dumps(each) + "\n" for each in lines)
        (tmp_path / name / "metrics.jsonl").write_text(text)

    write("0_a", 0.1, 0.5, 0.4)
    write("1_a", 0.2, 0.6)
    write("2_a", 0.3, 0.7)
    write("3_a", 0.9)  # has not come as far as step 200
    return tmp_path


def rule(sweep, *, min_runs=3, min_step=0, name="4_a"):
    return Pruning(sweep / name, "AP50", min_runs, min_step)


def test_below_the_median_of_the_others_a_run_is_given_up_and_told_why(sweep):
    reason = rule(sweep).reason(200, 0.55)
    assert reason == (
        "pruned after step 200: best AP50 0.5500 is below 0.6000, the median of 3 other runs by"
        " that step"
    )


@pytest.mark.parametrize("best", [0.6, 0.65])
def test_at_or_above_it_the_run_goes_on(sweep, best):
    assert rule(sweep).reason(200, best) == ""


def test_every_run_gets_its_first_steps_and_needs_enough_others(sweep):
    assert rule(sweep, min_step=300).reason(200, 0.0) == ""
    assert rule(sweep, min_runs=4).reason(200, 0.0) == ""
    assert rule(sweep, min_runs=4).reason(100, 0.0) != ""


def test_a_run_is_not_compared_with_itself(sweep):
    assert rule(sweep, name="0_a").reason(200, 0.0) == ""


USECASE = """usecase:
  name: {name}
  train: {{images: /data/train, annotations: /data/train.json}}
  val: {{images: /data/val, annotations: {val}}}
"""


def test_runs_of_other_data_do_not_count(sweep):
    def write(run, name="ships", val="/data/val.json"):
        (sweep / run).mkdir(exist_ok=True)
        (sweep / run / "config.yaml").write_text(USECASE.format(name=name, val=val))

    for run in ("0_a", "1_a", "4_a"):
        write(run)
    write("2_a", name="infra")
    assert rule(sweep, min_runs=2).reason(200, 0.0).endswith("2 other runs by that step")
    assert rule(sweep, min_runs=3).reason(200, 0.0) == ""
    write("5_a")
    write("6_a", val="/data/other.json")
    assert rule(sweep, min_runs=1, name="5_a").reason(200, 0.0) != ""
    assert rule(sweep, min_runs=1, name="6_a").reason(200, 0.0) == ""


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("hydra: {mode: MULTIRUN}", True),
        ("hydra: {mode: RUN}", False),
        ("hydra: [", False),
        (None, False),
    ],
)
def test_a_run_knows_whether_a_sweep_started_it(tmp_path, written, told):
    if written is not None:
        (tmp_path / ".hydra").mkdir()
        (tmp_path / ".hydra" / "hydra.yaml").write_text(written)
    assert is_of_sweep(tmp_path) is told


def test_only_steps_until_then_count(sweep):
    path = sweep / "0_a" / "metrics.jsonl"
    assert best_until(path, "AP50", 100) == 0.1
    assert best_until(path, "AP50", 300) == 0.5
    assert best_until(path, "AP50", 400) is None
    assert best_until(sweep / "nowhere", "AP50", 1) is None


def test_a_line_that_is_being_written_does_no_harm(sweep):
    path = sweep / "0_a" / "metrics.jsonl"
    with path.open("a") as file:
        file.write('{"iteration": 399, "val/AP50": 0.')
    assert best_until(path, "AP50", 300) == 0.5
