"""Windows are whole pixels with exclusive ends; pixels lie where pyproj says they do.

Positions are compared with a computation of their own, to far less than a tenth of a pixel.
"""

import numpy as np
import pyproj
import pytest

from sar_experiments.geometry import (
    AffineTransform,
    ControlPoints,
    Window,
    distances_m,
    metres_per_pixel,
    pixel_size_m,
    to_pixels,
    wrapped,
)

UTM_11N = (30.0, 0.0, 377547.67, 0.0, -30.0, 3739531.7)
POINTS = np.array([[0.0, 0.0], [0.5, 0.5], [755.5, 549.5], [400.25, 30.75]])
GEOD = pyproj.Geod(ellps="WGS84")


def metres_apart(one, other):
    _, _, metres = GEOD.inv(one[..., 0], one[..., 1], other[..., 0], other[..., 1])
    return np.abs(metres)


def test_a_window_cuts_what_its_ends_say():
    array = np.arange(12).reshape(3, 4)
    window = Window(1, 0, 3, 2)
    assert window.of(array).tolist() == [[1, 2], [5, 6]]
    assert (window.width, window.height) == (2, 2)


@pytest.mark.parametrize(
    ("window", "inside"),
    [
        (Window(-5, -5, 50, 50), Window(0, 0, 20, 10)),
        (Window(3, 4, 5, 6), Window(3, 4, 5, 6)),
        (Window(30, 0, 40, 5), Window(20, 0, 20, 5)),
    ],
)
def test_a_window_is_clipped_to_the_image(window, inside):
    assert window.clipped(height=10, width=20) == inside


def test_a_window_turned_inside_out_is_refused():
    with pytest.raises(ValueError, match="left <= right"):
        Window(5, 0, 4, 1)


def test_an_affine_transform_counts_from_the_corner_of_the_first_pixel():
    found = AffineTransform(UTM_11N, "EPSG:32611").to_lonlat(POINTS)
    inverse = pyproj.Proj("EPSG:32611")
    expected = [
        inverse(377547.67 + 30 * x, 3739531.7 - 30 * y, inverse=True) for x, y in POINTS.tolist()
    ]
    assert metres_apart(found, np.array(expected)).max() < 0.01


def test_a_turned_transform_is_followed():
    turned = AffineTransform((20.0, 10.0, 500000.0, 10.0, -20.0, 4000000.0), "EPSG:32633")
    expected = pyproj.Proj("EPSG:32633")(
        500000 + 20 * 3 + 10 * 7, 4000000 + 10 * 3 - 20 * 7, inverse=True
    )
    assert turned.to_lonlat(np.array([3.0, 7.0])) == pytest.approx(expected, abs=1e-9)


def test_latitude_does_not_come_first_whatever_the_crs_says():
    geographic = AffineTransform((0.001, 0, 10.0, 0, -0.001, 50.0), "EPSG:4326")
    assert geographic.to_lonlat(np.array([100.0, 200.0])) == pytest.approx([10.1, 49.8])


@pytest.mark.parametrize(
    ("coefficients", "crs", "sentence"),
    [
        ((0.0, 0.0, 5.0, 0.0, 0.0, 5.0), "EPSG:32611", "all pixels in one line"),
        (UTM_11N, "EPSG:999999", "is not understood"),
    ],
)
def test_what_cannot_be_a_transform_is_refused(coefficients, crs, sentence):
    with pytest.raises(ValueError, match=sentence):
        AffineTransform(coefficients, crs)


def swath(pixels, *, track_deg=347.0, pixel_m=10.0, start=(24.0, 59.0)):
    """Where pixels of a radar swath lie: along great circles, not a map; pyproj's geodesics."""
    x, y = pixels[..., 0] * pixel_m, pixels[..., 1] * pixel_m
    track = GEOD.fwd(
        np.full(x.shape, start[0]), np.full(x.shape, start[1]), np.full(x.shape, track_deg), y
    )
    lon, lat, back = track
    lon, lat, _ = GEOD.fwd(lon, lat, (back + 180.0) + 90.0, x)
    return np.stack([lon, lat], axis=-1)


def grid(height, width, rows=10, cols=21):
    y, x = np.meshgrid(np.linspace(0, height, rows), np.linspace(0, width, cols), indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1)


@pytest.mark.parametrize("start", [(24.0, 59.0), (179.5, -17.0), (-179.9, 71.0), (30.0, 88.5)])
def test_control_points_of_a_swath_give_positions_to_a_thousandth_of_a_pixel(start):
    pixels = grid(16_700, 25_200)  # a Sentinel-1 scene
    model = ControlPoints(pixels, swath(pixels, start=start), "EPSG:4326")
    asked = np.random.default_rng(5).uniform(0, [25_200, 16_700], (500, 2))
    assert metres_apart(model.to_lonlat(asked), swath(asked, start=start)).max() < 0.01


def test_every_control_point_is_met(rng):
    pixels = grid(1000, 2000, 6, 6)
    places = swath(pixels) + rng.normal(0, 1e-4, pixels.shape)  # terrain: 10 m and more
    model = ControlPoints(pixels, places, "EPSG:4326")
    assert metres_apart(model.to_lonlat(pixels), places).max() < 0.01


def test_three_control_points_make_a_plane():
    pixels = np.array([[0.0, 0.0], [100.0, 0.0], [0.0, 50.0]])
    places = np.array([[500000.0, 6000000.0], [501000.0, 6000000.0], [500000.0, 5999500.0]])
    model = ControlPoints(pixels, places, "EPSG:32633")
    expected = pyproj.Proj("EPSG:32633")(500500, 5999750, inverse=True)
    assert metres_apart(model.to_lonlat(np.array([50.0, 25.0])), np.array(expected)) < 0.05


@pytest.mark.parametrize(
    "pixels", [[[0, 0], [1, 1]], [[0, 0], [10, 10], [20, 20], [30, 30]]], ids=["two", "one line"]
)
def test_control_points_that_fix_nothing_are_refused(pixels):
    with pytest.raises(ValueError, match="control points"):
        ControlPoints(np.array(pixels, float), np.array(pixels, float), "EPSG:4326")


def test_the_size_of_a_pixel_is_that_on_the_ground():
    model = AffineTransform((0.001, 0, 10.0, 0, -0.001, 60.0), "EPSG:4326")
    down, right = pixel_size_m(model, height=10, width=10)
    assert down == pytest.approx(111.4, abs=0.1)  # a thousandth of a degree at 60 degrees north
    assert right == pytest.approx(55.8, abs=0.1)


def test_distances_are_those_of_the_ellipsoid():
    pairs = np.array([[[0.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [1.0, 0.0]]])
    assert distances_m(pairs) == pytest.approx([110_574.4, 111_319.5], abs=0.1)


def radii_m(latitude_deg):
    """Radii of WGS84 along a meridian and across it, by their formulas."""
    a, e2 = 6378137.0, 0.00669437999014
    below = 1 - e2 * np.sin(np.radians(latitude_deg)) ** 2
    return a * (1 - e2) / below**1.5, a / below**0.5


def test_steps_of_a_map_in_degrees_narrow_towards_the_pole():
    model = AffineTransform((0.001, 0, 10.0, 0, -0.001, 85.0), "EPSG:4326")
    places = np.array([[0.0, 0.0], [0.0, 84_000.0]])  # 85 and 1 degrees north
    found = metres_per_pixel(model, places)
    for steps, latitude in zip(found, (85.0, 1.0), strict=True):
        meridian, across = radii_m(latitude)
        degree = np.radians(0.001)
        east = across * np.cos(np.radians(latitude)) * degree
        assert steps == pytest.approx(np.array([[east, 0], [0, -meridian * degree]]), abs=1e-3)


def test_steps_of_web_mercator_shrink_by_the_cosine_of_the_latitude():
    x, y = pyproj.Proj("EPSG:3857")(10.0, 60.0)
    steps = metres_per_pixel(AffineTransform((10, 0, x, 0, -10, y), "EPSG:3857"), np.zeros((1, 2)))
    meridian, across = radii_m(60.0)
    # Of the sphere that it is drawn on, half; of the ellipsoid by the radii of curvature.
    expected = np.array([10 * across / 6378137.0, -10 * meridian / 6378137.0]) / 2
    assert np.diag(steps[0]) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("lon", "lat"), [(20.9, 71.0), (9.1, 80.0), (15.0, 60.0), (27.0, 84.0)])
def test_the_grid_of_a_map_is_turned_against_true_north(lon, lat):
    """By UTM's meridian convergence, atan(tan(lon - lon0) sin(lat))."""
    x, y = pyproj.Proj("EPSG:32633")(lon, lat)
    steps = metres_per_pixel(AffineTransform((10, 0, x, 0, -10, y), "EPSG:32633"), np.zeros((1, 2)))
    east, north = -steps[0, :, 1]  # up
    convergence = np.degrees(np.arctan(np.tan(np.radians(lon - 15)) * np.sin(np.radians(lat))))
    assert np.degrees(np.arctan2(east, north)) == pytest.approx(convergence, abs=0.01)


def test_steps_of_control_points_follow_the_swath():
    pixels = grid(16_700, 25_200)
    model = ControlPoints(pixels, swath(pixels, start=(10.0, 84.0)), "EPSG:4326")
    place = np.array([20_000.0, 12_000.0])
    (steps,) = metres_per_pixel(model, place[None])
    ends = swath(place + np.array([[0, 0], [1, 0], [0, 1]]), start=(10.0, 84.0))
    azimuth, _, metres = GEOD.inv(*np.tile(ends[:1], (2, 1)).T, *ends[1:].T)
    assert np.hypot(*steps) == pytest.approx(metres, rel=1e-3)
    found = np.degrees(np.arctan2(steps[0], steps[1]))
    assert (found - azimuth + 180) % 360 - 180 == pytest.approx([0, 0], abs=0.02)


def test_longitudes_wrap_at_the_antimeridian():
    assert wrapped(np.array([-190.0, 0.0, 180.0, 359.0])).tolist() == [170.0, 0.0, -180.0, -1.0]


def control_points_of(transform):
    pixels = np.stack(np.meshgrid(np.linspace(0, 5000, 6), np.linspace(0, 3000, 6)), -1)
    pixels = pixels.reshape(-1, 2)
    places = transform.to_lonlat(pixels) + 0.001 * np.sin(pixels / 900)
    return ControlPoints(pixels, places, "EPSG:4326")


@pytest.mark.parametrize(
    "georeference",
    [
        AffineTransform(UTM_11N, "EPSG:32611"),
        AffineTransform((0.001, 0, 10.0, 0, -0.001, 50.0), "EPSG:4326"),
        AffineTransform((0.001, 0, 178.0, 0, -0.001, -17.0), "EPSG:4326"),
        AffineTransform((40.0, 5.0, -50000.0, -5.0, -40.0, 60000.0), "EPSG:3413"),
        AffineTransform((-10.0, 0, 500000.0, 0, 10.0, 0.0), "EPSG:32633"),
        control_points_of(AffineTransform((20.0, 0, 5e5, 0, -20.0, 6e6), "EPSG:32633")),
    ],
    ids=["utm", "degrees", "antimeridian", "pole", "mirrored", "control points"],
)
def test_a_place_on_the_earth_is_found_again_in_pixels(georeference):
    pixels = np.array([[1.0, 1.0], [2500.25, 1500.75], [4999.0, 10.0], [37.5, 2990.0]])
    found = to_pixels(georeference, georeference.to_lonlat(pixels), start=np.array([2500, 1500]))
    assert np.abs(found - pixels).max() < 1e-3


def test_a_place_beyond_the_map_has_no_pixel():
    degrees = AffineTransform((0.001, 0, 10.0, 0, -0.001, 50.0), "EPSG:4326")
    found = to_pixels(degrees, np.array([[np.nan, 1.0], [10.1, 49.8]]), start=np.array([50, 50]))
    assert np.isnan(found[0]).all()
    assert np.allclose(found[1], [100, 200], atol=1e-3)
