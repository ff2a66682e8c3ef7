"""GGUF files as weights: loaded, quantized, converted, merged; what they give is what their numbers give in 16 bits."""

import json

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from test_families import CASES, HUNYUAN_CONFIG, random_model, vace_files, vace_forward
from test_families import forward as forward_of

import gguf_files
from gguf_files import ARRAY, Entry, numbers_of, random_blocks
from layouts import original_layout
from reeltune.checkpoints.gguf_types import DECODED
from reeltune.errors import CheckpointError, UnsupportedFormat
from reeltune.families.hunyuan import HUNYUAN
from reeltune.weights.formats import gguf as decoder
from reeltune.weights.load import MergedLora, load_transformer
from reeltune.weights.quantize import check, quantize

CONFIG = {
    "num_attention_heads": 2, "attention_head_dim": 128, "in_channels": 16, "out_channels": 16, "text_dim": 256,
    "freq_dim": 256, "ffn_dim": 512, "num_layers": 1, "cross_attn_norm": True, "rope_max_seq_len": 64,
}  # fmt: skip
STORED = json.dumps({"num_attention_heads": 2, "rope_max_seq_len": 64})
BF16 = torch.bfloat16


@pytest.fixture
def weights(monkeypatch):
    """A tiny Wan whose rows are whole blocks of every type."""
    monkeypatch.setattr(tiny, "CONFIG", CONFIG)
    return tiny.original_weights()


def files(folder, weights, type_name, **more):
    """A GGUF file, and a safetensors file of the same numbers in fp32; where the converter keeps fp32, so in both."""
    file = gguf_files.converted(weights, type_name, config=STORED, **more)
    path = folder / f"x-{type_name}.gguf"
    path.write_bytes(file.content())
    plain = folder / f"x_{type_name}.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in numbers_of(file).items()}, plain, {"config": STORED})
    return path, plain


def tensors(model):
    """Every tensor of a model; int8 weights in what they are computed with."""
    return {
        name: tensor.dequantize() if hasattr(tensor, "qdata") else tensor for name, tensor in model.state_dict().items()
    }


def assert_same(ours, wanted):
    ours, wanted = tensors(ours), tensors(wanted)
    assert ours.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert ours[name].dtype == tensor.dtype, name
        assert torch.equal(ours[name], tensor), name


@pytest.mark.parametrize("arithmetic", ["numba", "torch"])
@pytest.mark.parametrize("quantized", [True, False], ids=["int8", "16 bits"])
@pytest.mark.parametrize("type_name", [*DECODED, "F16", "BF16", "F32"])
def test_it_loads_as_its_numbers_do(tmp_path, weights, type_name, quantized, arithmetic, monkeypatch):
    if arithmetic == "torch":
        monkeypatch.setattr(decoder, "_compiled", lambda: None)
    path, plain = files(tmp_path, weights, type_name, prefix="model.diffusion_model.")
    for dtype in ("bf16", "fp16"):
        ours = load_transformer(path, dtype, quantize=quantized)
        assert_same(ours, load_transformer(plain, dtype, quantize=quantized))


@pytest.mark.parametrize("type_name", DECODED)
def test_quantized_files_load_as_what_is_quantized_while_loading(tmp_path, weights, type_name):
    path, plain = files(tmp_path, weights, type_name)
    made = quantize(path)
    assert made.path.name == "x_quanto_bf16_int8.safetensors"
    assert made.modules == 10
    assert_same(load_transformer(made.path, "bf16"), load_transformer(path, "bf16", quantize=True))
    check(path, made.path, dtype="bf16")
    wanted = load_file(quantize(plain, tmp_path / "plain.safetensors").path)
    ours = load_file(made.path)
    assert ours.keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in ours.items())


@pytest.mark.parametrize("to", ["bf16", "fp16"])
def test_it_is_converted_to_16_bits(tmp_path, weights, to):
    path, _ = files(tmp_path, weights, "Q5_K")
    made = quantize(path, to=to)
    assert made.path.name == f"x_{to}.safetensors"
    assert_same(load_transformer(made.path, to), load_transformer(path, to))
    with pytest.raises(CheckpointError, match=r"doesn't end in \.safetensors"):
        quantize(path, tmp_path / "y.gguf")


def test_what_the_new_file_says_of_itself(tmp_path, weights):
    from reeltune.checkpoints.header import read_header

    file = gguf_files.converted(weights, "Q8_0", config=STORED)
    file.keys += [("general.file_type", gguf_files.U32, 7), ("general.license", gguf_files.TEXT, "mine")]
    path = tmp_path / "x-Q8_0.gguf"
    path.write_bytes(file.content())
    told = read_header(quantize(path).path).metadata
    assert (told["reeltune_source"], told["general.license"]) == ("x-Q8_0.gguf", "mine")
    assert "general.file_type" not in told


def reshaped(file, name, columns=256):
    """A file in which a tensor lies in rows of another length, as the converter may lay it."""
    entry = file.tensors[name]
    stored = (
        len(entry.bytes)
        // gguf_files.BLOCK_TYPES[entry.type].bytes
        * gguf_files.BLOCK_TYPES[entry.type].values
        // columns,
        columns,
    )
    tensors = dict(file.tensors)
    tensors[name] = Entry(entry.type, stored, entry.data)
    keys = [*file.keys, (f"comfy.gguf.orig_shape.{name}", ARRAY, list(entry.shape))]
    return gguf_files.File(tensors, keys)


@pytest.mark.parametrize("dim", [192, 384])
def test_blocks_across_rows(tmp_path, monkeypatch, dim):
    monkeypatch.setattr(tiny, "CONFIG", CONFIG | {"attention_head_dim": dim // 2, "ffn_dim": 320})
    file = gguf_files.converted(tiny.original_weights(), "Q8_0", config=STORED)
    for name, entry in list(file.tensors.items()):
        count = torch.Size(entry.shape).numel()
        if entry.type == "Q8_0" and count % 256 == 0:
            blocks = random_blocks("Q4_K", count // 256).tobytes()
            file = reshaped(gguf_files.File(file.tensors | {name: Entry("Q4_K", entry.shape, blocks)}, file.keys), name)
    path, plain = tmp_path / "x.gguf", tmp_path / "plain.safetensors"
    path.write_bytes(file.content())
    shapes = {key.removeprefix("comfy.gguf.orig_shape."): shape for key, _, shape in file.keys if "orig_shape" in key}
    assert len(shapes) > 10
    numbers = {
        name: tensor.reshape(shapes.get(name, tensor.shape)).contiguous() for name, tensor in numbers_of(file).items()
    }
    save_file(numbers, plain, {"config": STORED})
    for quantized in (True, False):
        assert_same(
            load_transformer(path, "bf16", quantize=quantized), load_transformer(plain, "bf16", quantize=quantized)
        )
    ours, wanted = load_file(quantize(path).path), load_file(quantize(plain).path)
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in ours.items())


def lora(path, module="blocks.0.ffn.0", rows=512, columns=256, **more):
    torch.manual_seed(2)
    name = f"diffusion_model.{module}"
    save_file(
        {f"{name}.lora_A.weight": torch.randn(4, columns), f"{name}.lora_B.weight": torch.randn(rows, 4), **more}, path
    )
    return path


@pytest.mark.parametrize("dora", [False, True])
def test_loras_are_merged_while_it_is_quantized_or_loaded(tmp_path, weights, dora):
    path, plain = files(tmp_path, weights, "Q4_K")
    more = {"diffusion_model.blocks.0.ffn.0.dora_scale": torch.rand(512, 1) + 1} if dora else {}
    merged = lora(tmp_path / "lora.safetensors", **more)
    ours = load_file(quantize(path, loras=[(merged, 0.5)]).path)
    wanted = load_file(quantize(plain, loras=[(merged, 0.5)], output=tmp_path / "p.safetensors").path)
    without = load_file(quantize(plain, tmp_path / "w.safetensors").path)
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in ours.items())
    assert not torch.equal(ours["blocks.0.ffn.0.weight._data"], without["blocks.0.ffn.0.weight._data"])
    loras = [MergedLora(merged, 0.5)]
    assert_same(
        load_transformer(path, "bf16", quantize=True, loras=loras),
        load_transformer(plain, "bf16", quantize=True, loras=loras),
    )


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("type_name", ["Q8_0", "Q4_0"])
def test_other_families_stay_close(tmp_path, name, type_name):
    """With layers stacked in one tensor, and halves swapped."""
    family, model_class, config, stored = CASES[name]
    model = random_model(model_class, config)
    file = gguf_files.converted(original_layout(model.state_dict(), family), type_name, config=json.dumps(stored))
    path = tmp_path / "x.gguf"
    path.write_bytes(file.content())
    wanted = forward_of(name, model).float()
    for quantized in (True, False):
        error = (forward_of(name, load_transformer(path, "bf16", quantize=quantized)).float() - wanted).norm()
        assert error / wanted.norm() < {"Q8_0": 0.02, "Q4_0": 0.2}[type_name]


def test_stacked_layers_are_the_rows_of_their_numbers(tmp_path):
    state = random_model(CASES["hunyuan"][1], HUNYUAN_CONFIG).state_dict()
    weights = {name: tensor.float() for name, tensor in original_layout(state, HUNYUAN).items()}
    file = gguf_files.converted(weights, "Q5_0", config=json.dumps(CASES["hunyuan"][3]))
    path, plain = tmp_path / "x.gguf", tmp_path / "x.safetensors"
    path.write_bytes(file.content())
    save_file(
        {name: tensor.contiguous() for name, tensor in numbers_of(file).items()},
        plain,
        {"config": json.dumps(CASES["hunyuan"][3])},
    )
    for quantized in (True, False):
        assert_same(
            load_transformer(path, "bf16", quantize=quantized), load_transformer(plain, "bf16", quantize=quantized)
        )


@pytest.mark.parametrize("kinds", [("base",), ("module",), ("base", "module")])
def test_modules_and_bases_are_each_of_their_own_format(tmp_path, kinds):
    paths, _ = vace_files(tmp_path)
    wanted = vace_forward(load_transformer(paths[0], "bf16", modules=[paths[1]])).float()
    files_of = {path.stem.rstrip("_"): path for path in paths}
    for kind in kinds:
        files_of[kind] = gguf_files.convert(files_of[kind], tmp_path / f"{kind}-Q8_0.gguf", "Q8_0")
    ours = vace_forward(load_transformer(files_of["base"], "bf16", modules=[files_of["module"]])).float()
    assert (ours - wanted).norm() / wanted.norm() < 0.02


def test_damaged_scales_are_an_error_that_names_the_tensor(tmp_path, weights):
    file = gguf_files.converted(weights, "Q8_0", config=STORED)
    name = "blocks.0.ffn.2.weight"
    data = bytearray(file.tensors[name].data)
    data[34:36] = b"\x00\x7c"
    file.tensors[name].data = bytes(data)
    path = tmp_path / "x.gguf"
    path.write_bytes(file.content())
    for quantized in (True, False):
        with pytest.raises(CheckpointError, match=rf"{name}: scales are NaN or infinite"):
            load_transformer(path, "bf16", quantize=quantized)
    with pytest.raises(CheckpointError, match=rf"{name}: scales are NaN or infinite"):
        quantize(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.gguf"]


def test_types_that_are_not_decoded_are_refused(tmp_path, weights):
    file = gguf_files.converted(weights, "Q8_0", config=STORED)
    shape = file.tensors["blocks.0.ffn.2.weight"].shape
    file.tensors["blocks.0.ffn.2.weight"] = Entry("IQ2_XS", shape)
    path = tmp_path / "x.gguf"
    path.write_bytes(file.content())
    for act in (quantize, lambda path: load_transformer(path, "bf16")):
        with pytest.raises(UnsupportedFormat, match="IQ1 to IQ3"):
            act(path)
