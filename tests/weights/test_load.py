import json
from pathlib import Path

import pytest
import tiny
import torch
from diffusers import WanTransformer3DModel
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

from conftest import CONTAINERS, safetensors_bytes
from reeltune.checkpoints.keys import translate
from reeltune.errors import CheckpointError, HeaderError, TensorMismatch, UnsupportedFormat
from reeltune.families.wan import WAN, derive_config
from reeltune.weights.formats.base import dequantize
from reeltune.weights.load import load_transformer
from reeltune.weights.tensors import RUN_DTYPES

BF16, FP16 = torch.bfloat16, torch.float16


def peer(weights, dtype):
    """diffusers' own converter and model, with the same data type in every module."""
    model = WanTransformer3DModel(**tiny.CONFIG)
    state = convert_wan_transformer_to_diffusers({name: tensor.clone() for name, tensor in weights.items()})
    keep = model._keep_in_fp32_modules
    state = {
        name: tensor.float() if any(part in name.split(".") for part in keep) else tensor.to(dtype)
        for name, tensor in state.items()
    }
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval()


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("stored", [BF16, FP16, torch.float32])
def test_equal_to_diffusers_bit_for_bit(tmp_path, dtype, stored):
    weights = {name: tensor.to(stored) for name, tensor in tiny.original_weights().items()}
    ours = load_transformer(tiny.write(tmp_path / "x.safetensors", weights), dtype)
    run = RUN_DTYPES[dtype]
    theirs = peer(weights, run)
    assert {name: tensor.dtype for name, tensor in ours.state_dict().items()} == {
        name: tensor.dtype for name, tensor in theirs.state_dict().items()
    }
    assert torch.equal(tiny.forward(ours, run), tiny.forward(theirs, run))


@pytest.mark.parametrize("layout", ["original", "diffusers"])
@pytest.mark.parametrize("prefix", CONTAINERS)
def test_layouts_and_prefixes_load_alike(tmp_path, layout, prefix):
    weights = {name: tensor.to(BF16) for name, tensor in tiny.original_weights().items()}
    state = weights if layout == "original" else {translate(n, WAN, "original"): t for n, t in weights.items()}
    ours = load_transformer(tiny.write(tmp_path / "x.safetensors", state, prefix=prefix), "bf16")
    assert torch.equal(tiny.forward(ours), tiny.forward(peer(weights, BF16)))


def test_mixed_fp32_files(tmp_path):
    weights = {
        n: t.to(torch.float32 if "norm" in n or "mod" in n else BF16) for n, t in tiny.original_weights().items()
    }
    ours = load_transformer(tiny.write(tmp_path / "x_mbf16.safetensors", weights), "bf16")
    assert torch.equal(tiny.forward(ours), tiny.forward(peer(weights, BF16)))


def test_our_int8_agrees_with_its_dequantized_weights(tmp_path):
    weights = tiny.original_weights()
    state, metadata = tiny.quantized(weights, BF16)
    ours = load_transformer(tiny.write(tmp_path / "x.safetensors", state, metadata), "bf16")
    assert type(ours.blocks[0].ffn.net[0].proj.weight).__name__ == "Int8Tensor"
    plain = {name: tensor.to(BF16) for name, tensor in weights.items()}
    for name in list(plain):
        if f"{name}._data" in state:
            plain[name] = dequantize(state[f"{name}._data"], state[f"{name}._scale"], torch.float32)
    error = relative_error(tiny.forward(ours), tiny.forward(peer(plain, BF16)))
    assert error < 0.01


def relative_error(got, wanted):
    return ((got.float() - wanted.float()).norm() / wanted.float().norm()).item()


def test_a_file_by_optimum_quanto_loads_too(tmp_path):
    from optimum.quanto import freeze, qint8, quantize

    weights = tiny.original_weights()
    model = peer(weights, BF16).float().to(BF16)
    quantize(model, weights=qint8, include=["*.to_q", "*.to_out.0", "*.ffn.*", "condition_embedder.*", "proj_out"])
    freeze(model)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert any(name.endswith("time_embedder.linear_1.weight._data") for name in state)
    path = tiny.write(tmp_path / "x.safetensors", state, tiny.METADATA | {"quantization_format": "quanto"})
    ours = load_transformer(path, "bf16")
    assert ours.condition_embedder.time_embedder.linear_1.weight.dtype == torch.float32  # kept fp32: dequantized
    assert type(ours.proj_out.weight).__name__ == "Int8Tensor"
    dequantized = {
        name.removesuffix("._data"): dequantize(tensor, state[name.removesuffix("_data") + "_scale"], torch.float32)
        for name, tensor in state.items()
        if name.endswith("._data")
    }
    plain = {n: t for n, t in state.items() if not n.endswith(("._data", "._scale", "put_scale"))} | dequantized
    theirs = WanTransformer3DModel(**tiny.CONFIG)
    keep = theirs._keep_in_fp32_modules
    typed = {n: t.float() if any(k in n.split(".") for k in keep) else t.to(BF16) for n, t in plain.items()}
    theirs.load_state_dict(typed, assign=True)
    assert relative_error(tiny.forward(ours), tiny.forward(theirs)) < 0.01


def test_quantizing_while_loading_equals_the_quantized_file(tmp_path):
    weights = {name: tensor.to(BF16) for name, tensor in tiny.original_weights().items()}
    on_load = load_transformer(tiny.write(tmp_path / "x.safetensors", weights), "bf16", quantize=True)
    state, metadata = tiny.quantized(weights, BF16)
    stored = load_transformer(tiny.write(tmp_path / "q.safetensors", state, metadata), "bf16")
    assert torch.equal(tiny.forward(on_load), tiny.forward(stored))


def test_the_file_cannot_be_changed_through_the_model(tmp_path):
    weights = {name: tensor.to(BF16) for name, tensor in tiny.original_weights().items()}
    path = tiny.write(tmp_path / "x.safetensors", weights)
    before = path.read_bytes()
    model = load_transformer(path, "bf16")
    with torch.no_grad():
        model.proj_out.weight.zero_()
    assert path.read_bytes() == before


def test_bytes_after_the_data_do_not_matter(tmp_path):
    weights = {name: tensor.to(BF16) for name, tensor in tiny.original_weights().items()}
    path = tiny.write(tmp_path / "x.safetensors", weights)
    path.write_bytes(path.read_bytes() + b"odd tail")
    assert torch.equal(tiny.forward(load_transformer(path, "bf16")), tiny.forward(peer(weights, BF16)))


def damaged(change):
    state = {name: tensor.to(BF16) for name, tensor in tiny.original_weights().items()}
    change(state)
    return state


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("blocks.1.ffn.0.bias"), "1 missing .*ffn.net.0.proj.bias.*cut or only partly"),
        (lambda s: s.update({"first_stage_model.x": torch.zeros(1)}), "not the model's .*all-in-one"),
        (lambda s: s.update({"blocks.0.self_attn.q.lora_A.weight": torch.zeros(1)}), "LoRA"),
        (lambda s: s.update({"blocks.0.norm3.weight": torch.zeros(7)}), r"of another shape .*\[7\] in the file, \[48\]"),
        (lambda s: [s.pop(n) for n in list(s) if n.startswith("blocks.1.")] and s.update({f"z{i}": torch.zeros(1) for i in range(14)}), "14 not the model's .* and 4 more"),
    ],
)  # fmt: skip
def test_mismatches_list_names_and_guess_the_cause(tmp_path, change, words):
    path = tiny.write(tmp_path / "x.safetensors", damaged(change))
    with pytest.raises(TensorMismatch, match=words):
        load_transformer(path, "bf16")


def test_a_scale_that_is_missing_is_named(tmp_path):
    state, metadata = tiny.quantized(tiny.original_weights(), BF16)
    del state["blocks.0.ffn.0.weight._scale"]
    with pytest.raises(TensorMismatch, match=r"blocks\.0\.ffn\.0\.weight\._scale"):
        load_transformer(tiny.write(tmp_path / "x.safetensors", state, metadata), "bf16")


def test_formats_that_cannot_be_loaded(tmp_path):
    int8 = {"head.modulation": torch.zeros(1, 2, 4), "x": torch.zeros(40, dtype=torch.int8)}
    with pytest.raises(UnsupportedFormat, match="other int8"):
        load_transformer(tiny.write(tmp_path / "int8.safetensors", int8), "bf16")
    with pytest.raises(UnsupportedFormat, match="no known model family"):
        load_transformer(tiny.write(tmp_path / "other.safetensors", {"x": torch.zeros(4)}), "bf16")
    module = {"vace_patch_embedding.weight": torch.zeros(4, 96, 1, 2, 2)}
    with pytest.raises(UnsupportedFormat, match="is a module"):
        load_transformer(tiny.write(tmp_path / "m.safetensors", module), "bf16")
    (tmp_path / "gguf.safetensors").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(UnsupportedFormat, match="GGUF"):
        load_transformer(tmp_path / "gguf.safetensors", "bf16")
    (tmp_path / "cut.safetensors").write_bytes(safetensors_bytes({"x": ("F32", [4])})[:-1])
    with pytest.raises(HeaderError, match="truncated"):
        load_transformer(tmp_path / "cut.safetensors", "bf16")


def test_derived_config_is_that_of_the_published_model(headers):
    config = derive_config({name: tuple(shape) for name, shape in headers["wan_t2v_14B"].items()}, {})
    published = {
        "patch_size": (1, 2, 2), "num_attention_heads": 40, "attention_head_dim": 128, "in_channels": 16,
        "out_channels": 16, "text_dim": 4096, "freq_dim": 256, "ffn_dim": 13824, "num_layers": 40, "cross_attn_norm": True,
    }  # fmt: skip
    assert config == published
    stored = {"num_heads": 20, "in_channels": 99, "eps": 1e-5}  # only what shapes don't tell is taken
    config = derive_config({name: tuple(shape) for name, shape in headers["wan_t2v_14B"].items()}, stored)
    assert config == published | {"num_attention_heads": 20, "attention_head_dim": 256, "eps": 1e-5}


@pytest.mark.parametrize("damage", ["shape", "dtype", "nan", "orphan", "double", "activations"])
def test_quanto_files_with_wrong_scales_are_refused(tmp_path, damage):
    from importlib import resources

    from safetensors.torch import load_file, save_file

    path = Path(str(resources.files("reeltune"))) / "nano" / "nano_t2v_quanto_bf16_int8.safetensors"
    weights = load_file(path)
    module = "blocks.1.ffn.0"
    if damage == "shape":
        weights[f"{module}.weight._scale"] = torch.ones(1, 1, dtype=torch.bfloat16)
    if damage == "dtype":
        weights[f"{module}.weight._scale"] = weights[f"{module}.weight._scale"].to(torch.int8)
    if damage == "nan":
        weights[f"{module}.weight._scale"][3] = float("nan")
    if damage == "orphan":
        weights["blocks.0.norm3.weight._scale"] = torch.ones(192, 1, dtype=torch.bfloat16)
    if damage == "double":
        weights[f"{module}.weight"] = torch.zeros(512, 192, dtype=torch.bfloat16)
    if damage == "activations":
        weights[f"{module}.input_scale"] = torch.full((), 0.01, dtype=torch.bfloat16)
    save_file(weights, tmp_path / "x_quanto_bf16_int8.safetensors", {"config": json.dumps({"num_attention_heads": 6})})
    with pytest.raises(CheckpointError):
        load_transformer(tmp_path / "x_quanto_bf16_int8.safetensors", "bf16")


@pytest.mark.parametrize("layers", [2, 1])
def test_a_model_before_is_emptied_and_filled_where_it_is_built_the_same(tmp_path, layers):
    first, second = ({name: tensor.to(BF16) for name, tensor in tiny.original_weights(seed).items()} for seed in (0, 1))
    second = {name: tensor for name, tensor in second.items() if layers == 2 or not name.startswith("blocks.1.")}
    before = load_transformer(tiny.write(tmp_path / "a.safetensors", first), "bf16")
    path = tiny.write(tmp_path / "b.safetensors", second)
    after = load_transformer(path, "bf16", into=before)
    assert (after is before) == (layers == 2)
    assert torch.equal(tiny.forward(after), tiny.forward(load_transformer(path, "bf16")))
    if layers == 1:  # two models' weights are never in memory at once
        assert all(weight.is_meta for weight in before.parameters())
