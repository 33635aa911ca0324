"""Windows are whole pixels with exclusive ends."""

import numpy as np
import pytest

from sar_experiments.geometry import Window


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
