"""What stands on the ground of a drawn street, and the material that walls, fences and trucks share."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

SKY, BUILDING, FENCE, ROAD, PAVEMENT, POLE, VEHICLE, PEDESTRIAN = range(8)

PANE = np.array([48, 52, 60], np.float32)
STRIP = np.array([58, 54, 52], np.float32)
TYRE = np.array([28, 28, 30], np.float32)


def shade(rng: np.random.Generator, around: float | np.ndarray, spread: float = 14) -> np.ndarray:
    """A colour near `around`, float32 [3]."""
    return (around + rng.uniform(-spread, spread, 3)).astype(np.float32)


def share(value: np.ndarray) -> np.ndarray:
    """The part behind the point; several times faster than `value % 1`."""
    return value - np.floor(value)


def material_code(along: np.ndarray, up: np.ndarray, pane: tuple[float, ...]) -> np.ndarray:
    """What is at places `along` and `up` a surface: 0 plain, 1 a joint, 2 a dark pane.

    `pane` is (period along, period up, share along, share up).
    """
    across, rise = share(along * (1 / pane[0])) - 0.5, share(up * (1 / pane[1])) - 0.5
    panes = (np.abs(across) < pane[2] / 2) & (np.abs(rise) < pane[3] / 2)
    joints = (share(along * 4) < 0.12) | (share(up * 6) < 0.15)
    return np.where(panes, 2, joints.astype(np.intp))


def material_colors(base: np.ndarray) -> np.ndarray:
    """The colours of the three codes, float32 [..., 3, 3], for base colours [..., 3]."""
    return np.stack([base, base * 0.86, np.broadcast_to(PANE, base.shape)], -2).astype(np.float32)


# The parts of a figure, from back to front: masks [h, w] and colours, at u [1, w] beside its middle and v [h, 1] above
# its foot; `pixel` is half a pixel in the same unit, below which nothing would be seen.
_Parts = list[tuple[np.ndarray, np.ndarray]]


def _car(rng: np.random.Generator, material: np.ndarray, u: np.ndarray, v: np.ndarray, pixel: float) -> _Parts:
    half = rng.uniform(0.5, 1.0)
    color = shade(rng, material) if rng.random() < 0.5 else rng.uniform(40, 215, 3).astype(np.float32)
    slope = (v - 0.5) * (0.6 * half)
    side = np.abs(u)
    return [
        ((side <= half) & (v >= 0.14) & (v <= 0.55), color),
        ((v >= 0.5) & (v <= 0.92) & (side <= half * 0.8 - slope), color * 0.95),
        ((v >= 0.56) & (v <= 0.85) & (side <= half * 0.72 - slope) & (side > 0.04), PANE),
        ((side <= half) & (v >= 0.3) & (v <= 0.35), color * 0.75),
        ((side - half * 0.62) ** 2 + (v - 0.16) ** 2 < 0.17**2, TYRE),
    ]


def _truck(rng: np.random.Generator, material: np.ndarray, u: np.ndarray, v: np.ndarray, pixel: float) -> _Parts:
    half, tall = rng.uniform(0.8, 1.3), rng.uniform(1.4, 2.2)
    pane = (rng.uniform(0.6, 1.1), rng.uniform(0.8, 1.3), rng.uniform(0.3, 0.6), rng.uniform(0.4, 0.6))
    side = material_colors(shade(rng, material))[material_code(u + half, v, pane)]
    return [
        ((np.abs(u) <= half) & (v >= 0.22) & (v <= tall), side),
        ((np.abs(u) - half * 0.7) ** 2 + (v - 0.18) ** 2 < 0.2**2, TYRE),
    ]


def _pedestrian(rng: np.random.Generator, material: np.ndarray, u: np.ndarray, v: np.ndarray, pixel: float) -> _Parts:
    tall, stride = rng.uniform(0.85, 1.15), rng.uniform(0.03, 0.13)
    coat = STRIP if rng.random() < 0.3 else rng.uniform(30, 200, 3).astype(np.float32)
    skin = np.array([190, 150, 125], np.float32) * np.float32(rng.uniform(0.5, 1.1))
    spread = stride * (1 - np.clip(v / (0.5 * tall), 0, 1)) + 0.04
    return [
        ((np.abs(np.abs(u) - spread) < max(0.045, pixel)) & (v >= 0) & (v < 0.5 * tall), STRIP),
        ((np.abs(u) < 0.13 + pixel / 2) & (v >= 0.45 * tall) & (v < 0.84 * tall), coat),
        (u**2 + (v - 0.92 * tall) ** 2 < (0.085 * tall + pixel / 3) ** 2, skin),
    ]


def _pole(rng: np.random.Generator, material: np.ndarray, u: np.ndarray, v: np.ndarray, pixel: float) -> _Parts:
    tall, kind = rng.uniform(2.2, 4.2), rng.random()
    parts = [((np.abs(u) <= max(0.05, pixel)) & (v >= 0) & (v <= tall), STRIP)]
    if kind < 0.4:
        parts.append(((u >= 0) & (u <= 0.6) & (v >= tall - max(0.09, 2 * pixel)) & (v <= tall), STRIP))
    elif kind < 0.6:
        parts.append(((np.abs(u) <= 0.25) & (v >= tall - 0.5) & (v <= tall), STRIP * 1.6))
    return parts


class Figure(NamedTuple):
    """What a thing is drawn by: its class, how far it reaches to each side and up at most, and its parts."""

    index: int
    reach: float
    tall: float
    parts: Callable[[np.random.Generator, np.ndarray, np.ndarray, np.ndarray, float], _Parts]


FIGURES = {
    "car": Figure(VEHICLE, 1.0, 1.0, _car),
    "truck": Figure(VEHICLE, 1.3, 2.3, _truck),
    "pedestrian": Figure(PEDESTRIAN, 0.3, 1.2, _pedestrian),
    "pole": Figure(POLE, 0.65, 4.3, _pole),
}
