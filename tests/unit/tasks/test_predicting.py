"""Nothing that a prediction has computed is lost before its outputs are on disk."""

import json
import os
import signal

import numpy as np
import pytest

from sar_experiments import run_folder
from sar_experiments.data.images import read_image, write_geotiff
from sar_experiments.exit_codes import DONE, FAILED, INTERRUPTED
from sar_experiments.supervisor import STOP_SIGNALS
from sar_experiments.tasks import predict
from sar_experiments.tasks.ending import Ending, attempt, record
from sar_experiments.tasks.interruption import Interruption


@pytest.fixture
def scene(tmp_path, rng):
    """Speckle with one ship, in a frame of zeros that no mark of the file calls no data."""
    pixels = np.zeros((200, 240, 1), np.uint8)
    pixels[60:140, 60:180] = rng.integers(30, 60, (80, 120, 1))
    pixels[90:96, 100:120] = 250
    path = tmp_path / "scene.tif"
    transform = (10.0, 0, 5e5, 0, -10.0, 4e6)
    write_geotiff(path, pixels, transform=transform, crs="EPSG:32633", nodata=None, tags={})
    return path


@pytest.fixture
def run(typed_config, scene, tmp_path):
    """Predict with a CFAR, as the process of a run does, and return how that ended."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    folder = tmp_path / "run"
    folder.mkdir()
    new = run_folder.new_result(task="predict", config_hash="0", overrides=[])
    run_folder.write_result(folder, new)

    def run_once(*overrides):
        config = typed_config(
            "task=predict", "model=cfar", f"source={scene}", "predict.tile_px=100", *overrides
        )
        interruption = Interruption()
        interruption.install()
        ending = attempt(lambda: Ending(predict.run(config, folder, interruption)))
        return record(folder, ending), run_folder.read_result(folder)

    yield run_once
    for number, handler in before.items():
        signal.signal(number, handler)


def test_tiles_outlive_a_failure_to_write_and_are_gone_after_success(run, tmp_path, caplog):
    caplog.set_level("INFO")
    folder = tmp_path / "run"
    (folder / "detections.csv").mkdir()  # no file can be put there
    code, result = run()
    assert (code, result.status) == (FAILED, "failed")
    tiles = (folder / run_folder.TILE_LOG).read_bytes()
    assert tiles.count(b"\n") > 1
    (folder / "detections.csv").rmdir()
    code, result = run()
    assert (code, result.status) == (DONE, "completed")
    assert "tiles were done already" in caplog.text
    assert not (folder / run_folder.TILE_LOG).exists()


def test_a_signal_while_outputs_are_written_leaves_the_tiles(run, tmp_path, monkeypatch):
    write_outputs = predict.write_outputs

    def interrupted(*arguments, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return write_outputs(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(predict, "write_outputs", interrupted)
        code, result = run()
    assert (code, result.status) == (INTERRUPTED, "interrupted")
    assert "resumes it" in result.why
    assert (tmp_path / "run" / run_folder.TILE_LOG).exists()
    assert run()[0] == DONE


def test_a_picture_that_cannot_be_written_costs_no_map(run, tmp_path, caplog):
    folder = tmp_path / "run"
    (folder / "overview").write_text("in the way of a folder")
    code, result = run()
    assert (code, result.status) == (DONE, "completed")
    assert (folder / "detections.geojson").exists()
    assert "scene: no picture" in caplog.text


def test_what_the_radiometry_calls_no_data_does_not_count_in_the_stretch(run, tmp_path):
    def black_share(*overrides):
        assert run("predict.overview_px=240", *overrides)[0] == DONE
        gray = read_image(tmp_path / "run" / "overview" / "scene.png")[60:140, 60:180, 0]
        return (gray < 25).mean()

    # Speckle of 30 to 59: from its own darkest it spans all grays, from 0 it has no dark ones.
    assert black_share("radiometry.nodata=null") == 0
    assert black_share("radiometry.nodata=0") > 0.01


def test_a_scene_without_a_valid_pixel_warns_and_leaves_empty_outputs(run, tmp_path, scene, caplog):
    pixels = np.full((200, 240, 1), 7, np.uint8)
    transform = (10.0, 0, 5e5, 0, -10.0, 4e6)
    write_geotiff(scene, pixels, transform=transform, crs="EPSG:32633", nodata=7, tags={})
    code, result = run()
    assert (code, result.status) == (DONE, "completed")
    assert "scene.tif has no pixel with data: all are its nodata (7)" in caplog.text
    assert result.metrics["scenes_unseen"] == 1
    content = json.loads((tmp_path / "run" / "detections.geojson").read_text())
    assert content == {"type": "FeatureCollection", "features": []}
    assert (tmp_path / "run" / "detections.csv").read_text().count("\n") == 1
    assert (tmp_path / "run" / "overview" / "scene.png").is_file()
