"""fp8: decoding, weights that stay fp8, products in fp8, and files that other programs read."""

import re

import pytest
import tiny
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file
from test_lora import lora, merged, pairs
from torch.nn import functional

from reeltune.checkpoints.header import read_header
from reeltune.checkpoints.identify import identify
from reeltune.checkpoints.keys import matches
from reeltune.engine.reporting import Reporter
from reeltune.engine.speed import computes_fp8, dynamic_fp8
from reeltune.errors import CheckpointError, UnsupportedFormat
from reeltune.events import Notice
from reeltune.families.wan import WAN
from reeltune.weights import fp8, fp8_rows, stream
from reeltune.weights._libraries import (
    dequantized,
    fp8_tensor,
    is_fp8,
    is_quantized,
    multiplies_in_fp8,
    multiplying_in_fp8,
    quantized_parts,
    with_quantized_parts,
)
from reeltune.weights.load import load_transformer
from reeltune.weights.quantize import quantize
from reeltune.weights.upload import move
from reeltune.weights.wide import products_in_fp32

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
LINEAR = "blocks.0.ffn.0"
CPU = torch.device("cpu")


@pytest.fixture
def weights():
    return tiny.original_weights()


@pytest.fixture
def bf16(tmp_path, weights):
    return tiny.write(tmp_path / "x_bf16.safetensors", {name: row.to(torch.bfloat16) for name, row in weights.items()})


def is_linear(name):
    module = name.removesuffix(".weight")
    return name.endswith(".weight") and any(matches(module, pattern) for pattern in WAN.quantizable)


# --- arithmetic -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("stored", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_every_number_is_decoded_as_torch_converts_it(stored, dtype):
    every = torch.arange(256, dtype=torch.int16).to(torch.uint8).view(stored)
    finite = every[every.to(torch.float32).isfinite()]
    finite = finite[: len(finite) // 2 * 2].view(2, -1)
    for rows in (finite, every.view(16, 16)):
        scale = torch.rand(len(rows), 1) * 10.0 ** torch.randint(-6, 3, (len(rows), 1))
        wanted = (rows.to(torch.float32) * scale).to(dtype)
        found = fp8.decode(rows, scale, dtype)
        assert torch.equal(found.nan_to_num(7.0), wanted.nan_to_num(7.0))
        assert torch.equal(found.isnan(), wanted.isnan())


def test_large_weights_are_decoded_in_parts():
    data = torch.randn(700, 1000).to(torch.float8_e4m3fn)
    scale = torch.rand(700, 1)
    assert torch.equal(fp8.decode(data, scale, torch.bfloat16), (data.float() * scale).to(torch.bfloat16))
    assert fp8.decode(data[:0], scale[:0], torch.bfloat16).shape == (0, 1000)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_computes_what_its_decoded_weight_does(dtype, wide, bias):
    torch.manual_seed(0)
    weight = fp8_tensor(torch.randn(48, 32).to(torch.float8_e4m3fn), torch.rand(48, 1), dtype)
    x, b = torch.randn(2, 5, 32, dtype=dtype), torch.randn(48, dtype=dtype) if bias else None
    with torch.no_grad(), products_in_fp32(wide):
        assert torch.equal(functional.linear(x, weight, b), functional.linear(x, dequantized(weight), b))


def test_products_in_fp8_are_close():
    torch.manual_seed(0)
    weight = torch.randn(64, 128) * 0.02
    scale = fp8_rows.row_scales(weight, "w")
    data = torch.empty(weight.shape, dtype=torch.float8_e4m3fn)
    fp8_rows.to_fp8(weight, scale, data)
    dynamic = multiplying_in_fp8(fp8_tensor(data, scale, torch.bfloat16))
    assert multiplies_in_fp8(dynamic)
    assert multiplies_in_fp8(with_quantized_parts(dynamic, *quantized_parts(dynamic)))
    x, bias = torch.randn(3, 7, 128).to(torch.bfloat16), torch.randn(64).to(torch.bfloat16)
    x[0, 0] = 0  # a token of zeros
    x[1, 1] *= 1e4
    x[1, 2, 5] = 3e4  # an outlier
    found = functional.linear(x, dynamic, bias).float()
    wanted = functional.linear(x.float(), data.float() * scale, bias.float())
    assert found.shape == (3, 7, 64)
    error = (found - wanted).norm(dim=-1) / wanted.norm(dim=-1)
    assert float(error.max()) < 0.06
    assert torch.equal(found[0, 0], bias.float())


# --- weights that stay fp8 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scales", ["tensor", "row", "none"])
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("wide", [True, False])
def test_kept_weights_make_the_same_numbers_as_converted_ones(bf16, scales, dtype, wide):
    made = quantize(bf16, to="fp8", scales=scales)
    kept, converted = load_transformer(made.path, dtype, keep=True), load_transformer(made.path, dtype)
    of_blocks = [name for name, parameter in kept.named_parameters() if is_fp8(parameter)]
    assert len(of_blocks) == made.modules == 20
    assert not any(is_quantized(parameter) for parameter in converted.parameters())
    run = torch.bfloat16 if dtype == "bf16" else torch.float16
    with products_in_fp32(wide):
        assert torch.equal(tiny.forward(kept, run), tiny.forward(converted, run))


def test_kept_weights_lie_in_the_mapped_file_and_are_moved_as_they_are(bf16):
    made = quantize(bf16, to="fp8", scales="row")
    model = load_transformer(made.path, "bf16", keep=True)
    data, scale = quantized_parts(model.blocks[0].ffn.net[0].proj.weight)
    assert data.untyped_storage().nbytes() > data.numel()
    before = tiny.forward(model)
    move(model, CPU, None, again=True)
    moved, moved_scale = quantized_parts(model.blocks[0].ffn.net[0].proj.weight)
    assert moved.data_ptr() != data.data_ptr()
    assert moved.untyped_storage().nbytes() == moved.numel()
    assert torch.equal(moved_scale, scale)
    assert torch.equal(tiny.forward(model), before)


def test_products_in_fp8_are_set_up_only_where_a_device_computes_them(bf16, monkeypatch):
    model = load_transformer(quantize(bf16, to="fp8").path, "bf16", keep=True)
    events = []
    reporter = Reporter(events.append)
    assert not computes_fp8(CPU)
    assert dynamic_fp8(model, CPU, reporter) == 0
    before = tiny.forward(model)
    monkeypatch.setattr("reeltune.engine.speed.computes_fp8", lambda device: True)

    def refused(device):
        raise RuntimeError("torch._scaled_mm is only supported on ...\nand more")

    with monkeypatch.context() as patch:
        patch.setattr(fp8, "try_product", refused)
        assert dynamic_fp8(model, CPU, reporter) == 0
    assert [event.message for event in events if isinstance(event, Notice)] == [
        "cpu doesn't multiply in fp8 here (torch._scaled_mm is only supported on ...): fp8 weights are multiplied in 16 bits."
    ]
    assert dynamic_fp8(model, CPU, reporter) == 20
    after = tiny.forward(model)
    assert not torch.equal(after, before)
    assert (after - before).float().norm() < 0.1 * before.float().norm()


@pytest.mark.parametrize(
    ("stored", "shape", "dtype"),
    [
        (torch.float8_e5m2, (32, 32), torch.bfloat16),
        (torch.float8_e4m3fn, (32, 24), torch.bfloat16),
        (torch.float8_e4m3fn, (24, 32), torch.bfloat16),
        (torch.float8_e4m3fn, (32, 32), torch.float16),
    ],
)
def test_layers_that_cards_cannot_multiply_in_fp8_are_left_out(stored, shape, dtype, monkeypatch):
    monkeypatch.setattr("reeltune.engine.speed.computes_fp8", lambda device: True)
    layer = torch.nn.Linear(shape[1], shape[0], bias=False)
    weight = fp8_tensor(torch.randn(shape).to(stored), torch.ones(shape[0], 1), dtype)
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    assert dynamic_fp8(layer, CPU, Reporter(lambda event: None)) == 0


# --- files -----------------------------------------------------------------------------------------------------------

NAMES = {"tensor": "x_fp8_e4m3fn_scaled", "row": "x_fp8_e4m3fn_scaled", "none": "x_fp8_e4m3fn"}


def reference(weight, scales):
    """A weight in fp8 and its scale, by the formula."""
    weight = weight.float()
    largest = weight.abs().amax() if scales == "tensor" else weight.abs().amax(dim=1, keepdim=True)
    scale = torch.ones(()) if scales == "none" else largest / 448
    scale = scale.masked_fill(scale == 0, 1)
    return (weight / scale).to(torch.float8_e4m3fn), scale


@pytest.mark.parametrize("scales", NAMES)
@pytest.mark.parametrize("stored", DTYPES, ids=str)
def test_every_value_is_the_formulas(tmp_path, weights, scales, stored, monkeypatch):
    monkeypatch.setattr(stream, "READ_BYTES", 4096)  # several pieces for a weight
    weights[f"{LINEAR}.weight"][3] = 0
    path = tiny.write(tmp_path / "x.safetensors", {name: row.to(stored) for name, row in weights.items()})
    made = quantize(path, to="fp8", scales=scales)
    assert made.path.name == f"{NAMES[scales]}.safetensors"
    found, old = load_file(made.path), load_file(path)
    for name, tensor in old.items():
        if not is_linear(name):
            continue
        data, scale = reference(tensor, scales)
        assert torch.equal(found[name].float(), data.float()), name
        module = name.removesuffix(".weight")
        if scales == "tensor":
            assert torch.equal(found[f"{module}.scale_weight"], scale)
        elif scales == "row":
            assert torch.equal(found[f"{module}.weight_scale"], scale)


def test_names_and_shapes_that_comfyui_reads(bf16):
    """One fp32 number for each weight, and the mark of two numbers: ComfyUI then multiplies with decoded weights."""
    header = read_header(quantize(bf16, to="fp8").path)
    tensors = header.tensors
    assert (tensors["scaled_fp8"].dtype, tensors["scaled_fp8"].shape) == ("F8_E4M3", (2,))
    in_fp8 = [name for name, tensor in tensors.items() if tensor.dtype == "F8_E4M3" and name != "scaled_fp8"]
    assert sorted(in_fp8) == sorted(name for name in read_header(bf16).tensors if is_linear(name))
    for name in in_fp8:
        scale = tensors[f"{name.removesuffix('.weight')}.scale_weight"]
        assert (scale.dtype, scale.shape) == ("F32", ())
    others = {name for name in tensors if name not in in_fp8 and not name.endswith((".scale_weight", "scaled_fp8"))}
    assert {tensors[name].dtype for name in others} == {"BF16"}
    assert set(tensors) - {"scaled_fp8"} == set(read_header(bf16).tensors) | {
        f"{name.removesuffix('.weight')}.scale_weight" for name in in_fp8
    }
    assert "_quantization_metadata" not in header.metadata  # ComfyUI would look for notes there instead


def test_names_and_shapes_that_lightx2v_reads(bf16):
    """One fp32 number for each row, [out, 1]."""
    tensors = read_header(quantize(bf16, to="fp8", scales="row").path).tensors
    assert not any("scaled_fp8" in name or name.endswith("scale_weight") for name in tensors)
    in_fp8 = [name for name, tensor in tensors.items() if tensor.dtype == "F8_E4M3"]
    assert len(in_fp8) == 20
    for name in in_fp8:
        scale = tensors[f"{name.removesuffix('.weight')}.weight_scale"]
        assert (scale.dtype, scale.shape) == ("F32", (tensors[name].shape[0], 1))


def test_a_prefix_stands_before_the_mark_too(tmp_path, weights):
    path = tiny.write(tmp_path / "x.safetensors", weights, prefix="model.diffusion_model.")
    made = quantize(path, to="fp8")
    assert "model.diffusion_model.scaled_fp8" in read_header(made.path).tensors
    assert identify(read_header(made.path)).quantization == "fp8_scaled"
    assert load_transformer(made.path, "bf16", keep=True)


def test_diffusers_loads_what_has_no_scales(tmp_path, bf16):
    """`from_single_file` knows no scales: without them it gets the weights that we get."""
    made = quantize(bf16, to="fp8", scales="none")
    folder = tmp_path / "config"
    WanTransformer3DModel(**tiny.CONFIG).save_config(folder)
    theirs = WanTransformer3DModel.from_single_file(str(made.path), config=str(folder), torch_dtype=torch.bfloat16)
    ours = load_transformer(made.path, "bf16")
    wanted = ours.state_dict()
    found = theirs.state_dict()
    assert found.keys() == wanted.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, wanted[name].to(torch.bfloat16)), name
    assert any(tensor.abs().sum() > 0 for tensor in found.values())


def test_scaled_files_become_others(bf16, tmp_path):
    scaled = quantize(bf16, to="fp8", scales="row").path
    wide = quantize(scaled, tmp_path / "again_bf16.safetensors", to="bf16").path
    assert torch.equal(tiny.forward(load_transformer(wide, "bf16")), tiny.forward(load_transformer(scaled, "bf16")))
    again = load_file(quantize(scaled, tmp_path / "again_fp8.safetensors", to="fp8", scales="row").path)
    first = load_file(scaled)
    assert again.keys() == first.keys()
    assert all(torch.allclose(again[name].float(), first[name].float(), rtol=1e-5) for name in first)


@pytest.mark.parametrize("scales", NAMES)
def test_loras_are_merged_on_the_way(tmp_path, weights, scales):
    """To the bits of merging first, where the merged weights are stored in fp32."""
    base = tiny.write(tmp_path / "base.safetensors", weights)
    style = lora(tmp_path / "lora.safetensors", pairs(weights))
    both = load_file(quantize(base, tmp_path / "both.safetensors", to="fp8", scales=scales, loras=[(style, 0.7)]).path)
    first = tiny.write(tmp_path / "merged.safetensors", merged(weights, pairs(weights), 0.7))
    wanted = load_file(quantize(first, tmp_path / "wanted.safetensors", to="fp8", scales=scales).path)
    assert both.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.allclose(both[name].float(), tensor.float(), rtol=0.13, atol=0.3), name


@pytest.mark.parametrize("scales", NAMES)
def test_what_was_written_wrongly_is_found(bf16, tmp_path, scales, monkeypatch):
    inner = stream.Buffers.write

    def wrong(buffers, tensor, first, values):
        if tensor.name == f"{LINEAR}.weight" and first == 0:
            values = values.clone()
            values.view(torch.uint8)[0, 0] ^= 4
        inner(buffers, tensor, first, values)

    monkeypatch.setattr(stream.Buffers, "write", wrong)
    with pytest.raises(CheckpointError, match=re.escape(f"{LINEAR}.weight was not written as it should be")):
        quantize(bf16, tmp_path / "out.safetensors", to="fp8", scales=scales)
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("scales", NAMES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_damaged_weights_are_refused(tmp_path, weights, scales, value):
    weights[f"{LINEAR}.weight"][5, 7] = value
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        quantize(tiny.write(tmp_path / "x.safetensors", weights), to="fp8", scales=scales)


def test_numbers_that_fp8_cannot_hold_are_refused_without_scales(tmp_path, weights):
    weights[f"{LINEAR}.weight"][5, 7] = 500
    path = tiny.write(tmp_path / "x.safetensors", weights)
    with pytest.raises(CheckpointError, match="too large for fp8 without scales"):
        quantize(path, to="fp8", scales="none")
    assert quantize(path, to="fp8").modules == 20


def test_invalid_scales_are_refused(bf16):
    with pytest.raises(CheckpointError, match="Invalid value 'block' for scales"):
        quantize(bf16, to="fp8", scales="block")


def test_a_name_that_says_scaled_needs_scales(tmp_path, bf16):
    made = quantize(bf16, to="fp8", scales="none").path
    renamed = made.rename(tmp_path / "x_fp8_scaled.safetensors")
    for work in (lambda file: load_transformer(file, "bf16", keep=True), quantize):
        with pytest.raises(UnsupportedFormat, match="says that it is scaled, and it contains no scales"):
            work(renamed)


def test_copies_in_pinned_memory_compute_alike(monkeypatch):
    """What streams weights to a card makes them, which needs a card: here pinning is copying."""
    weight = multiplying_in_fp8(
        fp8_tensor(torch.randn(32, 32).to(torch.float8_e4m3fn), torch.ones(32, 1), torch.bfloat16)
    )
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
    pinned = torch.ops.aten._pin_memory.default(weight)
    assert is_fp8(pinned)
    assert multiplies_in_fp8(pinned)
    for copy in (weight.detach(), weight.clone(), weight.to("cpu", copy=True), weight.to("meta")):
        assert is_fp8(copy)
        assert multiplies_in_fp8(copy)
