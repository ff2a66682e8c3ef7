"""What a nano clip shows, read out of its frames by plain image arithmetic: no model, nothing learned."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parents[1] / "training" / "nano"))
from world import BACKGROUNDS, COLOURS

_FAINT = 30.0  # difference from the background, of 255, below which a frame shows nothing
_RIM = 0.95  # share of a silhouette that is painted: 1 for solid shapes, 0.6 to 0.9 for neon ones


@dataclass(frozen=True)
class Reading:
    """Words of the world, or "none" where the frames show nothing that could be read.

    `filling`: how strongly a silhouette is painted on average, of its strongest paint: 1 for a solid shape.
    """

    colour: str
    shape: str
    direction: str
    background: str
    look: str
    filling: float = 1.0


def read(frames: npt.NDArray[np.uint8]) -> Reading:
    """Read a clip, uint8 [frames, height, width, 3]."""
    pixels = frames.astype(np.float32)
    border = np.concatenate([pixels[:, :2].reshape(-1, 3), pixels[:, :, :2].reshape(-1, 3)])
    ground = np.median(border, axis=0)
    background = _nearest(ground, BACKGROUNDS)
    difference = np.abs(pixels - ground).max(-1)  # [frames, height, width]
    strength = np.quantile(difference.reshape(len(frames), -1), 0.98, axis=1)  # [frames]
    if np.median(strength) < _FAINT:
        return Reading("none", "none", "none", background, "none")
    painted = difference > (strength / 2)[:, None, None]
    colour = _nearest(np.median(pixels[difference > 0.8 * strength[:, None, None]], axis=0), COLOURS)
    outlines = [_silhouette(mask) for mask in painted]
    looks = [mask.sum() / area for mask, (area, _) in zip(painted, outlines, strict=True)]
    fills = [area / box for area, box in outlines]
    look = "solid" if np.median(looks) > _RIM else "neon"
    filling = np.median(
        [_filling(row, mask) / most for row, mask, most in zip(difference, painted, strength, strict=True)]
    )
    shape = _shape(float(np.median(fills)))
    return Reading(colour, shape, _direction(painted), background, look, float(filling))


def centres(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Centre (x, y) of what is painted in each frame, [frames, 2] in pixels; not a number where nothing is."""
    pixels = frames.astype(np.float32)
    border = np.concatenate([pixels[:, :2].reshape(-1, 3), pixels[:, :, :2].reshape(-1, 3)])
    difference = np.abs(pixels - np.median(border, axis=0)).max(-1)
    strength = np.quantile(difference.reshape(len(frames), -1), 0.98, axis=1)
    painted = difference > np.maximum(strength / 2, _FAINT)[:, None, None]
    return np.array([np.argwhere(mask).mean(0)[::-1] if mask.any() else (np.nan, np.nan) for mask in painted])


def _nearest(value: npt.NDArray[np.float32], palette: dict[str, tuple[int, int, int]]) -> str:
    return min(palette, key=lambda name: float(np.square(value - palette[name]).sum()))


def _silhouette(mask: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Area within the outline (row by row, so that a rim counts as filled), and area of its bounding box."""
    rows = np.flatnonzero(mask.any(1))
    columns = np.flatnonzero(mask.any(0))
    widths = [np.ptp(np.flatnonzero(mask[row])) + 1 for row in rows]
    return float(sum(widths)), float(len(widths) * (np.ptp(columns) + 1))


def _filling(difference: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_]) -> float:
    """Mean difference from the background within the outline, row by row."""
    spans = [np.flatnonzero(row) for row in mask]
    inside = [line[span[0] : span[-1] + 1] for line, span in zip(difference, spans, strict=True) if len(span)]
    return float(np.concatenate(inside).mean())


def _shape(fill: float) -> str:
    """By how much of its bounding box a silhouette fills: half, π/4 or all of it."""
    return "triangle" if fill < 0.67 else "circle" if fill < 0.89 else "square"


def _direction(painted: npt.NDArray[np.bool_]) -> str:
    """Where the painted pixels' centre goes between the first and the last quarter of the clip."""
    centres = np.array([np.argwhere(mask).mean(0) for mask in painted])  # [frames, (y, x)]
    quarter = max(1, len(painted) // 4)
    down, right = centres[-quarter:].mean(0) - centres[:quarter].mean(0)
    if abs(right) > abs(down):
        return "right" if right > 0 else "left"
    return "down" if down > 0 else "up"
