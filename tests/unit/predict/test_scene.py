"""Scenes are read as they are stored, wherever and in whatever file, from any thread.

A pixel lies where GDAL's own transformers put it: affine, control points, Sentinel-1's half pixel.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyproj
import pytest
import rasterio
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.transform import GCPTransformer

from sar_experiments.errors import SceneError
from sar_experiments.geometry import Window
from sar_experiments.predict.scene import Scene
from sar_experiments.predict.sources import find_scenes

WHOLE = Window(0, 0, 60, 40)
GEOD = pyproj.Geod(ellps="WGS84")


def opened(path, **options):
    return Scene(find_scenes(str(path))[0], **options)


def control_points(height, width, *, spacing=10.0):
    """A swath turned by 20 degrees, as GDAL's control points."""
    points = []
    for row in np.linspace(0, height, 4):
        for col in np.linspace(0, width, 5):
            lon, lat, _ = GEOD.fwd(11.0, 58.0, 110.0, col * spacing)
            lon, lat, _ = GEOD.fwd(lon, lat, 200.0, row * spacing)
            points.append(GroundControlPoint(row=row, col=col, x=lon, y=lat, z=0.0))
    return points


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
def test_pixels_come_as_they_are_stored(write_scene, rng, dtype):
    pixels = rng.integers(0, 100, (40, 60)).astype(dtype)
    scene = opened(write_scene("scene.tif", pixels))
    tile = scene.read(Window(7, 3, 20, 31))
    assert tile.pixels.dtype == dtype
    assert (tile.pixels[:, :, 0] == pixels[3:31, 7:20]).all()
    assert tile.valid.all()


def test_a_cloud_optimised_geotiff_is_read_like_any(write_scene, rng):
    pixels = rng.integers(0, 9000, (700, 600)).astype(np.uint16)
    path = write_scene("cog.tif", pixels, driver="COG", compress="deflate", blocksize=128)
    assert (
        opened(path).read(Window(500, 600, 600, 700)).pixels[:, :, 0] == pixels[600:, 500:]
    ).all()


def test_no_data_is_what_the_file_the_caller_and_nan_say(write_scene):
    pixels = np.ones((40, 60), np.float32)
    pixels[0, 0], pixels[1, 1], pixels[2, 2], pixels[3, 3] = 0.0, np.nan, -5.0, np.inf
    valid = opened(write_scene("scene.tif", pixels, nodata=0.0), nodata=-5.0).read(WHOLE).valid
    assert np.argwhere(~valid).tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]


def test_no_data_of_a_float32_file_is_met_though_its_header_holds_a_double(write_scene):
    pixels = np.ones((40, 60), np.float32)
    pixels[5, 6] = np.float32(-3.4028234663852886e38)
    valid = (
        opened(write_scene("scene.tif", pixels, nodata=-3.4028234663852886e38)).read(WHOLE).valid
    )
    assert np.argwhere(~valid).tolist() == [[5, 6]]


def test_a_pixel_is_valid_where_every_band_is(write_scene):
    pixels = np.ones((2, 40, 60), np.float32)
    pixels[1, 4, 4] = 0
    valid = opened(write_scene("scene.tif", pixels, nodata=0.0)).read(WHOLE).valid
    assert np.argwhere(~valid).tolist() == [[4, 4]]


def test_an_alpha_band_marks_no_data_and_is_no_channel(write_scene):
    pixels = np.full((4, 40, 60), 9, np.uint8)
    pixels[3] = 255
    pixels[3, :, 50:] = 0
    path = write_scene("scene.png", pixels, driver="PNG", crs=None, transform=None)
    tile = opened(path).read(WHOLE)
    assert tile.pixels.shape == (40, 60, 3)
    assert tile.valid[:, :50].all()
    assert not tile.valid[:, 50:].any()


def test_a_palette_of_grays_is_looked_up_and_one_of_colours_refused(tmp_path, rng):
    numbers = rng.integers(0, 4, (40, 60)).astype(np.uint8)
    path = tmp_path / "scene.png"
    grays = np.array([9, 200, 40, 77], np.uint8)

    def repaint(colours):
        image = Image.fromarray(numbers, "P")
        image.putpalette(colours.tobytes())
        image.save(path)

    repaint(np.repeat(grays, 3))
    scene = opened(path)
    assert (scene.read(WHOLE).pixels[:, :, 0] == grays[numbers]).all()
    picture, _ = scene.read_overview(longest_px=60)
    assert (picture == grays[numbers]).all()
    repaint(np.arange(12, dtype=np.uint8))
    with pytest.raises(SceneError, match=r"scene\.png stores colours of a palette"):
        opened(path)


def test_bands_with_scale_and_offset_are_read_as_values_in_any_window(write_scene, rng):
    """int16 in hundredths of a decibel, and a band of half decibels above -60."""
    stored = rng.integers(-3000, 500, (2, 40, 60)).astype(np.int16)
    stored[0, 5, 9] = -32768
    path = write_scene("scene.tif", stored, scales=[0.01, 0.5], offsets=[0, -60], nodata=-32768)
    scene = opened(path, bands=[2, 1])
    assert scene.header.dtype == "float32"
    window = Window(7, 3, 20, 31)
    tile = scene.read(window)
    assert tile.pixels.dtype == np.float32
    expected = np.stack([stored[1] * 0.5 - 60, stored[0] * 0.01], axis=2)[3:31, 7:20]
    valid = stored[0, 3:31, 7:20] != -32768
    assert (tile.valid == valid).all()
    assert tile.pixels[valid] == pytest.approx(expected[valid], abs=1e-4)


def test_an_overview_averages_values_not_numbers(write_scene):
    stored = np.full((900, 1200), -2000, np.int16)
    stored[:, 600:] = -1000
    stored[600:] = 0
    scene = opened(write_scene("scene.tif", stored, scales=[0.01], offsets=[-5], nodata=0))
    picture, valid = scene.read_overview(longest_px=120)
    assert picture[10, [5, 115]].tolist() == [-25, -15]
    assert valid[:59].all()
    assert not valid[61:].any()


def test_each_polarisation_has_the_scale_of_its_file(write_scene):
    stored = np.full((40, 60), -200, np.int16)
    write_scene("both/scene_vh.tif", stored)
    scene = opened(write_scene("both/scene_vv.tif", stored, scales=[0.1]).parent)
    assert scene.header.bands == ("vv", "vh")
    assert scene.header.dtype == "float32"
    assert scene.read(WHOLE).pixels[0, 0].tolist() == [-20, -200]


def test_a_scale_of_zero_is_refused_by_name(write_scene):
    path = write_scene("scene.tif", np.zeros((40, 60), np.int16), scales=[0])
    with pytest.raises(SceneError, match=r"scene\.tif: band 1 has scale=0 and offset=0; accepted"):
        opened(path)


def test_a_fourth_band_that_is_chosen_is_no_alpha(write_scene):
    """GDAL takes the fourth of four bands of 8 bits for alpha."""
    pixels = np.ones((4, 40, 60), np.uint8)
    pixels[3, 0, 0] = 0
    path = write_scene("scene.tif", pixels)
    assert not opened(path).read(WHOLE).valid[0, 0]
    assert opened(path, bands=[1, 2, 3, 4]).read(WHOLE).valid.all()


def test_bands_can_be_chosen_in_any_order(write_scene):
    pixels = np.stack([np.full((40, 60), level, np.uint8) for level in (1, 2, 3)])
    path = write_scene("scene.tif", pixels, photometric="MINISBLACK")
    assert opened(path, bands=[3, 1]).read(WHOLE).pixels[0, 0].tolist() == [3, 1]
    with pytest.raises(SceneError, match=r"predict\.bands=\[4\].* has 3 bands"):
        opened(path, bands=[4])


def test_one_file_per_polarisation_is_stacked(write_scene):
    for number, kind in enumerate(("vh", "vv")):
        write_scene(f"both/scene_{kind}.tif", np.full((40, 60), number, np.float32))
    scene = opened(write_scene("both/scene_vv.tif", np.full((40, 60), 1, np.float32)).parent)
    assert scene.header.bands == ("vv", "vh")
    assert scene.read(WHOLE).pixels[0, 0].tolist() == [1, 0]


def test_polarisations_of_different_sizes_are_refused(write_scene):
    write_scene("both/scene_vh.tif", np.zeros((40, 50), np.float32))
    folder = write_scene("both/scene_vv.tif", np.zeros((40, 60), np.float32)).parent
    with pytest.raises(SceneError, match="must agree"):
        opened(folder)


def test_complex_pixels_are_refused(write_scene):
    with pytest.raises(SceneError, match="complex64; accepted are uint8"):
        opened(write_scene("slc.tif", np.zeros((40, 60), np.complex64)))


def test_single_look_complex_products_are_refused_with_what_to_take(write_scene):
    """They store pairs of 16-bit integers, which NumPy has no type for."""
    pixels = np.zeros((40, 60), np.complex64)
    name = "s1a-iw1-slc-vv-20210105t135116-20210105t135141-036018-043849-004.tiff"
    with pytest.raises(SceneError, match=r"stores complex_int16; .* take the GRD product"):
        opened(write_scene(name, pixels, dtype="complex_int16"))


def test_an_affine_scene_lies_where_pyproj_puts_it(write_scene, sea):
    header = opened(write_scene("scene.tif", sea(40, 60))).header
    expected = pyproj.Proj("EPSG:32611")(377000 + 10 * 12.5, 3739000 - 10 * 30.5, inverse=True)
    found = header.georeference.to_lonlat(np.array([12.5, 30.5]))
    assert found == pytest.approx(expected, abs=1e-8)
    assert header.pixel_m == pytest.approx((10.0, 10.0), abs=0.01)
    assert header.crs == "EPSG:32611"


def test_a_scene_with_control_points_lies_where_gdal_puts_it(write_scene, sea):
    path = write_scene("swath.tif", sea(400, 600), transform=None, crs=None)
    points = control_points(400, 600)
    with rasterio.open(path, "r+") as raster:
        raster.gcps = (points, rasterio.CRS.from_epsg(4326))
    header = opened(path).header
    asked = np.random.default_rng(3).uniform(0, [600, 400], (50, 2))
    found = header.georeference.to_lonlat(asked)
    with GCPTransformer(points, tps=True) as gdal:  # (col, row) of corners, as GDAL counts
        lon, lat = gdal.xy(asked[:, 1], asked[:, 0], offset="ul")
    _, _, apart_m = GEOD.inv(found[:, 0], found[:, 1], lon, lat)
    assert np.abs(apart_m).max() < 1.0  # a tenth of a pixel
    assert header.pixel_m == pytest.approx((10.0, 10.0), abs=0.05)


def test_control_points_of_sentinel1_name_centres_of_pixels(write_scene, sea):
    name = "s1a-iw-grd-vv-20210105t135116-20210105t135141-036018-043849-001.tiff"
    for file in (name, "swath.tif"):
        path = write_scene(file, sea(400, 600), transform=None, crs=None)
        with rasterio.open(path, "r+") as raster:
            raster.gcps = (control_points(400, 600), rasterio.CRS.from_epsg(4326))
    product, plain = (opened(path.parent / file).header for file in (name, "swath.tif"))
    centre = product.georeference.to_lonlat(np.array([100.5, 50.5]))
    assert centre == pytest.approx(plain.georeference.to_lonlat(np.array([100.0, 50.0])), abs=1e-9)
    assert product.time == "2021-01-05T13:51:16Z"
    assert product.bands == ("vv",)


@pytest.mark.parametrize("kind", ["Area", "Point"])
@pytest.mark.parametrize(
    "name",
    [
        "s1a-iw-grd-vv-20210105t135116-20210105t135141-036018-043849-001-cog.tiff",
        "P/measurement/iw-vv.tiff",
    ],
)
def test_control_points_of_other_products_are_not_shifted_twice(write_scene, sea, name, kind):
    """GDAL adds the half pixel itself where the file says that its pixels are points."""
    path = write_scene(name, sea(400, 600), transform=None, crs=None)
    with rasterio.open(path, "r+") as raster:
        raster.update_tags(AREA_OR_POINT=kind, TIFFTAG_IMAGEDESCRIPTION="Sentinel-1A IW GRD HR L1")
        raster.gcps = (control_points(400, 600), rasterio.CRS.from_epsg(4326))
    with rasterio.open(path) as raster:
        stored = raster.gcps[0]
    shift = 0.5 if kind == "Area" else 0.0
    found = opened(path).header.georeference.to_lonlat(
        np.array([[point.col + shift, point.row + shift] for point in stored])
    )
    assert found == pytest.approx(np.array([[point.x, point.y] for point in stored]), abs=1e-7)


@pytest.mark.parametrize(
    ("name", "tag", "resolution_m"),
    [
        ("scene.tif", None, None),
        ("scene.tif", "12.5", 12.5),
        ("scene.tif", "4", 10.0),  # averaged: no cell is smaller than a pixel
        ("scene.tif", "fine", None),
        ("S1A_IW_GRDH_1SDV_20210105T135116.tif", None, 21.0),
        ("S1A_IW_GRDH_1SDV_20210105T135116.tif", "30", 30.0),
    ],
)
def test_the_resolution_is_the_tags_or_the_products(write_scene, sea, name, tag, resolution_m):
    path = write_scene(name, sea(40, 60))
    if tag is not None:
        with rasterio.open(path, "r+") as raster:
            raster.update_tags(resolution_m=tag)
    found = opened(path).header.resolution_m
    assert found == (None if resolution_m is None else pytest.approx(resolution_m, rel=1e-3))


def test_the_time_of_a_measurement_of_a_short_name_is_its_products(write_scene, sea):
    folder = "S1A_IW_GRDH_1SDV_20210105T135116_20210105T135141_036018_043849_6BC8.SAFE"
    path = write_scene(f"{folder}/measurement/iw-vv.tiff", sea(40, 60))
    assert opened(path).header.time == "2021-01-05T13:51:16Z"


@pytest.mark.parametrize(
    ("name", "time"),
    [
        ("2021-01-05.tif", "2021-01-05"),
        ("S1A_IW_GRDH_1SDV_20210105T135116_20210105T135141_x.tif", "2021-01-05T13:51:16Z"),
        ("port_20210105.tif", "2021-01-05"),
        ("scene_12345678.tif", None),
    ],
)
def test_the_time_is_what_the_name_tells(write_scene, sea, name, time):
    assert opened(write_scene(name, sea(40, 60))).header.time == time


def test_threads_read_the_same_scene_at_once(write_scene, rng):
    pixels = rng.integers(0, 255, (600, 600)).astype(np.uint8)
    scene = opened(write_scene("scene.tif", pixels, tiled=True, blockxsize=64, blockysize=64))
    windows = [Window(x, y, x + 97, y + 97) for x in range(0, 500, 31) for y in range(0, 500, 31)]
    with ThreadPoolExecutor(8) as pool:
        tiles = list(pool.map(scene.read, windows))
    assert all((t.pixels[:, :, 0] == t.window.of(pixels)).all() for t in tiles)
    scene.close()
    assert (scene.read(WHOLE).pixels[:, :, 0] == pixels[:40, :60]).all()  # opens again


def test_a_scene_is_closed_once_nobody_reads(write_scene, rng):
    pixels = rng.integers(0, 255, (2000, 2000)).astype(np.uint8)
    path = write_scene("scene.tif", pixels, compress="deflate", blockysize=50)
    scene = opened(path)
    whole = Window(0, 0, 2000, 2000)
    with ThreadPoolExecutor(6) as pool:
        for _ in range(20):
            reads = [pool.submit(scene.read, whole) for _ in range(6)]
            reads[0].result()
            scene.close()
            assert all((each.result().pixels[:, :, 0] == pixels).all() for each in reads)
    scene.close()


def test_an_overview_averages_and_knows_where_there_is_no_data(write_scene):
    pixels = np.full((900, 1200), 50, np.uint8)
    pixels[:, 600:] = 150
    pixels[600:] = 0
    picture, valid = opened(write_scene("scene.tif", pixels, nodata=0)).read_overview(
        longest_px=120
    )
    assert picture.shape == valid.shape == (90, 120)
    assert picture[10, [5, 115]].tolist() == [50, 150]
    assert valid[:59].all()
    assert not valid[61:].any()


def test_a_missing_file_is_named(tmp_path, write_scene, sea):
    path = write_scene("scene.tif", sea(40, 60))
    source = find_scenes(str(path))[0]
    path.unlink()
    with pytest.raises(SceneError, match=r"scene\.tif is missing"):
        Scene(source)


@pytest.mark.parametrize("start", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0"])
def test_a_file_that_points_to_others_is_not_followed(write_scene, tmp_path, start):
    secret = write_scene("secret.tif", np.full((4, 5), 7, np.uint8))
    virtual = tmp_path / "innocent.png"
    virtual.write_bytes(
        start
        + b'<VRTDataset rasterXSize="5" rasterYSize="4"><VRTRasterBand dataType="Byte" band="1">'
        + f"<SimpleSource><SourceFilename>{secret}</SourceFilename></SimpleSource>".encode()
        + b"</VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(SceneError, match=r"innocent\.png"):
        opened(virtual).read(Window(0, 0, 5, 4))


def test_the_largest_piece_of_a_file_is_known_before_it_is_read(write_scene):
    pixels = np.zeros((600, 700), np.float32)
    assert opened(write_scene("tiled.tif", pixels, tiled=True)).block_bytes == 256 * 256 * 4
    strip = write_scene("strip.tif", pixels, blockysize=600, compress="deflate", tiled=False)
    assert opened(strip).block_bytes == 600 * 700 * 4
