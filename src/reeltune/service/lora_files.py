"""What the header of a LoRA file says, and the text beside it: the family, the size of the model, trigger words.

facts = read_lora(Path("loras/wan/style.safetensors"))
facts.family, facts.sides, facts.trigger
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from reeltune._text import shortened
from reeltune.checkpoints.contents import Header
from reeltune.checkpoints.header import read_header
from reeltune.checkpoints.loras.dialects import Part
from reeltune.checkpoints.loras.fitting import LoraModule, lora_modules
from reeltune.errors import CheckpointError, FileError, InvalidJSON
from reeltune.families import FAMILIES
from reeltune.files import read_bytes, reason
from reeltune.service.labels import printable
from reeltune.untrusted import clean_text, decode_text, parse_json

_FEW_TENSORS = 24  # of a file, which usually are enough to tell the family
_MAX_TENSORS = 200  # of a file, where the first few don't tell it
_MAX_CACHED = 4096  # files
_MAX_TEXT = 300  # characters of the words that are shown
_MAX_TEXT_BYTES = 20_000  # of the text beside a file
_MAX_TAGS_BYTES = 1_000_000
_MAX_TAGS = 5
_TRIGGER_KEYS = ("modelspec.trigger_phrase", "modelspec.trigger_word", "ss_trigger_words", "trigger_words")
_USAGE_KEYS = ("modelspec.usage_hint", "modelspec.description", "ss_training_comment")
_TAGS_KEY = "ss_tag_frequency"
_INPUT_SIDES = (Part.DOWN, Part.HADA_W1_B)  # matrices with a column for each input of their layer
_OUTPUT_SIDES = (Part.UP,)  # with a row for each output


@dataclass(frozen=True)
class LoraFacts:
    """What is known of a LoRA file.

    `family`: the name of its family; empty for files of other models. `sides`: the numbers of inputs and outputs of its
    layers, the most frequent one first; empty if the shapes don't tell. `trigger`: the words that call for it.
    `sample`: other words about it. `problem`: why the file can't be used at all.
    """

    family: str = ""
    sides: tuple[int, ...] = ()
    trigger: str = ""
    sample: str = ""
    problem: str = ""


def read_lora(path: Path) -> LoraFacts:
    """What is known of a file; read again only if it, or the text beside it, has changed."""
    try:
        status = path.stat()
        return _facts(path, status.st_size, status.st_mtime_ns, _stamp(path.with_suffix(".txt")))
    except OSError as error:
        return LoraFacts(problem=f"it can't be read: {reason(error)}")


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return ()
    return status.st_size, status.st_mtime_ns


@functools.lru_cache(maxsize=_MAX_CACHED)
def _facts(path: Path, size: int, modified: int, text: tuple[int, ...]) -> LoraFacts:
    """The facts of a file with this size and these times, which are parameters so that changes are noticed."""
    try:
        header = read_header(path)
        family, modules = _family(header, path.name)
    except CheckpointError as error:
        return LoraFacts(problem=_without_end(error.message.replace(str(path), path.name)))
    trigger = next(_values(header.metadata, _TRIGGER_KEYS), "")
    sample = (_text_beside(path) if text else "") or next(_values(header.metadata, _USAGE_KEYS), "")
    return LoraFacts(family, _sides(header, modules), trigger, sample or _frequent_tags(header.metadata))


def _without_end(message: str) -> str:
    return shortened(in_one_line(message), _MAX_TEXT).removesuffix(".")


# --- the model --------------------------------------------------------------------------------------------------


def _family(header: Header, name: str) -> tuple[str, list[LoraModule]]:
    """The family that most modules belong to, and these. Raises CheckpointError for files that aren't LoRAs."""
    best: tuple[str, list[LoraModule]] = ("", [])
    for count in (_FEW_TENSORS, _MAX_TENSORS):  # the time that a folder of hundreds of files takes matters
        part = replace(header, tensors=dict(islice(header.tensors.items(), count)))
        for family in FAMILIES:
            modules = [module for module in lora_modules(part, name, family) if module.located is not None]
            if len(modules) > len(best[1]):
                best = family.name, modules
        if best[0]:
            break
    return best


def _sides(header: Header, modules: Iterable[LoraModule]) -> tuple[int, ...]:
    """The numbers of inputs and outputs of the layers of modules, the most frequent one first."""
    counts: Counter[int] = Counter()
    for module in modules:
        for part, key in module.keys.items():
            shape = header.tensors[key].shape
            if part in _INPUT_SIDES and len(shape) == 2:
                counts[shape[1]] += 1
            elif part in _OUTPUT_SIDES and shape:
                counts[shape[0]] += 1
    return tuple(side for side, _ in counts.most_common())


# --- words ------------------------------------------------------------------------------------------------------


def in_one_line(text: str) -> str:
    """Text on one line, with the characters that can't be displayed replaced."""
    return printable(" ".join(clean_text(text).split()))


def _values(metadata: Mapping[str, str], keys: Iterable[str]) -> Iterator[str]:
    for key in keys:
        text = shortened(in_one_line(metadata.get(key, "")[: 2 * _MAX_TEXT]), _MAX_TEXT)
        if text and text.lower() not in ("none", "null", "[]"):
            yield text


def _text_beside(path: Path) -> str:
    """The beginning of the text file with the same name."""
    try:
        text = decode_text(read_bytes(path.with_suffix(".txt"), _MAX_TEXT_BYTES))
    except FileError:
        return ""
    return shortened(in_one_line(text), _MAX_TEXT)


def _frequent_tags(metadata: Mapping[str, str]) -> str:
    """The most frequent tags of the training images, as kohya's trainer stores them by folder."""
    try:
        folders = parse_json(metadata.get(_TAGS_KEY, "{}"), _TAGS_KEY, max_bytes=_MAX_TAGS_BYTES)
    except InvalidJSON:
        return ""
    counts: Counter[str] = Counter()
    for tags in folders.values() if isinstance(folders, dict) else ():
        for tag, count in tags.items() if isinstance(tags, dict) else ():
            if type(count) is int:
                counts[tag] += count
    return shortened(in_one_line(", ".join(tag for tag, _ in counts.most_common(_MAX_TAGS))), _MAX_TEXT)
