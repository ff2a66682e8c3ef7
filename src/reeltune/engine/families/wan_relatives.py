"""Wan's relatives at run time: what each does in another way than Wan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from reeltune.engine.families import wan, wan_conditions
from reeltune.engine.families.base import Arguments, FamilyRuntime
from reeltune.engine.inputs import InputImages
from reeltune.families.base import Config
from reeltune.request.values import Request

_REASONING_FRAMES = 29  # of the video that shows step by step how the picture changes
_EDIT_FRAMES = 5  # of the video that goes to the changed picture at once
_FIRST_AND_LAST = [0, -1]  # latent frames: the picture, and the changed picture


def edited_video(request: Request, images: InputImages, config: Config) -> Arguments:
    """Lucy Edit and Ditto: the video to edit."""
    return {"guidance_scale": 1.0, "video": list(images.control)}


def forcing(request: Request, images: InputImages, config: Config) -> Arguments:
    """SkyReels V2: how far the noise levels of two blocks of frames are apart, and the windows of a long video."""
    found: Arguments = {"prompt": None, "guidance_scale": 1.0, "ar_step": request.mode, "fps": request.fps}
    found["causal_block_size"] = 5 if request.mode else 1
    if request.window is not None:
        found["base_num_frames"] = request.window.size
        found["overlap_history"] = request.window.overlap
        found["addnoise_condition"] = request.window.noise
    else:
        found["base_num_frames"] = request.frames
    if images.start is not None:
        found["image"] = images.start
    return found


def animation(request: Request, images: InputImages, config: Config) -> Arguments:
    """Wan Animate: the character, poses and faces; the background and the mask where a person is replaced."""
    found: Arguments = {
        "guidance_scale": 1.0,
        "image": images.references[0],
        "pose_video": list(images.control),
        "face_video": list(images.face),
        "segment_frame_length": request.window.size if request.window else request.frames,
        "prev_segment_conditioning_frames": request.window.overlap if request.window else 1,
    }
    if images.background:
        found["mode"] = "replace"
        found["background_video"] = list(images.background)
        found["mask_video"] = list(images.mask)
    return found


def without_face(options: Arguments) -> Arguments:
    """Black faces, [batch, 3, frames, height, width], in the pass without the prompt."""
    return {"face_pixel_values": torch.full_like(options["face_pixel_values"], -1.0)}


def decode_windows(vae: object, latents: torch.Tensor, request: Request) -> torch.Tensor:
    """Pixels of latents whose windows follow one another; each was made to be decoded by itself."""
    if request.window is None:
        return wan.decode(vae, latents, request)
    size = (request.window.size - 1) // wan.FRAME_STEP + 1
    starts = range(0, latents.shape[2], size)
    parts = [wan.decode(vae, latents[:, :, start : start + size], request) for start in starts]
    first, *others = parts
    pixels = torch.cat([first, *(part[:, :, request.window.overlap :] for part in others)], dim=2)
    return pixels[:, :, : request.frames]


def edited_image(request: Request, images: InputImages, config: Config) -> Arguments:
    """ChronoEdit: the picture to edit, and whether a whole video leads from it to the changed one."""
    found: Arguments = {"guidance_scale": 1.0, "image": images.start, "num_frames": _EDIT_FRAMES}
    if request.mode:
        found["num_frames"] = _REASONING_FRAMES
        found["enable_temporal_reasoning"] = True
        found["num_temporal_reasoning_steps"] = request.steps
    return found


def with_subjects(request: Request, images: InputImages, config: Config) -> Arguments:
    """Phantom: further latent frames at the end, in which the reference images are shown."""
    return {"guidance_scale": 1.0, "num_frames": request.frames + wan.FRAME_STEP * len(images.references)}


def decode_image(vae: object, latents: torch.Tensor, request: Request) -> torch.Tensor:
    """Pixels whose last frame is the changed picture."""
    return wan.decode(vae, latents[:, :, _FIRST_AND_LAST], request)


_PHANTOM = replace(wan.RUNTIME, arguments=with_subjects, conditions=wan_conditions.subjects, references_last=True)
_SKY = replace(wan.RUNTIME, arguments=forcing, temporal_axis=None)
RUNTIMES: Mapping[str, FamilyRuntime] = {
    "lucy_edit": replace(wan.RUNTIME, arguments=edited_video),
    "sky_df_1.3B": _SKY,
    "sky_df_14B": _SKY,
    "animate": replace(
        wan.RUNTIME,
        arguments=animation,
        decode=decode_windows,
        temporal_axis=None,
        unconditional=without_face,
        decodes_windows=True,
    ),
    "phantom_1.3B": _PHANTOM,
    "phantom_14B": _PHANTOM,
    "i2v_2_2_svi2pro": replace(
        wan.RUNTIME, conditions=wan_conditions.anchor, decode=decode_windows, temporal_axis=None, continues=True
    ),
    "wanmove": replace(wan.RUNTIME, conditions=wan_conditions.moved),
    "vace_ditto_14B": replace(wan.RUNTIME, arguments=edited_video),
    "chrono_edit": replace(wan.RUNTIME, arguments=edited_image, decode=decode_image, temporal_axis=None),
}
