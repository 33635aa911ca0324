"""A scene from the command line to its maps: task=predict on a trained run."""

import json
import os
import signal
import subprocess
import time

import geopandas
import numpy as np
import pytest

from sar_experiments.data.images import write_geotiff

pytestmark = pytest.mark.detectron2

TILES = ("predict.tile_px=160", "predict.overlap_px=32", "predict.min_score=0.05")


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A scene of speckle with some bright bars; its left third has no data."""
    rng = np.random.default_rng(4)
    pixels = rng.integers(20, 60, (300, 400, 1)).astype(np.uint8)
    for x, y in rng.integers(210, 290, (12, 2)):
        pixels[y : y + 5, x : x + 14] = 240
    pixels[:, :200] = 0
    path = tmp_path_factory.mktemp("scenes") / "scene.tif"
    write_geotiff(
        path, pixels, transform=(10.0, 0, 500000.0, 0, -10.0, 4000000.0), crs="EPSG:32633",
        nodata=0, tags={},
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def predicted(trained, scene, call, tmp_path_factory):
    folder = tmp_path_factory.mktemp("predicted") / "run"
    run, _, _ = trained
    process = call("task=predict", f"weights={run}", f"source={scene}", f"output={folder}", *TILES)
    assert process.returncode == 0, process.stdout + process.stderr
    return folder, process.stdout


def test_a_scene_becomes_maps_tables_and_a_picture(predicted):
    folder, output = predicted
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "detections.geojson", "detections.gpkg", "detections.csv", "detections_coco.json",
        "detections.qml", "overview", "result.json", "config.yaml", "detectron2.yaml",
    }  # fmt: skip
    assert not [name for name in names if name.startswith("tiles")]
    assert (folder / "overview" / "scene.png").is_file()
    result = result_of(folder)
    assert result["status"] == "completed"
    frame = geopandas.read_file(folder / "detections.geojson")
    assert len(frame) == result["metrics"]["objects"] > 0
    assert result["metrics"]["tiles_no_data"] > 0
    assert f"found {len(frame)} objects in 1 scene," in output
    assert "EPSG:32633, 10 x 10 m" in output
    assert "Traceback" not in output


def test_nothing_is_found_where_there_is_no_data(predicted):
    frame = geopandas.read_file(predicted[0] / "detections.geojson")
    assert (frame.right_px > 200).all()


def test_the_classes_are_the_checkpoints(predicted):
    frame = geopandas.read_file(predicted[0] / "detections.geojson")
    assert set(frame["class"]) <= {"ship", "platform"}


def test_the_same_command_again_does_nothing(predicted, trained, scene, call):
    folder, _ = predicted
    before = (folder / "detections.geojson").stat().st_mtime_ns
    again = call(
        "task=predict", f"weights={trained[0]}", f"source={scene}", f"output={folder}", *TILES
    )
    assert "completed already" in again.stdout
    assert (folder / "detections.geojson").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_killed_prediction_goes_on_to_the_same_map(predicted, trained, command, call, tmp_path):
    folder = tmp_path / "killed"
    source = result_source(predicted[0])
    arguments = (
        "task=predict", f"weights={trained[0]}", f"source={source}", f"output={folder}", *TILES
    )  # fmt: skip
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, env=environment)
    log = folder / "tiles.jsonl"
    deadline = time.monotonic() + 600
    while not (log.exists() and log.read_bytes().count(b"\n") > 3):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(result_of(folder)["pid"], signal.SIGKILL)
    assert process.wait(300) == 1
    assert log.exists()
    resumed = call(*arguments)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "tiles were done already" in resumed.stdout
    one, other = (
        geopandas.read_file(each / "detections.geojson") for each in (predicted[0], folder)
    )
    columns = ["class", "score", "left_px", "top_px", "right_px", "bottom_px"]
    assert other[columns].equals(one[columns])


def result_source(folder):
    content = json.loads((folder / "detections_coco.json").read_text())
    return content["images"][0]["file_name"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["source={scene}"], "task=predict needs weights=RUN_FOLDER"),
        (["weights={run}"], "task=predict needs source=SCENE"),
        (["weights={run}", "source={scene}x"], "beside it lies scene.tif"),
        (["weights={run}", "source={scene}", "predict.land=coast.shp"], "predict.land="),
        (
            ["weights={run}", "source={scene}", "radiometry=uint16_amplitude"],
            "radiometry=uint16_amplitude",
        ),
    ],
)
def test_a_mistake_ends_with_one_paragraph(trained, scene, call, tmp_path, arguments, sentence):
    filled = [each.format(run=trained[0], scene=scene) for each in arguments]
    process = call("task=predict", *filled, f"output={tmp_path / 'run'}")
    assert process.returncode == 2
    assert sentence in process.stdout + process.stderr
    assert "Traceback" not in process.stdout + process.stderr
