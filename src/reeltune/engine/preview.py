"""The emerging video: latents to small pictures by one linear map, fitted by least squares from the VAE itself.

A decoder is far from linear, but the mean colour of the patch that one latent stands for nearly is: `colour = latent @
weight + bias`. The map is fitted as a video emerges, by decoding a small part of it, and again, once it was decoded as
a whole; each time it starts from the map of the VAE's earlier videos.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, features
from torch.nn import functional

from reeltune.engine.families import runtime_of
from reeltune.events import Listener, Notice, Preview
from reeltune.families import Architecture
from reeltune.request.values import Request

_SECONDS = 1.0  # between two previews
_PART, _PART_FRAMES = 24, 2  # latents a side, and frames of them, that are decoded to fit the map at first
_MOST_SAMPLES = 20_000
_RIDGE = 1e-2  # share of the samples' weight that holds the map to its prior
_MOST_FRAMES, _MOST_SIDE = 32, 320


@dataclass(frozen=True)
class RgbMap:
    """`weight` [channels + 1, 3], fp32 on the CPU: the last row is the bias. Colours in -1..1."""

    weight: torch.Tensor

    def frames(self, latents: torch.Tensor) -> npt.NDArray[np.uint8]:
        """Small frames uint8 [frames', height', width', 3] of latents [1, channels, frames', height', width']."""
        colours = _rows(latents.float().cpu()) @ self.weight  # [frames'*height'*width', 3]
        pixels = ((colours + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return pixels.reshape(*latents.shape[2:], 3).numpy()


def fit(latents: torch.Tensor, pixels: torch.Tensor, prior: RgbMap | None = None) -> RgbMap:
    """The least-squares map from latents [n, channels, f, h, w] to what they decode to, [n, 3, frames, height, width].

    A ridge holds what the samples don't determine to the prior's weights, or to zero.
    """
    x = _rows(latents.float().cpu())  # [samples, channels + 1]
    moments = torch.linspace(0, pixels.shape[2] - 1, latents.shape[2]).round().long()
    flat = pixels[:, :, moments].float().cpu().transpose(0, 1).flatten(1, 2)  # [3, n*f, height, width]
    y = functional.adaptive_avg_pool2d(flat, (latents.shape[3], latents.shape[4])).flatten(1).T  # [samples, 3]
    if len(x) > _MOST_SAMPLES:
        step = math.ceil(len(x) / _MOST_SAMPLES)
        x, y = x[::step], y[::step]
    start = prior.weight if prior is not None else torch.zeros(x.shape[1], 3)
    ridge = _RIDGE * len(x) * torch.eye(x.shape[1])
    return RgbMap(torch.linalg.solve(x.T @ x + ridge, x.T @ y + ridge @ start))


def fit_part(
    architecture: Architecture, vae: Any, latents: torch.Tensor, request: Request, prior: RgbMap | None
) -> RgbMap:
    """The map fitted to a small part of the latents [1, channels, f, h, w]: the middle of the first frames."""
    top, left = (max(0, (side - _PART) // 2) for side in latents.shape[3:])
    part = latents[:, :, :_PART_FRAMES, top : top + _PART, left : left + _PART]
    weight = next(vae.parameters())
    with torch.inference_mode():
        pixels = runtime_of(architecture).decode(vae, part.to(weight.device, weight.dtype), request)
    return fit(part, pixels, prior)


def refit(latents: torch.Tensor, frames: npt.NDArray[np.uint8], prior: RgbMap) -> RgbMap:
    """The map after a video was decoded: `frames` uint8 [frames, height, width, 3]."""
    pixels = torch.from_numpy(frames).permute(3, 0, 1, 2)[None] / 127.5 - 1
    return fit(latents, pixels, prior)


class Previewer:
    """Called after each denoising step; shows a listener how the video looks, at most once a second.

    `rgb`: the map fitted by earlier videos, None where there were none; better after the first preview. A preview that
    fails, for lack of memory say, is the last one: the video goes on without.
    """

    def __init__(
        self, rgb: RgbMap | None, vae: Any, architecture: Architecture, request: Request, listener: Listener
    ) -> None:
        self.rgb = rgb
        self._vae, self._architecture, self._request, self._listener = vae, architecture, request, listener
        self._before: tuple[torch.Tensor, float] | None = None
        self._next, self._fitted, self._failed = 0.0, False, False

    def start(self, request: Request) -> None:
        """Show the steps of a pass from here on; `request` has the size of its frames."""
        self._request, self._before = request, None

    def __call__(self, latents: torch.Tensor, noise: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`latents` as the pipeline holds them, `noise`: the share of it (0 to 1) left in them."""
        before, self._before = self._before, (latents, noise)
        if self._failed or before is None or before[0].shape != latents.shape or clock() < self._next:
            return
        try:
            image = self._image(latents, noise, *before)
        except (RuntimeError, ValueError, OSError, MemoryError) as error:  # torch's, and Pillow's
            self._failed, self._before = True, None
            reason = str(error).partition("\n")[0]
            self._listener(Notice(f"No further previews of this video: {type(error).__name__}: {reason}"))
            return
        self._listener(Preview(image))
        self._next = clock() + _SECONDS

    def _image(self, latents: torch.Tensor, noise: float, before: torch.Tensor, noise_before: float) -> bytes:
        clean = self._unpacked(_clean(latents.float(), noise, before.float(), noise_before))
        if not self._fitted or self.rgb is None:
            self.rgb = fit_part(self._architecture, self._vae, clean, self._request, self.rgb)
            self._fitted = True
        return animated(self.rgb.frames(clean), self._request.frames / self._request.fps)

    def _unpacked(self, latents: torch.Tensor) -> torch.Tensor:
        """Some pipelines hold one row for each latent; rows of conditions come before those of the video."""
        if latents.dim() == 5:
            return latents
        time_step, side = self._vae.temporal_compression_ratio, self._vae.spatial_compression_ratio
        shape = (self._request.frames - 1) // time_step + 1, self._request.height // side, self._request.width // side
        return latents[:, -math.prod(shape) :].transpose(1, 2).reshape(1, -1, *shape)


def _clean(latents: torch.Tensor, noise: float, before: torch.Tensor, noise_before: float) -> torch.Tensor:
    """The clean latents that a straight flow from here leads to: x0 = x - noise * dx/dnoise."""
    if noise == noise_before:
        return latents
    return latents - noise * (latents - before) / (noise - noise_before)


def animated(frames: npt.NDArray[np.uint8], seconds: float) -> bytes:
    """Frames uint8 [frames, height, width, 3] as an animated WebP of that length; a PNG where Pillow has no WebP."""
    kept = frames[:: math.ceil(len(frames) / _MOST_FRAMES)]
    images = [Image.fromarray(frame) for frame in kept]
    for image in images:
        image.thumbnail((_MOST_SIDE, _MOST_SIDE))
    stream = io.BytesIO()
    each = max(20, round(1000 * seconds / len(images)))
    kind = "WEBP" if features.check("webp") else "PNG"
    images[0].save(stream, kind, save_all=True, append_images=images[1:], duration=each, loop=0, quality=80, method=2)
    return stream.getvalue()


def _rows(latents: torch.Tensor) -> torch.Tensor:
    """One row for each latent, a one at its end: [samples, channels + 1]."""
    rows = latents.transpose(0, 1).flatten(1).T
    return torch.cat([rows, torch.ones(len(rows), 1)], dim=1)
