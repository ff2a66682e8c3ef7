"""Numbers that aren't finite, noticed before they become a black video: damaged weights make NaN and infinity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from reeltune.errors import DecodeFailed, NotFinite


def check_finite(values: torch.Tensor, what: str, files: Iterable[Path], id: str, dtype: str = "") -> None:
    """Raise NotFinite where `values`, of any shape, hold NaN or infinity. `what` they are, and the `files` that made
    them, are named; `dtype`: what was computed in.
    """
    if bool(torch.isfinite(values).all()):
        return
    paths = tuple(files)
    names = ", ".join(path.name if path.suffix else str(path) for path in paths)
    small = " Or fp16 is too small for its numbers: try `--dtype bf16`." if dtype == "fp16" else ""
    raise NotFinite(
        f"{what} hold NaN or infinity, which would make a black video: the weights in {names} are damaged.",
        hint=f"`reeltune verify {id}` reads the files and compares them with their sha256.{small}",
        files=paths,
    )


def decode_failed(error: Exception, kept: Path | None, vae: Path, id: str) -> DecodeFailed:
    """An error of decoding in words. `kept`: the file of the latents, where they could be written."""
    where = f"the latents are kept in {kept}" if kept else "the latents could not be kept"
    again = f"`reeltune decode {kept}` tries again." if kept else ""
    if not isinstance(error, NotFinite):
        return DecodeFailed(f"Decoding failed ({type(error).__name__}: {error}); {where}.", latents=kept, hint=again)
    message = f"The frames hold NaN or infinity, which would make a black video: the weights in {vae} are damaged"
    hint = f"`reeltune verify {id}` reads the files and compares them with their sha256. {again}".strip()
    return DecodeFailed(f"{message}; {where}.", latents=kept, hint=hint)


def check_embeddings(embeddings: Mapping[str, object], files: Iterable[Path], id: str, dtype: str) -> None:
    """`check_finite` for every tensor that the encoders have made."""
    for values in embeddings.values():
        if isinstance(values, torch.Tensor) and values.is_floating_point():
            check_finite(values, "The embeddings of the prompt", files, id, dtype)
