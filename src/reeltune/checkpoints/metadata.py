"""What a checkpoint's metadata say of the model: its config, as other programs write it."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping

from reeltune.errors import HeaderError
from reeltune.families.base import Config


def config_if_any(metadata: Mapping[str, str]) -> Config:
    """The config in a file's metadata; {} where there is none, or another program's note that can't be read."""
    try:
        return stored_config(metadata) or {}
    except HeaderError:  # the shapes tell the model too
        return {}


def stored_config(metadata: Mapping[str, str]) -> Config | None:
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
