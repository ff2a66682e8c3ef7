"""The preferences as one value, checked when it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from reeltune.errors import PreferencesError
from reeltune.preferences.fields import FIELDS, token


@dataclass(frozen=True)
class Preferences:
    """`quantization`: "int8", or "bf16" for 16 bits. `dtype`: "auto", "bf16" or "fp16". `device`: "auto", "cpu",
    "cuda", "cuda:1" or "mps". `outputs`: folder of videos, relative to the root. `model_folders`: read-only
    folders with weights, such as another program's. `threads`: CPU threads, 0 to choose by the video's size.
    `connections`: connections used for one download; `rate_limit`: megabytes per second for all of them, 0 for no
    limit; `stall_seconds` without a byte until a connection is made again. `text_encoder_quantization`: which of a
    WanGP folder's text encoders is used, where both are there.
    `memory_profile`: where the weights are kept, from fastest to smallest. `attention`: its implementation.
    `compile`: the transformer's blocks, by torch. `int8`: how int8 weights are multiplied, "weights" (with 16-bit
    activations) or "dynamic" (activations in int8 too).
    `save_quantized`: whether the int8 versions of 16-bit files are written and listed. `tokens`: for the Hub ("hub")
    and CivitAI ("civitai"). `extra`: fields of the file this version does not know.

    Choices and devices are accepted in any case and by their usual aliases. Raises PreferencesError.
    """

    quantization: str = "int8"
    dtype: str = "auto"
    device: str = "auto"
    outputs: str = "outputs"
    model_folders: tuple[str, ...] = ()
    threads: int = 0
    connections: int = 4
    rate_limit: float = 0.0
    stall_seconds: float = 30.0
    text_encoder_quantization: str = "int8"
    memory_profile: str = "auto"
    attention: str = "auto"
    compile: bool = False
    int8: str = "weights"
    save_quantized: bool = False
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, row in FIELDS.items():
            object.__setattr__(self, name, row.checked(getattr(self, name)))
        try:
            object.__setattr__(self, "tokens", {str(name): token(value) for name, value in self.tokens.items()})
        except (AttributeError, ValueError):
            raise PreferencesError("Invalid value for tokens.", hint="Use text without spaces for each.") from None

    def with_flags(self, **flags: Any) -> Preferences:
        """A copy with the flags that were given (those not None). Raises PreferencesError."""
        return replace(self, **{name: value for name, value in flags.items() if value is not None})
