"""What has no data is the same to training, evaluation, prediction, ONNX and CFAR."""

from types import SimpleNamespace

import numpy as np
import pytest
import rasterio

from sar_experiments.cfar import detect
from sar_experiments.cfar.detect import Cfar
from sar_experiments.data.radiometry import Radiometry
from sar_experiments.detections import Detections
from sar_experiments.export.session import OnnxDetector
from sar_experiments.geometry import Window
from sar_experiments.predict.scene import Scene
from sar_experiments.predict.sources import find_scenes
from sar_experiments.tasks.cfar import detect_part
from sar_experiments.tasks.detectors import choose_detector
from sar_experiments.tasks.serve import Finder

torch = pytest.importorskip("torch")
pytest.importorskip("detectron2")

from detectron2.structures import Boxes, Instances  # noqa: E402

from sar_experiments.data.mapper import SarMapper  # noqa: E402
from sar_experiments.predict.network import NetworkDetector  # noqa: E402

pytestmark = pytest.mark.detectron2

VV = np.float32([[50, -9999, 100, 50], [50, 50, np.nan, 7]])
VH = np.float32([[10, 20, -9999, 10], [10, np.inf, 10, 20]])
HAS_DATA = [[True, False, False, True], [True, False, False, False]]
# Amplitude over 100 and over 20, and 0 in both bands where one has no data: by hand. 7 is what the
# radiometry calls no data.
EXPECTED = [
    [[0.5, 0, 0, 0.5], [0.5, 0, 0, 0]],
    [[0.5, 0, 0, 0.5], [0.5, 0, 0, 0]],
]
RADIOMETRY = (
    *("radiometry.channels=2", "radiometry.low=[0,0]", "radiometry.high=[100,20]"),
    *("radiometry.mean=[0.2,0.2]", "radiometry.std=[1,1]", "radiometry.nodata=7"),
)


@pytest.fixture
def scene(tmp_path):
    path = tmp_path / "scene.tif"
    profile = {"dtype": "float32", "count": 2, "height": 2, "width": 4, "nodata": -9999}
    profile |= {"crs": "EPSG:32611", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 4e6)}
    with rasterio.open(path, "w", driver="GTiff", **profile) as raster:
        raster.write(np.stack([VV, VH]))
    return path


@pytest.fixture
def sample(scene):
    fields = {"image_id": 1, "height": 2, "width": 4, "scene": "a", "annotations": []}
    return {"file_name": str(scene), **fields}


class Recorder(torch.nn.Module):
    """A network that keeps what it sees and finds nothing."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def forward(self, inputs):
        self.seen += [each["image"].numpy() for each in inputs]
        return [{"instances": nothing(each)} for each in inputs]

    def run(self, _outputs, inputs):  # as ONNX Runtime's session
        self.seen.append(inputs["image"])
        return np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64)


def nothing(each):
    instances = Instances((each["height"], each["width"]))
    instances.pred_boxes = Boxes(torch.zeros(0, 4))
    instances.scores, instances.pred_classes = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    return instances


def tile_of(scene, radiometry):
    return Scene(find_scenes(str(scene))[0], nodata=radiometry.nodata).read(Window(0, 0, 4, 2))


@pytest.mark.parametrize("way", ["training", "evaluation", "prediction", "onnx"])
def test_no_data_in_one_band_is_zero_in_both_whatever_sees_it(typed_config, scene, sample, way):
    config = typed_config(*RADIOMETRY, "augment=none")
    radiometry = Radiometry.from_config(config.radiometry)
    recorder = Recorder()
    if way in ("training", "evaluation"):
        mapper = SarMapper(radiometry, config.augment, is_train=way == "training")
        chip = mapper(sample, np.random.default_rng(0))["image"].numpy()
        recorder.seen.append(chip)
    elif way == "prediction":
        NetworkDetector(recorder, radiometry, ("ship",))([tile_of(scene, radiometry)])
    else:
        OnnxDetector(recorder, SimpleNamespace(), radiometry)([tile_of(scene, radiometry)])
    (seen,) = recorder.seen
    np.testing.assert_allclose(seen, EXPECTED, rtol=1e-6)


@pytest.mark.parametrize("way", ["evaluation", "prediction"])
def test_a_cfar_measures_no_clutter_where_one_band_has_no_data(
    typed_config, scene, sample, monkeypatch, way
):
    config = typed_config(
        *RADIOMETRY, "model=cfar", "task=evaluate", "model.cfar.pixel_m=10", "usecase=demo"
    )
    radiometry = Radiometry.from_config(config.radiometry)
    seen = []

    def record(intensity, valid, _config, *, pixel_m):
        seen.append((intensity, valid))
        return Detections.none()

    monkeypatch.setattr(detect, "find_objects", record)
    if way == "prediction":
        cfar = Cfar(config.model.cfar, radiometry, (10.0, 10.0), ("ship",))
        cfar([tile_of(scene, radiometry)])
    else:
        detect_part(config, SimpleNamespace(samples=[sample], classes=("ship",), name="val"))
    ((intensity, valid),) = seen
    assert valid.tolist() == HAS_DATA
    # Amplitudes 50 and 10, squared.
    assert intensity[:, :, 0].tolist() == [[2500, 0, 0, 2500], [2500, 0, 0, 0]]
    assert intensity[:, :, 1].tolist() == [[100, 0, 0, 100], [100, 0, 0, 0]]


def test_the_service_says_that_a_scene_has_no_valid_pixel(typed_config, scene, tmp_path):
    with rasterio.open(scene, "r+") as raster:
        raster.write(np.full((2, 2, 4), np.nan, np.float32))
    config = typed_config(
        *RADIOMETRY, "model=cfar", "task=predict", f"source={scene}", "usecase=demo"
    )
    find = Finder(config, choose_detector(config, tmp_path))
    answer = find(scene, name="mine.tif", overview=False)
    assert answer["features"] == []
    assert answer["warning"].startswith(
        "mine.tif has no pixel with data: all are its nodata (-9999)"
    )
