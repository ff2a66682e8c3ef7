"""int8 weights with scales in a safetensors file, as ComfyUI's and LightX2V's are.

A layer `m` is stored as `m.weight` (I8 [out, in]) with `m.weight_scale` (or `m.scale_weight`): one number, or one for
each row; weight ≈ stored * scale. A note `m.comfy_quant` or the metadata tells how ComfyUI's files are stored
(`checkpoints.notes`). Files without notes are read in the same way.

With "convrot", the weight was multiplied with a matrix before it was quantized (ConvRot, arXiv 2512.03673): its columns
are rotated in groups of `convrot_groupsize`, a power of 4, by the regular Hadamard matrix of that size. That matrix
is its own inverse.
"""

from __future__ import annotations

import re

from reeltune.checkpoints.contents import Header
from reeltune.checkpoints.formats.base import file_name, module_of
from reeltune.checkpoints.formats.fp8 import FP8_DTYPES, FP8_NOTED, WEIGHT_SCALES, Fp8Scaled, unknown_note
from reeltune.checkpoints.notes import Note, all_notes, noted_formats
from reeltune.dtypes import Quantization

FORMAT = "int8_tensorwise"  # in a note
_LARGEST_GROUP = 4**6
_NAMED = re.compile(r"(?<![a-z0-9])(?:int8|w8a8)(?![a-z0-9])")
_ROTATED = re.compile(r"convrot|quarot|hadamard")


class ScaledInt8(Fp8Scaled):
    """8-bit integers that are multiplied with scales; some of the layers may be fp8."""

    quantization = Quantization.INT8_SCALED
    label = "scaled int8"
    can_stay = True
    stored_as_int8 = True
    name_pattern = r"(?:scaled[_-])?int8(?:[_-](?:convrot|scaled|tensorwise|rowwise))?"
    value_dtypes = ("I8", *FP8_DTYPES)

    def is_named_in(self, file_name: str) -> bool:
        """`int8`, in a name that doesn't contain `quanto`."""
        return _NAMED.search(file_name) is not None

    def is_in_header(self, header: Header) -> bool:
        """A note, or a tensor of 8-bit integers with its scale."""
        if FORMAT in noted_formats(header):
            return True
        weights = [name for name, tensor in header.tensors.items() if tensor.dtype == "I8" and name.endswith(".weight")]
        scales = [module_of(name) + ending for name in weights for ending in WEIGHT_SCALES]
        return any(name in header.tensors for name in scales)

    def objection(self, header: Header) -> str:
        """Notes of another storage, and rotations that aren't told in full."""
        notes = all_notes(header)
        for note in notes:
            if not self.knows(note) or note.unknown:
                return unknown_note(note)
            if note.group and not is_group(note.group):
                return f"its weights are rotated in groups of {note.group} columns, which is not a power of 4"
        if not notes and _ROTATED.search(file_name(header)):
            return "its name says that its weights are rotated, and no note (comfy_quant) tells how"
        return ""

    def knows(self, note: Note) -> bool:
        """Whether layers that a note describes are loaded."""
        return note.format == FORMAT or (note.format in FP8_NOTED and not note.group)


def is_group(count: int) -> bool:
    """Whether there is a rotation for a number of columns: 4, 16, 64, 256 and so on."""
    return 4 <= count <= _LARGEST_GROUP and count.bit_count() == 1 and count.bit_length() % 2 == 1
