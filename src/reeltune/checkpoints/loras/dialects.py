"""The keys of LoRA files as a table: which part of which module a key stands for, whoever wrote it.

<module>.lora_A.weight, .lora_A.default.weight     PEFT and diffusers; lora_B.bias: an added bias
<module>.lora_down.weight, .lora.down.weight       kohya, older diffusers  with .alpha
<module>.dora_scale, .lora_magnitude_vector        DoRA: the length of each row (or column) after the change
<module>.lokr_w1 …, .hada_w1_a …                   LoKr and LoHa of LyCORIS and PEFT
<module>.diff, .diff_b, .diff_m, .w_norm, .b_norm  differences of weights, biases, modulations, norms
<module>.set_weight, .modules_to_save.weight       whole weights that replace the model's
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class Part(StrEnum):
    """What a tensor of a LoRA file is to its module."""

    UP, DOWN, UP_BIAS = "up", "down", "lora_B.bias"
    ALPHA, MAGNITUDE = "alpha", "dora_scale"
    LOKR_W1, LOKR_W1_A, LOKR_W1_B = "lokr_w1", "lokr_w1_a", "lokr_w1_b"
    LOKR_W2, LOKR_W2_A, LOKR_W2_B, LOKR_T2 = "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"
    HADA_W1_A, HADA_W1_B, HADA_T1 = "hada_w1_a", "hada_w1_b", "hada_t1"
    HADA_W2_A, HADA_W2_B, HADA_T2 = "hada_w2_a", "hada_w2_b", "hada_t2"
    DIFF, DIFF_BIAS = "diff", "diff_b"
    SET, SET_BIAS = "weight", "bias"
    UNKNOWN = ""


@dataclass(frozen=True)
class LoraKey:
    """A key taken apart. `module`: what stands before the part, with whatever prefix the writer used."""

    module: str
    part: Part


_ADAPTER = r"(?:\.(?!weight$|bias$)[^.]+)?"  # the adapter's name, such as `default`
_A = r"lora_A|lora_down|lora\.A|lora\.down|lora_linear_layer\.down"
_B = r"lora_B|lora_up|lora\.B|lora\.up|lora_linear_layer\.up"
_LYCORIS = tuple(part for part in Part if part.startswith(("lokr_", "hada_")))
_PARTS: tuple[tuple[Part, re.Pattern[str]], ...] = (
    (Part.DOWN, re.compile(rf"[._]?(?:{_A}){_ADAPTER}(?:\.weight)?$")),
    (Part.UP, re.compile(rf"[._]?(?:{_B}){_ADAPTER}(?:\.weight)?$")),
    (Part.UP_BIAS, re.compile(rf"[._]?(?:{_B}){_ADAPTER}\.bias$")),
    (Part.ALPHA, re.compile(r"\.alpha$")),
    (Part.MAGNITUDE, re.compile(rf"\.(?:dora_scale|lora_magnitude_vector{_ADAPTER}(?:\.weight)?)$")),
    *((part, re.compile(rf"\.{part}{_ADAPTER}$")) for part in _LYCORIS),
    (Part.DIFF, re.compile(r"\.(?:diff|w_norm)$")),
    (Part.DIFF_BIAS, re.compile(r"\.(?:diff_b|b_norm)$")),
    (Part.SET, re.compile(rf"\.(?:set_weight|modules_to_save{_ADAPTER}\.weight|weight)$")),
    (Part.SET_BIAS, re.compile(rf"\.(?:set_bias|modules_to_save{_ADAPTER}\.bias|bias)$")),
)
_MODULATION = ".diff_m"  # of the block's modulation, which is a parameter of its own

_REFUSED: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("BOFT", re.compile(r"[._]boft_")),
    ("OFT", re.compile(r"[._]oft_")),
    ("GLoRA", re.compile(r"\.(?:a1|a2|b1|b2|bm1|bm2)\.weight$")),
    ("LoCon with a Tucker core", re.compile(r"\.lora_mid\.weight$")),
    ("VeRA", re.compile(r"[._]vera_")),
    ("IA3", re.compile(r"\.(?:ia3_l|on_input)\b")),
    ("an embedding LoRA", re.compile(r"\.lora_embedding_[AB]\b")),
    ("a LoRA in scaled fp8", re.compile(r"\.(?:scale_weight|weight_scale|weight\._scale)$|^scaled_fp8$")),
)
LORA_PARTS = frozenset(Part) - {Part.SET, Part.SET_BIAS, Part.UNKNOWN, Part.ALPHA}


def refused(key: str) -> str:
    """The name of the method that a key belongs to, where it is one that can't be merged; else empty."""
    return next((label for label, pattern in _REFUSED if pattern.search(key)), "")


def take_apart(key: str) -> LoraKey:
    """The module and the part that a key stands for."""
    if key.endswith(_MODULATION):
        return LoraKey(key.removesuffix(_MODULATION) + ".modulation", Part.DIFF)
    for part, pattern in _PARTS:
        ending = pattern.search(key)
        if ending:
            return LoraKey(key[: ending.start()], part)
    return LoraKey(key, Part.UNKNOWN)


def replaces(key: str) -> bool:
    """Whether a key says itself that its whole weight replaces the model's, so that the file is no checkpoint."""
    return ".set_weight" in key or ".set_bias" in key or ".modules_to_save." in key
