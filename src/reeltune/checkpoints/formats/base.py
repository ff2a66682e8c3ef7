"""What a weight format says of a file without reading its data: the protocol that all of them follow.

A format looks at names, data types, shapes and metadata. Its arithmetic, which needs torch, is in the module of the
same name in `weights.formats`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from reeltune.checkpoints.contents import Header, Source, Tensor
from reeltune.dtypes import DType, Quantization
from reeltune.errors import UnsupportedFormat

SAFETENSORS = "safetensors"
SAFETENSORS_ENDINGS = (".safetensors", ".sft")
ACTIVATION_SCALES = (".input_scale", ".output_scale")  # for arithmetic on quantized activations, which isn't done here
FLOATS = ("BF16", "F16", "F32")  # what scales are stored in
_ITEM_BYTES = MappingProxyType({DType.BF16: 2, DType.FP16: 2, DType.FP32: 4})


def bytes_of(elements: int, dtype: DType) -> int:
    """Bytes that a number of values take in a data type."""
    return elements * _ITEM_BYTES[dtype]


def module_of(tensor_name: str) -> str:
    """The name of the layer that a weight belongs to."""
    return tensor_name.removesuffix(".weight")


def file_name(header: Header) -> str:
    """The name of a header's file in lower case, without its folders."""
    return header.file.replace("\\", "/").rpartition("/")[2].lower()


@dataclass(frozen=True)
class StoredWeight:
    """The names of the stored tensors that make one weight: its values, and the scales they are multiplied with.

    `factors`: single numbers that make the scale of the whole weight, beside those of its parts.
    """

    values: str
    scales: str | None = None
    factors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Faults:
    """What is wrong with the way in which a file's weights are stored, by the names of tensors.

    `missing`: scales that are not there though their weights are; `unexpected`: tensors that belong to no weight;
    `misshapen`: sentences about values and scales that don't fit each other.
    """

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misshapen: tuple[str, ...] = ()


class WeightFormat(Protocol):
    """One way to store weights. What the methods do here is right for a format without scales.

    `label`: what reports call it; `reason_not_loadable`: empty where its weights can be loaded; `hint`: what to use
    instead. `stays_quantized`: its weights stay quantized in memory, and compute only in the data type they were made
    for. `converted_on_load`: they are quantized in the file, and converted to 16 bits while they are loaded.
    `can_stay`: instead of being converted, they can stay in memory as they are stored, in a run of any data type.
    `stored_as_int8`: they are stored as 8-bit integers, so that they can be int8 in memory too.
    `container`, `endings`: the kind of file, and how names of such files end. `name_pattern`: a regular expression of
    what a name says it with, to be replaced in the name of a converted file.
    """

    quantization: Quantization
    label: str
    reason_not_loadable: str = ""
    hint: str = "Use a bf16, fp16, fp8 or int8 version."
    stays_quantized: bool = False
    converted_on_load: bool = False
    can_stay: bool = False
    stored_as_int8: bool = False
    container: str = SAFETENSORS
    endings: tuple[str, ...] = SAFETENSORS_ENDINGS
    name_pattern: str = ""

    # --- recognizing it -------------------------------------------------------------------------------------

    def is_named_in(self, file_name: str) -> bool:
        """Whether a file's name, in lower case, says that its weights are stored so."""
        return False

    def named_dtype(self, file_name: str) -> DType | None:
        """The data type to compute in that a name, in lower case, tells of."""
        for dtype in (DType.BF16, DType.FP16):
            if re.search(rf"(?<![a-z0-9])m?{dtype}(?![a-z0-9])", file_name):
                return dtype
        return None

    def starts_file(self, start: bytes) -> bool:
        """Whether a file that begins so is a container of this format, and not a safetensors file."""
        return False

    def is_in_header(self, header: Header) -> bool:
        """Whether a header shows that the file's weights are stored so."""
        return False

    def objection(self, header: Header) -> str:
        """Why the weights of a file can't be loaded, by what its header says beyond the format; empty if they can."""
        return ""

    # --- names and shapes of the weights --------------------------------------------------------------------

    def read_header(self, source: Source) -> Header:
        """The header of a container of this format. Raises HeaderError, or UnsupportedFormat where none are read."""
        raise UnsupportedFormat(f"{source.name} can't be loaded: {self.reason_not_loadable}.", hint=self.hint)

    def is_part(self, tensor_name: str) -> bool:
        """Whether a tensor is no weight of its own: scales and marks, which go with another tensor."""
        return tensor_name.endswith(ACTIVATION_SCALES)

    def is_mark(self, tensor_name: str) -> bool:
        """Whether a tensor that the model doesn't have only says how others are stored."""
        return False

    def weight_name(self, tensor_name: str) -> str:
        """The name of the weight whose values a stored tensor holds."""
        return tensor_name

    def weight_shape(self, tensor: Tensor) -> tuple[int, ...]:
        """The shape of the weight whose values a stored tensor holds."""
        return tensor.shape

    def has_rows_apart(self, tensor: Tensor) -> bool:
        """Whether each row of a stored tensor can be decoded without the others."""
        return True

    def stored_weight(self, tensor_name: str, names: Collection[str]) -> StoredWeight:
        """The tensors that make the weight whose values are in `tensor_name`; `names`: all names of the file."""
        return StoredWeight(tensor_name)

    def faults(self, file_name: str, tensors: Mapping[str, Tensor], names: Collection[str]) -> Faults:
        """What is wrong with the way in which the weights `names` are stored; `tensors`: all of the file."""
        return Faults()

    # --- data types and memory ------------------------------------------------------------------------------

    def tells_dtype(self, tensor_name: str) -> bool:
        """Whether the data type of a tensor is one that the file's weights compute in."""
        return True

    def bytes_in_memory(self, tensor: Tensor, dtype: DType) -> int:
        """Bytes that a stored tensor takes in memory, in a run of a data type; 0 where it isn't kept."""
        if self.is_part(tensor.name):
            return 0
        return bytes_of(tensor.elements, dtype)
