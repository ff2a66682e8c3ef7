"""ComfyUI's notes on layers: what they say, how few reads they take, and what is refused because of them."""

import json

import pytest

from conftest import safetensors_bytes
from reeltune.checkpoints import formats
from reeltune.checkpoints.contents import Header, Tensor
from reeltune.checkpoints.header import parse_header
from reeltune.checkpoints.identify import identify
from reeltune.checkpoints.notes import Note, note_of, parse_note, read_notes
from reeltune.dtypes import Quantization

Q = "blocks.0.self_attn.q"
CONVROT = {"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": 64}


class Counted:
    """A source of bytes that counts how often it is read."""

    name = "x.safetensors"

    def __init__(self, data):
        self.data, self.reads = data, 0

    def size(self):
        return len(self.data)

    def read_at(self, offset, length):
        self.reads += 1
        return self.data[offset : offset + length]


def noted(notes, tensors=None, metadata=None, name="x.safetensors"):
    """The header of a file with a note on each of some layers, and an int8 weight with its scale beside each."""
    raw = {layer: json.dumps(note).encode() if not isinstance(note, bytes) else note for layer, note in notes.items()}
    stored = {}
    for layer in raw:
        stored[f"{layer}.weight"] = ("I8", [4, 64])
        stored[f"{layer}.weight_scale"] = ("F32", [4, 1])
    stored |= tensors or {}
    stored |= {f"{layer}.comfy_quant": ("U8", [len(text)]) for layer, text in raw.items()}
    data = safetensors_bytes(stored, metadata=metadata)
    data = data[: len(data) - sum(map(len, raw.values()))] + b"".join(raw.values())
    source = Counted(data)
    source.name = name
    return parse_header(source)


@pytest.mark.parametrize(
    ("raw", "note"),
    [
        (b'{"format": "int8_tensorwise"}', Note("int8_tensorwise")),
        (b'{"format": "int8_tensorwise", "convrot": true}', Note("int8_tensorwise", 256)),
        (json.dumps(CONVROT).encode(), Note("int8_tensorwise", 64)),
        (b'{"format": "int8_tensorwise", "params": {"convrot": true, "convrot_groupsize": 16}}', Note("int8_tensorwise", 16)),
        (b'{"format": "int8_tensorwise", "convrot": false, "convrot_groupsize": 16}', Note("int8_tensorwise")),
        (b'{"format": "int8_tensorwise", "convrot": true, "convrot_groupsize": "x"}', Note("int8_tensorwise", -1)),
        (b'{"format": "int8_tensorwise", "zeros": 1}', Note("int8_tensorwise", 0, ("zeros",))),
        (b"{", Note("")),
        (b"\xff\xfe", Note("")),
        (b"[]", Note("")),
        (b'{"format": 5}', Note("")),
        (b'"nvfp4"', Note("nvfp4")),
        (b'{"format": "nvfp4", "group_size": 16, "orig_dtype": "torch.bfloat16"}', Note("nvfp4")),
        (b'{"format": "nvfp4", "params": {"group_size": 32}}', Note("nvfp4", 0, ("group_size",))),
        (b'{"format": "int8_tensorwise", "group_size": 16}', Note("int8_tensorwise", 0, ("group_size",))),
    ],
)  # fmt: skip
def test_what_notes_say(raw, note):
    assert parse_note(raw) == note


def test_notes_that_lie_together_are_read_at_once():
    layers = {f"blocks.{number}.ffn.0": CONVROT for number in range(300)}
    header = noted(layers)
    assert len(header.notes) == 300
    assert note_of(header, "blocks.7.ffn.0") == Note("int8_tensorwise", 64)
    assert note_of(header, "blocks.7.ffn.2") is None
    assert identify(header).quantization is Quantization.INT8_SCALED


def test_notes_far_apart_are_sampled_over_the_network_and_read_from_files():
    far = 2_000_000
    tensors = {f"{number}.comfy_quant": Tensor(f"{number}.comfy_quant", "U8", (2,), number * far, number * far + 2)
               for number in range(100)}  # fmt: skip
    source = Counted(b"{}" * (50 * far + 1))
    assert len(read_notes(source, tensors, everything=False)) == source.reads == 1
    assert len(read_notes(source, tensors, everything=True)) == 100
    header = Header("x", tensors, {}, 0, 0)
    assert note_of(header, "5") == Note("")  # it wasn't read


def test_notes_in_the_metadata():
    table = {"layers": {Q: CONVROT, "other": "nvfp4"}}
    stored = {
        f"model.diffusion_model.{Q}.weight": ("I8", [4, 64]),
        f"model.diffusion_model.{Q}.weight_scale": ("F32", []),
    }
    header = noted({}, stored, {"_quantization_metadata": json.dumps(table)})
    assert note_of(header, f"model.diffusion_model.{Q}") == Note("int8_tensorwise", 64)
    assert note_of(header, "other") == Note("nvfp4")
    assert formats.format_by_header(header).quantization is Quantization.NVFP4
    for odd in ("", "{", "[]", '{"layers": 3}', "[" * 500, "\ud800"):
        assert (
            note_of(noted({}, stored, {"_quantization_metadata": odd}) if odd != "\ud800" else header, "none") is None
        )


@pytest.mark.parametrize(
    ("note", "quantization"),
    [
        ("convrot_w4a4", Quantization.INT4),
        ("awq_w4a16", Quantization.INT4),
        ("asym_w4a8_int8", Quantization.W4A8),
        ("mxfp8", Quantization.MXFP),
        ("svdquant_w4a4", Quantization.NUNCHAKU),
    ],
)
def test_notes_name_formats_that_are_refused(note, quantization):
    found = identify(noted({Q: {"format": note}}))
    assert found.quantization is quantization
    assert formats.format_of(found.quantization).reason_not_loadable


@pytest.mark.parametrize(
    ("note", "words"),
    [
        ({"format": "int8_blockwise"}, "stored in the format 'int8_blockwise', which isn't known"),
        (CONVROT | {"convrot_groupsize": 128}, "groups of 128 columns, which is not a power of 4"),
        (CONVROT | {"convrot_groupsize": "many"}, "groups of -1 columns"),
        (CONVROT | {"signs": [1, -1]}, "contains 'signs', which isn't known"),
        (b"?", "can't be read"),
        ({"format": "float8_e4m3fn", "convrot": True}, "float8_e4m3fn and rotated"),
    ],
)
def test_rotations_that_are_not_told_in_full_are_refused(note, words):
    assert words in identify(noted({Q: note})).objection


def test_a_name_that_says_rotated_needs_a_note():
    tensors = {f"{Q}.weight": ("I8", [4, 64]), f"{Q}.weight_scale": ("F32", [4, 1])}
    assert identify(noted({}, tensors)).objection == ""
    found = identify(noted({}, tensors, name="/convrot/x_int8.safetensors"))
    assert found.objection == ""
    found = identify(noted({}, tensors, name="/models/x_int8_ConvRot.safetensors"))
    assert found.objection == "its name says that its weights are rotated, and no note (comfy_quant) tells how"
    assert identify(noted({Q: CONVROT}, name="x_int8_convrot.safetensors")).objection == ""


def test_a_name_that_says_scaled_needs_scales():
    tensors = {f"{Q}.weight": ("F8_E4M3", [4, 64])}
    found = identify(noted({}, tensors, name="/models/x_fp8_e4m3fn_scaled.safetensors"))
    assert (
        found.objection == "its name says that it is scaled, and it contains no scales (weight_scale or scale_weight)"
    )
    assert identify(noted({}, tensors, name="x_upscaled_fp8.safetensors")).objection == ""
    assert (
        identify(noted({}, tensors | {f"{Q}.scale_weight": ("F32", [])}, name="x_fp8_scaled.safetensors")).objection
        == ""
    )
