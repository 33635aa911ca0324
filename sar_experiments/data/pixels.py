"""Stored numbers -> physical values and where they are data; the one place, for chips and scenes.

A pixel has data where every band has: its stored number is none that marks no data (of the file,
per band, or of the radiometry), finite, of a size that a radar's can be, and no alpha band or mask
hides it. Only then do the scale and the offset that a file's bands may carry make values of the
numbers (``value = number * scale + offset``, as GDAL's band model has it).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

Bands = NDArray[Any]
"""(C, H, W), as rasterio reads them."""

Mask = NDArray[np.bool_]
"""(H, W), True where there is data."""

_LARGEST = 1e18  # beyond are fill values (1e20, 1e36, 3.4e38), whether a header names them or not


def has_data(bands: Bands, marks: Sequence[Sequence[float]] = ()) -> Mask:
    """Return (H, W): True where every band has data.

    Args:
        bands: (C, H, W) numbers as stored; for pixels of a last axis, ``np.moveaxis(…, 2, 0)``.
        marks: For each band the numbers that mark no data; empty for none. NaN and infinity
            always do.
    """
    valid = np.ones(bands.shape[1:], bool)
    for index, band in enumerate(bands):
        if np.issubdtype(band.dtype, np.floating):
            valid &= (band > -_LARGEST) & (band < _LARGEST)  # False for NaN
        for mark in marks[index] if marks else ():
            stored = _as_stored(mark, band.dtype)
            if stored is not None:
                valid &= band != stored
    return valid


def _as_stored(mark: float, dtype: np.dtype[Any]) -> Any:  # noqa: ANN401 - a NumPy scalar
    """Return a mark as the dtype holds it; None where it cannot, so that no pixel is one."""
    if not math.isfinite(mark):
        return None
    if np.issubdtype(dtype, np.floating):
        return dtype.type(mark)  # a header holds a double
    limits = np.iinfo(dtype)
    return dtype.type(mark) if mark == int(mark) and limits.min <= mark <= limits.max else None


@dataclass(frozen=True)
class Reading:
    """How some bands of one open raster are read.

    Attributes:
        numbers: Of the bands, from 1.
        marks: For each band the stored numbers that mark no data.
        scales: For each band the factor of its numbers; all 1 with offsets of 0 leaves them.
        offsets: For each band what is added after that.
        alpha: Number of the band that hides pixels where it is 0; None without.
        has_mask: Whether a mask beside the bands does.
    """

    numbers: tuple[int, ...]
    marks: tuple[tuple[float, ...], ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    alpha: int | None
    has_mask: bool

    @classmethod
    def of(
        cls,
        raster: Any,  # noqa: ANN401 - rasterio is untyped
        *,
        numbers: Sequence[int] | None = None,
        nodata: float | None = None,
    ) -> Reading:
        """Return how a raster is read.

        Args:
            raster: Open.
            numbers: Bands, from 1; None takes all but alpha.
            nodata: A stored number that marks no data besides the file's own.

        Raises:
            ValueError: A scale or an offset makes no values.
        """
        alphas = [n for n, kind in enumerate(raster.colorinterp, 1) if kind.name == "alpha"]
        if numbers is None:
            numbers = [n for n in range(1, raster.count + 1) if n not in alphas] or [1]
        own = [raster.nodatavals[n - 1] for n in numbers]
        flags = {flag.name for flag in raster.mask_flag_enums[numbers[0] - 1]}
        return cls(
            numbers=tuple(numbers),
            marks=tuple(tuple({m for m in (each, nodata) if m is not None}) for each in own),
            scales=tuple(float(raster.scales[n - 1]) for n in numbers),
            offsets=tuple(float(raster.offsets[n - 1]) for n in numbers),
            alpha=next((n for n in alphas if n not in numbers), None),
            has_mask="per_dataset" in flags and "alpha" not in flags,
        )

    def __post_init__(self) -> None:
        for number, scale, offset in zip(self.numbers, self.scales, self.offsets, strict=True):
            if scale == 0 or not math.isfinite(scale) or not math.isfinite(offset):
                msg = (
                    f"band {number} has scale={scale:g} and offset={offset:g}; accepted are finite"
                    " numbers, the scale not 0"
                )
                raise ValueError(msg)

    @property
    def is_scaled(self) -> bool:
        """Whether the numbers are not the values."""
        return any(s != 1 for s in self.scales) or any(o != 0 for o in self.offsets)

    def dtype(self, stored: str) -> str:
        """Return NumPy's name of the values' type for that of the numbers."""
        return ("float64" if stored == "float64" else "float32") if self.is_scaled else stored

    def values(self, stored: Bands) -> Bands:
        """Return (C, H, W) values of (C, H, W) numbers; unscaled ones as they are."""
        if not self.is_scaled:
            return stored
        shape = (-1, 1, 1)
        scales, offsets = (np.reshape(each, shape) for each in (self.scales, self.offsets))
        with np.errstate(over="ignore", invalid="ignore"):  # fill values
            return np.asarray(stored * scales + offsets, self.dtype(stored.dtype.name))

    @property
    def first(self) -> Reading:
        """How the first of the bands is read by itself."""
        return replace(
            self,
            numbers=self.numbers[:1],
            marks=self.marks[:1],
            scales=self.scales[:1],
            offsets=self.offsets[:1],
        )

    def read(
        self,
        raster: Any,  # noqa: ANN401
        window: Any = None,  # noqa: ANN401
        *,
        grays: NDArray[np.uint8] | None = None,
        **how: Any,  # noqa: ANN401
    ) -> tuple[Bands, Mask]:
        """Read values (C, H, W), and (H, W) where they are data.

        Args:
            raster: The one that this was made of, or another handle of it.
            window: What of it, rasterio's; None reads all.
            grays: What the numbers of a palette stand for.
            how: rasterio's ``out_shape`` of (H, W) and ``resampling``. To average numbers and to
                average values is the same.
        """
        stored = raster.read(list(self.numbers), window=window, **_for_bands(how, self.numbers))
        stored = stored if grays is None else grays[stored]
        valid = has_data(stored, self.marks)
        if self.alpha is not None:
            valid &= raster.read(self.alpha, window=window, **how) > 0
        elif self.has_mask:
            valid &= raster.read_masks(self.numbers[0], window=window, **how) > 0
        return self.values(stored), valid


def _for_bands(how: dict[str, Any], numbers: Sequence[int]) -> dict[str, Any]:
    shape = how.get("out_shape")
    return how if shape is None else {**how, "out_shape": (len(numbers), *shape)}
