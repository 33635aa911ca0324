"""Tiles cover the scene, share what they must, and every pixel has one tile that answers for it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sar_experiments.geometry import Window
from sar_experiments.predict.tiling import plan_tiles


@given(
    height=st.integers(1, 700),
    width=st.integers(1, 700),
    tile_px=st.integers(32, 300),
    share=st.floats(0, 0.5),
)
def test_every_pixel_has_one_tile_that_answers_for_it(height, width, tile_px, share):
    overlap_px = int(share * tile_px)
    answered = np.zeros((height, width), int)
    for tile in plan_tiles(height=height, width=width, tile_px=tile_px, overlap_px=overlap_px):
        tile.interior.of(answered)[:] += 1
        assert tile.window.clipped(height=height, width=width) == tile.window
        assert tile.window.height == min(tile_px, height)
        assert tile.window.width == min(tile_px, width)
    assert (answered == 1).all()


@given(
    width=st.integers(301, 3000),
    overlap_px=st.integers(0, 150),
)
def test_an_interior_ends_half_an_overlap_before_its_tile_does(width, overlap_px):
    for tile in plan_tiles(height=10, width=width, tile_px=300, overlap_px=overlap_px):
        for inner, outer, border in (
            (tile.interior.left, tile.window.left, 0),
            (tile.interior.right, tile.window.right, width),
        ):
            assert inner == outer == border or abs(inner - outer) >= overlap_px // 2


def test_a_scene_smaller_than_a_tile_is_one_tile():
    (tile,) = plan_tiles(height=50, width=70, tile_px=800, overlap_px=200)
    assert tile.window == tile.interior == Window(0, 0, 70, 50)


def test_no_more_tiles_than_needed():
    assert len(plan_tiles(height=800, width=2000, tile_px=800, overlap_px=200)) == 3


def test_an_overlap_of_more_than_half_a_tile_is_refused():
    with pytest.raises(ValueError, match="overlap_px=401"):
        plan_tiles(height=900, width=900, tile_px=800, overlap_px=401)
