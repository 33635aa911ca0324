"""Seeded synthetic SAR: sea, coast, ships and infrastructure, with exact ground truth.

The sensor looks from the left: columns run along range, rows along azimuth. A picture is
painted as intensity relative to the mean of the sea (1.0), seen through the sensor's impulse
response, and stored as amplitude or in decibels:

    sea       K-distributed: gamma texture, correlated over some pixels, times speckle; swell,
              wind rolls, gusts and a gradient from near to far range on top
    land      fields, roads, relief with bright fore slopes and shadows, towns of strong scatterers
    objects   hulls and decks with point scatterers; the strongest show the sidelobes of the
              response along range and azimuth, and ghosts far off in azimuth; moving ships leave
              wakes, from which they are displaced in azimuth
    speckle   of any number of looks, correlated by the same response

Image ``k`` of a split depends on ``(seed, split, k)`` and the settings that describe an image,
never on how many images are made. Its pixels and its truth are the same on every machine with
the same NumPy: all arithmetic on arrays is ``+ - * / sqrt`` and table look-up, which IEEE 754
fixes, and tables, directions and decibels are rounded to binary grids far coarser than the
differences between math libraries. The bytes of a PNG may differ between versions of its library.

A box encloses what the object itself is imaged as (hull, deck, ring of a tank), half a
resolution cell around it included; neither wake, sidelobes nor ghosts. Coordinates are
continuous: pixel k covers ``[k, k + 1]``.
"""

from sar_experiments.data.simulator.dataset import simulate_dataset
from sar_experiments.data.simulator.scenes import simulate_image, simulate_scene
from sar_experiments.data.simulator.sensor import CELL_PX, draw_speckle
from sar_experiments.data.simulator.settings import (
    CLASSES,
    SPLITS,
    SimulatedImage,
    SimulatedObject,
    SimulatorSettings,
)

__all__ = [
    "CELL_PX",
    "CLASSES",
    "SPLITS",
    "SimulatedImage",
    "SimulatedObject",
    "SimulatorSettings",
    "draw_speckle",
    "simulate_dataset",
    "simulate_image",
    "simulate_scene",
]
