"""How strong a LoRA file says its changes are: PEFT's words in the metadata, or in `adapter_config.json` beside it.

A pair of matrices counts alpha / rank times, or alpha / sqrt(rank) for rsLoRA. alpha is a tensor of the module, else
what is read here, else the rank.
"""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from reeltune.errors import CheckpointError, InvalidJSON, UnsupportedFormat
from reeltune.files import is_file, read_bytes
from reeltune.untrusted import JsonObject, parse_json

CONFIG_NAME = "adapter_config.json"  # PEFT's
_METADATA_KEY = "lora_adapter_metadata"  # diffusers'
_METHODS = ("", "LORA", "LOHA", "LOKR")
_CHANGED_BASE = ("pissa", "olora", "corda", "loftq")  # methods of initializing that change the model itself too
_LITERAL = re.compile(r"[\w.*\-]*")
_MOST_BYTES = 1_000_000
_MOST_PATTERNS = 2_000
_MOST_GLOBS = 200


@dataclass(frozen=True)
class Adapter:
    """What a file's description says. `patterns`: alpha of the modules whose names end so; `source`: where it stands.

    `method`: PEFT's name of it, empty where there is no description; `rank`: of modules that don't tell it themselves.
    """

    alpha: float | None = None
    patterns: tuple[tuple[str, float], ...] = ()
    root: bool = False
    dora: bool = False
    method: str = ""
    rank: int | None = None
    source: str = ""
    notes: tuple[str, ...] = field(default=())

    def alpha_of(self, module: str) -> float | None:
        """The alpha of a module, by the name it has in the file; None where nothing is said of it."""
        literals, globs = self._sorted_patterns
        words = module.split(".")
        tails = [".".join(words[start:]) for start in range(len(words))]
        first = min((literals[tail] for tail in tails if tail in literals), default=len(self.patterns))
        for number in globs:
            if number > first:
                break
            pattern = self.patterns[number][0]
            if fnmatch.fnmatchcase(module, pattern) or fnmatch.fnmatchcase(module, f"*.{pattern}"):
                first = number
                break
        return self.patterns[first][1] if first < len(self.patterns) else self.alpha

    @cached_property
    def _sorted_patterns(self) -> tuple[dict[str, int], list[int]]:
        """The first position of each pattern without `*`, which is looked up, and the positions of the others."""
        literals: dict[str, int] = {}
        globs = []
        for number, (pattern, _) in enumerate(self.patterns):
            if "*" in pattern:
                globs.append(number)
            else:
                literals.setdefault(pattern, number)
        return literals, globs

    def scale(self, alpha: float | None, rank: int) -> float:
        """What a pair of that rank is multiplied with; 1 where no alpha is given."""
        if alpha is None:
            return 1.0
        return alpha / (math.sqrt(rank) if self.root else rank)


def read_adapter(path: Path, metadata: Mapping[str, str], ranks: Collection[int]) -> Adapter:
    """What the metadata of a LoRA file says, else the `adapter_config.json` beside it.

    `ranks`: of the file's pairs; a description of other ranks belongs to another file of the folder, and isn't used.
    Raises CheckpointError for a description that can't be read, UnsupportedFormat for what can't be merged.
    """
    if _METADATA_KEY in metadata:
        values = _object(metadata[_METADATA_KEY], f"The metadata of {path.name}")
        return _adapter({key.removeprefix("transformer."): value for key, value in values.items()}, path.name)
    config = path.with_name(CONFIG_NAME)
    if not is_file(config):
        return Adapter()
    source = f"{CONFIG_NAME} beside {path.name}"
    values = _object(read_bytes(config, _MOST_BYTES), source)
    patterns = values.get("rank_pattern")
    described = {values.get("r"), *(patterns.values() if isinstance(patterns, dict) else ())}
    described = {rank for rank in described if type(rank) is int}
    if ranks and described and not described >= set(ranks):
        text = f"{CONFIG_NAME} describes a LoRA of rank {_listed(described)}, not {_listed(ranks)}: it is not used"
        return Adapter(notes=(text,))
    return _adapter(values, source)


def _object(text: str | bytes, name: str) -> JsonObject:
    try:
        values = parse_json(text, name, max_bytes=_MOST_BYTES)
    except InvalidJSON as error:
        raise CheckpointError(str(error), hint="Without it the strength of the LoRA is unknown.") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{name} is not a JSON object.", hint="Without it the strength of the LoRA is unknown.")
    return values


def _adapter(values: JsonObject, source: str) -> Adapter:
    method = str(values.get("peft_type") or "LORA").upper()
    if method not in _METHODS:
        raise UnsupportedFormat(f"{source}: {method[:40]} can't be merged.", hint="Use a LoRA, LoHa or LoKr.")
    start = str(values.get("init_lora_weights") or "").lower()
    if start.startswith(_CHANGED_BASE):
        raise UnsupportedFormat(
            f"{source}: it was trained on a model changed by {start[:20]}, and doesn't fit the plain one.",
            hint="Ask its author for a version converted to a plain LoRA.",
        )
    if values.get("fan_in_fan_out") is True:
        raise UnsupportedFormat(f"{source}: its matrices are stored transposed (fan_in_fan_out).")
    key = "lora_alpha" if "lora_alpha" in values else "alpha"
    patterns = values.get("alpha_pattern")
    if isinstance(patterns, dict):
        _check_number_of_patterns(patterns, source)
    rank = values.get("r")
    return Adapter(
        alpha=None if values.get(key) is None else _number(values[key], f"{source}: {key}"),
        patterns=tuple(
            (_glob(str(name), source), _number(alpha, f"{source}: alpha_pattern"))
            for name, alpha in (patterns.items() if isinstance(patterns, dict) else ())
        ),
        root=values.get("use_rslora") is True,
        dora=values.get("use_dora") is True,
        method=method,
        rank=rank if type(rank) is int and rank > 0 else None,
        source=source,
    )


def _check_number_of_patterns(patterns: Collection[str], source: str) -> None:
    """Raise CheckpointError for more patterns than can be compared with every module."""
    compared = sum("*" in pattern or "+" in pattern for pattern in patterns)
    if len(patterns) > _MOST_PATTERNS or compared > _MOST_GLOBS:
        limits = f"{_MOST_PATTERNS:,} modules, or more than {_MOST_GLOBS} patterns with wildcards"
        raise CheckpointError(
            f"{source}: alpha_pattern has more than {limits}.", hint="Ask its author for another file."
        )


def _glob(pattern: str, source: str) -> str:
    """A name of `alpha_pattern`, which PEFT reads as a regular expression, as a pattern of `fnmatch`.

    Only what trainers write is read: expressions of strangers can take for ever. Raises CheckpointError.
    """
    text = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
    text = text.replace(".*", "*").replace("\\d+", "*").replace("[0-9]+", "*")
    if not _LITERAL.fullmatch(text):
        raise CheckpointError(f"{source}: the alpha_pattern {pattern[:80]!r} is not a module's name.")
    return text


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise CheckpointError(f"{where} is not a number.", hint="Without it the strength of the LoRA is unknown.")
    return float(value)


def _listed(ranks: Collection[int]) -> str:
    return " or ".join(str(rank) for rank in sorted(ranks)[:4])
