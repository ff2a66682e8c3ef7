"""The quanto int8 format in a safetensors file.

A quantized linear layer `m` is stored as `m.weight._data` (I8 [out, in]), `m.weight._scale` (16 bits [out, 1])
and the scalars `m.input_scale`, `m.output_scale` (1: activations are not quantized); weight ≈ data * scale.
The metadata names the format and lists the layers: `quantization_map_base64` is base64 of
JSON {module: {"weights": "qint8", "activations": "none"}}. Format of huggingface/optimum-quanto.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Iterable, Mapping

from reeltune.checkpoints.contents import Header, Tensor
from reeltune.checkpoints.formats.base import ACTIVATION_SCALES, FLOATS, Faults, StoredWeight, WeightFormat, bytes_of
from reeltune.dtypes import DType, Quantization

DATA = ".weight._data"
SCALE = ".weight._scale"
_NAMED = re.compile(r"quanto[_-](?:m?(?P<dtype>bf16|fp16)[_-])?int8(?![a-z0-9])")


class QuantoInt8(WeightFormat):
    """Linear layers as int8 with one scale for each row, everything else as it is."""

    quantization = Quantization.QUANTO_INT8
    label = "quanto int8"
    stays_quantized = True
    stored_as_int8 = True

    def is_named_in(self, file_name: str) -> bool:
        """`_quanto_bf16_int8`, `_quanto_int8` and the like."""
        return "quanto" in file_name and "int8" in file_name

    def named_dtype(self, file_name: str) -> DType | None:
        """The data type between `quanto` and `int8`, whatever else the name holds."""
        named = _NAMED.search(file_name)
        if named and named["dtype"]:
            return DType(named["dtype"])
        return super().named_dtype(file_name)

    def is_in_header(self, header: Header) -> bool:
        """By the names of the data alone, whichever layers the writer chose."""
        data_types = {tensor.dtype for name, tensor in header.tensors.items() if name.endswith(DATA)}
        return data_types == {"I8"}

    def is_part(self, tensor_name: str) -> bool:
        """Scales go with the data."""
        return tensor_name.endswith((SCALE, *ACTIVATION_SCALES))

    def weight_name(self, tensor_name: str) -> str:
        """`m.weight` for `m.weight._data`."""
        if tensor_name.endswith(DATA):
            return f"{tensor_name.removesuffix(DATA)}.weight"
        return tensor_name

    def stored_weight(self, tensor_name: str, names: Collection[str]) -> StoredWeight:
        """Data with their scales; a tensor that isn't quantized alone."""
        if tensor_name.endswith(DATA):
            return StoredWeight(tensor_name, tensor_name.removesuffix(DATA) + SCALE)
        return StoredWeight(tensor_name)

    def faults(self, file_name: str, tensors: Mapping[str, Tensor], names: Collection[str]) -> Faults:
        """Data without scales, scales without data, and either of a wrong data type or shape."""
        data_names = [name for name in names if name.endswith(DATA)]
        modules = {name.removesuffix(DATA) for name in data_names}
        missing = sorted(module + SCALE for module in modules if module + SCALE not in names)
        unexpected = [name for name in names if name.endswith(SCALE) and name.removesuffix(SCALE) not in modules]
        unexpected += [name for name in data_names if self.weight_name(name) in names]
        misshapen = []
        for name in data_names:
            scale = tensors.get(name.removesuffix(DATA) + SCALE)
            if scale is not None and not _fit(tensors[name], scale):
                misshapen.append(_unfitting(tensors[name], scale))
        return Faults(tuple(missing), tuple(unexpected), tuple(misshapen))

    def tells_dtype(self, tensor_name: str) -> bool:
        """The scales are stored in the data type that the layers compute in."""
        return tensor_name.endswith(SCALE)

    def bytes_in_memory(self, tensor: Tensor, dtype: DType) -> int:
        """One byte for each quantized value, beside the scales."""
        if tensor.name.endswith(DATA):
            return tensor.elements
        if tensor.name.endswith(ACTIVATION_SCALES):
            return 0
        return bytes_of(tensor.elements, dtype)


def _fit(data: Tensor, scale: Tensor) -> bool:
    """Whether data are int8 and have one floating number for each of their rows."""
    if not data.shape or data.dtype != "I8":
        return False
    return scale.dtype in FLOATS and scale.elements == data.shape[0]


def _unfitting(data: Tensor, scale: Tensor) -> str:
    return f"{data.name}: {data.dtype} {list(data.shape)} with {scale.dtype} scales {list(scale.shape)}"


def name_token(dtype: DType, mixed: str) -> str:
    """What the name of a file says it with; `mixed`: "m" where some of its tensors are fp32."""
    return f"_quanto_{mixed}{dtype}_int8"


def quantization_metadata(modules: Iterable[str]) -> dict[str, str]:
    """Metadata that tells readers which layers are quantized."""
    table = {module: {"weights": "qint8", "activations": "none"} for module in modules}
    encoded = base64.b64encode(json.dumps(table).encode("utf-8")).decode("ascii")
    return {"quantization_format": "quanto", "quantization_map_base64": encoded}
