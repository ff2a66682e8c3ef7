"""The preferences as a value that is validated when it is created."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from reeltune.errors import PreferencesError
from reeltune.preferences.fields import FIELDS, token


@dataclass(frozen=True)
class Preferences:
    """The user's preferences.

    `quantization`: "int8", "fp8", or "bf16" for 16 bits. `dtype`: "auto", "bf16" or "fp16". `device`: "auto", "cpu",
    "cuda", "cuda:1" or "mps". `outputs`: the folder of videos, relative to the root. `model_folders`: read-only folders
    with weights, such as another program's. `threads`: CPU threads, 0 to choose by the video's size. `connections`: per
    download. `rate_limit`: megabytes per second for all downloads, 0 for no limit. `stall_seconds`: the time without
    data before a download reconnects. `text_encoder_quantization`: the preferred version of a text encoder.
    `memory_profile`: where the weights are stored while generating. `attention`: its implementation. `compile`: whether
    the transformer's blocks are compiled. `int8`: how int8 weights are multiplied, "weights" (16-bit activations) or
    "dynamic" (int8 activations). `fp8`: the same of fp8 weights, where a card computes fp8. `merge_loras`: whether
    LoRAs with a constant weight are merged into models that are loaded from 16-bit files. `save_quantized`: whether
    int8 versions of 16-bit files are written and listed. `input_urls`: whether programs may name images and videos by
    URL. `queue_limit`: how many jobs may wait when a program adds one. `worker_idle_minutes`: after so long without a
    job a worker ends; 0 for never. `tokens`: by "hub" and "civitai". `extra`: unknown keys of the file, which are kept.

    Choices and devices are accepted in any case and by their usual aliases. Raises PreferencesError for other values.
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
    fp8: str = "dynamic"
    merge_loras: bool = False
    save_quantized: bool = False
    input_urls: bool = False
    queue_limit: int = 1000
    worker_idle_minutes: float = 60.0
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, declaration in FIELDS.items():
            object.__setattr__(self, name, declaration.checked(getattr(self, name)))
        try:
            object.__setattr__(self, "tokens", {str(name): token(value) for name, value in self.tokens.items()})
        except (AttributeError, ValueError):
            raise PreferencesError("Invalid value for tokens.", hint="Use tokens without spaces.") from None

    def with_flags(self, **flags: Any) -> Preferences:
        """A copy with the flags that are not None. Raises PreferencesError for an invalid value."""
        return replace(self, **{name: value for name, value in flags.items() if value is not None})
