"""How often a CFAR calls clutter a target, against the rate that it was asked for.

    python benchmarks/cfar_rate.py [--images 6] [--size 700]

Clutter is drawn here, pixel by pixel, from the distribution that the detector is told: intensity of
L looks (L = 1 is exponential), K of texture order 3, normal numbers as decibels. Places are the
interior, pixels within half a window of the image's border, and pixels as near to a hole without
data. Printed is measured / asked: for 1e-3 and 1e-4 by counting pixels of strength 1 and more with
the detector's two passes; for 1e-5 and 1e-6 by the distribution's own tail above each pixel's
threshold, averaged over pixels, as counting would take 10^9 of them.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import integrate, optimize, special, stats

from sar_experiments.cfar.clutter import Cells, Clutter
from sar_experiments.cfar.detect import standing_out, windows_px
from sar_experiments.cfar.windows import averaged, ring
from sar_experiments.config import CfarConfig, ChannelRule, ClutterKind, StoredAs

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

PIXEL_M = 10.0
COUNTED, INTEGRATED = (1e-3, 1e-4), (1e-5, 1e-6)
BASE = CfarConfig(
    distribution=ClutterKind.gamma, scale=StoredAs.intensity, looks=None, pfa=1e-6,
    extent_pfa=1e-2, target_m=0.0, guard_m=290.0, background_m=530.0, min_background_share=0.2,
    passes=2, min_contrast_db=0.0, max_drop_db=15.0, merge_gap_m=0.0, min_size_m=0.0,
    max_size_m=1e9, channels=ChannelRule.any, pixel_m=PIXEL_M, class_name=None,
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A distribution and how the detector is told of it.

    Attributes:
        name: What is printed.
        draw: (generator, shape) -> values of pixels.
        tail: (levels, share of the window) -> probability that an averaged pixel exceeds them.
        config: The detector.
    """

    name: str
    draw: Callable[[np.random.Generator, tuple[int, int]], NDArray[np.float64]]
    tail: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
    config: CfarConfig


def speckled(looks: float, *, window: int = 1, known: bool = True) -> Case:
    """Return intensity of L looks, averaged over window x window pixels."""
    pixels = window**2

    def tail(level: NDArray[Any], share: NDArray[Any]) -> NDArray[Any]:
        shape = looks * share * pixels
        return np.asarray(stats.gamma.sf(level, shape, scale=1 / shape))

    named = f"{looks:g} look{'s' if looks > 1 else ''}"
    words = f"intensity, {named} {'told' if known else 'estimated'}{of_window(window)}"
    config = replace(BASE, looks=looks if known else None, target_m=window * PIXEL_M * (window > 1))
    return Case(words, lambda rng, shape: rng.gamma(looks, 1 / looks, shape), tail, config)


def logarithmic(looks: float, *, window: int, known: bool = False) -> Case:
    """Return intensity of L looks as decibels, averaged as such.

    The tail of an average of logarithms is the inverse transform of a product of gamma functions.
    """
    pixels = window**2
    frequency = np.linspace(0, 400, 40001)[1:]

    def tail_of(pixels: float) -> Callable[[NDArray[Any]], NDArray[Any]]:
        # Tilted by e^(k x), as the tail is many orders of magnitude below the density's peak.
        def exact(level: float) -> float:
            shift = 0.0

            def slope(tilt: float) -> float:
                return float(special.digamma(looks + tilt / pixels)) - level

            shift = max(float(optimize.brentq(slope, -looks * pixels * 0.99, 1e5)), 0.05)
            argument = (shift + 1j * frequency) / pixels
            logarithm = (
                pixels * (special.loggamma(looks + argument) - special.loggamma(looks))
                - (shift + 1j * frequency) * level
            )
            part = np.exp(logarithm) / (shift + 1j * frequency)
            return float(np.trapezoid(part.real, frequency) / np.pi)

        return np.vectorize(exact)

    tails: dict[float, tuple[NDArray[Any], NDArray[Any]]] = {}

    def tail(level: NDArray[Any], share: NDArray[Any]) -> NDArray[Any]:
        rate = np.empty_like(level)
        natural = level * np.log(10) / 10 + np.log(looks)
        for each in np.unique(share):
            at = share == each
            if each not in tails:
                middle = float(special.digamma(looks))
                spread = float(np.sqrt(special.polygamma(1, looks) / pixels / each))
                grid = middle + spread * np.linspace(1.5, 9, 60)
                tails[each] = grid, np.log(np.maximum(tail_of(pixels * each)(grid), 1e-30))
            rate[at] = np.exp(np.interp(natural[at], *tails[each]))
        return rate

    config = replace(
        BASE, looks=looks if known else None, scale=StoredAs.db,
        target_m=window * PIXEL_M * (window > 1),
    )  # fmt: skip
    named = f"{looks:g} look{'s' if looks > 1 else ''} {'told' if known else 'estimated'}"
    return Case(
        f"intensity in decibels, {named}{of_window(window)}",
        lambda rng, shape: 10 * np.log10(rng.gamma(looks, 1 / looks, shape)),
        tail,
        config,
    )


def textured(looks: float, order: float) -> Case:
    """Return K of L looks: gamma speckle on gamma texture, both drawn for each pixel."""

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
        texture = rng.gamma(order, 1 / order, shape)
        return texture * rng.gamma(looks, 1 / looks, shape)

    def exact(level: float) -> float:
        def at(ground: float) -> float:
            return float(
                stats.gamma.pdf(ground, order, scale=1 / order)
                * stats.gamma.sf(level, looks, scale=ground / looks)
            )

        return float(integrate.quad(at, 0, np.inf, limit=400)[0])

    levels = np.geomspace(0.5, 200, 120)
    tails = np.log([exact(level) for level in levels])

    def tail(level: NDArray[Any], share: NDArray[Any]) -> NDArray[Any]:
        return np.exp(np.interp(np.log(level), np.log(levels), tails))

    config = replace(BASE, distribution=ClutterKind.k, looks=looks)
    return Case(f"K, {looks:g} looks, order {order:g}", draw, tail, config)


def in_decibels(*, window: int = 1) -> Case:
    """Return normal decibels."""
    middle, spread = -18.0, 2.5

    def tail(level: NDArray[Any], share: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(stats.norm.sf(level, middle, spread / np.sqrt(share * window**2)))

    config = replace(
        BASE, distribution=ClutterKind.gaussian, scale=StoredAs.db,
        target_m=window * PIXEL_M * (window > 1),
    )  # fmt: skip
    return Case(
        f"normal decibels{of_window(window)}",
        lambda rng, shape: rng.normal(middle, spread, shape),
        tail,
        config,
    )


def of_window(window: int) -> str:
    """Say what is averaged."""
    return f", {window} x {window} averaged" if window > 1 else ""


def cases() -> list[Case]:
    """Return what is measured."""
    return [
        speckled(1.0), speckled(1.0, known=False),
        speckled(4.0), speckled(4.0, known=False),
        speckled(4.0, window=3), speckled(4.0, window=3, known=False),
        logarithmic(1.0, window=3), logarithmic(4.0, window=3),
        logarithmic(4.0, window=3, known=True), logarithmic(4.0, window=1),
        textured(4.0, 3.0), in_decibels(), in_decibels(window=3),
    ]  # fmt: skip


def places(size: int, reach: int) -> tuple[NDArray[np.bool_], dict[str, NDArray[np.bool_]]]:
    """Return where there is data, and the places that are counted apart."""
    valid = np.ones((size, size), bool)
    hole = slice(size // 2 - size // 20, size // 2 + size // 20)
    valid[hole, hole] = False
    around = slice(hole.start - reach, hole.stop + reach)
    beside, border = np.zeros_like(valid), np.ones_like(valid)
    beside[around, around] = True
    border[reach:-reach, reach:-reach] = False
    return valid, {
        "interior": valid & ~beside & ~border,
        "border": border,
        "beside no data": beside & valid,
    }


def rates(case: Case, *, images: int, size: int, seed: int = 0) -> dict[tuple[str, float], float]:
    """Return (place, asked rate) -> measured over asked."""
    rng = np.random.default_rng(seed)
    windows = windows_px(case.config, (PIXEL_M, PIXEL_M))
    valid, where = places(size, windows.background[0] // 2)
    total: dict[tuple[str, float], float] = {}
    for _ in range(images):
        values = case.draw(rng, valid.shape)
        of_pixels = {pfa: counted(case, values, valid, pfa) for pfa in COUNTED}
        of_pixels |= integrated(case, values, valid)
        for pfa, rate in of_pixels.items():
            for name, mask in where.items():
                key = (name, pfa)
                total[key] = total.get(key, 0.0) + float(np.nanmean(rate[mask])) / pfa / images
    return total


def counted(
    case: Case, values: NDArray[np.float64], valid: NDArray[np.bool_], pfa: float
) -> NDArray[np.float64]:
    """Return 1 for pixels that would start an object."""
    windows = windows_px(case.config, (PIXEL_M, PIXEL_M))
    config = replace(case.config, pfa=pfa)
    return np.asarray(standing_out(values, valid, config, windows) >= 1, float)


def integrated(
    case: Case, values: NDArray[np.float64], valid: NDArray[np.bool_]
) -> dict[float, NDArray[np.float64]]:
    """Return rate -> the probability of clutter above each pixel's threshold."""
    windows = windows_px(case.config, (PIXEL_M, PIXEL_M))
    averages, share = averaged(values, valid, windows.target)
    around = ring(averages, valid & (share > 1 - 1e-9), windows)
    at = np.nonzero(valid & (np.arange(valid.size).reshape(valid.shape) % 7 == 0))
    result = {}
    for pfa in INTEGRATED:
        clutter = Clutter(
            case.config.distribution,
            pfa,
            case.config.looks,
            Cells.of(*windows.target),
            is_db=case.config.scale is StoredAs.db,
        )
        level = clutter.threshold(around.mean[at], around.std[at], around.count[at], share[at])
        rate = np.full(valid.shape, np.nan)
        rate[at] = case.tail(level, share[at])
        result[pfa] = rate
    return result


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--size", type=int, default=700)
    options = parser.parse_args()
    asked = (*COUNTED, *INTEGRATED)
    print(f"| clutter | place | {' | '.join(f'{each:g}' for each in asked)} |")
    print(f"| --- | --- |{' --: |' * len(asked)}")
    for case in cases():
        found = rates(case, images=options.images, size=options.size)
        for place in ("interior", "border", "beside no data"):
            shown = " | ".join(f"{found[place, each]:.2f}" for each in asked)
            print(f"| {case.name} | {place} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
