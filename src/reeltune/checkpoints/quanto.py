"""The quanto int8 format in a safetensors file, as names and metadata (the arithmetic is in `weights`).

A quantized linear layer `m` is stored as `m.weight._data` (I8 [out, in]), `m.weight._scale` (16 bits [out, 1])
and the scalars `m.input_scale`, `m.output_scale` (1: activations are not quantized); weight ≈ data * scale.
The metadata names the format and lists the layers: `quantization_map_base64` is base64 of
JSON {module: {"weights": "qint8", "activations": "none"}}. Format of huggingface/optimum-quanto.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from typing import Any

from reeltune.errors import HeaderError

DATA, SCALE = ".weight._data", ".weight._scale"
ACTIVATION_SCALES = (".input_scale", ".output_scale")


def quantized_modules(names: Iterable[str]) -> list[str]:
    """Modules stored as quanto int8, found by their names alone, whichever layers the writer chose."""
    return [name.removesuffix(DATA) for name in names if name.endswith(DATA)]


def quantization_metadata(modules: Iterable[str]) -> dict[str, str]:
    """Metadata that tells readers which layers are quantized."""
    table = {module: {"weights": "qint8", "activations": "none"} for module in modules}
    encoded = base64.b64encode(json.dumps(table).encode("utf-8")).decode("ascii")
    return {"quantization_format": "quanto", "quantization_map_base64": encoded}


def config_if_any(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The config in a file's metadata; {} where there is none, or another program's note that can't be read."""
    try:
        return stored_config(metadata) or {}
    except HeaderError:  # the shapes tell the model too
        return {}


def stored_config(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """The model's config from `config_base64`, else `config`; None where the file carries none.

    Raises HeaderError when it is there but not JSON.
    """
    try:
        if "config_base64" in metadata:
            config = json.loads(base64.b64decode(metadata["config_base64"], validate=True))
        elif "config" in metadata:
            config = json.loads(metadata["config"])
        else:
            return None
    except (binascii.Error, ValueError, RecursionError) as error:
        raise HeaderError(f"The config in the file's metadata is not JSON: {error}.") from error
    if not isinstance(config, dict):
        raise HeaderError("The config in the file's metadata is not a JSON object.")
    return config
