"""The service runs for real: started by the door, called by a client, looked at in a browser."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import httpx2
import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from sar_experiments.data.images import write_image

MIDDLE_PIXEL = """
    const map = document.getElementById("map");
    return [...map.getContext("2d").getImageData(map.width / 2, map.height / 2, 1, 1).data];
"""
RAISE_SCORE = """
    const score = document.getElementById("score");
    score.value = 1;
    score.dispatchEvent(new Event("input"));
"""


@contextlib.contextmanager
def serving(weights, folder, *overrides):
    """Start the service on a free port; yields its address and process, ends what is left."""
    command = [sys.executable, "-m", "sar_experiments", "task=serve", f"weights={weights}"]
    command += ["hardware=cpu", "serve.port=0", "predict.min_score=0.0", f"output={folder}"]
    process = subprocess.Popen(
        [*command, *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            found = re.search(r"serving on (http://\S+?),", line)
            if found:
                yield found[1], process
                return
        raise AssertionError("".join(said))
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


@pytest.fixture
def scene(tmp_path, rng):
    """A scene at sea with a bright object, in UTM zone 11, 10 m."""
    path = tmp_path / "root" / "sea.tif"
    path.parent.mkdir()
    pixels = rng.gamma(4, 8, (1, 200, 260)).clip(0, 255).astype(np.uint8)
    pixels[0, 100:108, 60:84] = 255
    profile = {"driver": "GTiff", "height": 200, "width": 260, "count": 1, "dtype": "uint8"}
    place = {"crs": "EPSG:32611", "transform": from_origin(380_000, 3_730_000, 10, 10)}
    with rasterio.open(path, "w", **profile, **place) as raster:
        raster.write(pixels)
    return path


@pytest.mark.detectron2
def test_a_service_answers_and_ends_by_a_signal(trained, tmp_path, scene):
    run, *_ = trained
    folder = tmp_path / "service"
    with serving(run, folder, f"serve.root={scene.parent}") as (address, process):
        client = httpx2.Client(base_url=address, timeout=120)
        assert client.get("/health").json()["classes"] == ["ship", "platform"]
        by_path = client.post("/detect/path", json={"path": "sea.tif"}).json()
        uploaded = client.post("/detect", files={"file": ("sea.tif", scene.read_bytes())}).json()
        assert uploaded == by_path
        assert uploaded["image"] == {"width": 260, "height": 200, "crs": "EPSG:32611"}
        assert uploaded["features"]
        for feature in uploaded["features"]:
            lon, lat = feature["geometry"]["coordinates"][0][0]
            assert (-119 < lon < -117, 33 < lat < 35) == (True, True)
            assert feature["properties"]["file"] == "sea.tif"
        cut = client.post("/detect", files={"file": ("cut.tif", scene.read_bytes()[:300])})
        assert cut.status_code == 422
        assert "cut.tif" in cut.json()["detail"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert result_of(folder)["status"] == "completed"


@pytest.mark.detectron2
@pytest.mark.slow
def test_an_image_without_georeference_has_boxes_and_no_place(trained, tmp_path):
    image = tmp_path / "chip.png"
    write_image(image, np.full((64, 64), 90, np.uint8))
    with serving(trained[0], tmp_path / "service", "serve.max_megapixels=0.01") as (address, _):
        client = httpx2.Client(base_url=address, timeout=120)
        found = client.post("/detect", files={"file": ("chip.png", image.read_bytes())}).json()
        assert all(each["geometry"] is None for each in found["features"])
        write_image(image, np.full((101, 100), 90, np.uint8))
        large = client.post("/detect", files={"file": ("chip.png", image.read_bytes())})
        assert large.status_code == 422
        assert "serve.max_megapixels=0.01" in large.json()["detail"]


@pytest.mark.detectron2
@pytest.mark.slow
def test_a_taken_port_is_a_users_mistake(trained, tmp_path):
    with serving(trained[0], tmp_path / "one") as (address, _):
        port = address.rpartition(":")[2]
        command = [sys.executable, "-m", "sar_experiments", "task=serve", f"weights={trained[0]}"]
        command += ["hardware=cpu", f"serve.port={port}", f"output={tmp_path / 'two'}"]
        second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert second.returncode == 2
    assert f"serve.port={port}" in second.stdout + second.stderr


@pytest.mark.slow
def test_a_person_drops_a_scene_and_sees_detections(trained, tmp_path, scene, page):
    with serving(trained[0], tmp_path / "service") as (address, _):
        page.get(address)
        until(lambda: "tiny on cpu" in page.find_element("id", "about").text)
        page.find_element("id", "file").send_keys(str(scene))
        until(lambda: page.find_element("id", "say").get_attribute("data-done") == "sea.tif")
        count = int(page.find_element("id", "list").get_attribute("data-count"))
        assert count > 0
        rows = page.find_elements("css selector", "#list button")
        assert len(rows) == min(count, 500)
        assert "260 \N{MULTIPLICATION SIGN} 200 px" in page.find_element("id", "say").text
        assert sum(page.execute_script(MIDDLE_PIXEL)[:3]) > 0  # the scene is drawn
        rows[0].click()
        until(lambda: page.find_elements("css selector", "#list button.chosen"))
        page.execute_script(RAISE_SCORE)
        assert page.find_element("id", "list").get_attribute("data-count") == "0"
        assert page.get_log("browser") == []
        page.get(f"{address}/docs")
        until(lambda: "/detect/path" in page.page_source)


def until(holds, seconds=120):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "the page did not get there"
        time.sleep(0.2)
