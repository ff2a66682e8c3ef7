"""Which module of a family a LoRA's key belongs to, by the longest tail of it that names one.

Before the tail may stand anything (`diffusion_model.`, `lora_unet__`, `pipe.dit.`, `Hunyuan_video_I2V_lora_`), and
dots and underscores are alike, since several trainers write every dot as an underscore.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from reeltune.checkpoints.keys import WRAPPERS
from reeltune.errors import CheckpointError
from reeltune.families import FAMILIES, Family

_TOKEN = re.compile(r"[^._]+")
_PASSED_OVER = re.compile(r"(?:^|(?<=\.))(?:processor|base_layer|" + "|".join(sorted(WRAPPERS)) + r")\.")
_MOST_CHARACTERS = 400
_MOST_DIGITS = 6
_MOST_PREFIXES = 64  # LoRAs have one or two
_INSIDE = re.compile(r"(?:block|layer)s?[._]\d+[._]", re.IGNORECASE)  # of a block that isn't the family's
_SECOND = re.compile(r"(?:^|[._])(?:transformer_?2|unet_?2|dit_?2|low_noise(?:_model)?)[._]+$", re.IGNORECASE)


@dataclass(frozen=True)
class Located:
    """A module's name in the family's own words (either layout's), and what stood before it in the file."""

    prefix: str
    name: str

    @property
    def second(self) -> bool:
        """Whether it says that it belongs to the second of two transformers."""
        return bool(_SECOND.search(self.prefix))


@lru_cache(maxsize=8)
def _table(family: Family) -> dict[str, str]:
    """Every module's name, in both layouts and by its aliases: without dots -> as it is, `{}` for a block's number."""
    names = [name for rename in family.renames for name in (rename.original, rename.diffusers, *rename.more) if name]
    table = {_flat(alias): name for alias, name in family.aliases.items()}
    return table | {_flat(name): name for name in names}


def _flat(name: str) -> str:
    return "_".join(_TOKEN.findall(name))


def locate(module: str, family: Family) -> Located | None:
    """The family's module that a name stands for, whether or not a model has it; None where there is none."""
    if len(module) > _MOST_CHARACTERS:
        return None
    name = _PASSED_OVER.sub("", module)
    table, tokens = _table(family), list(_TOKEN.finditer(name))
    for start, token in enumerate(tokens):
        words = [word.group() for word in tokens[start:]]
        module_name = table.get("_".join(words)) or _numbered(table, words)
        if module_name:
            prefix = name[: token.start()]
            another = _INSIDE.search(prefix) or (prefix.endswith("_") and _of_another(name, len(prefix), family))
            return None if another else Located(prefix, module_name)
    return None


def _of_another(name: str, start: int, family: Family) -> bool:
    """Whether a name is a longer one of another family, which only ends like this family's from `start` on.

    `transformer_blocks.0.attn1.to_q` is LTX's, and `blocks.0.attn1.to_q` Wan's in diffusers' layout.
    """
    for other in FAMILIES:
        if other is family:
            continue
        names = _dotted(other)
        for begin in (0, *(index + 1 for index, character in enumerate(name[:start]) if character == ".")):
            segments = name[begin:].split(".")
            number = next((index for index, segment in enumerate(segments) if segment.isdigit()), None)
            if number is not None:
                segments[number] = "{}"
            if ".".join(segments) in names:
                return True
    return False


@lru_cache(maxsize=8)
def _dotted(family: Family) -> frozenset[str]:
    """Names of a family's modules in numbered blocks, in both layouts."""
    names = [name for rename in family.renames for name in (rename.original, rename.diffusers, *rename.more)]
    return frozenset(name for name in names if "{}" in name)


def _numbered(table: dict[str, str], words: list[str]) -> str:
    """The name of a module in a numbered block; empty where there is none."""
    index = next((index for index, word in enumerate(words) if word.isdigit()), None)
    if index is None or len(words[index]) > _MOST_DIGITS or not words[index].isascii():
        return ""
    template = table.get("_".join((*words[:index], "{}", *words[index + 1 :])), "")
    return template.replace("{}", str(int(words[index])))


def foreign(parts: Iterable[tuple[Located, Iterable[str]]]) -> frozenset[str]:
    """Prefixes of modules that only look like the model's: `lora_unet_audio_` beside `lora_unet_`, say.

    A prefix that extends another one of the file, and holds a part of a module that the other holds too, is that of
    another model. `parts`: each module of the file, and what it holds. Raises CheckpointError for a file with more than
    64 prefixes, since each is compared with all others.
    """
    held: dict[str, set[tuple[str, str]]] = {}
    for located, kinds in parts:
        held.setdefault(located.prefix, set()).update((located.name, kind) for kind in kinds)
        if len(held) > _MOST_PREFIXES:
            message = f"The modules of the LoRA have more than {_MOST_PREFIXES} different prefixes."
            raise CheckpointError(message, hint="It is no LoRA of one model, or it is damaged.")
    return frozenset(
        prefix
        for prefix, own in held.items()
        for other, theirs in held.items()
        if prefix != other and prefix.startswith(other) and not own.isdisjoint(theirs)
    )
