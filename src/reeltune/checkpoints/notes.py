"""ComfyUI's notes on how a layer is stored, and what they say.

A layer `m` has a note `m.comfy_quant`, which is JSON as bytes: {"format": "int8_tensorwise", "convrot": true,
"convrot_groupsize": 256}. The newest arguments may also be nested under "params". In some files, the metadata
`_quantization_metadata` holds the notes of all layers instead: {"layers": {"m": {"format": ...}}}.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from reeltune.checkpoints.contents import Header, Source, Tensor
from reeltune.errors import InvalidJSON
from reeltune.untrusted import JsonObject, parse_json

NOTE = ".comfy_quant"
METADATA_KEY = "_quantization_metadata"
_MOST_BYTES = 4096  # of a note; those that exist have less than 200
_MOST_SPAN = 1024 * 1024  # of notes that are read at once: writers sort tensors by data type, so notes lie together
_MOST_READS = 8  # over the network, where they lie apart: a note of each length
_MOST_NOTES = 10_000
_MOST_METADATA_BYTES = 10_000_000
_PREFIXES = ("model.diffusion_model.", "diffusion_model.")  # of layers, which the metadata may leave out
_DEFAULT_GROUP = 256  # of a rotation whose note doesn't tell the size of its groups
_KNOWN_KEYS = frozenset({"format", "full_precision_matrix_mult", "convrot", "convrot_groupsize", "params"})
NVFP4 = "nvfp4"  # whose notes may repeat what is always so
_NVFP4_BLOCK = 16


@dataclass(frozen=True)
class Note:
    """What a note says. `format`: ComfyUI's name of the format; empty where the note can't be read.

    `group`: the number of columns that are rotated together, 0 for a layer that isn't rotated. `unknown`: other keys,
    which may change what the stored values mean.
    """

    format: str
    group: int = 0
    unknown: tuple[str, ...] = ()


def read_notes(source: Source, tensors: Mapping[str, Tensor], *, everything: bool) -> Mapping[str, bytes]:
    """The notes of a file, by name: all where they lie together. Raises as the source.

    `everything`: also where they lie apart; otherwise one of each length is read then.
    """
    notes = sorted((tensor for tensor in tensors.values() if _is_note(tensor)), key=lambda tensor: tensor.begin)
    if not notes:
        return {}
    first, last = notes[0].begin, notes[-1].end
    if last - first <= _MOST_SPAN:
        raw = source.read_at(first, last - first)
        return {note.name: raw[note.begin - first : note.end - first] for note in notes}
    if not everything:
        notes = list({note.end - note.begin: note for note in notes}.values())[:_MOST_READS]
    return {note.name: source.read_at(note.begin, note.end - note.begin) for note in notes[:_MOST_NOTES]}


def _is_note(tensor: Tensor) -> bool:
    return tensor.name.endswith(NOTE) and 0 < tensor.end - tensor.begin <= _MOST_BYTES


def parse_note(raw: bytes) -> Note:
    """What a note says; its bytes may be anything."""
    try:
        value = parse_json(raw, "A note", max_bytes=_MOST_BYTES)
    except InvalidJSON:
        return Note("")
    return _note(value)


def _note(value: object) -> Note:
    if isinstance(value, str):
        return Note(value)
    if not isinstance(value, dict) or not isinstance(value.get("format"), str):
        return Note("")
    nested = value.get("params")
    arguments: JsonObject = {**(nested if isinstance(nested, dict) else {}), **value}
    unknown = tuple(sorted(str(key) for key in arguments if not _is_known(key, arguments)))
    return Note(value["format"], _group(arguments), unknown)


def _is_known(key: str, arguments: JsonObject) -> bool:
    """Whether a key is one that is understood, or says nothing new."""
    if arguments["format"] == NVFP4 and key in ("group_size", "orig_dtype"):
        return key == "orig_dtype" or arguments[key] == _NVFP4_BLOCK
    return key in _KNOWN_KEYS


def _group(arguments: JsonObject) -> int:
    """The number of columns that are rotated together; -1 where it is no number."""
    if not arguments.get("convrot"):
        return 0
    group = arguments.get("convrot_groupsize", _DEFAULT_GROUP)
    return group if type(group) is int and group > 0 else -1


@functools.lru_cache(maxsize=4)
def _metadata_notes(text: str) -> Mapping[str, Note]:
    """The notes in the metadata, by the name of the layer; empty where there are none that can be read."""
    if not text:
        return {}
    try:
        value = parse_json(text.encode("utf-8", "replace"), "The metadata", max_bytes=_MOST_METADATA_BYTES)
    except InvalidJSON:
        return {}
    layers = value.get("layers") if isinstance(value, dict) else None
    if not isinstance(layers, dict):
        return {}
    return {str(layer): _note(layer_note) for layer, layer_note in layers.items()}


def note_of(header: Header, layer: str) -> Note | None:
    """What a file notes on a layer; None where it notes nothing. Unread notes count as ones that can't be read."""
    name = layer + NOTE
    if name in header.notes:
        return parse_note(header.notes[name])
    if name in header.tensors:
        return Note("")
    in_metadata = _metadata_notes(header.metadata.get(METADATA_KEY, ""))
    for prefix in ("", *_PREFIXES):
        if layer.removeprefix(prefix) in in_metadata:
            return in_metadata[layer.removeprefix(prefix)]
    return None


def all_notes(header: Header) -> frozenset[Note]:
    """What a file notes on any of its layers, as far as it was read."""
    in_metadata = _metadata_notes(header.metadata.get(METADATA_KEY, ""))
    return frozenset([*map(parse_note, set(header.notes.values())), *in_metadata.values()])


def noted_formats(header: Header) -> frozenset[str]:
    """The formats that a file's notes name."""
    return frozenset(note.format for note in all_notes(header))
