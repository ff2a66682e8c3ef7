"""The images and videos of a request, read and fitted to the video's size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from reeltune.engine.reporting import Reporter
from reeltune.media.inputs import contain, cover, read_clip, read_image
from reeltune.media.tracks import Tracks, in_pixels, read_tracks
from reeltune.request.values import Request

_GRAY, _WHITE = 128, 255
_FACE_SIDE = 512  # pixels of a side of the faces that motion encoders were trained on
Frames = tuple[Image.Image, ...]
Size = tuple[int, int]  # width and height in pixels


@dataclass(frozen=True)
class InputImages:
    """What a video is made from besides its prompt, fitted to its size.

    `start`, `end`: RGB. `control`: one RGB frame for each of the video's; `mask`: the same, white where the model
    draws. `references`: whole images with a border. `face`: a square frame for each of the video's; `background`: the
    same in its size. `clip`: frames that show the reference images one after the other, in place of `references`.
    `tracks`: x and y of points in pixels of the video, float32 [frames, points, 2], at most as many
    frames as the video has.
    """

    start: Image.Image | None = None
    end: Image.Image | None = None
    control: Frames = ()
    mask: Frames = ()
    references: Frames = ()
    clip: Frames = ()
    face: Frames = ()
    background: Frames = ()
    tracks: Tracks | None = None

    @property
    def none(self) -> bool:
        """Whether the video is made from the prompt alone."""
        return not (self.start or self.end or self.control or self.references or self.clip)


def read_inputs(request: Request, reporter: Reporter) -> InputImages:
    """Read the files of a request and fit them to its video. Raises MediaError."""
    files, size = request.inputs, (request.width, request.height)
    control, mask = _control_and_mask(request, reporter)
    references = [contain(read_image(path), *size, files.border) for path in files.reference_images]
    if files.background_last:
        references[-1] = cover(read_image(files.reference_images[-1]), *size)
    shown = zip(references, files.clip, strict=True) if files.clip else ()
    return InputImages(
        start=_image("image_start", files.start_image, request, reporter),
        end=_image("image_end", files.end_image, request, reporter),
        control=control,
        mask=mask,
        references=() if files.clip else tuple(references),
        clip=tuple(image for image, count in shown for _ in range(count)),
        face=_whole("video_guide2", files.face_video, request, reporter, (_FACE_SIDE, _FACE_SIDE)),
        background=_whole("custom_guide", files.background_video, request, reporter, size),
        tracks=_tracks(files.tracks, request, reporter),
    )


def _tracks(path: Path | None, request: Request, reporter: Reporter) -> Tracks | None:
    """The trajectories of a file, at most as long as the video."""
    if path is None:
        return None
    tracks = in_pixels(read_tracks(path), request.width, request.height)
    if len(tracks) < request.frames:
        reporter.notice(
            f"custom_guide has {len(tracks)} frames of {request.frames}: nothing is guided after its last one."
        )
    if len(tracks) > request.frames:
        reporter.notice(f"custom_guide is longer than the video: its first {request.frames} frames are used.")
    first = tracks[0]  # [points, 2]
    if not bool(((first >= 0) & (first < (request.width, request.height))).all(1).any()):
        reporter.notice("custom_guide moves nothing: the first frame shows none of its points.")
    return tracks[: request.frames]


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
    if files.held:
        held = _whole("video_mask", files.mask_video, request, reporter, size)
        black_and_white = tuple(_black_and_white(mask, files.mask_inverted) for mask in held)
        return _whole("video_guide", files.control_video, request, reporter, size), black_and_white
    frames = _frames("video_guide", files.control_video, request, reporter, size)
    masks = _frames("video_mask", files.mask_video, request, reporter, size) if files.mask_video else []
    masks = [_black_and_white(mask, files.mask_inverted) for mask in masks[: len(frames)]]
    if masks:
        masks = _held("video_mask", masks, len(frames), reporter)
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


def _whole(key: str, path: Path | None, request: Request, reporter: Reporter, size: Size) -> Frames:
    """A frame of a file for each of the video's; none without a file."""
    if path is None:
        return ()
    return tuple(_held(key, _frames(key, path, request, reporter, size), request.frames, reporter))


def _held(key: str, frames: list[Image.Image], count: int, reporter: Reporter) -> list[Image.Image]:
    """As many frames as are needed, the last one several times if there are fewer."""
    if len(frames) < count:
        reporter.notice(f"{key} has {len(frames)} frames of {count}: its last one is used for the rest.")
    return frames + [frames[-1]] * (count - len(frames))


def _frames(key: str, path: Path, request: Request, reporter: Reporter, size: Size) -> list[Image.Image]:
    """The frames of a file at the request's rate and at a size, at most as many as the video has."""
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
