"""Labels of scenes come to lie where they were drawn, whatever file and coordinate system."""

import json

import geopandas
import numpy as np
import pyproj
import pytest
import shapely

from sar_experiments.errors import DatasetError
from sar_experiments.predict.scene import Scene
from sar_experiments.predict.scene_truth import read_truth, set_aside
from sar_experiments.predict.sources import find_scenes

CLASSES = ("ship", "platform")
BOXES = {"a": (100.0, 50.0, 130.0, 60.0), "b": (200.25, 20.5, 220.0, 61.0)}


@pytest.fixture
def scene_of(write_scene):
    def make(name="scene.tif", height=200, width=300, **profile):
        path = write_scene(name, np.full((height, width), 30, np.uint8), **profile)
        (source,) = find_scenes(str(path))
        return Scene(source)

    return make


def on_map(box):
    """The corners of a box in UTM, as write_scene lays out its scenes."""
    left, top, right, bottom = box
    ring = [(left, top), (right, top), (right, bottom), (left, bottom)]
    return shapely.Polygon([(377000 + 10 * x, 3739000 - 10 * y) for x, y in ring])


def write_labels(path, boxes, crs="EPSG:4326", **columns):
    frame = geopandas.GeoDataFrame(
        columns, geometry=[on_map(box) for box in boxes], crs="EPSG:32611"
    )
    frame.to_crs(crs).to_file(path)
    return path


def coco(path, boxes, *, file_name="scene.tif", size=(300, 200), kinds=None):
    width, height = size
    content = {
        "images": [{"id": 7, "file_name": file_name, "width": width, "height": height}],
        "annotations": [
            {
                "id": number,
                "image_id": 7,
                "category_id": kind,
                "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                "area": 1.0,
                "iscrowd": 0,
            }
            for number, (box, kind) in enumerate(
                zip(boxes, kinds or [1] * len(boxes), strict=True), start=1
            )
        ],
        "categories": [{"id": 1, "name": "ship"}, {"id": 2, "name": "platform"}],
    }
    path.write_text(json.dumps(content))
    return path


def boxes_of(sample):
    return [tuple(each["bbox"]) for each in sample["annotations"]]


@pytest.mark.parametrize(
    ("name", "crs"),
    [
        ("labels.geojson", "EPSG:4326"),
        ("labels.gpkg", "EPSG:32611"),
        ("labels.gpkg", "EPSG:3857"),
        ("labels.shp", "EPSG:4326"),
    ],
)
def test_outlines_on_the_earth_become_boxes_in_pixels(scene_of, tmp_path, name, crs):
    path = write_labels(tmp_path / name, BOXES.values(), crs, Class=["ship", "platform"])
    (sample,) = read_truth([path], [scene_of().header], CLASSES)
    # GeoJSON has 7 digits of a degree, a centimetre.
    assert np.allclose(boxes_of(sample), list(BOXES.values()), atol=0.05)
    assert [each["category_id"] for each in sample["annotations"]] == [0, 1]


def test_boxes_of_a_coco_file_are_in_pixels_of_the_scene(scene_of, tmp_path):
    path = coco(tmp_path / "labels.json", BOXES.values(), kinds=[2, 1])
    (sample,) = read_truth([path], [scene_of().header], CLASSES)
    assert boxes_of(sample) == list(BOXES.values())
    assert [each["category_id"] for each in sample["annotations"]] == [1, 0]


def test_a_scene_without_geo_reference_takes_outlines_in_pixels(scene_of, tmp_path):
    features = [
        {
            "type": "Feature",
            "properties": {"class": "ship"},
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[100, 50], [130, 50], [130, 60], [100, 60], [100, 50]]],
            },
        }
    ]
    path = tmp_path / "labels.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    scene = scene_of("scene.png", driver="PNG", crs=None, transform=None)
    (sample,) = read_truth([path], [scene.header], CLASSES)
    assert boxes_of(sample) == [BOXES["a"]]


def test_objects_outside_are_left_out_and_boxes_end_at_the_border(scene_of, tmp_path):
    boxes = [(290, 10, 305, 20), (299, 10, 320, 20), (-500, -500, -480, -490)]
    path = write_labels(tmp_path / "labels.gpkg", boxes, "EPSG:32611", name=["ship"] * 3)
    (sample,) = read_truth([path], [scene_of().header], CLASSES)
    assert np.allclose(boxes_of(sample), [(290, 10, 300, 20)], atol=1e-3)


def test_each_scene_takes_the_objects_that_lie_in_it(scene_of, tmp_path):
    east = (10.0, 0.0, 380000.0, 0.0, -10.0, 3739000.0)
    headers = [
        scene_of("a.tif").header,
        scene_of("b.tif", transform=__import__("rasterio").Affine(*east)).header,
    ]
    path = write_labels(
        tmp_path / "labels.gpkg", [BOXES["a"], (310, 10, 330, 20)], "EPSG:32611", name=["ship"] * 2
    )
    first, second = read_truth([path], headers, CLASSES)
    assert np.allclose(boxes_of(first), [BOXES["a"]], atol=1e-3)
    assert np.allclose(boxes_of(second), [(10, 10, 30, 20)], atol=1e-3)


def test_one_class_needs_no_name_and_a_detector_without_classes_takes_any(scene_of, tmp_path):
    path = write_labels(tmp_path / "labels.gpkg", [BOXES["a"]], "EPSG:32611")
    (sample,) = read_truth([path], [scene_of().header], ["ship"])
    assert [each["category_id"] for each in sample["annotations"]] == [0]
    path = coco(tmp_path / "labels.json", BOXES.values(), kinds=[1, 2])
    (sample,) = read_truth([path], [scene_of().header], ["bright"], any_class=True)
    assert [each["category_id"] for each in sample["annotations"]] == [0, 0]


def test_classes_that_the_detector_does_not_know_are_named_and_left_out(scene_of, tmp_path, caplog):
    path = write_labels(
        tmp_path / "labels.gpkg", BOXES.values(), "EPSG:32611", label=["ship", "buoy"]
    )
    (sample,) = read_truth([path], [scene_of().header], CLASSES)
    assert len(sample["annotations"]) == 1
    assert "buoy (1)" in caplog.text


def test_an_object_that_the_labels_set_aside_does_not_count(scene_of, tmp_path):
    path = write_labels(
        tmp_path / "labels.gpkg", BOXES.values(), "EPSG:32611",
        label=["ship", "ship"], difficult=[0, 1],
    )  # fmt: skip
    (sample,) = read_truth([path], [scene_of().header], CLASSES)
    assert [each["iscrowd"] for each in sample["annotations"]] == [0, 1]


def test_objects_without_data_do_not_count(write_scene, tmp_path):
    pixels = np.full((200, 300), 30, np.uint8)
    pixels[:, :120] = 0
    path = write_scene("scene.tif", pixels, nodata=0)
    (source,) = find_scenes(str(path))
    scene = Scene(source)
    labels = coco(tmp_path / "labels.json", [(95, 50, 130, 60), (115, 50, 145, 60)])
    (sample,) = read_truth([labels], [scene.header], CLASSES)
    found = set_aside(sample, scene.read)
    assert [each["iscrowd"] for each in found["annotations"]] == [1, 0]


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda p: write_labels(p / "l.gpkg", [BOXES["a"]], "EPSG:32611", name=["boat"]),
         r"names boat \(1\), but the detector finds ship, platform"),
        (lambda p: write_labels(p / "l.gpkg", [BOXES["a"]], "EPSG:32611"),
         r"names no class \(1\).*a property class, class_name"),
        (lambda p: write_labels(p / "l.gpkg", [(900, 900, 910, 910)], "EPSG:32611", name=["ship"]),
         "none of the 1 objects of .* lies in"),
        (lambda p: coco(p / "l.json", [BOXES["a"]], size=(150, 100)),
         "has 150 x 100 px there, and .*scene.tif 300 x 200"),
        (lambda p: (p / "l.json").write_text("[1]") and p / "l.json", "neither GeoJSON nor COCO"),
        (lambda p: (p / "l.json").write_text("{") and p / "l.json", "cannot be read as JSON"),
        (lambda p: (p / "l.gpkg").write_text("x") and p / "l.gpkg", "cannot be read as a vector"),
    ],
)  # fmt: skip
def test_labels_that_cannot_be_meant_are_refused(scene_of, tmp_path, write, sentence):
    path = write(tmp_path)
    with pytest.raises(DatasetError, match=sentence):
        read_truth([path], [scene_of().header], CLASSES)


def test_points_are_refused(scene_of, tmp_path):
    frame = geopandas.GeoDataFrame(
        {"class": ["ship"]}, geometry=[shapely.Point(378000, 3738500)], crs="EPSG:32611"
    )
    frame.to_file(tmp_path / "points.gpkg")
    with pytest.raises(DatasetError, match=r"feature 0 is a Point; .* must be polygons"):
        read_truth([tmp_path / "points.gpkg"], [scene_of().header], CLASSES)


def test_pixels_given_as_degrees_are_refused(scene_of, tmp_path):
    content = {
        "type": "Polygon",
        "coordinates": [[[1000, 50], [1030, 50], [1030, 60], [1000, 60], [1000, 50]]],
    }
    (tmp_path / "l.geojson").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"is in degrees .* but holds 1030"):
        read_truth([tmp_path / "l.geojson"], [scene_of().header], CLASSES)


def test_a_file_of_other_images_is_refused(scene_of, tmp_path):
    path = coco(tmp_path / "labels.json", [BOXES["a"]], file_name="other.tif")
    headers = [scene_of("scene.tif").header, scene_of("second.tif").header]
    with pytest.raises(DatasetError, match=r"has no image scene\.tif; it has other\.tif"):
        read_truth([path], headers, CLASSES)


def test_a_shapefile_without_a_coordinate_system_is_refused(scene_of, tmp_path):
    path = write_labels(tmp_path / "l.shp", [BOXES["a"]], "EPSG:32611", name=["ship"])
    path.with_suffix(".prj").unlink()
    with pytest.raises(DatasetError, match="tells no coordinate system"):
        read_truth([path], [scene_of().header], CLASSES)


def test_the_projection_of_the_test_is_pyprojs():
    x, y = pyproj.Transformer.from_crs("EPSG:32611", "EPSG:4326", always_xy=True).transform(
        378000, 3738500
    )
    assert (round(x, 2), round(y, 2)) == (-118.32, 33.78)
