"""What a file's name says of its weights, by the convention of finetune definitions.

    wan2.1_text2video_14B_quanto_mbf16_int8.safetensors -> quanto int8 in bf16
    Wan14BT2VFusioniX_fp16.safetensors                  -> 16 bits, fp16
    aniWan2114BFp8E4m3fn_t2v.safetensors                -> fp8

A name is a hint: where the header is known, the header wins. The convention asks for lower case, real files
do not obey.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

QUANTO_INT8 = "quanto_int8"
SIXTEEN_BITS = "none"
FP8_PLAIN, FP8_SCALED = "fp8", "fp8_scaled"
FP8 = (FP8_PLAIN, FP8_SCALED)
_FORMATS = {"gguf": "GGUF files can't be loaded", "pickle": "pickle files can run code and are never loaded"}
_QUANTIZATIONS = {
    "gguf": "GGUF files can't be loaded",
    "nvfp4": "nvfp4 weights can't be loaded",
    "int8 (not quanto)": "its int8 is not the quanto format",
    "quanto (not int8)": "quanto weights other than int8 can't be loaded",
}
_SAFETENSORS = ".safetensors"
_ENDINGS = (_SAFETENSORS, ".sft")
_STORED_AS = re.compile(
    r"[_.-](?:(?P<mixed>m?)(?:bf16|fp16|fp32)|fp8(?:[_-]?e[45]m[23](?:fn)?)?(?:[_-]scaled)?)(?![a-z0-9])", re.IGNORECASE
)
_QUANTO = re.compile(r"quanto[_-](?:m?(?P<dtype>bf16|fp16)[_-])?int8(?![a-z0-9])")
_SCALED = re.compile(r"(?<!up)(?<!down)(?<!re)scaled")
_TOKEN = r"(?<![a-z0-9]){}(?![a-z0-9])"


@dataclass(frozen=True)
class NameFacts:
    """`quantization`: "none" (16 bits), "quanto_int8" or the name of another; `dtype`: "bf16" | "fp16" | None."""

    format: str  # "safetensors" | "gguf" | "pickle" | "unknown"
    quantization: str
    dtype: str | None


def base_name(url: str) -> str:
    """File name a URL or path points to: `.../a%20b.safetensors?download=true` -> `a b.safetensors`."""
    try:
        path = unquote(urlsplit(url).path) if "://" in url else url.replace("\\", "/")
    except ValueError:  # no link that can be followed, but it has a last part
        path = url
    return PurePosixPath(path).name


def read_name(url: str) -> NameFacts:
    """Facts the file name of a URL or path gives."""
    name = base_name(url).lower()
    return NameFacts(_format(name), _quantization(name), _dtype(name))


def format_objection(url: str) -> str:
    """Why a file of this name's format is never loaded, whatever it holds; empty where it may be."""
    return _FORMATS.get(read_name(url).format, "")


def quantization_objection(quantization: str) -> str:
    """Why weights quantized so can't be loaded; empty where they can."""
    if quantization in (SIXTEEN_BITS, QUANTO_INT8, *FP8):
        return ""
    return _QUANTIZATIONS.get(quantization, f"{quantization} weights can't be loaded")


def name_objection(url: str) -> str:
    """Why a file can't be loaded as far as its name shows; empty where nothing in it says so."""
    return format_objection(url) or quantization_objection(read_name(url).quantization)


def _format(name: str) -> str:
    if name.endswith(_ENDINGS):
        return "safetensors"
    if name.endswith(".gguf"):
        return "gguf"
    if name.endswith((".pt", ".pth", ".ckpt", ".bin", ".pkl")):
        return "pickle"
    return "unknown"


def _quantization(name: str) -> str:
    if "gguf" in name or re.search(r"(?<![a-z0-9])q\d_(k|0|1)", name):
        return "gguf"
    if "nvfp4" in name or "fp4" in name:
        return "nvfp4"
    if _QUANTO.search(name):
        return QUANTO_INT8
    if "fp8" in name or "float8" in name:
        return FP8_SCALED if _SCALED.search(name) else FP8_PLAIN
    if "quanto" in name:
        return QUANTO_INT8 if "int8" in name else "quanto (not int8)"
    if re.search(_TOKEN.format("int8"), name):
        return "int8 (not quanto)"
    return SIXTEEN_BITS


def _dtype(name: str) -> str | None:
    if (found := _QUANTO.search(name)) and found["dtype"]:  # the run's, whatever else the name holds
        return found["dtype"]
    for dtype in ("bf16", "fp16"):
        if re.search(_TOKEN.format(f"m?{dtype}"), name):
            return dtype
    return None


def quantized_name(name: str, dtype: str) -> str:
    """Name of the quanto int8 file made from `name` for the run's data type ("bf16" or "fp16").

    `x_bf16.safetensors` -> `x_quanto_bf16_int8.safetensors`; `x_mbf16` keeps its `m`; no token: appended.
    """
    return _renamed(name, lambda mixed: f"_quanto_{mixed}{dtype}_int8")


def converted_name(name: str, dtype: str) -> str:
    """Name of the 16-bit file made from `name`: `x_fp8_scaled.safetensors` -> `x_bf16.safetensors`."""
    return _renamed(name, lambda mixed: f"_{mixed}{dtype}")


def _renamed(name: str, token: Callable[[str], str]) -> str:
    """The name with another token for its data type, appended where it has none."""
    ending = next((row for row in _ENDINGS if name.lower().endswith(row)), "")
    stem = name.removesuffix(name[len(name) - len(ending) :])
    found = _STORED_AS.search(stem)
    if found is None:
        return stem + token("") + _SAFETENSORS
    mixed = (found["mixed"] or "").lower()
    return stem[: found.start()] + token(mixed) + stem[found.end() :] + _SAFETENSORS
