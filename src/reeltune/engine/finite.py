"""Checks for NaN and infinity, which damaged weights produce and which would become a black video."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from reeltune.errors import DecodeFailed, NotFinite


def check_finite(values: torch.Tensor, what: str, files: Iterable[Path], id: str, dtype: str = "") -> None:
    """Raise NotFinite where `values`, of any shape, hold NaN or infinity.

    The message names `what` they are and the `files` whose weights made them. `dtype`: what was computed in.
    """
    if bool(torch.isfinite(values).all()):
        return
    paths = tuple(files)
    names = ", ".join(path.name if path.suffix else str(path) for path in paths)
    hint = f"`reeltune verify {id}` reads the files and compares them with their sha256."
    if dtype == "fp16":
        hint += " Or its numbers are too large for fp16: try `--dtype bf16`."
    raise NotFinite(
        f"{what} hold NaN or infinity, which would make a black video: the weights in {names} are damaged.",
        hint=hint,
        files=paths,
    )


def decode_failed(error: Exception, latents: Path | None, vae: Path, id: str) -> DecodeFailed:
    """The error to raise for one that occurred while decoding.

    `latents`: their file, which can be decoded again; None where it could not be written.
    """
    if latents is None:
        where, again = "the latents could not be kept", ""
    else:
        where, again = f"the latents are kept in {latents}", f"`reeltune decode {latents}` tries again."
    if not isinstance(error, NotFinite):
        return DecodeFailed(f"Decoding failed ({type(error).__name__}: {error}); {where}.", latents=latents, hint=again)
    message = f"The frames hold NaN or infinity, which would make a black video: the weights in {vae} are damaged"
    hint = f"`reeltune verify {id}` reads the files and compares them with their sha256. {again}".strip()
    return DecodeFailed(f"{message}; {where}.", latents=latents, hint=hint)


def check_embeddings(embeddings: Mapping[str, object], files: Iterable[Path], id: str, dtype: str) -> None:
    """`check_finite` for every tensor that the encoders have made."""
    for values in embeddings.values():
        if isinstance(values, torch.Tensor) and values.is_floating_point():
            check_finite(values, "The embeddings of the prompt", files, id, dtype)
