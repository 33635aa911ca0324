"""What prediction writes opens in geopandas, holds what was found, and lies where it should.

Positions are compared with pyproj's own, to a tenth of a pixel.
"""

import csv
import json
from xml.etree import ElementTree

import geopandas
import numpy as np
import pyogrio
import pyproj
import pytest
import shapely
from pycocotools.coco import COCO

from sar_experiments.config import PREDICT_OUTPUTS
from sar_experiments.data.images import read_image
from sar_experiments.geometry import AffineTransform
from sar_experiments.predict.detector import SceneHeader
from sar_experiments.predict.objects import SceneObject
from sar_experiments.predict.outputs import as_geojson, qgis_style, write_outputs
from sar_experiments.predict.pictures import FILTERED_COLOUR, write_pictures
from sar_experiments.predict.runner import ScenePrediction, TileCounts, predict
from sar_experiments.predict.sources import find_scenes

BARS = [(10, 20, 40, 26), (95, 90, 125, 98), (150, 10, 156, 40), (180, 180, 199, 186)]
TO_MAP = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32611", always_xy=True)


@pytest.fixture
def predictions(typed_config, write_scene, sea, detector, tmp_path):
    """A scene with four bright bars, the last one filtered, and a chip without geo-reference."""
    settings = typed_config("predict.tile_px=100", "predict.overlap_px=40").predict
    corners = [(377000 + 10 * x, 3739000 - 10 * y) for x, y in ((170, 170), (210, 170), (210, 200))]
    zone = geopandas.GeoSeries([shapely.Polygon(corners)], crs="EPSG:32611")
    zone.to_file(tmp_path / "zone.gpkg")
    settings.avoid = [str(tmp_path / "zone.gpkg")]
    scene = write_scene("2021-01-05.tif", sea(220, 260, BARS))
    chip = write_scene("chip.png", sea(64, 64, BARS[:1]), driver="PNG", crs=None, transform=None)
    (first,) = predict(find_scenes(str(scene)), lambda _: detector, settings, min_score=0.5)
    settings.avoid = []
    (second,) = predict(find_scenes(str(chip)), lambda _: detector, settings, min_score=0.5)
    return [first, second]


@pytest.fixture
def folder(predictions, tmp_path):
    write_outputs(predictions, tmp_path / "run", outputs=PREDICT_OUTPUTS)
    return tmp_path / "run"


def test_geopandas_opens_the_geojson_and_finds_every_box_in_place(folder):
    frame = geopandas.read_file(folder / "detections.geojson")
    assert frame.crs == "EPSG:4326"
    assert len(frame) == 3
    boxes = frame[["left_px", "top_px", "right_px", "bottom_px"]].to_numpy()
    assert sorted(map(tuple, boxes)) == sorted(BARS[:3])
    for (left, top, right, bottom), shape in zip(boxes, frame.geometry, strict=True):
        x, y = TO_MAP.transform(*np.array(shape.exterior.coords).T)
        on_map = (x.min(), y.min(), x.max(), y.max())
        expected = (
            377000 + 10 * left, 3739000 - 10 * bottom, 377000 + 10 * right, 3739000 - 10 * top,
        )  # fmt: skip
        assert on_map == pytest.approx(expected, abs=1.0)  # a tenth of a pixel


def test_centres_lie_in_place(folder):
    frame = geopandas.read_file(folder / "detections.geojson")
    x, y = TO_MAP.transform(frame.lon, frame.lat)
    expected_x = 377000 + 5 * (frame.left_px + frame.right_px)
    expected_y = 3739000 - 5 * (frame.top_px + frame.bottom_px)
    assert np.abs(x - expected_x).max() < 0.01
    assert np.abs(y - expected_y).max() < 0.01


def test_objects_carry_class_score_size_axis_scene_and_time(folder):
    frame = geopandas.read_file(folder / "detections.geojson").set_index("left_px")
    upright = frame.loc[150]
    assert upright["class"] == "bright"
    assert upright.score == pytest.approx(0.9)
    assert upright.length_m == pytest.approx(300, rel=0.05)
    assert upright.width_m == pytest.approx(60, rel=0.05)
    assert abs((upright.axis_deg + 90) % 180 - 90) < 2  # the grid of the map, not north
    assert str(upright.scene).startswith("2021-01-05")
    assert str(upright.time).startswith("2021-01-05")
    assert upright.file.endswith("2021-01-05.tif")


def test_the_geojson_keeps_to_rfc_7946(folder):
    content = json.loads((folder / "detections.geojson").read_text())
    assert set(content) == {"type", "features"}  # no crs member: it is always WGS84
    for feature in content["features"]:
        assert feature["geometry"]["type"] == "Polygon"
        (ring,) = feature["geometry"]["coordinates"]
        assert ring[0] == ring[-1]
        assert shapely.LinearRing(ring).is_ccw


def test_a_box_over_the_antimeridian_is_cut_in_two():
    transform = AffineTransform((0.001, 0, 179.99, 0, -0.001, -17.0), "EPSG:4326")
    header = SceneHeader(
        name="fiji", files=(), height=20, width=40, bands=("1",), dtype="uint8",
        georeference=transform, pixel_m=(111.0, 106.0),
    )  # fmt: skip
    corners = transform.to_lonlat(np.array([[5.0, 2], [5, 8], [25, 8], [25, 2]]))
    found = SceneObject(
        (5, 2, 25, 8), 0.9, "ship", centre=(-179.995, -17.005),
        corners=tuple(map(tuple, corners.tolist())), length_m=2000.0, width_m=600.0,
    )  # fmt: skip
    prediction = ScenePrediction(header, (found,), (), TileCounts(1, 0, 0), ("ship",))
    (feature,) = as_geojson([prediction])["features"]
    shape = shapely.geometry.shape(feature["geometry"])
    assert len(shape.geoms) == 2
    assert sorted(shape.bounds) == pytest.approx([-180, -17.008, -17.002, 180], abs=1e-6)
    assert shape.area == pytest.approx(0.02 * 0.006, rel=1e-6)


def test_what_was_filtered_lies_beside_with_its_reason(folder):
    frame = geopandas.read_file(folder / "filtered.geojson")
    assert frame.reason.tolist() == ["avoid"]
    assert frame.left_px.tolist() == [180]
    rows = list(csv.DictReader((folder / "filtered.csv").open()))
    assert [row["reason"] for row in rows] == ["avoid"]


def test_the_geopackage_holds_both_in_layers(folder):
    path = folder / "detections.gpkg"
    assert pyogrio.list_layers(path)[:, 0].tolist() == ["detections", "filtered"]
    kept = geopandas.read_file(path, layer="detections")
    geojson = geopandas.read_file(folder / "detections.geojson")
    assert kept.crs == "EPSG:4326"
    assert kept.geometry.union_all().equals_exact(geojson.geometry.union_all(), 1e-7)
    numbers = ["score", "length_m", "axis_deg"]
    assert kept[numbers].to_numpy() == pytest.approx(geojson[numbers].to_numpy(), nan_ok=True)
    assert geopandas.read_file(path, layer="filtered").reason.tolist() == ["avoid"]


def test_the_table_holds_images_without_geo_reference_too(folder):
    rows = list(csv.DictReader((folder / "detections.csv").open()))
    assert [row["scene"] for row in rows] == ["2021-01-05"] * 3 + ["chip"]
    assert rows[-1]["lon"] == ""
    assert float(rows[-1]["left_px"]) == 10


def test_pycocotools_opens_the_coco_file(folder):
    coco = COCO(folder / "detections_coco.json")
    assert [image["width"] for image in coco.loadImgs(coco.getImgIds())] == [260, 64]
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == ["bright"]
    boxes = sorted(tuple(each["bbox"]) for each in coco.loadAnns(coco.getAnnIds(imgIds=[1])))
    assert boxes == [(10, 20, 30, 6), (95, 90, 30, 8), (150, 10, 6, 30)]
    frame = geopandas.read_file(folder / "detections.geojson").set_index("left_px")
    names = ["lon", "lat", "length_m", "width_m", "axis_deg"]
    for each in coco.loadAnns(coco.getAnnIds(imgIds=[1])):
        row = frame.loc[each["bbox"][0]]
        assert [each[name] for name in names] == row[names].tolist()
    assert all(each["axis_deg"] is None for each in coco.loadAnns(coco.getAnnIds(imgIds=[2])))


def test_the_style_is_xml_that_names_every_class():
    root = ElementTree.fromstring(qgis_style(("ship", "oil & gas <platform>")))
    assert root.tag == "qgis"
    renderer = root.find("renderer-v2")
    assert renderer.get("attr") == "class"
    values = [each.get("value") for each in renderer.iter("category")]
    assert values == ["ship", "oil & gas <platform>"]
    symbols = {each.get("name") for each in renderer.find("symbols")}
    assert {each.get("symbol") for each in renderer.iter("category")} == symbols


def test_scenes_without_anything_found_leave_empty_maps(predictions, tmp_path):
    empty = [ScenePrediction(each.header, (), (), each.tiles, each.classes) for each in predictions]
    write_outputs(empty, tmp_path / "empty", outputs=PREDICT_OUTPUTS)
    assert len(geopandas.read_file(tmp_path / "empty" / "detections.gpkg")) == 0
    content = json.loads((tmp_path / "empty" / "detections.geojson").read_text())
    assert content == {"type": "FeatureCollection", "features": []}
    assert (tmp_path / "empty" / "detections.csv").read_text().startswith("scene,class,score,lon")


def test_without_any_geo_reference_there_is_no_map(predictions, tmp_path):
    written = write_outputs(predictions[1:], tmp_path / "chips", outputs=PREDICT_OUTPUTS)
    assert [path.name for path in written] == ["detections.csv", "detections_coco.json"]


def test_the_overview_frames_what_was_kept_and_what_was_filtered(
    predictions, typed_config, tmp_path
):
    write_pictures(predictions[0], tmp_path, typed_config("predict.overview_px=520").predict)
    picture = read_image(tmp_path / "overview" / "2021-01-05.png")
    assert picture.shape == (440, 520, 3)  # twice the scene
    yellow = (picture == FILTERED_COLOUR).all(axis=2)
    rows, cols = np.nonzero(yellow)
    assert (cols.min(), cols.max()) == (360 - 2, 398 + 2)
    assert (rows.min(), rows.max()) == (360 - 2, 372 + 2)
    assert picture[46, 50].tolist() == [255, 255, 255]  # a bar stays to be seen


def test_crops_show_the_objects(predictions, typed_config, tmp_path):
    write_pictures(predictions[0], tmp_path, typed_config("predict.crop_px=48").predict)
    crops = sorted((tmp_path / "crops" / "2021-01-05").iterdir())
    assert len(crops) == 3
    assert crops[0].name.startswith("00001_bright_0.90")
    assert all(max(read_image(path).shape) == 48 for path in crops)
