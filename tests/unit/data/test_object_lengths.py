"""Objects that are longer than tiles overlap are warned of before a scene is predicted."""

from types import SimpleNamespace

import pytest

from sar_experiments.data.object_lengths import lengths_of, too_long

TILES = SimpleNamespace(tile_px=256, overlap_px=64)


def of(*sides):
    """A part with boxes of such widths and heights."""
    boxes = [{"bbox": (5, 5, 5 + width, 5 + height)} for width, height in sides]
    return SimpleNamespace(samples=[{"annotations": boxes[:1]}, {"annotations": boxes[1:]}])


def test_the_longer_sides_of_all_boxes_are_counted_in_steps_of_eight_pixels():
    assert lengths_of(of((3, 2), (8, 8), (5, 8.5), (40, 100))) == [[8, 2], [16, 1], [104, 1]]
    assert lengths_of(of()) == []


@pytest.mark.parametrize(
    ("histogram", "overlap", "said"),
    [
        ([[64, 100]], 64, ""),
        ([[64, 995], [72, 5]], 64, ""),  # a few in a thousand
        ([[64, 980], [72, 20]], 64, "2 % of the objects that were learnt from are longer"),
        ([[64, 980], [72, 20]], 64, "64 px (the longest up to 72 px)"),
        ([[64, 980], [72, 20]], 64, "predict.overlap_px=72"),
        ([[64, 50], [200, 50]], 64, "predict.overlap_px=200 predict.tile_px=400"),
        (None, 64, ""),
        ([], 64, ""),
    ],
)
def test_objects_longer_than_the_overlap_are_told_with_what_to_set(histogram, overlap, said):
    sentence = too_long(histogram, SimpleNamespace(tile_px=256, overlap_px=overlap))
    assert said in sentence
    assert bool(sentence) == bool(said)
