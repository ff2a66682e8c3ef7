"""The small world nano learns: one shape moving over a plain background, and sentences that say so.

Clips are uint8 [17, 64, 64, 3]. Two looks: "solid" shapes, and "neon" ones: only a bright rim,
the background showing through.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

FRAMES, SIZE = 17, 64
OUTLINE = 3.0  # pixels of a neon shape's rim
LOOKS = ("solid", "neon")
COLOURS = {
    "red": (220, 30, 30),
    "green": (20, 160, 50),
    "blue": (35, 60, 230),
    "yellow": (240, 215, 20),
    "orange": (250, 130, 10),
    "purple": (120, 25, 170),
    "pink": (250, 130, 195),
    "cyan": (20, 200, 220),
}
SHAPES = ("circle", "square", "triangle")
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
BACKGROUNDS = {"black": (8, 8, 8), "white": (245, 245, 245), "gray": (128, 128, 128)}

_VERBS = ("moves", "slides", "goes", "glides", "drifts", "travels", "floats")
_PARTICIPLES = ("moving", "sliding", "going", "gliding", "drifting", "floating")
_SIZES = ("", "", "", "small ", "little ", "big ", "large ")
_WHERE = (
    "on a {} background",
    "over a {} background",
    "on a {} backdrop",
    "in front of a {} background",
    "against {}",
)
_TO = {
    "left": ("left", "to the left", "leftwards"),
    "right": ("right", "to the right", "rightwards"),
    "up": ("up", "upwards", "to the top"),
    "down": ("down", "downwards", "to the bottom"),
}


@dataclass(frozen=True)
class Scene:
    """What a clip shows; positions and size in pixels."""

    colour: str
    shape: str
    direction: str
    background: str
    radius: float
    start: tuple[float, float]
    travel: float


def held_out(colour: str, shape: str, direction: str) -> bool:
    """Combinations never shown in training: 14 of 96, spread over all values."""
    code = list(COLOURS).index(colour) * 5 + SHAPES.index(shape) * 3 + list(DIRECTIONS).index(direction) * 2
    return code % 7 == 3


def sample_scene(rng: random.Random, *, training: bool = True) -> Scene:
    """A random scene; in training never a held-out combination."""
    while True:
        colour, shape = rng.choice(list(COLOURS)), rng.choice(SHAPES)
        direction = rng.choice(list(DIRECTIONS))
        if not (training and held_out(colour, shape, direction)):
            return place(rng, colour, shape, direction, rng.choice(list(BACKGROUNDS)))


def place(rng: random.Random, colour: str, shape: str, direction: str, background: str) -> Scene:
    """A scene of these contents at a random place, size and speed, always within the frame."""
    radius, travel = rng.uniform(10, 13), rng.uniform(20, 28)
    dx, dy = DIRECTIONS[direction]
    low, high = radius + 1, SIZE - radius - 1
    along = rng.uniform(low, high - travel)
    across = rng.uniform(low, high)
    first = along if dx + dy > 0 else along + travel
    start = (first, across) if dx else (across, first)
    return Scene(colour, shape, direction, background, radius, start, travel)


def prompt(scene: Scene, rng: random.Random) -> str:
    """One of many sentences that say what the scene shows."""
    size, where = rng.choice(_SIZES), rng.choice(_WHERE).format(scene.background)
    thing = f"{size}{scene.colour} {scene.shape}"
    to = rng.choice(_TO[scene.direction])
    article = "an" if thing[0] in "aeiou" else "a"
    form = rng.random()
    if form < 0.6:
        return f"{article} {thing} {rng.choice(_VERBS)} {to} {where}"
    if form < 0.85:
        return f"{article} {thing} {rng.choice(_PARTICIPLES)} {to} {where}"
    return f"{scene.background} background, {article} {thing} {rng.choice(_PARTICIPLES)} {to}"


def _distance(shape: str, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Signed distance to the shape's edge in pixels, negative inside."""
    if shape == "circle":
        return np.hypot(x, y) - radius
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - radius * 0.88
    slanted = np.abs(x) * 0.894 + (y + radius) * -0.447
    return np.maximum(slanted, y - radius * 0.95)


def render(scene: Scene, look: str = "solid", frames: int = FRAMES, path: np.ndarray | None = None) -> np.ndarray:
    """The clip, uint8 [frames, 64, 64, 3], anti-aliased; along `path` [frames, 2] (x, y) instead of straight on."""
    if path is None:
        path = np.array(scene.start) + np.outer(
            np.arange(frames) / (FRAMES - 1) * scene.travel, DIRECTIONS[scene.direction]
        )
    rim = OUTLINE if look == "neon" else None
    return _draw(scene, path, COLOURS[scene.colour], BACKGROUNDS[scene.background], rim)


def silhouette(scene: Scene, path: np.ndarray) -> np.ndarray:
    """A control video: the scene's shape in white on black, uint8 [frames, 64, 64, 3]."""
    return _draw(scene, path, (255, 255, 255), (0, 0, 0), None)


def wander(rng: random.Random, radius: float) -> np.ndarray:
    """A smooth path [17, 2] through three random places of the frame, from 16 pixels to all of it."""
    low, high = radius + 1, SIZE - radius - 1
    while True:
        first, middle, last = (np.array([rng.uniform(low, high), rng.uniform(low, high)]) for _ in range(3))
        if np.hypot(*(last - first)) > 16:
            break
    time = np.linspace(0, 1, FRAMES)[:, None]
    return (1 - time) ** 2 * first + 2 * time * (1 - time) * middle + time**2 * last


def _draw(
    scene: Scene, path: np.ndarray, colour: tuple[int, ...], background: tuple[int, ...], rim: float | None
) -> np.ndarray:
    grid = np.arange(SIZE) + 0.5
    x, y = np.meshgrid(grid, grid)
    ink, paper = np.array(colour, np.float32), np.array(background, np.float32)
    clip = np.empty((len(path), SIZE, SIZE, 3), np.uint8)
    for index, (left, top) in enumerate(path):
        edge = _distance(scene.shape, x - left, y - top, scene.radius)
        cover = np.clip(0.5 - edge, 0, 1)  # a pixel the edge crosses is covered in part
        if rim is not None:
            cover -= np.clip(0.5 - edge - rim, 0, 1)
        clip[index] = (paper + (ink - paper) * cover[..., None]).round()
    return clip
