"""Land in any vector file and any map's units: what lies on it, or within metres of it, is told."""

import geopandas
import numpy as np
import pyproj
import pytest
import shapely

from sar_experiments.errors import SceneError
from sar_experiments.geometry import AffineTransform, Window
from sar_experiments.predict.masks import MaskFile, Masks

UTM = "EPSG:32611"
COEFFICIENTS = (10.0, 0.0, 377000.0, 0.0, -10.0, 3739000.0)
HEIGHT, WIDTH = 300, 400

# Metres, US survey feet, degrees of another datum, metres that are 1.2 m long at this latitude.
MAPS = {"Albers": 3310, "feet": 2229, "degrees": 4269, "Mercator": 3857, "another zone": 32610}


def shape_of(left, top, right, bottom):
    """A rectangle of pixels in the scene's own map, with points along its sides."""
    a, _, c, _, e, f = COEFFICIENTS
    return shapely.segmentize(
        shapely.box(c + a * left, f + e * bottom, c + a * right, f + e * top), 100.0
    )


@pytest.fixture
def write(tmp_path):
    """Write shapes of the scene's map into a file of another one."""

    def write_as(name, shapes, epsg=32611):
        path = tmp_path / name
        geopandas.GeoSeries(shapes, crs=UTM).to_crs(epsg).to_file(path)
        return path

    return write_as


def masks_of(path, buffer_m=0.0, *, coefficients=COEFFICIENTS, crs=UTM):
    place = AffineTransform(coefficients, crs)
    return Masks([MaskFile("land", path, buffer_m, True)], place, height=HEIGHT, width=WIDTH)


def reasons(masks, *centres):
    boxes = [[x - 3, y - 3, x + 3, y + 3] for x, y in centres]
    return masks.reasons(np.array(boxes, np.float32))


# A coast along row 100 and the rows to either side of it that a buffer of 250 m reaches.
@pytest.mark.parametrize(
    ("buffer_m", "last_land", "first_sea"), [(0, 99, 101), (250, 124, 126), (-250, 74, 76)]
)
@pytest.mark.parametrize("epsg", MAPS.values(), ids=MAPS)
def test_a_shapefile_of_another_map_is_land_to_a_pixel_and_its_buffer_is_metres(
    write, epsg, buffer_m, last_land, first_sea
):
    path = write("coast.shp", [shape_of(-300, -400, 700, 100)], epsg)
    assert pyproj.CRS(path.with_suffix(".prj").read_text()).to_epsg(min_confidence=20) == epsg
    masks = masks_of(path, buffer_m)
    assert reasons(masks, (200, last_land), (200, first_sea)) == ["land", ""]


def test_the_buffer_is_metres_on_the_earth_where_the_scenes_map_stretches_them(write, tmp_path):
    """A scene in Mercator at 60 degrees, whose map's metres are half a metre long."""
    to_mercator = pyproj.Transformer.from_crs(4326, 3857, always_xy=True)
    x, y = to_mercator.transform(5.0, 60.0)
    coast = geopandas.GeoSeries([shapely.box(x - 1e5, y, x + 1e5, y + 1e5)], crs=3857)
    coast.to_crs(25832).to_file(tmp_path / "coast.shp")
    scene = (20.0, 0.0, x, 0.0, -20.0, y + 20 * 100)  # pixels of 10 m, the coast along row 100
    masks = masks_of(tmp_path / "coast.shp", 250, coefficients=scene, crs="EPSG:3857")
    assert reasons(masks, (200, 124), (200, 126)) == ["land", ""]


def test_tiles_wholly_on_a_shapefiles_land_are_hidden(write):
    masks = masks_of(write("coast.shp", [shape_of(-300, -400, 700, 100)], 2229), 250)
    assert masks.hide(Window(0, 0, 400, 120))
    assert not masks.hide(Window(0, 0, 400, 130))


def test_a_lake_is_no_land_and_an_island_is(write):
    lake, island = shape_of(100, 20, 180, 80), shape_of(130, 40, 150, 60)
    path = write("coast.shp", [shape_of(-300, -400, 700, 100).difference(lake), island], 3310)
    assert reasons(masks_of(path), (110, 50), (140, 50), (50, 50)) == ["", "land", "land"]


def test_lines_and_points_become_areas_by_their_buffer(write):
    pipeline = shapely.LineString([(377000 + 500, 3739000), (377000 + 500, 3739000 - 3000)])
    path = write("pipeline.shp", [pipeline], 2229)
    assert reasons(masks_of(path, 100), (59, 200), (61, 200)) == ["land", ""]
    assert reasons(masks_of(path), (50, 200)) == [""]


def test_a_shapefile_that_tells_no_map_is_refused(write):
    path = write("coast.shp", [shape_of(0, 0, 10, 10)])
    path.with_suffix(".prj").unlink()
    with pytest.raises(SceneError, match=r"coast\.shp tells no coordinate system .*\.prj"):
        masks_of(path)


@pytest.mark.parametrize("spoil", ["cut", "text", "no index"])
def test_a_shapefile_that_cannot_be_read_is_named(write, spoil):
    path = write("coast.shp", [shape_of(0, 0, 10, 10)] * 40)
    if spoil == "no index":
        path.with_suffix(".shx").unlink()
    else:
        path.write_bytes(path.read_bytes()[:150] if spoil == "cut" else b"no shapes at all")
    with pytest.raises(SceneError, match=r"coast\.shp"):
        masks_of(path)


def test_a_shapefile_far_from_the_scene_hides_nothing(write):
    path = write("coast.shp", [shape_of(100000, 0, 100100, 100)], 3310)
    assert reasons(masks_of(path, 1000), (200, 50)) == [""]
