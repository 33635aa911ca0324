"""Tiles cover the scene, share what they must, and every pixel has one tile that answers for it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sar_experiments.geometry import Window
from sar_experiments.predict.tiling import gainful_grid, in_blocks, plan_tiles


@given(
    height=st.integers(1, 700),
    width=st.integers(1, 700),
    tile_px=st.integers(32, 300),
    share=st.floats(0, 0.5),
    grid_px=st.sampled_from([1, 16, 64]),
)
def test_every_pixel_has_one_tile_that_answers_for_it(height, width, tile_px, share, grid_px):
    overlap_px = int(share * tile_px)
    answered = np.zeros((height, width), int)
    for tile in plan_tiles(
        height=height, width=width, tile_px=tile_px, overlap_px=overlap_px, grid_px=grid_px
    ):
        tile.interior.of(answered)[:] += 1
        assert tile.window.clipped(height=height, width=width) == tile.window
        assert tile.window.height == min(tile_px, height)
        assert tile.window.width == min(tile_px, width)
    assert (answered == 1).all()


@given(
    width=st.integers(301, 3000),
    overlap_px=st.integers(0, 150),
    grid_px=st.sampled_from([1, 16, 64]),
)
def test_an_interior_ends_half_an_overlap_before_its_tile_does(width, overlap_px, grid_px):
    for tile in plan_tiles(
        height=10, width=width, tile_px=300, overlap_px=overlap_px, grid_px=grid_px
    ):
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


def lefts(*, width, overlap_px, grid_px):
    plan = plan_tiles(height=512, width=width, tile_px=512, overlap_px=overlap_px, grid_px=grid_px)
    return [tile.window.left for tile in plan]


def test_tiles_begin_on_a_grid_but_for_the_last():
    assert lefts(width=2000, overlap_px=128, grid_px=64) == [0, 384, 768, 1152, 1488]
    assert lefts(width=2000, overlap_px=100, grid_px=64) == [0, 384, 768, 1152, 1488]


@pytest.mark.parametrize(
    ("grid_px", "tile_px", "overlap_px", "most", "taken"),
    [
        (64, 800, 200, 4, 64),
        (64, 800, 200, 1, 1),  # alone in its block a tile shares nothing
        (64, 800, 0, 4, 1),
        (128, 800, 200, 4, 128),
        (128, 256, 64, 4, 1),  # steps of 128 instead of 192
        (128, 256, 64, 16, 128),
        (400, 512, 256, 4, 1),
    ],
)
def test_a_grid_is_taken_where_it_saves_more_than_its_shorter_steps_cost(
    grid_px, tile_px, overlap_px, most, taken
):
    found = gainful_grid(grid_px, tile_px=tile_px, overlap_px=overlap_px, most=most)
    assert found == taken


def test_a_grid_coarser_than_the_steps_is_left_alone():
    assert lefts(width=1024, overlap_px=256, grid_px=400) == [0, 256, 512]


@given(
    height=st.integers(1, 2000),
    width=st.integers(1, 2000),
    most=st.integers(1, 20),
    highest=st.integers(1, 5),
)
def test_every_tile_is_in_one_block_of_neighbours(height, width, most, highest):
    plan = plan_tiles(height=height, width=width, tile_px=300, overlap_px=70)
    blocks = in_blocks(plan, most, highest=highest)
    assert sorted(index for block in blocks for index in block) == list(range(len(plan)))
    for block in blocks:
        tops = {plan[index].window.top for index in block}
        lefts = {plan[index].window.left for index in block}
        assert len(block) == len(tops) * len(lefts) <= most
        assert len(tops) <= highest


def test_blocks_are_as_square_as_can_be():
    plan = plan_tiles(height=1024, width=1024, tile_px=512, overlap_px=256)
    assert in_blocks(plan, 4, highest=9) == [[0, 1, 3, 4], [2, 5], [6, 7], [8]]
    assert in_blocks(plan, 4, highest=1) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
