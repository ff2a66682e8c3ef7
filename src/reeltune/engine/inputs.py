"""The images and videos of a request: which were asked for, read and fitted to the video's size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from reeltune.media.inputs import contain, cover, read_clip, read_image
from reeltune.request.letters import inverts_mask, keeps_masked

if TYPE_CHECKING:
    from reeltune.request.parse import Request

_GRAY, _WHITE = 128, 255


@dataclass(frozen=True)
class Given:
    """What was given, fitted to the video's size.

    `start`, `end`: RGB; `guide`: one frame for each of the video's; `mask`: the same, white where the model draws;
    `references`: whole, on white.
    """

    start: Image.Image | None = None
    end: Image.Image | None = None
    guide: tuple[Image.Image, ...] = ()
    mask: tuple[Image.Image, ...] = ()
    references: tuple[Image.Image, ...] = ()


def read(request: Request, say: Callable[[str], None]) -> Given:
    """Read the files of a request and fit them to its video. Raises MediaError.

    What the mask leaves to the model is gray in the guide, as VACE was trained, unless the letters of
    `video_prompt_type` ask for the video as it is.
    """
    paths, size = request.inputs, (request.width, request.height)
    count, fps, letters = request.frames, request.fps, request.settings.get("video_prompt_type") or ""

    def image(key: str) -> Image.Image | None:
        if key not in paths:
            return None
        picture = read_image(paths[key][0])
        _tell_crop(key, picture.size, size, say)
        return cover(picture, *size)

    guide: tuple[Image.Image, ...] = ()
    mask: tuple[Image.Image, ...] = ()
    if "video_guide" in paths:
        frames = _frames("video_guide", paths, size, count, fps, say)
        masks = _frames("video_mask", paths, size, count, fps, say) if "video_mask" in paths else []
        guide, mask = _controls(frames, masks, size, count, letters, say)
    references = tuple(contain(read_image(path), *size) for path in paths.get("image_refs", ()))
    return Given(image("image_start"), image("image_end"), guide, mask, references)


def _controls(
    frames: list[Image.Image],
    masks: list[Image.Image],
    size: tuple[int, int],
    count: int,
    letters: str,
    say: Callable[[str], None],
) -> tuple[tuple[Image.Image, ...], tuple[Image.Image, ...]]:
    """A control video and its mask, `count` frames each: what is white in the mask is the model's to draw."""
    white, gray = Image.new("L", size, _WHITE), Image.new("RGB", size, (_GRAY,) * 3)
    lacking = count - len(frames)
    if lacking:
        say(f"video_guide has {len(frames)} frames of {count}: the model makes up the other {lacking}.")
    holes = [_hole(frame, inverts_mask(letters)) for frame in masks[: len(frames)]]
    if masks and len(holes) < len(frames):
        say(f"video_mask has {len(holes)} frames of {len(frames)}: its last one holds on.")
        holes += [holes[-1]] * (len(frames) - len(holes))
    if masks and not keeps_masked(letters):
        frames = [Image.composite(gray, frame, hole) for frame, hole in zip(frames, holes, strict=True)]
    holes = holes or [white] * len(frames)
    return (*frames, *[gray] * lacking), (*holes, *[white] * lacking)


def _hole(mask: Image.Image, inverted: bool) -> Image.Image:
    """Black and white of a frame of the mask."""
    bright, dark = (0, _WHITE) if inverted else (_WHITE, 0)
    return mask.convert("L").point(lambda value: bright if value >= _GRAY else dark)


def _frames(
    key: str,
    paths: Mapping[str, tuple[Path, ...]],
    size: tuple[int, int],
    count: int,
    fps: int,
    say: Callable[[str], None],
) -> list[Image.Image]:
    clip = read_clip(paths[key][0], count, fps, size)
    _tell_crop(key, clip.size, size, say)
    if round(clip.rate) != fps:
        say(f"{key} has {clip.rate:.4g} frames a second: {fps} are taken of each.")
    if clip.more:
        say(f"{key} is longer than the video: its first {count} frames are used.")
    return clip.frames


def _tell_crop(key: str, own: tuple[int, int], size: tuple[int, int], say: Callable[[str], None]) -> None:
    width, height = size
    if own == size:
        return
    scale = max(width / own[0], height / own[1])
    cut = round(max(own[0] - width / scale, own[1] - height / scale))
    what = f", {cut} pixels of its {'width' if own[0] * scale > width + 1 else 'height'} cut off" if cut else ""
    say(f"{key} of {own[0]}x{own[1]} is scaled to {width}x{height}{what}.")
