"""The bundled model as a person meets it: it shows what its prompt says, in both of its looks."""

import numpy as np
import pytest

from reeltune import Engine, Preferences, load_catalog

PALETTE = {"red": (220, 30, 30), "green": (20, 160, 50), "blue": (35, 60, 230), "yellow": (240, 215, 20)}


def make(root, id="nano_t2v", quantization="int8", **settings):
    with Engine(load_catalog(root)[id], preferences=Preferences(quantization=quantization)) as engine:
        return engine.generate(**settings).frames


def painted(frames):
    """Colour of what differs most from the border, and its centre (y, x) in the first and in the last frame."""
    pixels = frames.astype(float)
    ground = np.median(pixels[:, 0].reshape(-1, 3), axis=0)
    difference = np.abs(pixels - ground).max(-1)
    mask = difference > 0.6 * difference.max()
    return np.median(pixels[mask], axis=0), np.argwhere(mask[0]).mean(0), np.argwhere(mask[-1]).mean(0)


def psnr(left, right):
    return 10 * np.log10(255**2 / np.square(left.astype(float) - right).mean())


@pytest.mark.parametrize(
    ("colour", "shape", "direction", "axis", "sign"),
    [("red", "circle", "right", 1, 1), ("blue", "square", "left", 1, -1), ("yellow", "triangle", "down", 0, 1),
     ("green", "circle", "up", 0, -1)],
)  # fmt: skip
def test_the_prompts_colour_and_direction_are_in_the_frames(root, colour, shape, direction, axis, sign):
    frames = make(root, prompt=f"a {colour} {shape} moves {direction} on a black background", seed=11)
    seen, first, last = painted(frames)
    assert min(PALETTE, key=lambda name: np.square(seen - PALETTE[name]).sum()) == colour
    assert (last - first)[axis] * sign > 8
    assert np.median(frames[:, :2]) < 40  # the background


def test_same_seed_same_frames_another_seed_others(root):
    first, again = make(root, seed=5), make(root, seed=5)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, make(root, seed=6))


@pytest.mark.parametrize("id", ["nano_t2v", "nano_neon"])
def test_int8_stays_close_to_16_bits(root, id, record_property):
    decibels = psnr(make(root, id, "bf16", seed=5), make(root, id, "int8", seed=5))
    record_property("psnr", round(float(decibels), 1))
    assert decibels > 20  # measured: docs/benchmarks.md


def test_the_finetune_draws_the_same_prompt_with_another_look(root):
    """Neon shapes are hollow: fewer painted pixels, around the same centre of the frame's action."""
    prompt = "a red circle moves right on a black background"
    solid, neon = (make(root, id, prompt=prompt, seed=5) for id in ("nano_t2v", "nano_neon"))
    areas = [(np.abs(frames.astype(float) - 8).max(-1) > 110).sum() for frames in (solid, neon)]
    assert areas[1] < 0.85 * areas[0]
