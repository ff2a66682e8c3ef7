"""What Wan's own transformers are shown by relatives that have no pipeline in diffusers.

Hidden states are [1, channels, frames', height', width']. Those of image-to-video models have, in this order, the
channels of the latents, of a mask and of the condition: the latents of the first frame, and of black ones after it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from reeltune.engine.families.base import Change, Conditions
from reeltune.engine.inputs import InputImages
from reeltune.media.tracks import Tracks
from reeltune.request.values import Request

_IMAGE_SCALE = 5.0  # guidance towards the reference images in Phantom's release
Cells = npt.NDArray[np.int64]


def subjects(pipeline: Any, request: Request, images: InputImages, before: torch.Tensor | None) -> Conditions:
    """Phantom: latents of the reference images in place of the last frames; zeros in the third pass."""
    references = torch.cat([_encoded(pipeline, image, request) for image in images.references], dim=2)

    def ending(last: torch.Tensor) -> Change:
        return lambda hidden: torch.cat([hidden[:, :, : -last.shape[2]], last.to(hidden)], dim=2)

    shown = ending(references)
    return Conditions(shown, shown, ending(torch.zeros_like(references)), _IMAGE_SCALE)


def anchor(pipeline: Any, request: Request, images: InputImages, before: torch.Tensor | None) -> Conditions:
    """SVI 2.0 Pro: the first frame, the last latents of the window before, and zeros instead of black frames."""
    channels = pipeline.vae.config.z_dim

    def anchored(hidden: torch.Tensor) -> torch.Tensor:
        hidden = hidden.clone()
        hidden[:, -channels:, 1:] = 0
        if before is not None:
            hidden[:, -channels:, 1:2] = before[:, :, -1:].to(hidden)
        return hidden

    return Conditions(anchored, anchored)


def moved(pipeline: Any, request: Request, images: InputImages, before: torch.Tensor | None) -> Conditions:
    """Wan-Move: latents of the first frame are copied along trajectories, in the pass with the prompt."""
    if images.tracks is None:
        return Conditions()
    channels, side = pipeline.vae.config.z_dim, pipeline.vae_scale_factor_spatial
    cells = _cells(images.tracks, request, side, pipeline.vae_scale_factor_temporal)
    sources, targets = (torch.from_numpy(rows) for rows in _copies(cells, request.seed))  # [copies, 3]

    def along(hidden: torch.Tensor) -> torch.Tensor:
        hidden = hidden.clone()
        condition = hidden[:, -channels:]
        (_, y, x), (time, to_y, to_x) = sources.T, targets.T
        condition[:, :, time, to_y, to_x] = condition[:, :, 0, y, x]
        return hidden

    return Conditions(prompted=along)


def _encoded(pipeline: Any, image: Image.Image, request: Request) -> torch.Tensor:
    """The latents of an image, [1, channels, 1, height', width'], as the transformer takes them."""
    pixels = pipeline.video_processor.preprocess(image, height=request.height, width=request.width)
    vae = pipeline.vae
    latents = vae.encode(pixels.unsqueeze(2).to(pipeline.computes_on)).latent_dist.mode()
    mean, deviation = (torch.tensor(row).view(1, -1, 1, 1, 1).to(latents) for row in _scales(vae.config))
    normalized: torch.Tensor = (latents - mean) * (1.0 / deviation)
    return normalized


def _scales(config: Any) -> tuple[list[float], list[float]]:
    return config.latents_mean, config.latents_std


def _cells(tracks: Tracks, request: Request, side: int, step: int) -> Cells:
    """The place of each point in each latent frame, [points, frames', 3]: frame, row, column; -1 where outside."""
    points = tracks[::step].transpose(1, 0, 2)  # [points, frames', 2]
    size = np.array([request.width, request.height])
    inside = np.all((points >= 0) & (points < size), axis=2)
    places = np.where(inside[..., None], points, -side).astype(np.int64) // side
    frames = np.broadcast_to(np.arange(points.shape[1]), inside.shape)
    return np.stack([np.where(inside, frames, -1), places[..., 1], places[..., 0]], axis=2)


def _copies(cells: Cells, seed: int) -> tuple[Cells, Cells]:
    """Where latents are copied from, and where to, [copies, 3] each.

    Of several points that come to one place, one counts, which the seed chooses.
    """
    cells = cells[np.random.default_rng(seed).permutation(len(cells))]
    first, later = np.broadcast_to(cells[:, :1], cells[:, 1:].shape), cells[:, 1:]
    visible = (first[..., 0] >= 0) & (later[..., 0] >= 0)
    sources, targets = first[visible], later[visible]
    _, chosen = np.unique(targets, axis=0, return_index=True)
    return sources[chosen], targets[chosen]
