"""QGIS itself opens the maps of a prediction and draws them with the style that lies beside.

QGIS brings modules for the system's Python alone (Debian: ``apt install python3-qgis``): a process
of that Python loads, draws and measures.
"""

import json
import shutil
import subprocess

import numpy as np
import pytest

from sar_experiments.config import PREDICT_OUTPUTS
from sar_experiments.geometry import AffineTransform
from sar_experiments.predict.detector import SceneHeader
from sar_experiments.predict.objects import SceneObject
from sar_experiments.predict.outputs import write_outputs
from sar_experiments.predict.runner import ScenePrediction, TileCounts

pytestmark = pytest.mark.slow

PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin")
CLASSES = ("ship", "oil & gas")

LOOK = r"""
import json, os, sys
from qgis.core import (QgsApplication, QgsMapRendererSequentialJob, QgsMapSettings, QgsVectorLayer)
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor

def drawn(layer, scale):
    settings = QgsMapSettings()
    settings.setLayers([layer])
    settings.setDestinationCrs(layer.crs())
    settings.setBackgroundColor(QColor("white"))
    settings.setOutputSize(QSize(500, 500))
    settings.setOutputDpi(192)
    settings.setExtent(layer.extent().buffered(0.01))
    settings.setExtent(settings.extent().scaled(scale / settings.scale()))
    job = QgsMapRendererSequentialJob(settings)
    job.start()
    job.waitForFinished()
    picture = job.renderedImage()
    counts = {}
    for y in range(picture.height()):
        for x in range(picture.width()):
            colour = picture.pixelColor(x, y)
            is_ink = max(colour.getRgb()[:3]) < 110  # of a letter, its edges smoothed
            name = "ink" if is_ink else colour.name()
            counts[name] = counts.get(name, 0) + 1
    return counts

application = QgsApplication([], False)
application.initQgis()
layer = QgsVectorLayer(sys.argv[1], "detections", "ogr")
told = {"valid": layer.isValid(), "crs": layer.crs().authid(), "count": layer.featureCount()}
if layer.renderer().type() == "categorizedSymbol":
    told["classes"] = {
        each.value(): each.symbol().symbolLayer(0).strokeColor().name()
        for each in layer.renderer().categories()
    }
told["near"], told["far"] = drawn(layer, 30000), drawn(layer, 400000)
print(json.dumps(told), flush=True)
os._exit(0)  # some versions crash when they are torn down
"""


@pytest.fixture(scope="module")
def python():
    """Python of the system, with QGIS."""
    found = PYTHON and subprocess.run([PYTHON, "-c", "import qgis.core"], capture_output=True)
    if not found or found.returncode:
        pytest.skip("QGIS is not installed for the system's Python (apt install python3-qgis)")
    return PYTHON


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Maps of two ships and one platform, boxes of 30 x 12 pixels of 10 m."""
    place = AffineTransform((10.0, 0.0, 377000.0, 0.0, -10.0, 3739000.0), "EPSG:32611")
    corners = ((0, 0), (0, 12), (30, 12), (30, 0))

    def found(x, y, name):
        at = [place.to_lonlat(np.array([x + dx, y + dy], float)) for dx, dy in (*corners, (15, 6))]
        *ring, centre = [(float(lon), float(lat)) for lon, lat in at]
        box = (x, y, x + 30, y + 12)
        return SceneObject(box, 0.9, name, centre=centre, corners=tuple(ring), length_m=300.0)

    objects = (found(20, 20, "ship"), found(200, 60, "ship"), found(120, 200, "oil & gas"))
    header = SceneHeader(
        name="scene", files=("scene.tif",), height=300, width=300, bands=("vv",), dtype="uint8",
        pixel_m=(10.0, 10.0), georeference=place, crs="EPSG:32611",
    )  # fmt: skip
    prediction = ScenePrediction(header, objects, (), TileCounts(1, 0, 0), CLASSES)
    path = tmp_path_factory.mktemp("maps")
    write_outputs([prediction], path, outputs=PREDICT_OUTPUTS)
    return path


@pytest.mark.parametrize("name", ["detections.geojson", "detections.gpkg"])
def test_qgis_applies_the_style_by_itself_and_draws_boxes_with_labels(python, folder, name):
    environment = {"QT_QPA_PLATFORM": "offscreen", "HOME": str(folder), "LC_ALL": "C.UTF-8"}
    process = subprocess.run(
        [python, "-c", LOOK, str(folder / name)],
        capture_output=True, text=True, timeout=300, env=environment,
    )  # fmt: skip
    assert process.stdout, process.stderr
    told = json.loads(process.stdout.splitlines()[-1])
    assert (told["valid"], told["crs"], told["count"]) == (True, "EPSG:4326", 3)
    assert told["classes"] == {"ship": "#e6194b", "oil & gas": "#3cb44b"}
    # Two outlines of one colour and one of the other, hollow; letters in black from near alone.
    outlines = [told["near"][colour] for colour in told["classes"].values()]
    assert outlines[0] == pytest.approx(2 * outlines[1], rel=0.2)
    assert sum(outlines) < 0.02 * 500 * 500
    assert told["near"].get("ink", 0) > 50
    assert told["far"].get("ink", 0) == 0
    assert "#e6194b" in told["far"]
