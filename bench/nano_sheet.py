"""The pictures of the README: what the shipped weights make, both looks from the same prompts and seeds, and what they
make of a control video or an image.

python bench/nano_sheet.py          writes nano.png, looks.png and given.png into docs/images/
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from nano_control import control, image, run
from reeltune import Engine, load_catalog

IMAGES = Path(__file__).parents[1] / "docs" / "images"
PROMPTS = (
    "a red circle moves right on a black background",
    "a blue square slides to the left over a white background",
    "a yellow triangle drifts up on a gray background",
    "gray background, a pink circle moving downwards",
    "a green triangle glides rightwards on a white backdrop",
    "a large cyan square goes up in front of a black background",
    "an orange circle travels to the left on a gray backdrop",
    "a purple square floats down on a white background",
)
_SCALE, _GAP = 2, 4


def strip(frames: np.ndarray, count: int) -> np.ndarray:
    """`count` frames of a clip side by side, enlarged."""
    chosen = np.linspace(0, len(frames) - 1, count).round().astype(int)
    large = frames[chosen].repeat(_SCALE, 1).repeat(_SCALE, 2)
    return np.concatenate([np.pad(frame, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=200) for frame in large], 1)


def make(id: str) -> list[np.ndarray]:
    with TemporaryDirectory() as root, Engine(load_catalog(root)[id]) as engine:
        return [engine.generate(prompt=text, seed=7 + number).frames for number, text in enumerate(PROMPTS)]


def followed(count: int = 4) -> list[np.ndarray]:
    """Control videos with what nano_vace makes of them below, and images with what nano_i2v makes of them."""
    rows = []
    for _, given, frames in run("nano_vace", "int8", count, control):
        rows.append(np.concatenate([strip(given, 5), strip(frames, 5)]))
    left = np.concatenate(rows[: count // 2])
    for _, given, frames in run("nano_i2v", "int8", count, image):
        alone = np.concatenate([strip(given[None], 1), np.full_like(strip(given[None], 4), 200)], 1)
        rows.append(np.concatenate([alone, strip(frames, 5)]))
    return [left, np.concatenate(rows[count : count + count // 2])]


def main() -> None:
    solid, neon = make("nano_t2v"), make("nano_neon")
    rows = [strip(frames, 5) for frames in solid]
    pairs = [np.concatenate([left, right], 1) for left, right in zip(rows[::2], rows[1::2], strict=True)]
    Image.fromarray(np.concatenate(pairs)).save(IMAGES / "nano.png", optimize=True)
    looks = [np.concatenate([strip(left, 5), strip(right, 5)], 1) for left, right in zip(solid, neon, strict=True)]
    Image.fromarray(np.concatenate(looks[:4])).save(IMAGES / "looks.png", optimize=True)
    Image.fromarray(np.concatenate(followed(), 1)).save(IMAGES / "given.png", optimize=True)
    for text in PROMPTS:
        print(text)


if __name__ == "__main__":
    main()
