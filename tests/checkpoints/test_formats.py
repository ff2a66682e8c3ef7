"""Every weight format: how it is recognized, which tensors are its weights, what it takes in memory, what is wrong."""

import pytest

from conftest import safetensors_bytes
from reeltune.checkpoints import formats
from reeltune.checkpoints.contents import Header, Tensor
from reeltune.checkpoints.formats.base import StoredWeight
from reeltune.checkpoints.header import parse_header
from reeltune.checkpoints.identify import identify
from reeltune.checkpoints.names import name_objection, read_name
from reeltune.dtypes import DType, Quantization
from reeltune.errors import UnsupportedFormat
from reeltune.weights.formats import DECODERS

Q = "blocks.0.self_attn.q"


class Bytes:
    """A source of bytes in memory."""

    name = "x.safetensors"

    def __init__(self, data):
        self.data = data

    def size(self):
        return len(self.data)

    def read_at(self, offset, length):
        return self.data[offset : offset + length]


def header(tensors):
    return parse_header(
        Bytes(safetensors_bytes({name: (dtype, list(shape)) for name, (dtype, shape) in tensors.items()}))
    )


QUANTO = {f"{Q}.weight._data": ("I8", (4, 8)), f"{Q}.weight._scale": ("BF16", (4, 1)), f"{Q}.input_scale": ("BF16", ())}
SCALED = {f"{Q}.weight": ("F8_E4M3", (4, 8)), f"{Q}.scale_weight": ("F32", ())}
HEADERS = [
    ({f"{Q}.weight": ("BF16", (4, 8))}, Quantization.NONE, 32, 64),
    ({f"{Q}.weight": ("F32", (4, 8))}, Quantization.NONE, 32, 64),
    (QUANTO, Quantization.QUANTO_INT8, 32, 32 + 8),
    ({f"{Q}.weight._data": ("U8", (4, 8))}, Quantization.OTHER_QUANTO, 32, 64),
    ({f"{Q}.weight": ("F8_E5M2", (4, 8))}, Quantization.FP8, 32, 64),
    (SCALED, Quantization.FP8_SCALED, 32, 64),
    ({f"{Q}.weight": ("F8_E4M3FNUZ", (4, 8))}, Quantization.OTHER_FLOATS, 32, 64),
    ({f"{Q}.weight": ("F8_E4M3", (4, 64)), f"{Q}.weight_scale": ("F8_E8M0", (4, 2))}, Quantization.MXFP, 256, 512),
    ({f"{Q}.weight": ("F8_E4M3", (4, 64)), f"{Q}.weight_scale": ("U8", (4, 2))}, Quantization.MXFP, 256, 512),
    ({f"{Q}.weight": ("I8", (4, 8)), f"{Q}.weight_scale": ("F32", (4, 1))}, Quantization.INT8_SCALED, 32, 64),
    ({f"{Q}.qweight": ("I8", (4, 4)), f"{Q}.wscales": ("BF16", (1, 4))}, Quantization.NUNCHAKU, 16, 32),
    ({f"{Q}.weight": ("I8", (4, 4)), f"{Q}.weight_s_rel": ("F8_E4M3", (4, 1))}, Quantization.W4A8, 16, 32),
    (
        {f"{Q}.weight": ("I8", (4, 4)), f"{Q}.weight_scale": ("F32", (1, 4)), f"{Q}.weight_zeros": ("F32", (1, 4))},
        Quantization.INT4,
        16,
        32,
    ),
    ({f"{Q}.qweight": ("I32", (4, 4)), f"{Q}.qzeros": ("I32", (1, 4))}, Quantization.INT4, 16, 32),
    ({f"{Q}.weight": ("U8", (16, 1)), f"{Q}.weight.absmax": ("F32", (1,))}, Quantization.NF4, 16, 32),
    ({f"{Q}.weight": ("U8", (4, 4)), f"{Q}.weight_scale_2": ("F32", ())}, Quantization.NVFP4, 32, 64),
    ({f"{Q}.weight": ("I8", (4, 8)), f"{Q}.bias": ("F32", (4,))}, Quantization.OTHER_INT8, 36, 72),
]


@pytest.mark.parametrize(("tensors", "quantization", "parameters", "memory"), HEADERS)
def test_headers(tensors, quantization, parameters, memory):
    found = identify(header(tensors))
    assert (found.quantization, found.parameters, found.memory_bytes) == (quantization, parameters, memory)


def test_four_bit_floats_are_nvfp4():
    tensors = {f"{Q}.weight": Tensor(f"{Q}.weight", "F4", (4, 8), 0, 16)}
    assert formats.format_by_header(Header("x", tensors, {}, 16, 0)).quantization is Quantization.NVFP4


@pytest.mark.parametrize(
    "name",
    [
        "x-IQ2_XS.gguf",
        "x-mxfp4.gguf",
        "x.pt",
        "x_quanto_int4.safetensors",
        "svdq-int4_r32-x.safetensors",
        "nunchaku_x.safetensors",
        "x_w4a8.safetensors",
        "x-int4.safetensors",
        "x_awq.safetensors",
        "x_nf4.safetensors",
        "x_mxfp8.safetensors",
        "svdq-fp4_r32-x.safetensors",
        "x_int4_convrot.safetensors",
    ],
)
def test_names_that_promise_nothing_loadable(name):
    assert name_objection(name)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("x_quanto_bf16_int8_fp16.safetensors", DType.BF16), ("x_mfp16.safetensors", DType.FP16), ("x_bf16_quanto_int8.sft", DType.BF16), ("x.safetensors", None)],
)  # fmt: skip
def test_data_types_that_names_tell(name, dtype):
    assert read_name(name).dtype is dtype


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"GGUF\x01\x00\x00\x00", "GGUF file with version 1"),
        (b"PK\x03\x04\x14\x00\x00\x08", "pickle or zip"),
        (b"\x80\x02ctorch", "pickle or zip"),
    ],
)
def test_containers_by_their_first_bytes(start, words):
    with pytest.raises(UnsupportedFormat, match=words):
        parse_header(Bytes(start + bytes(100)))


def test_every_quantization_is_one_format_and_every_loadable_one_has_a_decoder():
    quantizations = [known.quantization for known in formats.FORMATS]
    assert sorted(quantizations) == sorted(Quantization)
    loadable = [known.quantization for known in formats.FORMATS if not known.reason_not_loadable]
    assert sorted(loadable) == sorted(decoder.quantization for decoder in DECODERS)
    assert formats.loadable_endings() == (".gguf", ".safetensors", ".sft")


def test_the_tensors_that_make_a_weight():
    quanto, fp8 = formats.format_of(Quantization.QUANTO_INT8), formats.format_of(Quantization.FP8_SCALED)
    assert quanto.stored_weight(f"{Q}.weight._data", QUANTO) == StoredWeight(f"{Q}.weight._data", f"{Q}.weight._scale")
    assert quanto.weight_name(f"{Q}.weight._data") == f"{Q}.weight"
    assert fp8.stored_weight(f"{Q}.weight", SCALED) == StoredWeight(f"{Q}.weight", f"{Q}.scale_weight")
    assert fp8.stored_weight(f"{Q}.bias", SCALED) == StoredWeight(f"{Q}.bias")
    assert [name for name in (*QUANTO, *SCALED) if not quanto.is_part(name) and not fp8.is_part(name)] == [
        f"{Q}.weight._data",
        f"{Q}.weight",
    ]


def test_memory_of_a_tensor_in_a_data_type():
    tensor = Tensor("x.weight", "BF16", (4, 8), 0, 64)
    sixteen = formats.format_of(Quantization.NONE)
    assert [sixteen.bytes_in_memory(tensor, dtype) for dtype in DType] == [64, 64, 128]


@pytest.mark.parametrize(
    ("quantization", "name", "change", "kind"),
    [
        (Quantization.QUANTO_INT8, "x", {f"{Q}.weight._scale": None}, "missing"),
        (Quantization.QUANTO_INT8, "x", {"o.weight._scale": ("BF16", (4, 1))}, "unexpected"),
        (Quantization.QUANTO_INT8, "x", {f"{Q}.weight": ("BF16", (4, 8))}, "unexpected"),
        (Quantization.QUANTO_INT8, "x", {f"{Q}.weight._scale": ("BF16", (1, 1))}, "misshapen"),
        (Quantization.FP8_SCALED, "x", {f"{Q}.scale_weight": None}, "missing"),
        (Quantization.FP8, "x_fp8_scaled", {f"{Q}.scale_weight": None}, "missing"),
        (Quantization.FP8, "x_fp8_upscaled", {f"{Q}.scale_weight": None}, ""),
        (Quantization.FP8_SCALED, "x", {"o.weight_scale": ("F32", ())}, "unexpected"),
        (Quantization.FP8_SCALED, "x", {f"{Q}.scale_weight": ("F32", (3,))}, "misshapen"),
        (Quantization.FP8_SCALED, "x", {}, ""),
        (Quantization.QUANTO_INT8, "x", {}, ""),
    ],
)  # fmt: skip
def test_faults_of_scales(quantization, name, change, kind):
    stored = {**(QUANTO if quantization is Quantization.QUANTO_INT8 else SCALED), **change}
    tensors = header({key: value for key, value in stored.items() if value}).tensors
    faults = formats.format_of(quantization).faults(f"{name}.safetensors", tensors, tensors)
    assert {key for key, names in vars(faults).items() if names} == ({kind} if kind else set())
