"""int8 with scales: plain and rotated (ConvRot) layers are what they stand for, loaded, quantized and converted."""

import json

import pytest
import tiny
import torch
from safetensors.torch import load_file

from reeltune.checkpoints.header import read_header
from reeltune.checkpoints.identify import identify
from reeltune.checkpoints.keys import matches
from reeltune.dtypes import Quantization
from reeltune.errors import CheckpointError, UnsupportedFormat
from reeltune.families.wan import WAN
from reeltune.weights._libraries import dequantized, is_int8, quantized_parts
from reeltune.weights.formats.int8_scaled import rotate
from reeltune.weights.load import load_transformer
from reeltune.weights.quantize import quantize

LINEAR, ROTATED = "blocks.0.ffn.0", "blocks.0.ffn.2"


def hadamard(size):
    """The regular Hadamard matrix, from its definition: the Kronecker power of 1 - 2 * (the antidiagonal)."""
    four = 1 - 2 * torch.eye(4, dtype=torch.float64).flip(1)
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < size:
        matrix = torch.kron(matrix, four)
    return matrix / size**0.5


@pytest.mark.parametrize("group", [4, 16, 64, 256])
def test_the_rotation_is_the_regular_hadamard_matrix(group):
    torch.manual_seed(0)
    weight = torch.randn(5, 2 * group)
    matrix = hadamard(group)
    assert torch.allclose(matrix @ matrix, torch.eye(group, dtype=torch.float64))
    wanted = (weight.double().view(5, 2, group) @ matrix.T).view(5, -1)
    ours = weight.clone()
    rotate(ours, group)
    assert torch.allclose(ours.double(), wanted, atol=1e-5)
    rotate(ours, group)
    assert torch.allclose(ours, weight, atol=1e-5)


def is_linear(name):
    module = name.removesuffix(".weight")
    return name.endswith(".weight") and any(matches(module, pattern) for pattern in WAN.quantizable)


def comfy_file(path, weights, *, rows=True, notes="tensors", group=16, metadata=None):
    """A file as ComfyUI's: block linears in int8, `ffn.2` rotated; and the weights that it stands for, fp32."""
    state, stands_for, layers = {}, {}, {}
    for name, tensor in weights.items():
        if not is_linear(name):
            state[name] = tensor.to(torch.bfloat16)
            stands_for[name] = state[name].float()
            continue
        layer = name.removesuffix(".weight")
        note = {"format": "int8_tensorwise"}
        weight = tensor.double()
        rotation = torch.eye(weight.shape[1], dtype=torch.float64)
        if layer.endswith("ffn.2") and group:
            note |= {"convrot": True, "convrot_groupsize": group}
            rotation = torch.block_diag(*[hadamard(group)] * (weight.shape[1] // group))
        weight = weight @ rotation.T
        largest = weight.abs().amax(dim=1, keepdim=True) if rows else weight.abs().amax()
        scale = (largest / 127).float()
        state[name] = (weight / scale).round().clamp(-127, 127).to(torch.int8)
        state[f"{layer}.weight_scale"] = scale
        stands_for[name] = ((state[name].double() * scale) @ rotation).float()
        layers[layer] = note
    if notes == "tensors":
        for layer, note in layers.items():
            state[f"{layer}.comfy_quant"] = torch.tensor(list(json.dumps(note).encode()), dtype=torch.uint8)
    extra = {"_quantization_metadata": json.dumps({"layers": layers})} if notes == "metadata" else {}
    return tiny.write(path, state, tiny.METADATA | extra | (metadata or {})), stands_for


def plain_model(path, stands_for, dtype="bf16", **options):
    """The model of the weights that a file stands for, loaded from a file in fp32."""
    return load_transformer(tiny.write(path, stands_for), dtype, **options)


def same(ours, wanted, tolerance=1e-2):
    found, known = ours.state_dict(), wanted.state_dict()
    assert found.keys() == known.keys()
    for name, tensor in known.items():
        values = dequantized(found[name]) if is_int8(found[name]) else found[name]
        reference = dequantized(tensor) if is_int8(tensor) else tensor
        assert torch.allclose(values.float(), reference.float(), rtol=tolerance, atol=1e-3), name


@pytest.fixture
def weights():
    return tiny.original_weights()


@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize("notes", ["tensors", "metadata"])
def test_it_is_read_as_the_weights_it_stands_for(tmp_path, weights, rows, notes):
    path, stands_for = comfy_file(tmp_path / "x_int8_convrot.safetensors", weights, rows=rows, notes=notes)
    found = identify(read_header(path))
    assert (found.quantization, found.objection, found.family) == (Quantization.INT8_SCALED, "", "wan")
    assert found.parameters == sum(tensor.numel() for tensor in weights.values())
    ours, wanted = load_transformer(path, "bf16"), plain_model(tmp_path / "plain.safetensors", stands_for)
    same(ours, wanted, 1e-2)
    assert not any(is_int8(parameter) for parameter in ours.parameters())


def test_plain_layers_stay_as_they_are_stored_and_rotated_ones_become_int8(tmp_path, weights):
    path, stands_for = comfy_file(tmp_path / "x_int8.safetensors", weights)
    model = load_transformer(path, "bf16", quantize=True, keep=True)
    stored = load_file(path)
    data, scale = quantized_parts(model.blocks[0].ffn.net[0].proj.weight)
    assert torch.equal(data, stored[f"{LINEAR}.weight"])
    assert torch.equal(scale, stored[f"{LINEAR}.weight_scale"].to(torch.bfloat16))
    rotated = model.blocks[0].ffn.net[2].weight
    assert is_int8(rotated)
    error = (dequantized(rotated).float() - stands_for[f"{ROTATED}.weight"]).abs().amax()
    assert error <= 0.6 * stands_for[f"{ROTATED}.weight"].abs().amax() / 127
    outputs = [tiny.forward(each) for each in (model, plain_model(tmp_path / "plain.safetensors", stands_for))]
    assert (outputs[0] - outputs[1]).float().norm() < 0.03 * outputs[1].float().norm()


def test_files_without_notes_are_plain(tmp_path, weights):
    """As LightX2V's."""
    path, stands_for = comfy_file(tmp_path / "x_int8_lightx2v.safetensors", weights, notes="none", group=0)
    same(load_transformer(path, "bf16"), plain_model(tmp_path / "plain.safetensors", stands_for))


@pytest.mark.parametrize("to", ["bf16", "int8"])
def test_it_is_converted_and_quantized_as_a_stream(tmp_path, weights, to):
    path, stands_for = comfy_file(tmp_path / "x_int8_convrot.safetensors", weights)
    made = quantize(path, to=to)
    name = "x_bf16.safetensors" if to == "bf16" else "x_quanto_bf16_int8.safetensors"
    assert made.path.name == name
    plain = tiny.write(tmp_path / "plain.safetensors", stands_for)
    found = load_transformer(made.path, "bf16")
    wanted = load_transformer(quantize(plain, tmp_path / "wanted.safetensors", to=to).path, "bf16")
    same(found, wanted, 0.02)


def test_only_whole_rotations_are_undone(tmp_path, weights):
    path, _ = comfy_file(tmp_path / "x.safetensors", weights)
    state = load_file(path)
    broken = {
        "columns are rotated together, and its shape is": {"format": "int8_tensorwise", "convrot": True},
        "contains 'signs'": {"format": "int8_tensorwise", "signs": 1},
        "says float8_e4m3fn, and I8 is stored": {"format": "float8_e4m3fn"},
    }
    for words, note in broken.items():
        raw = torch.tensor(list(json.dumps(note).encode()), dtype=torch.uint8)
        other = tiny.write(tmp_path / "y.safetensors", state | {f"{LINEAR}.comfy_quant": raw})
        for work in (
            lambda file: load_transformer(file, "bf16"),
            lambda file: quantize(file, tmp_path / "out.safetensors"),
        ):
            with pytest.raises(UnsupportedFormat, match=words):
                work(other)


def test_every_int8_weight_needs_its_scale(tmp_path, weights):
    path, _ = comfy_file(tmp_path / "x.safetensors", weights)
    state = load_file(path)
    del state[f"{LINEAR}.weight_scale"]
    with pytest.raises(CheckpointError, match=r"1 missing \(blocks\.0\.ffn\.0\."):
        load_transformer(tiny.write(tmp_path / "y.safetensors", state), "bf16")
