"""nvfp4 weights in a safetensors file: NVIDIA's 4-bit floats, as ComfyUI, LightX2V and ModelOpt store them.

A layer `m` is stored as `m.weight` (U8 [out, in / 2]), two numbers of E2M1 in each byte: 0, 0.5, 1, 1.5, 2, 3, 4 and 6
with a sign. 16 numbers of a row have a scale in `m.weight_scale` (F8_E4M3), and all of a weight have one in common:
weight ≈ number * (scale of the weight * scale of its 16). Other layers of a file may be 16-bit, fp8 or int8. Scales of
activations (`input_scale` and the like) aren't used, because activations aren't quantized here.

Programs differ in which half of a byte comes first, in the order of the scales, and in the scale of the weight:

- ComfyUI (comfy-kitchen's `TensorCoreNVFP4Layout`, named in notes) and Lightricks (ltx-kernels, docs/NVFP4.md): the
  high half first, scales in tiles, `weight_scale_2`.
- LightX2V (lightx2v_kernel's `scaled_nvfp4_quant`, tools/convert/quant): the low half first, scales in tiles, and
  1 / `weight_global_scale` or `alpha` * `input_global_scale` in place of `weight_scale_2`.
- ModelOpt (`NVFP4QTensor`), as for diffusers: the low half first, scales in rows, `weight_scale_2`.

In rows, the scales are [out, in / 16]. In tiles, they are padded to multiples of 128 rows and 4 columns, and lie as
tensor cores read them (cuBLAS, "1D block scaling factors layout"; torchao's `to_blocked`): 512 bytes for each tile of
128 by 4, in which the scale of row r and column c is at 16 * (r % 32) + 4 * (r // 32) + c.

The names of the scales tell LightX2V's files, and a note tells ComfyUI's. Without a note, padding tells tiles from
rows, if any weight needs it. A file that doesn't tell it is refused, because wrong scales would make noise. Files of
ModelOpt with notes or tiles are refused too: ModelOpt writes the low half first, and ComfyUI reads the high half first.
So are smoothed weights (`pre_quant_scale`) and compressed-tensors (`weight_packed`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from reeltune.checkpoints.contents import Header, Tensor
from reeltune.checkpoints.formats.base import FLOATS, Faults, StoredWeight, bytes_of, module_of
from reeltune.checkpoints.formats.fp8 import ROW_SCALE
from reeltune.checkpoints.formats.int8_scaled import ScaledInt8
from reeltune.checkpoints.notes import NVFP4, Note, note_of, noted_formats
from reeltune.dtypes import DType, Quantization

BLOCK = 16  # numbers with a scale in common
TILE_ROWS, TILE_COLUMNS = 128, 4
PACKED = "U8"
WHOLE_SCALE = ".weight_scale_2"
GLOBAL_SCALE = ".weight_global_scale"  # LightX2V's, which weights were multiplied with
_SCALES = ROW_SCALE
_SCALE_DTYPES = ("F8_E4M3", "U8")  # ComfyUI reads bytes as fp8, too
_PRODUCT = (".alpha", ".input_global_scale")  # which give the scale of a weight together
_SMOOTHED = ".pre_quant_scale"
_COMPRESSED = ".weight_packed"
_OF_ACTIVATIONS = ".input_absmax"
_PARTS = (WHOLE_SCALE, GLOBAL_SCALE, *_PRODUCT, _SMOOTHED, _OF_ACTIVATIONS)
_CONFIG_KEY = "quantization_config"  # of the metadata that ModelOpt writes


@dataclass(frozen=True)
class PackedLayout:
    """How a program stores a weight: `high_first`: in which half of a byte the first of two numbers is; `tiled`:
    whether the scales lie in tiles.
    """

    high_first: bool
    tiled: bool


_COMFYUI, _LIGHTX2V, _MODELOPT = PackedLayout(True, True), PackedLayout(False, True), PackedLayout(False, False)


class Nvfp4(ScaledInt8):
    """NVIDIA's 4-bit floats; some of the layers may be fp8 or int8."""

    quantization = Quantization.NVFP4
    label = "nvfp4"
    can_stay = False
    stored_as_int8 = False
    name_pattern = r"(?:nv)?fp4(?:[_-]mixed)?"

    def is_named_in(self, file_name: str) -> bool:
        """`nvfp4` or `fp4`."""
        return "fp4" in file_name

    def is_in_header(self, header: Header) -> bool:
        """A note, scales that only this format has, or tensors of 4-bit floats."""
        if NVFP4 in noted_formats(header):
            return True
        tensors = header.tensors
        for name, tensor in tensors.items():
            if tensor.dtype == "F4" or name.endswith((WHOLE_SCALE, GLOBAL_SCALE)):
                return True
            scales = tensors.get(module_of(name) + _SCALES)
            if is_packed(tensor) and scales is not None and scales.dtype == "F8_E4M3":
                return True
        return False

    def knows(self, note: Note) -> bool:
        """Notes of the formats that a file may mix."""
        return super().knows(note) or (note.format == NVFP4 and not note.group)

    def objection(self, header: Header) -> str:
        """Notes of another storage, and what leaves open how the weights are stored."""
        tensors = header.tensors
        if any(tensor.dtype == "F4" for tensor in tensors.values()):
            return "its weights are tensors of the type F4, for which the order of the scales isn't known"
        if any(name.endswith(_COMPRESSED) for name in tensors):
            return "its nvfp4 weights are stored as compressed-tensors does (weight_packed), which isn't supported"
        if any(name.endswith(_SMOOTHED) for name in tensors):
            return "its nvfp4 weights are smoothed (pre_quant_scale), which isn't supported"
        return super().objection(header) or _unclear(header)

    def is_part(self, tensor_name: str) -> bool:
        """Scales and notes go with the weights."""
        return tensor_name.endswith(_PARTS) or super().is_part(tensor_name)

    def is_mark(self, tensor_name: str) -> bool:
        """Scales and notes of what isn't the model's."""
        return tensor_name.endswith(_PARTS) or super().is_mark(tensor_name)

    def weight_shape(self, tensor: Tensor) -> tuple[int, ...]:
        """Twice as many columns as bytes, for packed weights."""
        if not is_packed(tensor):
            return tensor.shape
        rows, columns = tensor.shape
        return rows, 2 * columns

    def stored_weight(self, tensor_name: str, names: Collection[str]) -> StoredWeight:
        """A weight with its scales; those of the whole weight are its factors."""
        stored = super().stored_weight(tensor_name, names)
        if not tensor_name.endswith(".weight"):
            return stored
        layer = module_of(tensor_name)
        for endings in ((WHOLE_SCALE,), (GLOBAL_SCALE,), _PRODUCT):
            factors = tuple(layer + ending for ending in endings)
            if all(name in names for name in factors):
                return StoredWeight(tensor_name, stored.scales, factors)
        return stored

    def faults(self, file_name: str, tensors: Mapping[str, Tensor], names: Collection[str]) -> Faults:
        """Missing scales; scales of nothing, and of a wrong shape or data type."""
        packed = [name for name in names if is_packed(tensors[name])]
        layers = {module_of(name) for name in packed}
        others = [name for name in names if not name.endswith(_SCALES) or name.removesuffix(_SCALES) not in layers]
        of_others = super().faults(file_name, tensors, others)
        missing, misshapen = list(of_others.missing), list(of_others.misshapen)
        for name in packed:
            stored = self.stored_weight(name, names)
            missing += _missing(stored)
            misshapen += _misshapen(tensors, stored)
        owned = tuple(f"{name}{ending}" for name in layers for ending in (WHOLE_SCALE, GLOBAL_SCALE))
        lost = [name for name in names if name.endswith((WHOLE_SCALE, GLOBAL_SCALE)) and name not in owned]
        return Faults(tuple(sorted(missing)), (*of_others.unexpected, *lost), tuple(misshapen))

    def bytes_in_memory(self, tensor: Tensor, dtype: DType) -> int:
        """Bytes of the decoded weight."""
        if is_packed(tensor) and not self.is_part(tensor.name):
            return bytes_of(2 * tensor.elements, dtype)
        return super().bytes_in_memory(tensor, dtype)


def is_packed(tensor: Tensor) -> bool:
    """Whether a tensor is a matrix of 4-bit numbers, two in a byte."""
    return tensor.dtype == PACKED and tensor.name.endswith(".weight") and len(tensor.shape) == 2


def layout_of(header: Header, tensor_name: str) -> PackedLayout | None:
    """How a packed weight is stored; None where the header doesn't tell it."""
    layer = module_of(tensor_name)
    if layer + WHOLE_SCALE not in header.tensors:
        return _LIGHTX2V
    note = note_of(header, layer)
    is_noted = note is not None and note.format == NVFP4
    if is_noted and not _is_of_modelopt(header):
        return _COMFYUI
    in_tiles = next(_tiled(header, header.tensors.values()), None)
    if in_tiles is False:
        return _MODELOPT
    return _COMFYUI if in_tiles and not is_noted and not _is_of_modelopt(header) else None


def scale_shape(shape: tuple[int, int], *, tiled: bool) -> tuple[int, int]:
    """The shape of the scales of a packed weight [out, in / 2]."""
    rows, columns = shape[0], 2 * shape[1] // BLOCK
    if not tiled:
        return rows, columns
    return -(-rows // TILE_ROWS) * TILE_ROWS, -(-columns // TILE_COLUMNS) * TILE_COLUMNS


def _is_of_modelopt(header: Header) -> bool:
    return "modelopt" in header.metadata.get(_CONFIG_KEY, "").lower()


def _tiled(header: Header, weights: Iterable[Tensor]) -> Iterator[bool]:
    """Whether the scales lie in tiles, for each weight whose scales have a shape that tells it."""
    for weight in weights:
        scales = header.tensors.get(module_of(weight.name) + _SCALES)
        if scales is None or not is_packed(weight) or module_of(weight.name) + WHOLE_SCALE not in header.tensors:
            continue
        in_rows, in_tiles = (scale_shape((weight.shape[0], weight.shape[1]), tiled=tiled) for tiled in (False, True))
        if in_rows != in_tiles and scales.shape in (in_rows, in_tiles):
            yield scales.shape == in_tiles


def _unclear(header: Header) -> str:
    """What leaves open how packed weights are stored; empty where all is told."""
    weights = [tensor for tensor in header.tensors.values() if is_packed(tensor)]
    kinds = set(_tiled(header, weights))
    if len(kinds) > 1:
        return "the scales of some of its nvfp4 weights lie in tiles, those of others in rows"
    for weight in weights:
        if module_of(weight.name) + _SCALES not in header.tensors:
            continue  # a fault, or no packed weight
        if all(module_of(weight.name) + ending in header.tensors for ending in (WHOLE_SCALE, GLOBAL_SCALE)):
            return "some of its nvfp4 weights have scales of two programs (weight_scale_2 and weight_global_scale)"
        layout = layout_of(header, weight.name)
        if layout is None and _is_of_modelopt(header):
            return "it is ModelOpt's, and doesn't tell which half of a byte comes first or how its scales lie"
        if layout is None:
            return "it doesn't tell whether its nvfp4 scales lie in tiles or in rows: notes (comfy_quant) are missing"
        if layout == _COMFYUI and kinds == {False}:
            return "its notes (comfy_quant) say that its nvfp4 scales lie in tiles, and their shapes that they don't"
    return ""


def _missing(stored: StoredWeight) -> list[str]:
    """The names of scales that a packed weight lacks."""
    layer = module_of(stored.values)
    scales = [] if stored.scales else [layer + _SCALES]
    return scales if stored.factors else [*scales, layer + WHOLE_SCALE]


def _misshapen(tensors: Mapping[str, Tensor], stored: StoredWeight) -> list[str]:
    """Sentences on scales that don't fit a packed weight."""
    weight, faults = tensors[stored.values], []
    if weight.shape[1] % (BLOCK // 2):
        faults.append(f"{weight.name}: {2 * weight.shape[1]} columns are not a multiple of {BLOCK}")
    elif stored.scales:
        scales = tensors[stored.scales]
        arrangements = (True,) if stored.factors and not stored.factors[0].endswith(WHOLE_SCALE) else (True, False)
        shapes = [scale_shape((weight.shape[0], weight.shape[1]), tiled=tiled) for tiled in arrangements]
        if scales.dtype not in _SCALE_DTYPES or scales.shape not in shapes:
            faults.append(f"{scales.name}: {scales.dtype} scales {list(scales.shape)} for {list(shapes[-1])} blocks")
    for name in stored.factors:
        if tensors[name].dtype not in FLOATS or tensors[name].elements != 1:
            faults.append(f"{name}: {tensors[name].dtype} {list(tensors[name].shape)} is not one number")
    return faults
