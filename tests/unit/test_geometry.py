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
    azimuths_deg,
    distances_m,
    pixel_size_m,
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


def swath(pixels, *, heading_deg=347.0, pixel_m=10.0, start=(24.0, 59.0)):
    """Where pixels of a radar swath lie: along great circles, not a map; pyproj's geodesics."""
    x, y = pixels[..., 0] * pixel_m, pixels[..., 1] * pixel_m
    track = GEOD.fwd(
        np.full(x.shape, start[0]), np.full(x.shape, start[1]), np.full(x.shape, heading_deg), y
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


def test_distances_and_directions_are_those_of_the_ellipsoid():
    pairs = np.array([[[0.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 0.0]]])
    assert distances_m(pairs) == pytest.approx([110_574.4, 111_319.5, 110_574.4], abs=0.1)
    assert azimuths_deg(pairs) == pytest.approx([0, 90, 180])


def test_longitudes_wrap_at_the_antimeridian():
    assert wrapped(np.array([-190.0, 0.0, 180.0, 359.0])).tolist() == [170.0, 0.0, -180.0, -1.0]
