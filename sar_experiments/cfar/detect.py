"""FRONT DOOR find_objects(), Cfar: an image or a tile -> detections, by CFAR."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sar_experiments.cfar.clutter import Cells, Clutter
from sar_experiments.cfar.groups import grouped
from sar_experiments.cfar.windows import Windows, averaged, odd_side, ring
from sar_experiments.config import ChannelRule, StoredAs
from sar_experiments.detections import Detections
from sar_experiments.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sar_experiments.config import CfarConfig
    from sar_experiments.data.radiometry import Radiometry
    from sar_experiments.predict.detector import Tile

    Mask = NDArray[np.bool_]
    Field = NDArray[np.float64]

_SMALLEST_DB_INTENSITY = 1e-10  # -100 dB, as radiometry.FLOOR_DB

# Rounding alone makes as much of a flat ground, such as land that saturates.
_LEAST_CONTRAST_DB = 1e-5

# What rises so far above its threshold is left out when the background is measured again. From 1 on
# clutter's own brightest pixels would be missing, and more of it would stand out.
_CLEAR = 1.5

# What an integer file rounds to 0 has no logarithm, which would be far below all clutter.
_HALF_A_STEP = 0.5


@dataclass(frozen=True)
class Cfar:
    """A CFAR for images of one pixel size; called like every detector of tiles.

    Attributes:
        config: Windows, clutter model, sizes.
        radiometry: What the stored numbers mean.
        pixel_m: Height and width of a pixel on the ground, in metres.
        classes: Class names; detections hold indices into them.

    Raises:
        ConfigError: The windows do not fit the pixels, or the class is none of ``classes``.
    """

    config: CfarConfig
    radiometry: Radiometry
    pixel_m: tuple[float, float]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        name = self.config.class_name
        if name is not None and name not in self.classes:
            msg = f"model.cfar.class_name={name} must be one of {', '.join(self.classes)}"
            raise ConfigError(msg)
        windows_px(self.config, self.pixel_m)

    @property
    def class_name(self) -> str:
        """Class of what is found."""
        return self.classes[0] if self.config.class_name is None else self.config.class_name

    def __call__(self, tiles: Sequence[Tile]) -> list[Detections]:
        """Return the detections of each tile, in its pixels."""
        return [self.find(tile.pixels, tile.valid) for tile in tiles]

    def find(self, pixels: NDArray[Any], valid: Mask) -> Detections:
        """Return the detections of one image.

        Args:
            pixels: (H, W, C_file) as stored; equal channels become one where the radiometry has
                one, as they do for a network.
            valid: (H, W), False where there is no data.

        Raises:
            DatasetError: The channels do not fit the radiometry.
        """
        found = find_objects(
            intensity_of(
                self.radiometry.with_channels(pixels, valid), valid, self.radiometry.stored_as
            ),
            valid,
            self.config,
            pixel_m=self.pixel_m,
        )
        index = self.classes.index(self.class_name)
        return Detections.of(found.boxes, found.scores, found.classes + index)


def windows_px(config: CfarConfig, pixel_m: tuple[float, float]) -> Windows:
    """Turn the windows from metres into pixels.

    Raises:
        ConfigError: There is no ring between guard and background at this pixel size.
    """
    height_m, width_m = pixel_m
    target, guard, background = (
        (odd_side(side_m, height_m), odd_side(side_m, width_m))
        for side_m in (config.target_m, config.guard_m, config.background_m)
    )
    if not all(inner < outer for inner, outer in zip(guard, background, strict=True)):
        msg = (
            f"model.cfar.guard_m={config.guard_m:g} and background_m={config.background_m:g} leave"
            f" no ring of pixels of {height_m:g} x {width_m:g} m; make background_m larger, by"
            f" {2 * max(pixel_m):g} m or more"
        )
        raise ConfigError(msg)
    return Windows(target, guard, background)


def intensity_of(pixels: NDArray[Any], valid: Mask, stored_as: StoredAs) -> Field:
    """Return linear intensity, (H, W, C) float64; 0 where there is no data.

    Args:
        pixels: (H, W, C) as stored.
        valid: (H, W).
        stored_as: What the numbers mean.
    """
    stored = np.where(valid[:, :, None], pixels, 0).astype(np.float64)
    if np.issubdtype(pixels.dtype, np.integer) and stored_as is not StoredAs.db:
        np.maximum(stored, _HALF_A_STEP, out=stored)
    if stored_as is StoredAs.amplitude:
        intensity = stored**2
    elif stored_as is StoredAs.db:
        intensity = 10.0 ** (stored / 10.0)
    else:
        intensity = np.maximum(stored, 0.0)
    intensity[~valid] = 0.0
    return np.asarray(intensity)


def find_objects(
    intensity: Field, valid: Mask, config: CfarConfig, *, pixel_m: tuple[float, float]
) -> Detections:
    """Find what stands out of the clutter around it.

    A pixel whose average over the target window exceeds the threshold of ``pfa`` starts an
    object; pixels above the looser ``extent_pfa`` that are connected with it belong to it.

    A pixel's strength is (value - mean) / (threshold - mean) with mean and threshold of its own
    ring: 1 at the threshold of ``pfa``. An object's score is s / (1 + s) for its strongest pixel:
    0.5 at the threshold, towards 1 for what outshines the sea.

    Args:
        intensity: (H, W, C), linear, 0 or more.
        valid: (H, W), False where there is no data.
        config: Windows, clutter model, sizes.
        pixel_m: Height and width of a pixel on the ground, in metres.

    Returns:
        Boxes in pixels of the image, all of class 0, best first.
    """
    windows = windows_px(config, pixel_m)
    channels = _channels(intensity, config)
    strength = np.zeros(valid.shape)
    for channel in channels:
        each = standing_out(
            _on_scale(channel, config.scale), valid, config, windows, tests=len(channels)
        )
        np.maximum(strength, each, out=strength)
    groups = grouped(
        strength,
        _on_scale(intensity.max(axis=2), StoredAs.db),
        pixel_m=pixel_m,
        gap_m=config.merge_gap_m,
        max_drop_db=config.max_drop_db,
    )
    keep = groups.lengths_m >= config.min_size_m
    keep &= groups.lengths_m <= config.max_size_m
    peaks = groups.peaks[keep]
    order = np.argsort(-peaks, kind="stable")
    scores = (1 - 1 / (1 + peaks))[order]  # 1 for infinity
    return Detections.of(groups.boxes[keep][order], scores, np.zeros(len(order)))


def _channels(intensity: Field, config: CfarConfig) -> list[Field]:
    if config.channels is ChannelRule.sum:
        return [intensity.sum(axis=2)]
    return [np.ascontiguousarray(each) for each in np.moveaxis(intensity, 2, 0)]


def _on_scale(intensity: Field, scale: StoredAs) -> Field:
    if scale is StoredAs.amplitude:
        return np.sqrt(intensity)
    if scale is StoredAs.db:
        return 10.0 * np.log10(np.maximum(intensity, _SMALLEST_DB_INTENSITY))
    return intensity


def standing_out(
    values: Field, valid: Mask, config: CfarConfig, windows: Windows, *, tests: int = 1
) -> Field:
    """Return the strength of pixels that may belong to objects, 0 for all others.

    Of clutter that is what the model says, a share of ``pfa`` has a strength of 1 or more, at
    borders and beside pixels without data, too: rings are made of pixels whose window is whole,
    and a pixel whose own is not is compared as the average of fewer that it is.

    Args:
        values: (H, W) on the scale of the clutter model, before they are averaged.
        valid: (H, W), False where there is no data.
        config: Rates, looks and passes.
        windows: Target, guard and background.
        tests: Channels, each of which gets its share of ``pfa``, so that all together keep it.
    """
    cells = Cells.of(*windows.target)
    strict, loose = (
        Clutter(
            config.distribution,
            rate / tests,
            config.looks,
            cells,
            is_db=config.scale is StoredAs.db,
        )
        for rate in (config.pfa, config.extent_pfa)
    )
    values, share = averaged(values, valid, windows.target)
    is_whole = valid & (share > 1 - 0.5 / cells.window)
    found = np.zeros(valid.shape, bool)
    strength = np.zeros(valid.shape)
    for _ in range(config.passes):
        # What was found is no clutter: measured again without it, its neighbours stand out too.
        around = ring(values, is_whole & ~found, windows)
        near = values > loose.lowest(around.mean, around.std)
        near &= valid
        near &= around.count >= config.min_background_share * around.whole
        at = np.nonzero(near)
        mean, std, count = around.mean[at], around.std[at], around.count[at]
        member = values[at] > loose.threshold(mean, std, count, share[at])
        least_db = max(config.min_contrast_db, _LEAST_CONTRAST_DB)
        member &= _contrast_db(values[at], mean, config.scale) >= least_db
        rise = strict.threshold(mean, std, count, share[at]) - mean
        above = np.divide(values[at] - mean, rise, out=np.full_like(mean, np.inf), where=rise > 0)
        strength = np.zeros(valid.shape)
        strength[at] = np.where(member, above, 0.0)
        found = strength >= _CLEAR
        if not found.any():
            break
    return strength


def _contrast_db(values: Field, mean: Field, scale: StoredAs) -> Field:
    """Return how far pixels rise above the mean around them, in decibels of intensity."""
    if scale is StoredAs.db:
        return values - mean
    factor = 20.0 if scale is StoredAs.amplitude else 10.0
    quotient = np.divide(values, mean, out=np.full_like(values, np.inf), where=mean > 0)
    with np.errstate(divide="ignore"):
        return np.asarray(factor * np.log10(np.maximum(quotient, 0.0)))
