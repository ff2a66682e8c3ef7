"""fp8 weights in a safetensors file: cast plainly, or scaled as ComfyUI's files are.

A scaled layer `m` is stored as `m.weight` (F8_E4M3 or F8_E5M2) with `m.scale_weight` or `m.weight_scale`: one number,
or one for each row; weight ≈ stored * scale. `m.scale_input` / `m.input_scale` are for activations that are quantized
with a fixed scale, which isn't done here. A tensor `scaled_fp8` marks the older files, a note `m.comfy_quant` every
layer of the newer ones (`checkpoints.notes`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from reeltune.checkpoints.contents import Header, Tensor
from reeltune.checkpoints.formats.base import (
    ACTIVATION_SCALES,
    FLOATS,
    Faults,
    StoredWeight,
    WeightFormat,
    file_name,
    module_of,
)
from reeltune.checkpoints.notes import NOTE, NVFP4, Note, all_notes
from reeltune.dtypes import Quantization

FP8_DTYPES = ("F8_E4M3", "F8_E5M2")
TENSOR_SCALE = ".scale_weight"  # what files made here are written with: ComfyUI reads one scale for a weight,
ROW_SCALE = ".weight_scale"  # LightX2V one for each row
WEIGHT_SCALES = (TENSOR_SCALE, ROW_SCALE)
MARK = "scaled_fp8"
MARK_SHAPE = (2,)  # by which ComfyUI multiplies with decoded weights; with (0,) it would multiply in fp8
FP8_NOTED = ("float8_e4m3fn", "float8_e5m2")  # formats in notes
_MARKS = (*WEIGHT_SCALES, ".scale_input", ".input_scale", MARK, NOTE)
_SCALED = re.compile(r"(?<!up)(?<!down)(?<!re)scaled")  # not upscaled, downscaled, rescaled


class Fp8(WeightFormat):
    """Weights cast to fp8 as they are."""

    quantization = Quantization.FP8
    label = "fp8"
    converted_on_load = True
    can_stay = True
    value_dtypes: tuple[str, ...] = FP8_DTYPES  # of the values that are multiplied with scales
    name_pattern = r"fp8(?:[_-]?e[45]m[23](?:fn)?)?(?:[_-]scaled)?"

    def is_named_in(self, file_name: str) -> bool:
        """`fp8`, `fp8_e4m3fn` and the like."""
        return "fp8" in file_name or "float8" in file_name

    def is_in_header(self, header: Header) -> bool:
        """Tensors of fp8."""
        return any(tensor.dtype in FP8_DTYPES for tensor in header.tensors.values())

    def objection(self, header: Header) -> str:
        """Notes of another storage; a name that says `scaled` while there are no scales."""
        for note in all_notes(header):
            if note.format not in FP8_NOTED or note.unknown or note.group:
                return unknown_note(note)
        if _is_named_scaled(file_name(header)) and not any(name.endswith(WEIGHT_SCALES) for name in header.tensors):
            return "its name says that it is scaled, and it contains no scales (weight_scale or scale_weight)"
        return ""

    def is_part(self, tensor_name: str) -> bool:
        """Scales and notes go with the weights."""
        return tensor_name.endswith((*_MARKS, *ACTIVATION_SCALES))

    def is_mark(self, tensor_name: str) -> bool:
        """Scales and notes of what isn't the model's, and the mark of a scaled file."""
        return tensor_name.endswith(_MARKS)

    def stored_weight(self, tensor_name: str, names: Collection[str]) -> StoredWeight:
        """A weight with its scale, where it has one."""
        for ending in WEIGHT_SCALES:
            scale_name = module_of(tensor_name) + ending
            if tensor_name.endswith(".weight") and scale_name in names:
                return StoredWeight(tensor_name, scale_name)
        return StoredWeight(tensor_name)

    def faults(self, file_name: str, tensors: Mapping[str, Tensor], names: Collection[str]) -> Faults:
        """Missing scales, in a file that is scaled or named so; scales of nothing, and of a wrong shape."""
        missing = []
        if self.quantization is not Quantization.FP8 or _is_named_scaled(file_name):
            unscaled = [name for name in names if self._lacks_scale(tensors[name], names)]
            missing = sorted(module_of(name) + WEIGHT_SCALES[0] for name in unscaled)
        unexpected = []
        misshapen = []
        for name in names:
            if not name.endswith(WEIGHT_SCALES):
                continue
            weight_name = _scaled_by(name)
            if weight_name not in names:
                unexpected.append(name)
            if not _fit(tensors.get(weight_name), tensors[name]):
                misshapen.append(_unfitting(tensors.get(weight_name), tensors[name]))
        return Faults(tuple(missing), tuple(unexpected), tuple(misshapen))

    def _lacks_scale(self, weight: Tensor, names: Collection[str]) -> bool:
        if weight.dtype not in self.value_dtypes or not is_matrix(weight.name, weight.shape):
            return False
        return self.stored_weight(weight.name, names).scales is None


class Fp8Scaled(Fp8):
    """Weights divided by a scale before they were cast, so that they use the whole range of fp8."""

    quantization = Quantization.FP8_SCALED
    label = "scaled fp8"

    def is_named_in(self, file_name: str) -> bool:
        """`fp8_scaled`, `fp8_e4m3fn_scaled` and the like."""
        return super().is_named_in(file_name) and _is_named_scaled(file_name)

    def is_in_header(self, header: Header) -> bool:
        """Tensors of fp8 with a scale, a note, or the mark of a scaled file."""
        return super().is_in_header(header) and any(name.endswith(_MARKS) for name in header.tensors)


def unknown_note(note: Note) -> str:
    """What is wrong with a note that describes a storage that isn't known here."""
    if not note.format:
        return "a note on how a layer is stored (comfy_quant) can't be read"
    if note.unknown:
        return f"a note on how a layer is stored contains {note.unknown[0][:40]!r}, which isn't known"
    if note.group and note.format in (*FP8_NOTED, NVFP4):
        return f"a layer is stored as {note.format} and rotated, which isn't known"
    return f"a layer is stored in the format {note.format[:40]!r}, which isn't known"


def _is_named_scaled(file_name: str) -> bool:
    return _SCALED.search(file_name) is not None


def is_matrix(tensor_name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is a weight that scaled files give a scale: biases, norms and tables have none."""
    return tensor_name.endswith(".weight") and len(shape) >= 2


def _scaled_by(scale_name: str) -> str:
    """The name of the weight that a scale belongs to."""
    for ending in WEIGHT_SCALES:
        scale_name = scale_name.removesuffix(ending)
    return f"{scale_name}.weight"


def _rows(weight: Tensor | None) -> int:
    if weight is None or not weight.shape:
        return 1
    return weight.shape[0]


def _fit(weight: Tensor | None, scale: Tensor) -> bool:
    """Whether a scale is one floating number, or one for each row of its weight."""
    return scale.dtype in FLOATS and scale.elements in (1, _rows(weight))


def _unfitting(weight: Tensor | None, scale: Tensor) -> str:
    return f"{scale.name}: {scale.dtype} scales {list(scale.shape)} for {_rows(weight)} rows"


def name_token(scaled: bool) -> str:
    """What the name of a file says it with."""
    return "_fp8_e4m3fn_scaled" if scaled else "_fp8_e4m3fn"
