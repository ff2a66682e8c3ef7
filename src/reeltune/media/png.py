"""Write PNG files with the settings as JSON in the text chunk `comment`, where WanGP's images have them, too."""

from __future__ import annotations

import contextlib
import secrets
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin

from reeltune.errors import MediaError
from reeltune.files import reason, sync
from reeltune.media.kinds import display
from reeltune.media.mp4 import Report, as_comment, remove_reservation
from reeltune.media.pillow import FAILURES
from reeltune.untrusted import JsonObject, clean_text


def write_png(path: Path, frame: npt.NDArray[np.uint8], metadata: JsonObject, report: Report = warnings.warn) -> Path:
    """Write `frame` uint8 [height, width, 3] and return the path.

    The file appears under its name only when it is complete. If nothing is written, the empty file that `free_name`
    has created is removed. If the metadata can't be embedded, the image is written without it, and `report` is called
    with the reason. Raises MediaError.
    """
    partial = path.absolute().with_name(f".{path.stem[:40]}.{secrets.token_hex(4)}.partial")
    comment, problem = as_comment(metadata)
    written = False
    try:
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise MediaError(f"An image must be uint8 [height, width, 3], not {frame.dtype} {list(frame.shape)}.")
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = PngImagePlugin.PngInfo()
        if comment:
            texts.add_itxt("comment", comment)
        Image.fromarray(frame).save(partial, "PNG", pnginfo=texts)
        sync(partial)  # its job is done from now on, also after a power cut
        partial.replace(path)
        written = True
    except FAILURES as error:
        message = f"{display(path)} can't be written: {clean_text(reason(error))}."
        raise MediaError(message, hint="Check the folder and the disk.") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if not written:
            remove_reservation(path)
    if problem:
        report(f"{display(path)} was written without its settings, which can't be embedded: {problem}.")
    return path
