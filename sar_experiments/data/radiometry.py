"""Radar pixels -> network input; the one place, shared by training and prediction."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sar_experiments.config import Encoding, RadiometryConfig, StoredAs
from sar_experiments.data.pixels import has_data
from sar_experiments.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Image = NDArray[Any]
    Encoded = NDArray[np.float32]

FLOOR_DB = -100.0
"""Decibels of zero intensity, far below any sensor's noise."""


@dataclass(frozen=True)
class Radiometry:
    """How stored pixels become network input; see RadiometryConfig for the meaning of each field.

    Two runs with equal radiometry see the same image the same way.
    """

    channels: int
    stored_as: StoredAs
    encoding: Encoding
    low: tuple[float, ...] | None
    high: tuple[float, ...] | None
    percentiles: tuple[float, float]
    nodata: float | None
    lee_filter_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_config(cls, config: RadiometryConfig) -> Radiometry:
        """Take over a checked config; a mean or std to be measured is empty."""
        low_percentile, high_percentile = config.percentiles
        return cls(
            channels=config.channels,
            stored_as=config.stored_as,
            encoding=config.encoding,
            low=None if config.low is None else tuple(config.low),
            high=None if config.high is None else tuple(config.high),
            percentiles=(low_percentile, high_percentile),
            nodata=config.nodata,
            lee_filter_px=config.lee_filter_px,
            mean=tuple(config.mean or ()),
            std=tuple(config.std or ()),
        )

    def encode(self, pixels: Image, *, valid: NDArray[np.bool_] | None = None) -> Encoded:
        """Encode an image.

        Args:
            pixels: (H, W, C_file), any number type.
            valid: (H, W), False where there is no data, as ``read_pixels`` and scenes give it;
                None: at this radiometry's ``nodata``. NaN and infinity never are data.

        Returns:
            (H, W, C) in [0, 1]. No data is 0 in all channels, however bright it would be as a
            number, so that after normalisation it is ``-mean / std``.

        Raises:
            DatasetError: The file's channels do not fit.
        """
        bands = np.moveaxis(pixels, 2, 0)
        if valid is None:
            marks = () if self.nodata is None else (self.nodata,)
            valid = has_data(bands, [marks] * len(bands))
        else:
            valid = valid & has_data(bands)
        pixels = self.with_channels(pixels, valid)
        encoded = self._encoded(pixels, valid)
        low, high = self._range(encoded, valid)
        scaled = np.clip((encoded - low) / (high - low), 0.0, 1.0)
        scaled[~valid] = 0.0
        return np.asarray(scaled, dtype=np.float32)

    def outside(self, pixels: Image, valid: NDArray[np.bool_]) -> float:
        """Return the share of the data, of which there is some, below ``low`` or above ``high``.

        Raises:
            DatasetError: The file's channels do not fit.
        """
        encoded = self._encoded(self.with_channels(pixels, valid), valid)
        low, high = self._range(encoded, valid)
        return float(((encoded < low) | (encoded > high))[valid].mean())

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint."""
        values = asdict(self)
        return {**values, "stored_as": self.stored_as.name, "encoding": self.encoding.name}

    def with_channels(self, pixels: Image, valid: NDArray[np.bool_]) -> Image:
        """Bring (H, W, C_file) to (H, W, C): equal channels become one, one is repeated.

        Args:
            pixels: Any number type.
            valid: (H, W); where it is False, channels need not be equal.

        Raises:
            DatasetError: The channels do not fit.
        """
        stored = pixels.shape[2]
        if stored == self.channels:
            return pixels
        if stored == 1:
            return np.repeat(pixels, self.channels, axis=2)
        if self.channels == 1 and _is_gray(pixels, valid):
            return pixels[:, :, :1]
        msg = f"the image has {stored} channels, radiometry.channels={self.channels}"
        if self.channels == 1:
            msg += " takes one, or several that are equal"
        raise DatasetError(msg)

    def _encoded(self, pixels: Image, valid: NDArray[np.bool_]) -> Encoded:
        """Return (H, W, C) in the unit of the encoding; no data is whatever comes out."""
        is_linear = self.encoding is Encoding.linear and self.stored_as is not StoredAs.db
        if is_linear and not self.lee_filter_px:
            return np.where(valid[:, :, None], pixels, 0).astype(np.float32)
        stored = np.where(valid[:, :, None], pixels, 0).astype(np.float32)
        intensity = _to_intensity(stored, self.stored_as)
        intensity[~valid] = 0.0
        if self.lee_filter_px:
            intensity = lee_filter(intensity, window_px=self.lee_filter_px)
        if self.encoding is Encoding.linear:
            return np.sqrt(intensity) if self.stored_as is StoredAs.amplitude else intensity
        level_db = intensity_to_db(intensity)
        if self.encoding is Encoding.db:
            return level_db
        # xView3's winning solution: sigmoid((dB + 20) * 0.18), steepest where ships and sea meet.
        return np.asarray(1.0 / (1.0 + np.exp(-(level_db + 20.0) * 0.18)), dtype=np.float32)

    def _range(
        self, encoded: Encoded, valid: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return what becomes 0 and what becomes 1, (C,) each."""
        low, high = (
            None if v is None else np.asarray(v, np.float32) for v in (self.low, self.high)
        )
        if low is None or high is None:
            found = [
                np.percentile(channel[valid], self.percentiles) if valid.any() else (0.0, 1.0)
                for channel in np.moveaxis(encoded, 2, 0)
            ]
            measured = np.asarray(found, dtype=np.float32)
            low = measured[:, 0] if low is None else low
            high = measured[:, 1] if high is None else high
        return low, np.maximum(high, np.nextafter(low, np.float32(np.inf)))


def intensity_to_db(intensity: Encoded, *, floor_db: float = FLOOR_DB) -> Encoded:
    """Convert linear intensity (power) to decibels.

    Amplitude must be squared first: 10 log10 belongs to power.

    Args:
        intensity: Any shape, linear, 0 or more.
        floor_db: Returned where the intensity is at or below this level, zero included.
    """
    floor = np.float32(10.0 ** (floor_db / 10.0))
    return np.asarray(10.0 * np.log10(np.maximum(intensity, floor)), dtype=np.float32)


def lee_filter(intensity: Encoded, *, window_px: int) -> Encoded:
    """Smooth multiplicative speckle where a window is homogeneous, keep it where it is not.

    J.-S. Lee, "Digital image enhancement and noise filtering by use of local statistics", IEEE
    PAMI 2(2), 1980, for noise of unit mean; its relative variance is taken from the image: the
    lower decile of the windows' own.

    Args:
        intensity: (H, W, C), linear, 0 or more.
        window_px: Side of the window, odd.

    Returns:
        (H, W, C), linear.
    """
    from scipy.ndimage import uniform_filter  # late: SciPy is 10 MB

    size = (window_px, window_px, 1)
    values = intensity.astype(np.float64)
    mean = uniform_filter(values, size)
    variance = np.maximum(uniform_filter(values**2, size) - mean**2, 0.0)
    relative = np.divide(variance, mean**2, out=np.zeros_like(mean), where=mean > 0)
    noise = float(np.percentile(relative[mean > 0], 10)) if np.any(mean > 0) else 0.0
    signal = np.maximum(variance - noise * mean**2, 0.0) / (1.0 + noise)
    weight = np.divide(signal, variance, out=np.zeros_like(mean), where=variance > 0)
    return np.asarray(mean + weight * (values - mean), dtype=np.float32)


def describe_difference(a: Radiometry, b: Radiometry) -> str:
    """Name the fields in which two differ; empty for none."""
    first, second = a.to_dict(), b.to_dict()
    return ", ".join(f"{k}={first[k]} and {second[k]}" for k in first if first[k] != second[k])


def from_dict(values: Mapping[str, Any]) -> Radiometry:
    """Take over what ``to_dict`` returned, lists for tuples included."""
    plain: dict[str, Any] = {
        key: tuple(v) if isinstance(v, list) else v for key, v in values.items()
    }
    enums = {"stored_as": StoredAs[values["stored_as"]], "encoding": Encoding[values["encoding"]]}
    return Radiometry(**{**plain, **enums})


def _to_intensity(stored: Encoded, stored_as: StoredAs) -> Encoded:
    if stored_as is StoredAs.amplitude:
        return stored**2
    if stored_as is StoredAs.intensity:
        return np.maximum(stored, 0.0)
    return np.asarray(10.0 ** (stored / 10.0), dtype=np.float32)


def _is_gray(pixels: Image, valid: NDArray[np.bool_]) -> bool:
    return bool(((pixels == pixels[:, :, :1]).all(axis=2) | ~valid).all())
