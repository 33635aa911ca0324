"""Radar's own transforms, which albumentations lacks; named in conf/augment by ``_target_``.

To add one: subclass ``ChipTransform``, draw from the ``rng`` that it is given and from nothing
else, and refuse wrong arguments with a ValueError.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sar_experiments.config import Encoding, StoredAs
from sar_experiments.data.chip import CROWD, Chip, Image, shifted

Rng = np.random.Generator

Donor = Callable[[Rng], Chip]
"""Draws another chip of the training set, at the scale of the present one."""

SIGMOID_SLOPE = 0.18
"""Of radiometry's db_sigmoid, per decibel."""

_SMALLEST = 1e-6
_BACKGROUND = 0.5  # opacity
_PIXEL_CENTRE = 0.5  # OpenCV puts pixel centres at whole numbers, we put corners there


class ChipTransform(ABC):
    """A transform that sees image and objects together; subclass it to add one.

    Attributes:
        p: Share of chips that it is applied to, in [0, 1].
    """

    def __init__(self, p: float) -> None:
        if not 0 <= p <= 1:
            msg = f"p={p} must lie in [0, 1]"
            raise ValueError(msg)
        self.p = p

    def __call__(self, chip: Chip, rng: Rng, donor: Donor | None = None) -> Chip:
        """Apply with probability ``p``."""
        return self.apply(chip, rng, donor) if rng.random() < self.p else chip

    @abstractmethod
    def apply(self, chip: Chip, rng: Rng, donor: Donor | None) -> Chip:
        """Return the changed chip; its boxes may reach beyond the image."""


class Encoded:
    """What the numbers of an encoded image mean, so that a factor on amplitude can be applied.

    Zero stays zero: it marks no data, and what lies under the floor of the encoding.
    """

    def __init__(self, radiometry: Mapping[str, Any] | None) -> None:
        """Take over ``${radiometry}`` of the config; None is amplitude between 0 and 1.

        Raises:
            ValueError: The range of decibels is needed and not known.
        """
        radiometry = radiometry or {}
        self.encoding = _name(radiometry.get("encoding", Encoding.linear))
        # Linear images hold what their files do, amplitude or intensity; see data/radiometry.py.
        self.power = (
            1 if _name(radiometry.get("stored_as", StoredAs.amplitude)) == "amplitude" else 2
        )
        low, high = radiometry.get("low"), radiometry.get("high")
        if self.encoding != Encoding.linear.name and (low is None or high is None):
            msg = f"radiometry.encoding={self.encoding} needs radiometry.low and radiometry.high"
            raise ValueError(msg)
        # Where each image has a range of its own, the lower end is near 0.
        self.low = np.float32(0) if low is None else np.asarray(low, np.float32)
        self.span = np.float32(1) if high is None else np.asarray(high, np.float32) - self.low

    def scaled(self, image: Image, factor: Image | float) -> Image:
        """Multiply the amplitude behind an image.

        Args:
            image: (H, W, C) in [0, 1].
            factor: On amplitude; broadcast to the image.

        Returns:
            (H, W, C) float32, clipped to [0, 1].
        """
        value = image * self.span + self.low
        if self.encoding == "linear":
            value = value * factor**self.power
        else:
            change_db = 20 * np.log10(np.maximum(factor, _SMALLEST))
            value = self._brightened(value, change_db)
        scaled = np.clip((value - self.low) / self.span, 0, 1)
        return np.where(image > 0, scaled, 0).astype(np.float32)

    def _brightened(self, value: Image, change_db: Any) -> Any:  # noqa: ANN401 - array or number
        if self.encoding == "db":
            return value + change_db
        inner = np.clip(value, _SMALLEST, 1 - _SMALLEST)
        logit = np.log(inner / (1 - inner)) + SIGMOID_SLOPE * change_db
        return 1 / (1 + np.exp(-logit))


def _name(member: Any) -> str:  # noqa: ANN401 - a member of an Enum, or its name
    return str(getattr(member, "name", member))


class GammaSpeckle(ChipTransform):
    """Multiply the intensity by gamma-distributed speckle of mean 1 and variance 1/L.

    The image has speckle already, so this makes it one of fewer looks.
    """

    def __init__(
        self,
        looks: tuple[float, float] = (4.0, 16.0),
        radiometry: Mapping[str, Any] | None = None,
        p: float = 0.5,
    ) -> None:
        """Set how strong the speckle is.

        Args:
            looks: Range that L is drawn from, evenly in its logarithm; 1 is the strongest.
            radiometry: See ``Encoded``.
            p: Share of images.
        """
        super().__init__(p)
        fewest, most = looks
        if not 1 <= fewest <= most:
            msg = f"looks={list(looks)} must be two rising numbers of 1 or more"
            raise ValueError(msg)
        self.looks = (fewest, most)
        self.encoded = Encoded(radiometry)

    def apply(self, chip: Chip, rng: Rng, donor: Donor | None) -> Chip:
        """Speckle the image; each channel has speckle of its own."""
        looks = math.exp(rng.uniform(*np.log(self.looks)))
        intensity = rng.standard_gamma(looks, chip.image.shape, dtype=np.float32)
        factor = np.sqrt(intensity / np.float32(looks))
        return replace(chip, image=self.encoded.scaled(chip.image, factor))


class GainJitter(ChipTransform):
    """Multiply the whole image, as another calibration, angle or sea state would."""

    def __init__(
        self,
        limit_db: float = 1.5,
        radiometry: Mapping[str, Any] | None = None,
        p: float = 0.5,
    ) -> None:
        """Set how far the gain strays.

        Args:
            limit_db: The gain is drawn from [-limit_db, limit_db].
            radiometry: See ``Encoded``.
            p: Share of images.
        """
        super().__init__(p)
        if not limit_db > 0:
            msg = f"limit_db={limit_db} must be above 0"
            raise ValueError(msg)
        self.limit_db = limit_db
        self.encoded = Encoded(radiometry)

    def apply(self, chip: Chip, rng: Rng, donor: Donor | None) -> Chip:
        """Brighten or darken the image; all channels get the same gain."""
        gain_db = rng.uniform(-self.limit_db, self.limit_db)
        return replace(chip, image=self.encoded.scaled(chip.image, 10 ** (gain_db / 20)))


class ObjectCrop(ChipTransform):
    """Cut out a window, mostly around an object, that small objects are seen larger or oftener."""

    def __init__(self, size_px: int, centred_share: float = 0.85, p: float = 1.0) -> None:
        """Set what is cut out.

        Args:
            size_px: Height and width of the window; a smaller chip stays as it is.
            centred_share: Share of the windows that hold a drawn object, in [0, 1]; the rest,
                and those of chips without objects, lie anywhere, so that background is seen.
            p: Share of chips that are cropped.
        """
        super().__init__(p)
        if size_px < 1 or not 0 <= centred_share <= 1:
            msg = f"size_px={size_px} must be 1 or more, centred_share={centred_share} in [0, 1]"
            raise ValueError(msg)
        self.size_px = size_px
        self.centred_share = centred_share

    def apply(self, chip: Chip, rng: Rng, donor: Donor | None) -> Chip:
        """Cut the window out."""
        height, width = chip.image.shape[:2]
        sizes = np.minimum([self.size_px, self.size_px], [width, height])
        room = np.array([width, height]) - sizes
        low, high = np.zeros(2), room.astype(np.float64)
        drawn, place = rng.random(), rng.random(2)
        objects = np.flatnonzero(chip.classes != CROWD)
        if drawn < self.centred_share and len(objects):
            box = chip.boxes[rng.choice(objects)]
            # Corners of windows that hold the box; around its middle where it does not fit.
            ends = np.stack([np.ceil(box[2:]) - sizes, np.floor(box[:2])])
            low, high = np.clip([ends.min(axis=0), ends.max(axis=0)], 0, room)
        left, top = np.floor(low + place * (high - low)).astype(int).tolist()
        window = chip.image[top : top + int(sizes[1]), left : left + int(sizes[0])]
        cropped = replace(chip, image=np.ascontiguousarray(window))
        return shifted(cropped, left=-left, top=-top)


class CopyPaste(ChipTransform):
    """Paste objects of another chip where background of this chip is free.

    The surroundings of an object fade out over ``margin_px``, and it is put where the
    background is about as bright as its own, so that no edge shows and ships stay on water.
    """

    def __init__(
        self,
        max_objects: int = 3,
        margin_px: int = 8,
        max_level_gap: float = 0.06,
        tries: int = 16,
        p: float = 0.5,
    ) -> None:
        """Set how much is pasted.

        Args:
            max_objects: Per chip, 1 or more; fewer where no place is free.
            margin_px: Pixels over which the surroundings fade out, 1 or more; no other object
                lies in them, neither where the object comes from nor where it goes.
            max_level_gap: Largest difference of background brightness, in units of the encoded
                image; what remains is evened out.
            tries: Places looked at for each object.
            p: Share of chips.
        """
        super().__init__(p)
        if min(max_objects, margin_px, tries) < 1:
            msg = (
                f"max_objects={max_objects}, margin_px={margin_px} and tries={tries} must be 1"
                " or more"
            )
            raise ValueError(msg)
        self.max_objects, self.margin_px, self.tries = max_objects, margin_px, tries
        self.max_level_gap = max_level_gap

    def apply(self, chip: Chip, rng: Rng, donor: Donor | None) -> Chip:
        """Paste up to ``max_objects`` of one other chip."""
        if donor is None:
            return chip
        other = donor(rng)
        if chip.outlines and other.outlines is None:
            return chip  # its objects would leave this chip without outlines
        wanted = rng.integers(1, self.max_objects + 1)
        lonely = self._lonely(other)
        chip = replace(chip, image=chip.image.copy())
        for index in rng.permutation(lonely)[:wanted]:
            chip = self._pasted(chip, other.select(np.arange(len(other)) == index), rng)
        return chip

    def _lonely(self, other: Chip) -> NDArray[np.int64]:
        """Return the objects whose surroundings are whole and hold no other object."""
        height, width = other.image.shape[:2]
        around = _surroundings(other.boxes, self.margin_px)
        is_inside = (around[:, :2] >= 0).all(axis=1) & (around[:, 2:] <= [width, height]).all(
            axis=1
        )
        is_alone = _overlaps(around, other.boxes).sum(axis=1) == 1  # itself
        return np.flatnonzero(is_inside & is_alone & (other.classes != CROWD))

    def _pasted(self, chip: Chip, single: Chip, rng: Rng) -> Chip:
        """Paste the one object of a chip into ``chip.image``, which is altered."""
        left, top, right, bottom = _surroundings(single.boxes, self.margin_px)[0]
        opaque = _opacity(single, self.margin_px)[top:bottom, left:right, None]
        piece = single.image[top:bottom, left:right]
        place = self._place(chip, _level(piece, opaque), opaque, rng)
        if place is None:
            return chip
        new_left, new_top, level = place
        rows, cols = (
            slice(new_top, new_top + bottom - top),
            slice(new_left, new_left + right - left),
        )
        evened = np.clip(piece + (level - _level(piece, opaque)), 0, 1)
        chip.image[rows, cols] += opaque * (evened - chip.image[rows, cols])
        return _joined(chip, shifted(single, left=new_left - left, top=new_top - top))

    def _place(
        self, chip: Chip, level: Image, opaque: Image, rng: Rng
    ) -> tuple[int, int, Image] | None:
        """Return left, top and background of the free place most like the object's own."""
        height, width = opaque.shape[:2]
        room = np.array(chip.image.shape[1::-1]) - [width, height]
        if (room < 0).any():
            return None
        corners = rng.integers(0, room + 1, (self.tries, 2))
        places = np.concatenate([corners, corners + np.array([width, height])], axis=1)
        best, smallest_gap = None, self.max_level_gap
        for left, top, right, bottom in places[~_overlaps(places, chip.boxes).any(axis=1)].tolist():
            there = chip.image[top:bottom, left:right]
            gap = max(float(np.abs(each - level).max()) for each in _quarter_levels(there, opaque))
            if gap <= smallest_gap:
                best, smallest_gap = (left, top, _level(there, opaque)), gap
        return best


def _surroundings(boxes: NDArray[np.float64], margin_px: int) -> NDArray[np.int64]:
    """Return whole-pixel boxes that hold each box and its margin."""
    low, high = np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])
    return np.concatenate([low - margin_px, high + margin_px], axis=1).astype(np.int64)


def _overlaps(boxes: NDArray[Any], others: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell which boxes touch which others, (N, 4), (M, 4) -> (N, M)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.asarray((low < high).all(axis=2))


def _opacity(single: Chip, margin_px: int) -> Image:
    """Return (H, W) in [0, 1]: 1 on the object, falling to 0 at the margin's end."""
    outside = np.ones(single.image.shape[:2], np.uint8)
    if single.outlines is not None and single.follows[0]:
        polygons = [np.round(each - _PIXEL_CENTRE).astype(np.int32) for each in single.outlines[0]]
        cv2.fillPoly(outside, polygons, 0)
    else:
        left, top, right, bottom = _surroundings(single.boxes, 0)[0]
        outside[top:bottom, left:right] = 0
    distance = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    fade = 0.5 + 0.5 * np.cos(np.pi * np.minimum(distance / margin_px, 1))
    return np.asarray(fade, dtype=np.float32)


def _level(piece: Image, opaque: Image) -> Image:
    """Return the median brightness, per channel, where the object is least opaque."""
    return np.asarray(np.median(piece[opaque[:, :, 0] < _BACKGROUND], axis=0), dtype=np.float32)


def _quarter_levels(piece: Image, opaque: Image) -> list[Image]:
    """Return the levels of the four quarters: a coast inside shows in one of them."""
    row, col = piece.shape[0] // 2, piece.shape[1] // 2
    quarters = ((rows, cols) for rows in _halves(row) for cols in _halves(col))
    return [_level(piece[quarter], opaque[quarter]) for quarter in quarters]


def _halves(middle: int) -> tuple[slice, slice]:
    return slice(None, middle), slice(middle, None)


def _joined(chip: Chip, single: Chip) -> Chip:
    """Return the chip with one more object; its outline where the chip has outlines."""
    outlines = None
    if single.outlines is not None and (chip.outlines is not None or len(chip) == 0):
        outlines = (*(chip.outlines or ()), *single.outlines)
    return Chip(
        chip.image,
        np.concatenate([chip.boxes, single.boxes]),
        np.concatenate([chip.classes, single.classes]),
        outlines,
        np.concatenate([chip.visible, single.visible]),
        np.concatenate([chip.follows, single.follows]),
    )
