"""What a file's name says of its weights, by the convention of finetune definitions.

    wan2.1_text2video_14B_quanto_mbf16_int8.safetensors -> quanto int8 in bf16
    Wan14BT2VFusioniX_fp16.safetensors                  -> 16 bits, fp16
    aniWan2114BFp8E4m3fn_t2v.safetensors                -> fp8

A name is a hint: where the header is known, the header wins. The convention asks for lower case, real files
do not obey.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from reeltune.checkpoints import formats
from reeltune.checkpoints.formats import fp8
from reeltune.checkpoints.formats.base import SAFETENSORS, SAFETENSORS_ENDINGS
from reeltune.checkpoints.formats.quanto_int8 import name_token
from reeltune.dtypes import DType, Quantization

_ENDING = ".safetensors"  # of the names made here


@dataclass(frozen=True)
class NameFacts:
    """What a name says. `format`: the kind of file; `dtype`: what it computes in, None where the name is silent."""

    format: str  # "safetensors" | "gguf" | "pickle" | "unknown"
    quantization: Quantization
    dtype: DType | None


def base_name(url: str) -> str:
    """File name a URL or path points to: `.../a%20b.safetensors?download=true` -> `a b.safetensors`."""
    try:
        path = unquote(urlsplit(url).path) if "://" in url else url.replace("\\", "/")
    except ValueError:  # no link that can be followed, but it has a last part
        path = url
    return PurePosixPath(path).name


def lora_name(source: str) -> str:
    """The name of a LoRA without its folder and ending.

    `source`: a name, a path or a URL, possibly with a subfolder behind `|`.
    """
    name = base_name(source.partition("|")[0])
    return _without_ending(name) or name or source


def read_name(url: str) -> NameFacts:
    """Facts the file name of a URL or path gives."""
    name = base_name(url).lower()
    weight_format = formats.format_by_name(name)
    return NameFacts(_kind_of_file(name), weight_format.quantization, weight_format.named_dtype(name))


def _kind_of_file(name: str) -> str:
    if name.endswith(SAFETENSORS_ENDINGS):
        return SAFETENSORS
    container = formats.container_format(name)
    return container.container if container else "unknown"


def format_objection(url: str) -> str:
    """Why a file of this name's kind is never loaded, whatever it holds; empty where it may be."""
    container = formats.container_format(base_name(url).lower())
    return container.reason_not_loadable if container else ""


def quantization_objection(quantization: Quantization) -> str:
    """Why weights quantized so can't be loaded; empty where they can."""
    return formats.format_of(quantization).reason_not_loadable


def name_objection(url: str) -> str:
    """Why a file can't be loaded as far as its name shows; empty where nothing in it says so."""
    return format_objection(url) or quantization_objection(read_name(url).quantization)


def quantized_name(name: str, dtype: DType) -> str:
    """Name of the quanto int8 file made from `name` for the run's data type.

    `x_bf16.safetensors` -> `x_quanto_bf16_int8.safetensors`; `x_mbf16` keeps its `m`; no token: appended.
    """
    before, mixed, after = _split(name)
    return before + name_token(dtype, mixed) + after + _ENDING


def fp8_name(name: str, *, scaled: bool) -> str:
    """Name of the fp8 file made from `name`: `x_bf16.safetensors` -> `x_fp8_e4m3fn_scaled.safetensors`."""
    before, _, after = _split(name)
    return before + fp8.name_token(scaled) + after + _ENDING


def converted_name(name: str, dtype: DType) -> str:
    """Name of the 16-bit file made from `name`: `x_fp8_scaled.safetensors` -> `x_bf16.safetensors`."""
    before, mixed, after = _split(name)
    return f"{before}_{mixed}{dtype}{after}{_ENDING}"


def _split(name: str) -> tuple[str, str, str]:
    """What stands before and after the words for how the weights are stored, and the "m" among these, if any.

    The ending of the file's name is left out. A name without such words is split at its end.
    """
    stem = _without_ending(name)
    patterns = [known.name_pattern for known in formats.FORMATS if known.name_pattern]
    stored_as = "|".join([r"(?P<mixed>m?)(?:bf16|fp16|fp32)", *dict.fromkeys(patterns)])
    words = re.search(rf"[_.-](?:{stored_as})(?![a-z0-9])", stem, re.IGNORECASE)
    if words is None:
        return stem, "", ""
    mixed = words["mixed"] or ""
    return stem[: words.start()], mixed.lower(), stem[words.end() :]


def _without_ending(name: str) -> str:
    for ending in formats.loadable_endings():
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name
