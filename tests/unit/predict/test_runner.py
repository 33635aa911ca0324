"""A scene becomes objects: all of them, once, in place; what is empty is not looked at.

An interrupted prediction goes on where it stopped, and a broken scene costs itself alone.
"""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import shapely

from sar_experiments.detections import Detections
from sar_experiments.errors import SceneError
from sar_experiments.predict.runner import (
    SceneFailure,
    ScenePrediction,
    predict,
    why_unseen,
    with_tile_sizes,
)
from sar_experiments.predict.sources import find_scenes

BARS = [(10, 20, 30, 26), (95, 90, 125, 98), (150, 10, 156, 30), (180, 180, 199, 186)]


@pytest.fixture
def predict_settings(typed_config):
    config = typed_config("predict.tile_px=100", "predict.overlap_px=40", "predict.batch_size=3")
    return config.predict


@pytest.fixture
def run(predict_settings, detector):
    def run_on(source, **options):
        settings = replace(predict_settings, **options.pop("settings", {}))
        options = {"min_score": 0.5, **options}
        source = [str(s) for s in source] if isinstance(source, list) else str(source)
        return list(predict(find_scenes(source), lambda _header: detector, settings, **options))

    return run_on


def boxes_of(prediction):
    return sorted(each.box for each in prediction.objects)


def test_every_object_is_found_once(run, write_scene, sea):
    path = write_scene("scene.tif", sea(220, 260, BARS))
    (prediction,) = run(path)
    assert boxes_of(prediction) == sorted(BARS)
    assert prediction.tiles.seen == 12
    assert {each.class_name for each in prediction.objects} == {"bright"}


@pytest.mark.parametrize("tile_px", [80, 111, 300])
def test_the_size_of_tiles_changes_nothing(run, write_scene, sea, tile_px):
    path = write_scene("scene.tif", sea(220, 260, BARS))
    (prediction,) = run(path, settings={"tile_px": tile_px})
    assert boxes_of(prediction) == sorted(BARS)


def test_tiles_without_data_are_not_looked_at(run, write_scene, sea, detector):
    pixels = sea(400, 400, BARS).astype(np.float32)
    pixels[:, 220:] = -9999.0
    pixels[250:] = np.nan
    (prediction,) = run(write_scene("scene.tif", pixels, nodata=-9999.0))
    assert boxes_of(prediction) == sorted(BARS)
    assert prediction.tiles.no_data > 0
    seen = [window for batch in detector.batches for window in batch]
    assert len(seen) == prediction.tiles.seen
    assert not [window for window in seen if window.left >= 220 or window.top >= 250]


def test_a_detection_of_whose_box_most_has_no_data_is_dropped(run, write_scene, sea, detector):
    detector.find = lambda _tile: Detections.of(
        [[10, 10, 20, 20], [44, 10, 54, 20], [48, 10, 58, 20], [60, 10, 70, 20]], [0.9] * 4, [0] * 4
    )
    pixels = sea(100, 100)
    pixels[:, 50:] = 0
    (prediction,) = run(write_scene("scene.tif", pixels, nodata=0))
    assert boxes_of(prediction) == [(10, 10, 20, 20), (44, 10, 54, 20)]


def test_what_the_radiometry_calls_no_data_is_none(run, write_scene, sea):
    pixels = sea(100, 100)
    pixels[:] = 0
    (prediction,) = run(write_scene("scene.tif", pixels), nodata=0.0)
    assert prediction.tiles.seen == 0
    assert prediction.objects == ()


@pytest.mark.parametrize("pixels", [np.zeros((90, 90)), np.full((90, 90), np.nan)])
def test_a_scene_without_a_valid_pixel_says_so(run, write_scene, pixels):
    (prediction,) = run(write_scene("empty.tif", pixels.astype(np.float32), nodata=0.0))
    assert prediction.objects == ()
    assert why_unseen(prediction, nodata=-1.0).endswith(
        "empty.tif has no pixel with data: all are its nodata (0), radiometry.nodata (-1), NaN,"
        " infinite or masked; nothing was looked at"
    )


def test_a_scene_with_a_valid_pixel_says_nothing(run, write_scene):
    pixels = np.zeros((90, 90), np.uint8)
    pixels[45, 45] = 1
    (prediction,) = run(write_scene("scene.tif", pixels, nodata=0.0))
    assert why_unseen(prediction) is None


def test_images_of_a_folder_share_batches(run, write_scene, sea, detector, tmp_path):
    for number in range(5):
        write_scene(
            f"chips/{number}.png", sea(64, 64, [(5, 5, 9 + number, 9)]),
            driver="PNG", crs=None, transform=None,
        )  # fmt: skip
    predictions = run(tmp_path / "chips")
    assert [len(batch) for batch in detector.batches] == [3, 2]
    assert [boxes_of(each) for each in predictions] == [
        [(5, 5, 9 + number, 9)] for number in range(5)
    ]
    assert all(each.objects[0].centre is None for each in predictions)


def test_an_interrupted_prediction_goes_on_where_it_stopped(
    run, write_scene, sea, detector, tmp_path
):
    path = write_scene("scene.tif", sea(220, 260, BARS))
    log = tmp_path / "tiles.jsonl"
    asked = Counter()

    def after_two_batches():
        asked["times"] += 1
        return len(detector.batches) >= 2

    assert run(path, log=log, is_interrupted=after_two_batches) == []
    first = [window for batch in detector.batches for window in batch]
    assert 0 < len(first) < 12
    detector.batches.clear()
    (prediction,) = run(path, log=log)
    second = [window for batch in detector.batches for window in batch]
    assert not set(first) & set(second)
    assert len(first) + len(second) == 12
    assert boxes_of(prediction) == sorted(BARS)


def test_what_was_not_saved_comes_from_the_log_without_a_tile_looked_at_again(
    run, write_scene, sea, detector, tmp_path
):
    path = write_scene("scene.tif", sea(220, 260, BARS))
    log = tmp_path / "tiles.jsonl"
    run(path, log=log)
    detector.batches.clear()
    (prediction,) = run(path, log=log)
    assert boxes_of(prediction) == sorted(BARS)
    assert not detector.batches


def test_a_torn_last_line_of_the_log_is_done_again(run, write_scene, sea, detector, tmp_path):
    path = write_scene("scene.tif", sea(220, 260, BARS))
    log = tmp_path / "tiles.jsonl"
    run(path, log=log, is_interrupted=lambda: len(detector.batches) >= 2)
    content = log.read_bytes()
    log.write_bytes(content[:-7])
    detector.batches.clear()
    (prediction,) = run(path, log=log)
    assert boxes_of(prediction) == sorted(BARS)
    done_before = len(content.splitlines()) - 2
    assert sum(len(batch) for batch in detector.batches) == 12 - done_before


def test_a_damaged_line_of_the_log_is_done_again(run, write_scene, sea, detector, tmp_path):
    path, log = write_scene("scene.tif", sea(220, 260, BARS)), tmp_path / "tiles.jsonl"
    run(path, log=log)
    head, first, *lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([head, first[:9] + b"\0" * 20 + b"\xff\n", *lines]))
    detector.batches.clear()
    (prediction,) = run(path, log=log)
    assert 1 <= sum(len(batch) for batch in detector.batches) <= 3
    assert boxes_of(prediction) == sorted(BARS)
    log.write_bytes(b"\0" * 40)
    (prediction,) = run(path, log=log)
    assert boxes_of(prediction) == sorted(BARS)


def test_a_broken_tile_costs_no_tile_of_other_scenes(run, write_scene, sea, detector):
    paths = [write_scene(f"{name}.tif", sea(100, 160, BARS[:1])) for name in "ab"]

    def find(tile):
        if tile.scene == "b":
            msg = "three channels"
            raise SceneError(msg)
        return type(detector).find(detector, tile)

    detector.find = find
    first, failure = run(paths, settings={"batch_size": 4})
    assert boxes_of(first) == BARS[:1]
    assert "b.tif, tile 0" in failure.why
    assert len(detector.batches[0]) == 4


@pytest.mark.parametrize(
    "change", [{"identity": "another network"}, {"min_score": 0.1}, {"min_score": {"bright": 0.1}}]
)
def test_a_log_of_another_prediction_is_begun_anew(
    run, write_scene, sea, detector, tmp_path, change
):
    path = write_scene("scene.tif", sea(220, 260, BARS))
    log = tmp_path / "tiles.jsonl"
    run(path, log=log, is_interrupted=lambda: len(detector.batches) >= 2)
    detector.batches.clear()
    run(path, log=log, **change)
    assert sum(len(batch) for batch in detector.batches) == 12


def test_a_broken_scene_costs_itself_alone(run, write_scene, sea, tmp_path):
    whole = [write_scene(f"{name}.tif", sea(220, 260, BARS)) for name in ("a", "c")]
    broken = write_scene("b.tif", sea(220, 260, BARS))
    broken.write_bytes(broken.read_bytes()[:20_000])
    log = tmp_path / "tiles.jsonl"
    first, failure, last = run([whole[0], broken, whole[1]], log=log)
    assert boxes_of(first) == boxes_of(last) == sorted(BARS)
    assert isinstance(failure, SceneFailure)
    assert "b.tif" in failure.why
    assert log.exists()


def test_a_scene_that_no_header_can_be_read_of_is_refused_at_once(run, write_scene, sea, tmp_path):
    path = tmp_path / "text.tif"
    path.write_text("no raster")
    with pytest.raises(SceneError, match=r"text\.tif has no readable header"):
        run(path)


def land(tmp_path, geometry, name="land.geojson"):
    path = tmp_path / name
    feature = {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(geometry)}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    return str(path)


def on_earth(left, top, right, bottom):
    """A rectangle of pixels as longitude and latitude."""
    import pyproj

    to_lonlat = pyproj.Transformer.from_crs("EPSG:32611", "EPSG:4326", always_xy=True)
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    return shapely.Polygon(
        [to_lonlat.transform(377000 + 10 * x, 3739000 - 10 * y) for x, y in corners]
    )


def test_detections_on_land_are_kept_apart_with_their_reason(run, write_scene, sea, tmp_path):
    path = write_scene("scene.tif", sea(220, 260, BARS))
    coast = land(tmp_path, on_earth(-500, -500, 50, 700))
    wind_farm = land(tmp_path, on_earth(175, 175, 205, 190), "farm.geojson")
    (prediction,) = run(path, settings={"land": coast, "avoid": [wind_farm]})
    assert boxes_of(prediction) == sorted(BARS[1:3])
    reasons = {each.box: each.reason for each in prediction.filtered}
    assert reasons == {BARS[0]: "land", BARS[3]: "avoid"}


def test_tiles_wholly_on_land_are_not_looked_at(run, write_scene, sea, detector, tmp_path):
    path = write_scene("scene.tif", sea(220, 260, BARS))
    coast = land(tmp_path, on_earth(-500, -500, 130, 700))
    (prediction,) = run(path, settings={"land": coast})
    assert prediction.tiles.hidden == 3
    assert not [w for batch in detector.batches for w in batch if w.right < 130]
    assert boxes_of(prediction) == [BARS[2], BARS[3]]


@pytest.mark.parametrize(("buffer_m", "kept"), [(0, 2), (25, 1), (-25, 2)])
def test_the_buffer_of_land_is_in_metres(run, write_scene, sea, tmp_path, buffer_m, kept):
    # The centre of the first bar lies at row 23, 20 m south of this coast.
    coast = land(tmp_path, on_earth(-500, -500, 700, 21))
    path = write_scene("scene.tif", sea(220, 260, [BARS[0], BARS[3]]))
    (prediction,) = run(path, settings={"land": coast, "land_buffer_m": buffer_m})
    assert len(prediction.objects) == kept
    assert len(prediction.filtered) == 2 - kept


def test_land_without_geo_reference_is_refused(run, write_scene, sea, tmp_path):
    path = write_scene("chip.png", sea(64, 64), driver="PNG", crs=None, transform=None)
    with pytest.raises(SceneError, match="no geo-reference"):
        run(path, settings={"land": land(tmp_path, on_earth(0, 0, 10, 10))})


@pytest.mark.parametrize(
    ("options", "native_px", "sizes"),
    [
        ({}, 256, (256, 64)),
        ({}, None, (800, 200)),
        ({"tile_px": 512}, 256, (512, 128)),
        ({"tile_px": 512, "overlap_px": 0}, 256, (512, 0)),
    ],
)
def test_tile_sizes_left_open_are_those_of_the_training(typed_config, options, native_px, sizes):
    settings = with_tile_sizes(replace(typed_config().predict, **options), native_px)
    assert (settings.tile_px, settings.overlap_px) == sizes


def test_an_overlap_that_does_not_fit_the_tiles_of_the_training_is_refused(typed_config):
    with pytest.raises(SceneError, match=r"overlap_px=200 must be at most half of a tile of 256"):
        with_tile_sizes(replace(typed_config().predict, overlap_px=200), 256)


def test_progress_counts_all_tiles(run, write_scene, sea):
    calls = []
    run(
        write_scene("scene.tif", sea(220, 260, BARS)),
        on_tiles=lambda done, total: calls.append((done, total)),
    )
    assert calls[-1] == (12, 12)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_a_prediction_is_one_per_scene(run, write_scene, sea):
    paths = [write_scene(f"{name}.tif", sea(120, 120, BARS[:1])) for name in "xyz"]
    predictions = run(paths)
    assert [each.header.name for each in predictions] == ["x", "y", "z"]
    assert all(isinstance(each, ScenePrediction) for each in predictions)


class TwoClasses:
    """A ship of 0.65 and a platform of 0.35 in each tile."""

    classes = ("ship", "platform")

    def __call__(self, tiles):
        boxes = [[20, 20, 40, 30], [60, 60, 70, 70]]
        return [Detections.of(boxes, [0.65, 0.35], [0, 1]) for _ in tiles]


@pytest.mark.parametrize(
    ("min_score", "names"),
    [
        (0.5, ["ship"]),
        ({"ship": 0.6, "platform": 0.3}, ["ship", "platform"]),
        ({"ship": 0.7, "platform": 0.3}, ["platform"]),
        ({"platform": 0.36, "ship": 0.65}, ["ship"]),
    ],
)
def test_each_class_has_a_lowest_score_of_its_own(
    predict_settings, write_scene, sea, min_score, names
):
    path = write_scene("scene.tif", sea(100, 100, []))
    (prediction,) = predict(
        find_scenes(str(path)), lambda _: TwoClasses(), predict_settings, min_score=min_score
    )
    assert [each.class_name for each in prediction.objects] == names


def test_a_class_without_a_lowest_score_is_refused(predict_settings, write_scene, sea):
    path = write_scene("scene.tif", sea(100, 100, []))
    with pytest.raises(ValueError, match="no score for platform"):
        list(
            predict(
                find_scenes(str(path)), lambda _: TwoClasses(), predict_settings,
                min_score={"ship": 0.6},
            )
        )  # fmt: skip


class ByBrightness:
    """Scores bars by how bright they are."""

    classes = ("bright",)

    def __init__(self, find):
        self.find = find

    def __call__(self, tiles):
        found = []
        for tile in tiles:
            each = self.find(tile)
            at = each.boxes.astype(int)
            scores = tile.pixels[at[:, 1], at[:, 0], 0] / 250.0
            found.append(Detections.of(each.boxes, scores, each.classes))
        return found


def test_lower_scores_come_beside_the_objects_and_change_none_of_them(
    predict_settings, write_scene, detector
):
    pixels = np.full((220, 260), 20, np.uint8)
    pixels[20:26, 10:30] = 240
    pixels[100:106, 80:110] = 120
    path = write_scene("scene.tif", pixels)
    scored = ByBrightness(detector.find)

    def predicted(**options):
        (each,) = predict(
            find_scenes(str(path)),
            lambda _header: scored,
            predict_settings,
            min_score=0.8,
            **options,
        )
        return each

    plain, full = predicted(), predicted(lowest_score=0.1)
    assert plain.scored is None
    assert boxes_of(full) == boxes_of(plain) == [(10, 20, 30, 26)]
    assert sorted(full.scored.boxes.tolist()) == [[10, 20, 30, 26], [80, 100, 110, 106]]
    assert np.allclose(sorted(full.scored.scores), [0.48, 0.96])


def test_what_a_mask_filters_is_not_among_the_lower_scores(run, write_scene, sea, tmp_path):
    path = write_scene("scene.tif", sea(220, 260, BARS))
    masked = land(tmp_path, on_earth(80, 80, 140, 110))
    (prediction,) = run(path, settings={"land": str(masked)}, lowest_score=0.1)
    assert [each.reason for each in prediction.filtered] == ["land"]
    assert len(prediction.scored) == len(BARS) - 1
