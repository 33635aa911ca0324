"""A report's numbers are those of result.json, its page loads nothing, and what lacks is said.

Every value that a name could smuggle in is escaped.
"""

import contextlib
import csv
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sar_experiments import run_folder
from sar_experiments.config import MeasuredPart
from sar_experiments.detections import Detections
from sar_experiments.report.analysis import read_detections
from sar_experiments.report.charts import Axis
from sar_experiments.report.comparison import sentences
from sar_experiments.report.numbers import Footing
from sar_experiments.report.page import as_page
from sar_experiments.report.runner import report
from sar_experiments.report.tables import as_csv, as_json

VOID = {"meta", "br"}


class Checked(HTMLParser):
    """Collects text and the tags; refuses a page whose tags do not close."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.text, self.loaded = [], [], [], []
        self.feed(page)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loaded += [v for k, v in attributes if k in ("src", "href", "xlink:href", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def page_of(made):
    return as_page(made, title="Report on runs", made="now")


def told(made, section=0):
    return " ".join(sentences(made.sections[section], metric=made.metric, part=made.part))


@pytest.mark.parametrize("part", ["val", "test"])
def test_the_numbers_are_those_of_result_json(folders, part):
    prefix = "" if part == "val" else "test/"
    recorded = {}
    for name, lr in (("a", 0.1), ("b", 0.2)):
        folder = folders.run(name, lr=lr, share=4 * lr)
        recorded[name] = run_folder.read_result(folder).metrics
    made = report(folders.asked(part=MeasuredPart(part)))
    (section,) = made.sections
    assert len(section.analyses) == 2
    for analysis in section.analyses:
        expected = recorded[analysis.run.name]
        (view,) = analysis.views.values()
        for name in ("AP", "AP50", "APs", "precision", "recall", "f1"):
            assert view.metrics.values[name] == pytest.approx(expected[prefix + name], abs=1e-9)
        scores = view.metrics.thresholds.scores
        recorded_scores = {name: expected[f"threshold/{name}"] for name in scores}
        assert scores == pytest.approx(recorded_scores, abs=1e-6)
        assert analysis.doubt == ""
        values = next(
            s.values[analysis.run.name] for s in section.settings if s.best is analysis.run
        )
        assert values["hits"] == view.metrics.hits == sum(b.hits for b in view.sizes)
        assert values["misses"] == view.metrics.misses
        assert values["false_alarms"] == view.metrics.false_alarms
        assert analysis.confusion.trace() >= view.metrics.hits
    (best,) = section.analyses[0].views.values()
    counts = section.galleries[0].counts
    assert counts["hits"] == best.metrics.hits
    assert counts["misses"] == best.metrics.misses
    assert counts["false alarms"] == best.metrics.false_alarms


def test_seeds_are_one_row_with_mean_and_deviation(folders):
    for seed in (1, 2, 3):
        folders.run(f"s{seed}", seed=seed)
    folders.run("other", seed=1, lr=0.2, share=0.1)
    made = report(folders.asked())
    first, second = made.sections[0].settings
    assert (len(first.runs), len(second.runs)) == (3, 1)
    values = [run_folder.read_result(folders.runs / f"s{s}").metrics["AP50"] for s in (1, 2, 3)]
    mean, deviation = np.mean(values), np.std(values, ddof=1)
    text = " ".join(Checked(page_of(made)).text)
    assert f"{mean:.3f} ±\N{NO-BREAK SPACE}{deviation:.3f}" in text
    assert f"the best of 3 seeds (mean {mean:.3f}, standard deviation {deviation:.3f})" in text


def test_the_page_loads_nothing_and_shows_curves_and_pictures(folders):
    folders.run("a")
    folders.cfar("classic")
    made = report(folders.asked())
    page = page_of(made)
    checked = Checked(page)
    assert "default-src 'none'" in page
    assert checked.loaded
    assert all(each.startswith("data:image/png;base64,") for each in checked.loaded)
    assert "script" not in checked.tags
    assert (
        page.count('class="chart"') == 5
    )  # precision-recall and false alarms on two footings, loss
    pictured = [min(3, n) for each in made.sections[0].galleries for n in each.counts.values()]
    assert len(pictured) == 2 * 3  # three kinds, network and CFAR
    assert checked.tags.count("figure") == 5 + sum(pictured) >= 5 + 2 * 6
    assert {"svg", "table", "polyline", "image"} <= set(checked.tags)


def test_whatever_names_hold_is_shown_and_never_markup(folders):
    evil = '<script>alert("1")</script>&'
    folders.run("a", overrides=["usecase=infra", f"note={evil}", f"usecase.name='{evil}'"])
    folders.run("b", overrides=["usecase=infra"], lr=0.2)
    folders.run("c", overrides=[f"note={evil}"], status="failed", why=evil, metrics={})
    name = folders.root / "val.json"
    name.write_text(name.read_text().replace('"ship"', json.dumps(evil)))
    for path in ("train.json", "test.json"):
        other = folders.root / path
        other.write_text(other.read_text().replace('"ship"', json.dumps(evil)))
    made = report(folders.asked())
    page = as_page(made, title=evil, made=evil)
    checked = Checked(page)
    assert "script" not in checked.tags
    assert "<script" not in page
    assert evil in "".join(checked.text)


def test_runs_that_failed_are_shown_with_their_reason(folders):
    folders.run("good")
    folders.run("bad", status="diverged", why="the loss exploded at step 7", metrics={})
    made = report(folders.asked())
    text = " ".join(Checked(page_of(made)).text)
    assert "the loss exploded at step 7" in text
    (other,) = as_json(made)["not_compared"]
    assert (other["run"], other["state"]) == ("bad", "diverged")
    rows = list(csv.DictReader(io.StringIO(as_csv(made))))
    assert [(row["run"], row["state"]) for row in rows] == [
        ("good", "completed"), ("bad", "diverged"),
    ]  # fmt: skip
    assert rows[1]["why"] == "the loss exploded at step 7"


def test_a_setting_that_lost_a_seed_is_not_called_the_best_and_the_page_says_why(folders):
    folders.run("steady", seed=1, share=0.5)
    folders.run("risky", seed=1, lr=9.0, share=1.0)
    folders.run("lost", seed=2, lr=9.0, status="diverged", why="the loss exploded", metrics={})
    made = report(folders.asked())
    best, risky = made.sections[0].settings
    assert best.best.name == "steady"
    higher = risky.spread("AP50").mean
    assert higher > best.spread("AP50").mean
    said = told(made)
    assert said.startswith("Best: solver.base_lr=0.1 (steady)")
    assert (
        f"solver.base_lr=9.0 (risky) has a higher mean, {higher:.3f} over 1 seed that finished,"
        " and stands below since others did not: 1 diverged." in said
    )
    assert "behind" not in said
    first, second = as_json(made)["sections"][0]["settings"]
    assert (first["n"], first["failed"]) == (1, {})
    assert (second["n"], second["failed"]) == (1, {"diverged": 1})
    rows = {row["run"]: row for row in csv.DictReader(io.StringIO(as_csv(made)))}
    assert [(rows[name]["n"], rows[name]["failed"], rows[name]["failures"]) for name in rows] == [
        ("1", "0", ""), ("1", "1", "1 diverged"), ("", "", ""),
    ]  # fmt: skip
    assert "1 diverged" in " ".join(Checked(page_of(made)).text)


def test_a_run_that_was_retried_with_less_memory_is_still_a_seed_of_its_setting(folders):
    folders.run("a", seed=1)
    folder = folders.run("b", seed=2, accumulate_steps=2)
    config = folder / "config.yaml"
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").write_text(config.read_text())
    config.write_text(config.read_text().replace("accumulate_steps: 1", "accumulate_steps: 2"))
    (setting,) = report(folders.asked()).sections[0].settings
    assert {run.name for run in setting.runs} == {"a", "b"}


def test_missing_annotations_leave_the_recorded_numbers_and_say_which_run_lacks_them(folders):
    folder = folders.run("a")
    (folders.root / "val.json").unlink()
    made = report(folders.asked())
    (section,) = made.sections
    assert section.truth is None
    assert re.search(r"for a: .*val\.json", section.notes[0])
    text = " ".join(Checked(page_of(made)).text)
    assert f"{run_folder.read_result(folder).metrics['AP50']:.3f}" in text
    assert "val.json" in text


def test_missing_images_leave_curves_and_say_how_many_are_not_there(folders):
    folders.run("a")
    for file in (folders.root / "val").glob("*.png"):
        file.unlink()
    (section,) = report(folders.asked()).sections
    assert section.analyses
    assert any("6 image files are not there" in note for note in section.notes)
    assert not any(section.galleries[0].crops.values())


def test_a_missing_or_broken_detections_file_is_named(folders):
    (folders.run("a") / "detections.json").unlink()
    (folders.run("b", lr=0.2) / "detections.json").write_text('[{"image_id": 1}]')
    (folders.run("c", lr=0.3) / "detections.json").write_text(
        '[{"image_id": 99, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]'
    )
    made = report(folders.asked())
    notes = " ".join(made.sections[0].notes)
    assert "for a: " in notes
    assert "cannot be read" in notes
    assert "for b: " in notes
    assert "is no list of COCO results" in notes
    assert "for c: " in notes
    assert "99" in notes
    Checked(page_of(made))


def test_annotations_that_changed_since_are_noticed(folders):
    folders.run("a")
    path = folders.root / "val.json"
    content = json.loads(path.read_text())
    content["annotations"] = content["annotations"][:6]
    path.write_text(json.dumps(content))
    made = report(folders.asked())
    assert "they were changed since" in " ".join(made.sections[0].notes)


def test_runs_on_other_data_make_another_section(folders):
    folders.run("a")
    folders.run("b", lr=0.2)
    path = folders.root / "val.json"
    own = path.read_text()
    path.write_text(own.replace('"area": 36', '"area": 36.5'))
    assert len(report(folders.asked()).sections) == 1  # boxes are what counts
    config = (folders.runs / "b" / "config.yaml").read_text()
    shorter = json.loads(own)
    shorter["images"] = shorter["images"][:4]
    shorter["annotations"] = [a for a in shorter["annotations"] if a["image_id"] <= 4]
    (folders.root / "val4.json").write_text(json.dumps(shorter))
    (folders.runs / "b" / "config.yaml").write_text(config.replace("val.json", "val4.json"))
    made = report(folders.asked())
    assert [section.name for section in made.sections] == ["A", "B"]
    assert "2 different sets of images" in " ".join(Checked(page_of(made)).text)


def test_moved_data_is_the_same_data(folders):
    folders.run("a")
    folders.run("b", lr=0.2)
    (folders.root / "moved").symlink_to(folders.root)
    path = folders.runs / "b" / "config.yaml"
    path.write_text(path.read_text().replace(f"{folders.root}/", f"{folders.root}/moved/"))
    assert len(report(folders.asked()).sections) == 1


def test_few_objects_training_images_and_the_choice_of_the_checkpoint_are_said(folders):
    folder = folders.run("a")
    config = folder / "config.yaml"
    said = told(report(folders.asked()))
    assert "24 objects are few: one object more or less is 0.042 of recall" in said
    test = run_folder.read_result(folder).metrics["test/AP50"]
    assert f"which flatters it; on the test split it has AP50 {test:.3f}" in said
    assert "training images" not in said
    config.write_text(config.read_text().replace(f"{folders.root}/train", f"{folders.root}/val"))
    assert "6 of the 6 images are training images too" in told(report(folders.asked()))


def test_who_learnt_from_the_images_is_said_run_by_run(folders):
    folders.run("honest", share=0.9)
    cheat = folders.run("cheat", lr=0.2, share=0.5) / "config.yaml"
    cheat.write_text(cheat.read_text().replace(f"{folders.root}/train", f"{folders.root}/val"))
    made = report(folders.asked())
    (section,) = made.sections
    assert section.settings[0].best.name == "honest"
    assert "training images too" not in told(made)
    assert any("which flatters them: cheat (6)." in note for note in section.notes)


def test_what_an_evaluated_network_learnt_from_is_told_by_its_own_run(folders):
    trained = folders.run("trained", share=0.5)
    text = (trained / "config.yaml").read_text().replace("weights: null", f"weights: {trained}")
    config = folders.run("evaluated", task="evaluate", share=0.9) / "config.yaml"
    config.write_text(text.replace(f"{folders.root}/train", f"{folders.root}/val"))
    made = report(folders.asked())
    assert made.sections[0].seen == {"trained": 0, "evaluated": 0}  # whatever its own train is
    (trained / "config.yaml").unlink()
    assert report(folders.asked(source=folders.runs / "evaluated")).sections[0].seen == {
        "evaluated": None
    }


def test_what_the_data_check_left_out_is_left_out_here(folders):
    folder = folders.run("a")
    config = folder / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("ignore_bad_samples: false", "ignore_bad_samples: true"))
    assert "check.json" in report(folders.asked()).sections[0].notes[0]  # it is not there
    known = {"severity": "error", "code": "broken", "part": "val", "sentence": "broken"}
    image = {**known, "file": str(folders.root / "val" / "val_1.png"), "annotation": None}
    box = {**known, "file": str(folders.root / "val" / "val_2.png"), "annotation": 5}
    (folder / "check.json").write_text(json.dumps({"findings": [image, box]}))
    truth = report(folders.asked()).sections[0].truth
    assert (len(truth.part.samples), truth.objects) == (5, 24 - 4 - 1)
    (folder / "check.json").write_text(json.dumps({"findings": [{"kind": 1}]}))
    assert "does not tell what was left out" in report(folders.asked()).sections[0].notes[0]


def test_the_best_of_several_on_the_test_part_is_called_flattered(folders):
    folders.run("a")
    folders.run("b", lr=0.2)
    made = report(folders.asked(part=MeasuredPart.test))
    assert "the best of 2 settings on these very images, which flatters it" in told(made)
    assert made.sections[0].truth.objects == 16


def test_loose_boxes_are_told_from_what_is_not_noticed(folders):
    folder = folders.run("a", share=1.0)
    (exact,) = report(folders.asked()).sections[0].views(Footing.per_class)
    records = json.loads((folder / "detections.json").read_text())
    for each in records:  # twice as wide and as high: an IoU of a quarter at most
        each["bbox"] = [*each["bbox"][:2], 2 * each["bbox"][2], 2 * each["bbox"][3]]
    (folder / "detections.json").write_text(json.dumps(records))
    made = report(folders.asked())
    (loose,) = made.sections[0].views(Footing.per_class)
    assert sum(each.hits for each in exact.sizes) >= 22
    assert sum(each.hits for each in loose.sizes) < 12
    assert exact.noticed[0] >= 22
    assert loose.noticed[0] >= 22
    noticed = as_json(made)["sections"][0]["details"][0]["noticed"]
    assert noticed == dict(iou=0.1, hits=loose.noticed[0], false_alarms=loose.noticed[1])
    assert "If a slight overlap were enough" in page_of(made)


def test_runs_without_the_part_stand_together_with_one_sentence(folders):
    for lr in (0.1, 0.2):
        config = folders.run(f"r{lr}", lr=lr) / "config.yaml"
        text = config.read_text().replace(f"annotations: {folders.root}/test.json", "annotations:")
        config.write_text(text.replace(f"images: {folders.root}/test\n", "images:\n"))
    made = report(folders.asked(part=MeasuredPart.test))
    (section,) = made.sections
    (note,) = section.notes
    assert "the use case has no test split" in note
    assert "and 1 more" in note
    Checked(page_of(made))


def test_progress_counts_the_runs_that_are_looked_into(folders):
    for lr in (0.1, 0.2, 0.3):
        folders.run(f"r{lr}", lr=lr)
    shown = []
    report(folders.asked(runs=2), lambda done, total: shown.append((done, total)))
    assert shown == [(1, 2), (2, 2)]


def test_a_lead_below_the_spread_over_seeds_is_called_chance(folders):
    for seed in (1, 2, 3):
        folders.run(f"a{seed}", seed=seed, share=0.5)
        folders.run(f"b{seed}", seed=seed, share=0.5, lr=0.2)
    assert "the order of the two may be chance" in told(report(folders.asked()))


def test_an_evaluation_that_repeats_a_run_is_no_rival_of_it(folders):
    folder = folders.run("a")
    again = folders.run("again", task="evaluate", overrides=["task=evaluate", f"weights={folder}"])
    config = again / "config.yaml"
    config.write_text(config.read_text().replace("weights: null", f"weights: {folder}"))
    made = report(folders.asked())
    (setting,) = made.sections[0].settings
    assert [run.name for run in setting.repeats] == ["again"]
    assert "The next setting" not in told(made)
    assert "another run has the same setting and seed: again" in page_of(made)
    assert [row["run"] for row in csv.DictReader(io.StringIO(as_csv(made)))] == ["a", "again"]
    result = run_folder.read_result(again)
    changed = {**vars(result), "metrics": {**result.metrics, "AP": 0.9, "AP50": 0.99}}
    run_folder.write_result(again, run_folder.Result(**changed))
    assert len(report(folders.asked()).sections[0].settings) == 2


def test_a_cfar_is_the_baseline_and_tells_the_size_of_a_pixel(folders):
    folders.run("a")
    assert "No CFAR run is among them" in told(report(folders.asked()))
    folders.cfar("classic")
    made = report(folders.asked())
    (section,) = made.sections
    assert [each.run.is_cfar for each in section.analyses] == [False, True]
    assert [each.view.run.name for each in section.galleries] == ["a", "classic"]
    assert told(made).startswith("Class-agnostic, as a CFAR names no classes: ")
    assert section.truth.area_km2 == pytest.approx(6 * 120 * 120 * 100 / 1e6)
    values = section.settings[0].values["a"]
    expected = values["false_alarms"] / section.truth.area_km2
    assert values["false_alarms_per_km2"] == pytest.approx(expected)
    assert "stroke-dasharray" in page_of(made)


def of_pycocotools(folders, name, part, *, with_classes):
    """COCOeval of the files of a run and of the annotations."""
    file = "detections.json" if part == "val" else "test_detections.json"
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(folders.root / f"{part}.json"))
        found = truth.loadRes(str(folders.runs / name / file))
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.params.useCats = int(with_classes)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def at_iou_50(evaluation, least):
    """Hits and detections of all images at IoU 0.5 from a score on, whatever the class."""
    images = [each for each in evaluation.evalImgs[: len(evaluation.params.imgIds)] if each]
    scores = np.concatenate([each["dtScores"] for each in images])
    matched = np.concatenate([each["dtMatches"][0] for each in images]) > 0
    return int((matched & (scores >= least)).sum()), int((scores >= least).sum())


@pytest.mark.parametrize(("part", "prefix"), [("val", ""), ("test", "test/")])
def test_a_network_and_a_cfar_are_compared_class_agnostic_as_pycocotools_does(
    folders, part, prefix
):
    folders.run("a")
    folders.cfar("classic")
    folders.cfar("old", is_old=True)  # recorded per class, by one name for all
    made = report(folders.asked(part=MeasuredPart(part)))
    (section,) = made.sections
    (ranking, by_class) = section.rankings.values()
    assert list(section.rankings) == [Footing.class_agnostic, Footing.per_class]
    assert [each.best.name for each in by_class] == ["a"]
    assert {run.name for each in ranking for run in each.runs} <= {"a", "classic", "old"}
    objects = section.truth.objects
    for setting in ranking:
        run = setting.best
        values = setting.values[run.name]
        oracle = of_pycocotools(folders, run.name, part, with_classes=False)
        for name, expected in zip(("AP", "AP50"), oracle.stats[:2], strict=True):
            assert values[f"{name}_any_class"] == pytest.approx(expected, abs=1e-6)
        hits, found = at_iou_50(oracle, values["threshold_any_class"])
        assert values["recall_any_class"] == pytest.approx(hits / objects)
        assert values["precision_any_class"] == pytest.approx(hits / found)
        assert (values["hits_any_class"], values["false_alarms_any_class"]) == (hits, found - hits)
    network, classic = (s.values[s.best.name] for s in ranking)
    assert classic["AP50"] is classic["recall"] is None
    expected = of_pycocotools(folders, "a", part, with_classes=True).stats[1]
    assert network["AP50"] == pytest.approx(expected, abs=1e-6)
    assert network["AP50"] != network["AP50_any_class"]


def test_text_tables_curves_pictures_json_and_csv_name_what_is_class_agnostic(folders):
    folders.run("a")
    folders.cfar("classic")
    made = report(folders.asked())
    (section,) = made.sections
    network, classic = (s.values[s.best.name] for s in section.rankings[Footing.class_agnostic])
    page = Checked(page_of(made))
    text = " ".join(page.text)
    assert told(made).startswith(
        f"Class-agnostic, as a CFAR names no classes: tiny (a) has AP50"
        f" {network['AP50_any_class']:.3f}, CFAR (classic) {classic['AP50_any_class']:.3f},"
    )
    assert f"Best per class: tiny (a) with AP50 {network['AP50']:.3f}" in told(made)
    for heading in (
        "Runs on the validation split, class-agnostic: all detectors",
        "Runs on the validation split, per class: detectors that name classes",
        "Precision over recall at IoU 0.5, class-agnostic",
        "Precision over recall at IoU 0.5, per class",
        "Pictures: tiny (a), class-agnostic",
        "Pictures: CFAR (classic), class-agnostic",
    ):
        assert heading in text
    for gallery in section.galleries:
        assert gallery.view.footing is Footing.class_agnostic
        values = {"a": network, "classic": classic}[gallery.view.run.name]
        assert gallery.counts["hits"] == values["hits_any_class"]
        assert gallery.counts["false alarms"] == values["false_alarms_any_class"]
    content = json.loads(json.dumps(as_json(made), allow_nan=False))
    (plain,) = content["sections"]
    assert plain["rankings"] == {"class_agnostic": ["a", "classic"], "per_class": ["a"]}
    assert [each["class_agnostic"]["noticed"]["iou"] for each in plain["details"]] == [0.1, 0.1]
    assert ["per_class" in each for each in plain["details"]] == [True, False]
    rows = {row["run"]: row for row in csv.DictReader(io.StringIO(as_csv(made)))}
    assert float(rows["classic"]["AP50_any_class"]) == pytest.approx(classic["AP50_any_class"])
    assert float(rows["a"]["AP50_any_class"]) == pytest.approx(network["AP50_any_class"])
    assert (rows["classic"]["AP50"], rows["a"]["AP50"] != "") == ("", True)


def test_the_best_cfar_is_looked_into_however_far_down_it_stands(folders):
    for place in range(3):
        folders.run(f"n{place}", lr=0.1 + place, share=0.9)
    folders.cfar("classic")
    (section,) = report(folders.asked(runs=1)).sections
    assert [each.run.is_cfar for each in section.analyses] == [False, True]


def test_the_pixel_of_the_command_line_wins(folders):
    folders.cfar("classic")
    (section,) = report(folders.asked(pixel_m=2.0)).sections
    assert (section.truth.pixel.mean_m, section.truth.pixel.origin) == (2.0, "report.pixel_m")


def test_without_a_pixel_size_there_are_no_metres(folders):
    folders.run("a")
    made = report(folders.asked())
    assert made.sections[0].truth.area_km2 is None
    assert "per km²" not in page_of(made)
    assert as_json(made)["sections"][0]["data"]["area_km2"] is None


def test_a_run_without_any_detection_is_shown(folders):
    folders.run("a")
    folder = folders.run("nothing", lr=0.2, share=0.0)
    (folder / "detections.json").write_text("[]")
    result = run_folder.read_result(folder)
    nothing = {"AP": 0.0, "AP50": 0.0, "AP75": 0.0, "recall": 0.0, "f1": 0.0}
    nothing |= {"precision": None}
    run_folder.write_result(folder, run_folder.Result(**{**vars(result), "metrics": nothing}))
    made = report(folders.asked())
    assert len(made.sections[0].analyses) == 2
    assert made.sections[0].notes == ()
    Checked(page_of(made))
    json.dumps(as_json(made), allow_nan=False)


def test_only_runs_that_did_not_end_make_a_page_too(folders):
    folders.run("bad", status="failed", why="no memory", metrics={})
    made = report(folders.asked())
    assert "no memory" in page_of(made)
    assert "No run came to an end" in page_of(made)


def test_json_holds_every_run_and_every_curve_in_few_points(folders):
    folders.run("a")
    folders.run("b", lr=0.2)
    content = json.loads(json.dumps(as_json(report(folders.asked(runs=1))), allow_nan=False))
    (section,) = content["sections"]
    assert {run["run"] for s in section["settings"] for run in s["runs"]} == {"a", "b"}
    (details,) = section["details"]
    curve = details["curves"]["all"]
    assert len(curve["recall"]) == len(curve["precision"]) == len(curve["scores"]) <= 400
    assert [each["objects"] for each in details["sizes"]] == [6, 6, 6, 6, 0, 0]
    assert section["settings"][0]["over_seeds"]["AP50"]["n"] == 1


def test_detections_are_read_as_they_were_written(folders):
    folder = folders.run("a")
    found = read_detections(folder / "detections.json", classes=2)
    assert set(found) == set(range(1, 7))
    assert all(isinstance(each, Detections) for each in found.values())
    with pytest.raises(ValueError, match="category_id 2 is none of the 1 classes"):
        read_detections(folder / "detections.json", classes=1)


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [
        (Axis("x", 0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (Axis("x", 0, 150), [0, 50, 100, 150]),
        (Axis("x", 0.01, 20, is_log=True), [0.01, 0.1, 1, 10]),
    ],
)
def test_ticks_are_round(axis, ticks):
    assert axis.ticks() == pytest.approx(ticks)
    assert axis.place(axis.low) == 0
    assert axis.place(axis.high * 2) == 1


def test_each_class_is_shown_with_the_score_from_which_it_counts(folders):
    folder = folders.run("a")
    thresholds = json.loads((folder / "thresholds.json").read_text())
    ship, platform = (each["score"] for each in thresholds["classes"].values())
    assert ship != platform
    made = report(folders.asked())
    text = " ".join(Checked(page_of(made)).text)
    assert "from score" in text
    assert f"{ship:.3f}" in text
    assert f"{platform:.3f}" in text
    assert f"counted from score ship {ship:.3g}, platform {platform:.3g} on" in told(made)
    (details,) = as_json(made)["sections"][0]["details"]
    scores = {name: each["score"] for name, each in details["thresholds"]["classes"].items()}
    assert scores == pytest.approx({"ship": ship, "platform": platform}, abs=1e-6)


def test_the_test_split_counts_from_the_scores_of_validation_and_the_page_says_so(folders):
    folders.run("a")
    folders.cfar("older", is_old=True)  # the report chooses its score for any class
    scores = {}
    for part in ("val", "test"):
        made = report(folders.asked(part=MeasuredPart(part), runs=3))
        scores[part] = {
            (each.run.name, footing): view.metrics.least.tolist()
            for each in made.sections[0].analyses
            for footing, view in each.views.items()
        }
    assert len(scores["val"]) == 3  # the network on both, the CFAR on one
    assert scores["val"] == scores["test"]
    text = " ".join(Checked(page_of(made)).text)
    assert "as much as the run chose on its validation split, never on these images" in text


def test_a_class_with_the_default_threshold_is_named(folders):
    folder = folders.run("a")
    thresholds = json.loads((folder / "thresholds.json").read_text())
    thresholds["classes"]["platform"] = {"score": 0.5, "f1": 0.02, "doubt": "it is hardly found"}
    (folder / "thresholds.json").write_text(json.dumps(thresholds))
    text = " ".join(Checked(page_of(report(folders.asked()))).text)
    assert "platform has the default threshold 0.5, as it is hardly found." in text


def as_of_an_older_version(folder):
    """Let a run have one threshold for all classes, and another that was chosen on test."""
    (folder / "thresholds.json").unlink()
    result = run_folder.read_result(folder)
    metrics = {k: v for k, v in result.metrics.items() if not k.startswith("threshold/")}
    metrics |= {"threshold": 0.4, "test/threshold": 0.7}
    run_folder.write_result(folder, run_folder.Result(**{**vars(result), "metrics": metrics}))


def test_a_run_of_an_older_version_has_its_one_threshold_for_all_classes(folders):
    as_of_an_older_version(folders.run("old"))
    made = report(folders.asked())
    (view,) = made.sections[0].views(Footing.per_class)
    assert view.metrics.thresholds.scores == {"ship": 0.4, "platform": 0.4}
    assert "from score 0.4 on" in told(made)


def test_what_an_older_version_measured_at_a_threshold_of_the_test_split_is_left_out(folders):
    as_of_an_older_version(folders.run("old"))
    folders.run("new", lr=0.2)
    made = report(folders.asked(part=MeasuredPart.test))
    (section,) = made.sections
    values = {s.best.name: s.values[s.best.name] for s in section.settings}
    assert values["old"]["f1"] is values["old"]["precision"] is values["old"]["hits"] is None
    assert values["old"]["AP50"] is not None
    assert values["new"]["f1"] is not None
    (note,) = section.notes
    assert note.endswith("measures them at validation's: old")
    assert {a.run.name for a in section.analyses} == {"old", "new"}
    validation = report(folders.asked()).sections[0]
    assert {s.best.name: s.values[s.best.name]["f1"] is None for s in validation.settings} == {
        "old": False, "new": False
    }  # fmt: skip
