"""Counts come back from precision and recall exactly; seeds are averaged, each once."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from sar_experiments import run_folder
from sar_experiments.report.numbers import grouped, numbers_of, wilson
from sar_experiments.report.runs import Run


def truth(objects, images=10, area_km2=None):
    part = SimpleNamespace(samples=[None] * images, classes=("ship",))
    return SimpleNamespace(objects=objects, part=part, area_km2=area_km2)


def run(name="a", *, seed=1, setting="s", ended="", state="completed", cause="", **metrics):
    status = "running" if state in ("dead", "stalled") else state
    result = run_folder.Result(
        status=status, task="train", metrics=metrics, ended=ended, cause=cause
    )
    return Run(Path(name), name, result, state, {"seed": seed}, {}, setting)


@pytest.mark.parametrize("objects", [1, 7, 100, 12345])
def test_hits_and_false_alarms_come_back_from_what_was_recorded(objects):
    for hits in {1, objects // 2 or 1, objects}:
        for false_alarms in (0, 1, 3, 50_000):
            precision, recall = hits / (hits + false_alarms), hits / objects
            recorded = run(precision=precision, recall=recall)
            found = numbers_of(recorded, truth(objects, images=4, area_km2=8.0), prefix="")
            assert (found["hits"], found["misses"]) == (hits, objects - hits)
            assert found["false_alarms"] == false_alarms
            assert found["false_alarms_per_image"] == false_alarms / 4
            assert found["false_alarms_per_km2"] == false_alarms / 8


def test_a_run_that_found_nothing_has_no_false_alarms():
    nothing = run(precision=None, recall=0.0)
    found = numbers_of(nothing, truth(5), prefix="")
    assert (found["hits"], found["misses"], found["false_alarms"]) == (0, 5, 0)
    assert found["false_alarms_per_km2"] is None


def test_numbers_of_another_truth_give_no_counts():
    recorded = run(precision=0.5, recall=0.5)
    assert numbers_of(recorded, truth(7), prefix="")["hits"] is None
    assert numbers_of(recorded, None, prefix="")["hits"] is None


def test_the_numbers_of_the_test_part_are_its_own():
    both = run(AP50=0.9, **{"test/AP50": 0.4})
    assert numbers_of(both, None, prefix="test/")["AP50"] == 0.4
    assert numbers_of(both, None, prefix="")["AP50"] == 0.9


def settings_of(*runs, others=()):
    values = {each.name: numbers_of(each, None, prefix="") for each in runs}
    return grouped(runs, values, metric="AP50", others=others)


def test_seeds_are_averaged_with_the_deviation_of_a_sample():
    (setting,) = settings_of(*(run(f"{k}", seed=k, AP50=k / 10) for k in (2, 4, 6)))
    spread = setting.spread("AP50")
    assert spread.mean == pytest.approx(0.4)
    assert spread.deviation == pytest.approx(0.2)
    assert spread.count == 3
    assert setting.best.name == "6"


def test_one_seed_has_no_deviation():
    (setting,) = settings_of(run(AP50=0.5))
    assert setting.spread("AP50").deviation is None
    assert setting.spread("AP") is None


def test_a_seed_that_ran_twice_counts_once_the_latest():
    old = run("old", seed=1, ended="2026-01-01", AP50=0.9)
    new = run("new", seed=1, ended="2026-01-02", AP50=0.5)
    (setting,) = settings_of(new, old)
    assert [each.name for each in setting.runs] == ["new"]
    assert [each.name for each in setting.repeats] == ["old"]
    assert setting.spread("AP50").mean == 0.5


def test_settings_are_in_the_order_of_their_means_and_those_without_the_metric_last():
    lucky = [run("a", seed=1, setting="x", AP50=0.9), run("b", seed=2, setting="x", AP50=0.1)]
    steady = [run("c", seed=1, setting="y", AP50=0.6), run("d", seed=2, setting="y", AP50=0.6)]
    none = run("e", setting="z")
    assert [s.best.name for s in settings_of(none, *lucky, *steady)] == ["c", "a", "e"]


def test_a_setting_that_lost_seeds_stands_below_one_that_lost_none():
    risky = [run("a", seed=1, setting="x", AP50=0.9)]
    lost = [
        run("b", seed=2, setting="x", state="diverged", AP50=0.95),
        run("c", seed=3, setting="x", state="failed", cause="oom"),
        run("d", seed=4, setting="x", state="dead"),
        run("e", seed=5, setting="x", state="running"),
    ]
    steady = [run("f", seed=1, setting="y", AP50=0.5), run("g", seed=2, setting="y", AP50=0.6)]
    first, second = settings_of(*risky, *steady, others=lost)
    assert (first.best.name, first.standing("AP50").n, first.standing("AP50").failures) == (
        "g", 2, "",
    )  # fmt: skip
    standing = second.standing("AP50")
    assert (standing.n, standing.mean, standing.running) == (1, 0.9, 1)
    assert dict(standing.failed) == {"dead": 1, "diverged": 1, "out of memory": 1}


def test_a_seed_that_failed_and_then_finished_is_no_failure():
    again = run("again", seed=1, setting="x", AP50=0.9)
    failed = run("failed", seed=1, setting="x", state="interrupted")
    (setting,) = settings_of(again, others=[failed])
    assert setting.standing("AP50").all_finished


def test_a_seed_that_failed_twice_is_one_failure():
    found = run("a", seed=1, setting="x", AP50=0.9)
    failed = [run(name, seed=2, setting="x", state="failed") for name in ("b", "c")]
    (setting,) = settings_of(found, others=failed)
    assert dict(setting.standing("AP50").failed) == {"failed": 1}


def test_a_value_that_is_nan_counts_as_none():
    (first, second) = settings_of(
        run("a", setting="x", AP50=float("nan")), run("b", setting="y", AP50=0.1)
    )
    assert (first.best.name, second.spread("AP50")) == ("b", None)
    assert dict(second.standing("AP50").failed) == {"without AP50": 1}


def test_wilsons_interval_is_the_published_one():
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3: 81 of 263 and 15 of 148.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert wilson(0, 20)[0] == 0
    assert wilson(20, 20)[1] == 1


def test_numbers_can_be_written_as_json():
    json.dumps(numbers_of(run(AP=0.1), truth(3), prefix=""))
