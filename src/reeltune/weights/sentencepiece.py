"""A tokenizer from the SentencePiece model that ComfyUI keeps inside the files of some text encoders.

The model is a protocol buffer (github.com/google/sentencepiece, sentencepiece_model.proto). Only three of its fields
are read: the pieces with their scores and types, and the table by which text is normalized. The tokenizer is the one
that transformers makes of such a model for T5.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram
from transformers import PreTrainedTokenizerFast

from reeltune.errors import CheckpointError
from reeltune.families.components import SENTENCEPIECE
from reeltune.weights.tensors import TensorFile

_TENSOR = SENTENCEPIECE.layouts[0].marker
_MAX_BYTES = 64_000_000
_MAX_PIECES = 2_000_000
_PAD, _END, _UNKNOWN = "<pad>", "</s>", "<unk>"
_UNKNOWN_TYPE, _CONTROL_TYPES = 2, (3, 4)  # of pieces
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5  # wire types
_HINT = "Download the file again, or put the tokenizer's files beside it."


@dataclass
class _Model:
    """`pieces`: with their scores. `controls`: pieces that stand for no text. `charsmap`: the normalizer's table."""

    pieces: list[tuple[str, float]] = field(default_factory=list)
    controls: list[str] = field(default_factory=list)
    unknown: int = 0
    charsmap: bytes = b""


def load_sentencepiece(path: Path) -> PreTrainedTokenizerFast:
    """The tokenizer in a text encoder's file. Raises CheckpointError if it is damaged."""
    file = TensorFile(path)
    tensor = file.header.tensors.get(_TENSOR)
    if tensor is None or tensor.end - tensor.begin > _MAX_BYTES:
        raise CheckpointError(f"{path} contains no tokenizer.", hint=_HINT)
    raw = bytes(file.raw(_TENSOR).view(torch.uint8).numpy())
    try:
        return _tokenizer(_read_model(raw))
    except Exception as error:  # `tokenizers` raises plain exceptions for tables that make no sense
        raise CheckpointError(f"{path}: its tokenizer is damaged: {error}.", hint=_HINT) from error


def _tokenizer(model: _Model) -> PreTrainedTokenizerFast:
    inner = Tokenizer(Unigram(model.pieces, unk_id=model.unknown, byte_fallback=False))
    if model.charsmap:
        inner.normalizer = normalizers.Precompiled(model.charsmap)
    metaspace = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])
    inner.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    inner.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in model.controls])
    end = inner.token_to_id(_END)
    inner.post_processor = processors.TemplateProcessing(single=f"$A {_END}", special_tokens=[(_END, end)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token=_PAD, eos_token=_END, unk_token=_UNKNOWN)


# --- the protocol buffer ----------------------------------------------------------------------------------------


def _read_model(raw: bytes) -> _Model:
    """The model. Raises ValueError for bytes that are none."""
    model = _Model()
    for number, value in _fields(raw):
        if number == 1 and isinstance(value, bytes):
            _add_piece(model, value)
        elif number == 3 and isinstance(value, bytes):
            model.charsmap = next(
                (part for inner, part in _fields(value) if inner == 2 and isinstance(part, bytes)), b""
            )
    if not model.pieces:
        raise ValueError("it has no pieces")
    return model


def _add_piece(model: _Model, raw: bytes) -> None:
    text, score, kind = "", 0.0, 1
    for number, value in _fields(raw):
        if number == 1 and isinstance(value, bytes):
            text = value.decode("utf-8")
        elif number == 2 and isinstance(value, float):
            score = value
        elif number == 3 and isinstance(value, int):
            kind = value
    if len(model.pieces) >= _MAX_PIECES:
        raise ValueError("it has too many pieces")
    if kind == _UNKNOWN_TYPE:
        model.unknown = len(model.pieces)
    if kind in _CONTROL_TYPES:
        model.controls.append(text)
    model.pieces.append((text, score))


def _fields(raw: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """The numbers and values of the fields of a message. Raises ValueError where it is cut."""
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        wire = tag & 7
        if wire == _VARINT:
            number, at = _varint(raw, at)
            yield tag >> 3, number
        elif wire == _LENGTH:
            length, at = _varint(raw, at)
            if at + length > len(raw):
                raise ValueError("it is cut")
            yield tag >> 3, raw[at : at + length]
            at += length
        elif wire in (_FOUR_BYTES, _EIGHT_BYTES):
            size = 4 if wire == _FOUR_BYTES else 8
            if at + size > len(raw):
                raise ValueError("it is cut")
            yield tag >> 3, struct.unpack("<f" if size == 4 else "<d", raw[at : at + size])[0]
            at += size
        else:
            raise ValueError(f"wire type {wire} is not supported")


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """A number of variable length, and where it ends."""
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(raw):
            raise ValueError("it is cut")
        byte = raw[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number is too long")
