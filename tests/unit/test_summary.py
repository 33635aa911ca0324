"""A sweep's summary is ordered by means over seeds, and a setting that lost seeds is never first.

It shows what changed, how many seeds finished, and how the others ended.
"""

import csv

import pytest

from sar_experiments import run_folder
from sar_experiments.summary import leaderboard, over_seeds, read_rows, write_summary


@pytest.fixture
def run(tmp_path):
    def write(job, *overrides, ap50=None, measured=None, status="completed", **more):
        folder = tmp_path / job
        folder.mkdir()
        result = run_folder.Result(
            status=status,
            task="train",
            metrics=measured or ({} if ap50 is None else {"AP50": ap50}),
            overrides=["usecase=ships", *overrides],
            seconds=12.3,
            **more,
        )
        run_folder.write_result(folder, result)
        return folder

    return write


@pytest.fixture
def sweep(tmp_path, run):
    run("0_ships", "solver.base_lr=0.1", "seed=1", ap50=0.4)
    run("1_ships", "solver.base_lr=0.1", "seed=2", ap50=0.6)
    run("2_ships", "solver.base_lr=0.2", "seed=1", ap50=0.7)
    run("3_ships", "solver.base_lr=9", "seed=1", status="diverged", why="the loss | exploded")
    return tmp_path


def settings_of(sweep):
    return over_seeds(read_rows(sweep), metric="AP50")


def csv_of(sweep):
    write_summary(sweep, metric="AP50")
    with (sweep / "summary.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_best_run_comes_first_and_failures_last(sweep):
    assert [row.job for each in settings_of(sweep) for row in each.rows] == [
        "2_ships",
        "1_ships",
        "0_ships",
        "3_ships",
    ]


def test_only_what_differs_is_shown(sweep):
    board = leaderboard(settings_of(sweep), metric="AP50").splitlines()
    assert "usecase" not in "".join(board)
    assert [line.split() for line in board] == [
        ["AP50", "±", "n", "failed", "job"],
        ["0.7000", "-", "1", "-", "2_ships", "solver.base_lr=0.2"],
        ["0.5000", "0.1414", "2", "-", "1_ships", "solver.base_lr=0.1"],
        ["-", "-", "0", "1", "diverged", "3_ships", "solver.base_lr=9"],
    ]


def test_seeds_of_one_setting_are_averaged(sweep):
    best, second, _ = settings_of(sweep)
    assert (best.setting, best.standing.mean) == ("solver.base_lr=0.2", 0.7)
    assert (best.standing.deviation, best.standing.n) == (None, 1)
    assert second.setting == "solver.base_lr=0.1"
    assert second.standing.mean == pytest.approx(0.5)
    assert second.standing.deviation == pytest.approx(0.1414, abs=1e-4)
    assert second.standing.n == 2


def test_the_files_hold_every_run(sweep):
    table = csv_of(sweep)
    assert [row["job"] for row in table] == ["2_ships", "1_ships", "0_ships", "3_ships"]
    assert table[0]["solver.base_lr"] == "0.2"
    assert table[3]["why"] == "the loss | exploded"
    markdown = (sweep / "summary.md").read_text()
    assert "| `solver.base_lr=0.1` | 0.5000 | 0.1414 | 2 | - |" in markdown
    assert "| `solver.base_lr=9` | - | - | 0 | 1 diverged |" in markdown
    assert "the loss / exploded" in markdown


def test_a_setting_that_lost_seeds_stands_below_one_that_lost_none_however_good_the_rest(
    run, tmp_path
):
    for seed, ap50 in enumerate((0.50, 0.52, 0.48), start=1):
        run(f"steady_{seed}", "lr=1", f"seed={seed}", ap50=ap50)
    run("risky_1", "lr=9", "seed=1", ap50=0.9)
    run("risky_2", "lr=9", "seed=2", ap50=0.8, status="diverged", why="the loss exploded")
    run("risky_3", "lr=9", "seed=3", status="failed", cause="oom", why="CUDA out of memory")
    steady, risky = settings_of(tmp_path)
    assert (steady.setting, steady.standing.n, steady.standing.failures) == ("lr=1", 3, "")
    assert (risky.setting, risky.standing.n) == ("lr=9", 1)
    assert risky.standing.failures == "1 diverged, 1 out of memory"
    assert risky.standing.mean == 0.9  # the 0.8 of before it diverged is no result
    table = csv_of(tmp_path)
    assert [row["job"] for row in table] == [
        "steady_2", "steady_1", "steady_3", "risky_1", "risky_2", "risky_3",
    ]  # fmt: skip
    assert [(row["n"], row["failed"], row["failures"]) for row in table[2:4]] == [
        ("3", "0", ""), ("1", "2", "1 diverged, 1 out of memory"),
    ]  # fmt: skip
    markdown = (tmp_path / "summary.md").read_text()
    assert markdown.index("`lr=1`") < markdown.index("`lr=9`")
    assert "| `lr=9` | 0.9000 | - | 1 | 1 diverged, 1 out of memory |" in markdown
    board = write_summary(tmp_path, metric="AP50").splitlines()
    assert board[1].split()[:3] == ["0.5000", "0.0200", "3"]


@pytest.mark.parametrize("status", ["diverged", "failed", "interrupted", "pruned"])
def test_each_way_not_to_finish_is_named_and_costs_the_rank(run, tmp_path, status):
    run("a_1", "lr=1", "seed=1", ap50=0.9)
    run("a_2", "lr=1", "seed=2", ap50=0.9, status=status)
    run("b_1", "lr=2", "seed=1", ap50=0.1)
    best, second = settings_of(tmp_path)
    assert best.setting == "lr=2"
    assert dict(second.standing.failed) == {status: 1}


def test_a_seed_that_goes_on_is_no_failure_and_is_counted(run, tmp_path):
    run("a_1", "lr=1", "seed=1", ap50=0.9)
    run("a_2", "lr=1", "seed=2", status="running")
    run("b_1", "lr=2", "seed=1", ap50=0.1)
    board = write_summary(tmp_path, metric="AP50").splitlines()
    assert board[0].split() == ["AP50", "±", "n", "failed", "running", "job"]
    assert board[1].split() == ["0.9000", "-", "1", "-", "1", "a_1", "lr=1"]


@pytest.mark.parametrize("broken", ["NaN", "Infinity", "null", '"0.9"', "true"])
def test_what_is_no_finite_number_is_never_best(run, tmp_path, broken):
    folder = run("a", "lr=1", ap50=0.123)
    run("b", "lr=2", ap50=0.1)
    path = folder / "result.json"
    path.write_text(path.read_text().replace("0.123", broken))
    best, second = settings_of(tmp_path)
    assert best.setting == "lr=2"
    assert dict(second.standing.failed) == {"without AP50": 1}
    table = csv_of(tmp_path)
    assert [(row["job"], row["AP50"]) for row in table] == [("b", "0.1"), ("a", "")]


def test_of_equal_means_that_of_more_seeds_is_first(run, tmp_path):
    run("a", "lr=1", "seed=1", ap50=0.5)
    for seed in (1, 2):
        run(f"b{seed}", "lr=2", f"seed={seed}", ap50=0.5)
    assert [each.setting for each in settings_of(tmp_path)] == ["lr=2", "lr=1"]


def test_every_row_of_the_csv_has_its_seed_and_the_mean_over_the_seeds_of_its_setting(
    run, tmp_path
):
    run("0", "lr=1", "seed=4", ap50=0.4)
    run("1", "lr=1", "seed=5", ap50=0.6)
    (run("2", "lr=2", ap50=0.3) / "config.yaml").write_text("output: null\nseed: 7\nforce: false\n")
    first, second, third = csv_of(tmp_path)
    assert (first["job"], first["seed"], second["seed"], third["seed"]) == ("1", "5", "4", "7")
    for row in (first, second):
        assert float(row["AP50_mean"]) == pytest.approx(0.5)
        assert float(row["AP50_std"]) == pytest.approx(0.02**0.5)
        assert row["n"] == "2"
    assert (third["AP50_mean"], third["AP50_std"], third["n"]) == ("0.3", "", "1")


def test_a_run_that_goes_on_or_is_broken_does_no_harm(sweep):
    (sweep / "4_ships").mkdir()
    (sweep / "4_ships" / "result.json").write_text("{")
    assert len(read_rows(sweep)) == 4


def test_an_empty_sweep_has_an_empty_table(tmp_path):
    assert len(write_summary(tmp_path, metric="AP").splitlines()) == 1


def test_a_long_leaderboard_is_cut_on_the_console_alone(tmp_path):
    for number in range(20):
        (tmp_path / f"{number}_ships").mkdir()
        result = run_folder.Result(
            status="completed", task="train", metrics={"AP50": 0.1}, overrides=[f"lr={number}"]
        )
        run_folder.write_result(tmp_path / f"{number}_ships", result)
    board = write_summary(tmp_path, metric="AP50").splitlines()
    assert len(board) == 14
    assert board[-1] == "8 more in summary.md"
    assert len((tmp_path / "summary.csv").read_text().splitlines()) == 21


def test_a_sweep_with_a_cfar_is_ordered_by_what_both_have(tmp_path, run):
    run("0_net", "model=tiny", measured={"AP50": 0.3, "AP50_any_class": 0.5})
    run("1_cfar", "model=cfar", measured={"AP50_any_class": 0.6}, names_classes=False)
    board = write_summary(tmp_path, metric="AP50")
    assert board.splitlines()[0].split()[0] == "AP50_any_class"
    rows = csv_of(tmp_path)
    assert [row["job"] for row in rows] == ["1_cfar", "0_net"]
    assert [row["AP50_any_class_mean"] for row in rows] == ["0.6", "0.5"]
