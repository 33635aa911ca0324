"""Scenes with labels are measured from the command line, by a network and by a CFAR."""

import csv
import json
import subprocess

import geopandas
import numpy as np
import pytest
import shapely

from sar_experiments.data.images import write_geotiff

SHIPS = [(100, 150, 108, 153), (200, 40, 210, 44), (30, 250, 33, 262)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A scene of three ships and one bright spot that is none; labels know a ship that is not."""
    folder = tmp_path_factory.mktemp("labelled")
    pixels = np.random.default_rng(2).integers(20, 60, (300, 300, 1)).astype(np.uint8)
    for left, top, right, bottom in (*SHIPS, (250, 250, 256, 255)):
        pixels[top:bottom, left:right] = 250
    write_geotiff(
        folder / "scene.tif", pixels, transform=(10.0, 0, 5e5, 0, -10.0, 4e6), crs="EPSG:32633",
        nodata=None, tags={},
    )  # fmt: skip
    boxes = [*SHIPS, (60, 60, 70, 70)]
    outlines = [
        shapely.box(5e5 + 10 * left, 4e6 - 10 * bottom, 5e5 + 10 * right, 4e6 - 10 * top)
        for left, top, right, bottom in boxes
    ]
    frame = geopandas.GeoDataFrame({"class": ["ship"] * 4}, geometry=outlines, crs="EPSG:32633")
    frame.to_crs("EPSG:4326").to_file(folder / "labels.geojson")
    return folder


def test_a_cfar_is_measured_on_a_scene_without_pytorch(command, folder, without_torch, tmp_path):
    done = subprocess.run(
        command(
            "task=evaluate", "model=cfar", f"source={folder / 'scene.tif'}",
            f"labels={folder / 'labels.geojson'}", f"output={tmp_path / 'run'}",
            "evaluation.match_iou=0.3",
        ),
        capture_output=True, text=True, env=without_torch, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "completed"
    wanted = ("truths", "hits", "misses", "false_alarms", "recall", "precision")
    assert [result["metrics"][name] for name in wanted] == [4, 3, 1, 1, 0.75, 0.75]
    assert result["metrics"]["recall_any_class"] == 0.75  # the name that a network has as well
    outcomes = list(csv.DictReader((tmp_path / "run" / "outcomes.csv").read_text().splitlines()))
    assert sorted(each["outcome"] for each in outcomes) == ["false alarm", *["hit"] * 3, "miss"]
    (miss,) = (each for each in outcomes if each["outcome"] == "miss")
    place = [float(miss[name]) for name in ("left_px", "top_px", "right_px", "bottom_px")]
    assert np.allclose(place, [60, 60, 70, 70], atol=0.05)
    assert miss["score"] == ""
    frame = geopandas.read_file(tmp_path / "run" / "outcomes.geojson")
    assert sorted(frame.outcome) == sorted(each["outcome"] for each in outcomes)
    assert (tmp_path / "run" / "overview" / "scene.png").is_file()


@pytest.mark.detectron2
@pytest.mark.slow
def test_what_is_measured_is_what_is_predicted(trained, call, tmp_path):
    simulated = json.loads((trained[0] / "result.json").read_text())
    assert simulated["status"] == "completed"
    # Scenes of the training's own kind: what is measured counts, not how well it does.
    from sar_experiments.data.simulator import SimulatorSettings, simulate_dataset

    settings = SimulatorSettings(
        seed=5, image_size_px=128, pixel_m=10.0, looks=4.0, classes=("ship", "platform"),
        train_images=1, val_images=0, test_images=0, scene_size_px=400, empty_share=0.1,
    )  # fmt: skip
    simulate_dataset(settings, tmp_path / "simulated")
    scene, labels = (tmp_path / "simulated" / name for name in ("scene.tif", "scene.json"))
    options = (f"weights={trained[0]}", f"source={scene}", "predict.min_score=0.05")
    predicted = call("task=predict", *options, f"output={tmp_path / 'predicted'}")
    assert predicted.returncode == 0, predicted.stdout + predicted.stderr
    measured = call(
        "task=evaluate", *options, f"labels={labels}", f"output={tmp_path / 'measured'}"
    )
    assert measured.returncode == 0, measured.stdout + measured.stderr
    one, other = (
        json.loads((tmp_path / name / "detections_coco.json").read_text())["annotations"]
        for name in ("predicted", "measured")
    )
    assert other == one
    result = json.loads((tmp_path / "measured" / "result.json").read_text())["metrics"]
    assert result["hits"] + result["false_alarms"] == len(one)
    assert result["hits"] + result["misses"] == result["truths"] > 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["source=scene.tif"], "task=evaluate source=SCENE needs labels=FILE"),
        (["labels=labels.geojson"], "needs source=SCENE too"),
        (["source=scene.tif", "labels=none.geojson"], "none.geojson does not exist"),
    ],
)
def test_scenes_and_labels_come_together(command, folder, arguments, sentence):
    done = subprocess.run(
        command("task=evaluate", "model=cfar", *arguments),
        capture_output=True, text=True, cwd=folder, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert sentence in " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in done.stderr
