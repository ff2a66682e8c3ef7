"""The images and videos of a request, read and fitted to the video's size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from reeltune.engine.reporting import Reporter
from reeltune.media.inputs import contain, cover, read_clip, read_image
from reeltune.request.values import Request

_GRAY, _WHITE = 128, 255
Frames = tuple[Image.Image, ...]
Size = tuple[int, int]  # width and height in pixels


@dataclass(frozen=True)
class InputImages:
    """What a video is made from besides its prompt, fitted to its size.

    `start`, `end`: RGB. `control`: one RGB frame for each of the video's; `mask`: the same, white where the model
    draws. `references`: whole images on white.
    """

    start: Image.Image | None = None
    end: Image.Image | None = None
    control: Frames = ()
    mask: Frames = ()
    references: Frames = ()

    @property
    def none(self) -> bool:
        """Whether the video is made from the prompt alone."""
        return not (self.start or self.end or self.control or self.references)


def read_inputs(request: Request, reporter: Reporter) -> InputImages:
    """Read the files of a request and fit them to its video. Raises MediaError."""
    files, size = request.inputs, (request.width, request.height)
    control, mask = _control_and_mask(request, reporter)
    return InputImages(
        start=_image("image_start", files.start_image, request, reporter),
        end=_image("image_end", files.end_image, request, reporter),
        control=control,
        mask=mask,
        references=tuple(contain(read_image(path), *size) for path in files.reference_images),
    )


def _image(key: str, path: Path | None, request: Request, reporter: Reporter) -> Image.Image | None:
    """An image in the shape of the video, at the size that the video is computed at."""
    if path is None:
        return None
    image = read_image(path)
    width, height = request.width, request.height
    _report_crop(key, image.size, (width, height), reporter)
    computed_width, computed_height = request.computed_size
    scale = max(computed_width / width, computed_height / height)
    return cover(image, round(scale * width), round(scale * height))


def _control_and_mask(request: Request, reporter: Reporter) -> tuple[Frames, Frames]:
    """A control video and its mask, a frame for each of the video's: what is white in the mask is drawn by the model.

    What the mask leaves to the model is gray in the control video, as VACE was trained, unless the request keeps it.
    """
    files, size = request.inputs, (request.width, request.height)
    if files.control_video is None:
        return (), ()
    frames = _frames("video_guide", files.control_video, request, reporter)
    masks = _frames("video_mask", files.mask_video, request, reporter) if files.mask_video else []
    masks = [_black_and_white(mask, files.mask_inverted) for mask in masks[: len(frames)]]
    if masks and len(masks) < len(frames):
        reporter.notice(f"video_mask has {len(masks)} frames of {len(frames)}: its last one is used for the rest.")
        masks += [masks[-1]] * (len(frames) - len(masks))
    white, gray = Image.new("L", size, _WHITE), Image.new("RGB", size, (_GRAY, _GRAY, _GRAY))
    if masks and not files.control_kept:
        frames = [Image.composite(gray, frame, mask) for frame, mask in zip(frames, masks, strict=True)]
    masks = masks or [white] * len(frames)
    lacking = request.frames - len(frames)
    if lacking:
        message = f"video_guide has {len(frames)} frames of {request.frames}: the model makes up the other {lacking}."
        reporter.notice(message)
    return (*frames, *[gray] * lacking), (*masks, *[white] * lacking)


def _black_and_white(mask: Image.Image, inverted: bool) -> Image.Image:
    """A frame of a mask, black and white."""
    bright, dark = (0, _WHITE) if inverted else (_WHITE, 0)
    return mask.convert("L").point(lambda value: bright if value >= _GRAY else dark)


def _frames(key: str, path: Path, request: Request, reporter: Reporter) -> list[Image.Image]:
    """The frames of a file at the request's rate and size, at most as many as the video has."""
    size = (request.width, request.height)
    clip = read_clip(path, request.frames, request.fps, size)
    _report_crop(key, clip.size, size, reporter)
    if round(clip.rate) != request.fps:
        reporter.notice(f"{key} has {clip.rate:.4g} frames a second: {request.fps} are taken of each.")
    if clip.more:
        reporter.notice(f"{key} is longer than the video: its first {request.frames} frames are used.")
    return clip.frames


def _report_crop(key: str, own_size: Size, size: Size, reporter: Reporter) -> None:
    """A notice where an input has another size than the video, with what is cut off."""
    if own_size == size:
        return
    width, height = size
    scale = max(width / own_size[0], height / own_size[1])
    cut = round(max(own_size[0] - width / scale, own_size[1] - height / scale))
    message = f"{key} of {own_size[0]}x{own_size[1]} is scaled to {width}x{height}"
    if cut:
        side = "width" if own_size[0] * scale > width + 1 else "height"
        message += f", {cut} pixels of its {side} cut off"
    reporter.notice(f"{message}.")
