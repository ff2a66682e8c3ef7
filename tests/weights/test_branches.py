"""LoRAs beside the layers of a loaded model: the same numbers as merging them, and nothing left when they are removed."""

import copy
import json

import pytest
import tiny
import torch
from safetensors.torch import save_file
from test_families import CASES, forward, random_model
from torch import nn
from torch.nn import functional

from layouts import original_layout
from reeltune.errors import CheckpointError, LoraMismatch, UnsupportedFormat
from reeltune.families.wan import WAN
from reeltune.weights._libraries import dequantized, is_int8
from reeltune.weights.load import load_transformer
from reeltune.weights.lora.branches import LoraLinear, attach_loras, model_targets
from reeltune.weights.lora.matching import read_edits
from reeltune.weights.lora.values import gather

RANK = 4
FAMILIES = {"wan": WAN, **{name: case[0] for name, case in CASES.items()}}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The file of a tiny model of each family, in the original layout."""
    folder = tmp_path_factory.mktemp("models")
    paths = {"wan": tiny.write(folder / "wan.safetensors", tiny.original_weights())}
    for name, (family, model_class, config, stored) in CASES.items():
        weights = original_layout(random_model(model_class, config).float().state_dict(), family)
        paths[name] = tiny.write(folder / f"{name}.safetensors", weights, {"config": json.dumps(stored)})
    return paths


def load(files, name, dtype):
    return load_transformer(files[name], "bf16" if dtype == "int8" else dtype, quantize=dtype == "int8")


def linears(model):
    """The linear layers inside the blocks, under the names that most LoRAs use."""
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and "block" in name and min(layer.in_features, layer.out_features) > RANK
    }


def a_pair(layer, scale=0.1):
    out, width = layer.out_features, layer.in_features
    return torch.randn(out, RANK) * scale, torch.randn(RANK, width) * scale


def of_pairs(model):
    state = {}
    for name, layer in linears(model).items():
        up, down = a_pair(layer)
        state |= {f"transformer.{name}.lora_A.weight": down, f"transformer.{name}.lora_B.weight": up}
    return state


def of_pairs_with_alpha(model):
    state = of_pairs(model)
    return state | {key.replace("lora_A.weight", "alpha"): torch.tensor(2.0) for key in state if "lora_A" in key}


def of_differences(model):
    """Of every parameter: biases, norms, modulations, convolutions and matrices."""
    endings = {"weight": "diff", "bias": "diff_b"}
    state = {}
    for name, row in model.named_parameters():
        module, _, last = name.rpartition(".")
        key = f"{module}.{endings[last]}" if last in endings else f"{name}.diff"
        state[f"diffusion_model.{key}"] = torch.randn(row.shape) * 0.1
    return state


def of_whole_weights(model):
    name, layer = next(iter(linears(model).items()))
    return {f"{name}.set_weight": torch.randn(layer.out_features, layer.in_features) * 0.1,
            f"{name}.diff_b": torch.randn(layer.out_features) * 0.1}  # fmt: skip


def of_dora(model, by_column=False):
    state = {}
    for name, layer in list(linears(model).items())[:6]:
        up, down = a_pair(layer)
        sides = (1, layer.in_features) if by_column else (layer.out_features, 1)
        state |= {
            f"{name}.lora_A.weight": down,
            f"{name}.lora_B.weight": up,
            f"{name}.dora_scale": torch.rand(sides) + 0.5,
        }
    return state


def of_lokr(model):
    state = {}
    for name, layer in list(linears(model).items())[:4]:
        state[f"{name}.lokr_w1"] = torch.randn(2, 2) * 0.3
        state[f"{name}.lokr_w2"] = torch.randn(layer.out_features // 2, layer.in_features // 2) * 0.1
    return state


def of_loha(model):
    state = {}
    for name, layer in list(linears(model).items())[:4]:
        for number in "12":
            up, down = a_pair(layer, 0.3)
            state |= {f"{name}.hada_w{number}_a": up, f"{name}.hada_w{number}_b": down}
    return state


KINDS = {
    "pairs": of_pairs,
    "pairs with alpha": of_pairs_with_alpha,
    "differences": of_differences,
    "whole weights": of_whole_weights,
    "DoRA by rows": of_dora,
    "DoRA by columns": lambda model: of_dora(model, by_column=True),
    "LoKr": of_lokr,
    "LoHa": of_loha,
}


def write(path, state):
    save_file({key: row.contiguous() for key, row in state.items()}, path)
    return path


def numbers(parameter):
    return (dequantized(parameter) if is_int8(parameter) else parameter.detach()).float()


def merged(model, family, path, weight):
    """The parameters that a LoRA changes, with it merged in fp32."""

    def values(places, shape):
        return gather(
            lambda name: numbers(model.get_parameter(name)).reshape(len(model.get_parameter(name)), -1), places, shape
        )

    edits, _ = read_edits(path, weight, model_targets(model, family), values)
    changed = {}
    for name, edits_of_parameter in edits.items():
        values_now = numbers(model.get_parameter(name)).clone()
        block = values_now.view(len(values_now) if values_now.ndim else 1, -1)
        for edit in edits_of_parameter:
            edit.ready(torch.empty)(block, 0)
        changed[name] = values_now
    return changed


def run(name, model):
    if name == "wan":
        with torch.no_grad():
            return model(**tiny.inputs(model.dtype), return_dict=False)[0]
    return forward(name, model)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_layer_with_loras_computes_what_a_merged_layer_does(tmp_path, files, name, kind, dtype):
    torch.manual_seed(5)
    model = load(files, name, dtype)
    path = write(tmp_path / "style.safetensors", KINDS[kind](model))
    wanted = merged(model, FAMILIES[name], path, 0.7)
    attached = attach_loras(model, FAMILIES[name], [path])
    attached.set_weights([0.7], CPU)
    assert attached.reports[0].left == ()
    tolerance = 1e-5 if dtype == "fp32" else 1e-2
    for parameter, values in wanted.items():
        module, _, last = parameter.rpartition(".")
        layer = model.get_submodule(module)
        if last != "weight" or not isinstance(layer, nn.Linear):
            torch.testing.assert_close(model.get_parameter(parameter).float(), values, rtol=tolerance, atol=tolerance)
            continue
        assert isinstance(layer, LoraLinear)
        x = torch.randn(3, 5, layer.in_features).to(layer.weight.dtype)
        bias = None if layer.bias is None else layer.bias.float()
        plain = functional.linear(x.float(), values, bias)
        error = (layer(x).float() - plain).norm() / plain.norm()
        assert error < tolerance, parameter


@pytest.mark.parametrize("name", FAMILIES)
def test_without_a_weight_and_after_removal_the_model_is_what_it_was(tmp_path, files, name):
    torch.manual_seed(5)
    model = load(files, name, "bf16")
    before, state = run(name, model), copy.deepcopy(model.state_dict())
    first = write(tmp_path / "a.safetensors", of_pairs(model) | of_differences(model))
    second = write(tmp_path / "b.safetensors", of_dora(model))
    attached = attach_loras(model, FAMILIES[name], [first, second])
    attached.set_weights([0.0, 0.0], CPU)
    assert torch.equal(run(name, model), before)
    attached.set_weights([1.0, -0.5], CPU)
    assert not torch.equal(run(name, model), before)
    attached.set_weights([0.0, 0.0], CPU)
    assert torch.equal(run(name, model), before)
    attached.set_weights([1.0, 1.0], CPU)
    attached.remove()
    assert torch.equal(run(name, model), before)
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(row, state[key]) for key, row in model.state_dict().items())
    assert not any(isinstance(layer, LoraLinear) for layer in model.modules())


def test_several_loras_with_their_own_weights_add_up(tmp_path, files):
    torch.manual_seed(5)
    model = load(files, "wan", "fp32")
    paths = [write(tmp_path / f"{number}.safetensors", of_pairs(model)) for number in range(3)]
    weights = [0.5, -1.0, 0.25]
    wanted = load(files, "wan", "fp32")
    for path, weight in zip(paths, weights, strict=True):
        for name, values in merged(wanted, WAN, path, weight).items():
            wanted.get_parameter(name).data.copy_(values)
    attached = attach_loras(model, WAN, paths)
    attached.set_weights(weights, CPU)
    torch.testing.assert_close(run("wan", model), run("wan", wanted), rtol=1e-4, atol=1e-5)


def test_the_tensors_belong_to_their_layers_and_no_copy_of_the_model_is_made(tmp_path, files):
    model = load(files, "wan", "bf16")
    state = of_pairs(model)
    weights = {name: row.data_ptr() for name, row in model.named_parameters()}
    attached = attach_loras(model, WAN, [write(tmp_path / "a.safetensors", state)])
    assert {name: model.get_parameter(name).data_ptr() for name in weights} == weights
    own = sum(row.numel() * row.element_size() for layer in attached.layers() for row in layer.terms.parameters())
    stored = sum(row.numel() * 2 for row in state.values())
    assert stored <= own <= 1.2 * stored + 16 * RANK * len(state)


@pytest.mark.parametrize(
    ("state", "error", "words"),
    [
        ({"blocks.0.attn1.to_q.lora_A.weight": torch.full((4, 48), torch.nan), "blocks.0.attn1.to_q.lora_B.weight": torch.ones(48, 4)},
         CheckpointError, "NaN"),
        ({"blocks.0.attn1.to_q.lora_A.weight": torch.ones(4, 5120), "blocks.0.attn1.to_q.lora_B.weight": torch.ones(5120, 4)},
         LoraMismatch, "another size"),
        ({"double_blocks.0.img_attn_qkv.lora_A.weight": torch.ones(4, 48), "double_blocks.0.img_attn_qkv.lora_B.weight": torch.ones(144, 4)},
         LoraMismatch, "another model"),
        ({"blocks.0.attn1.to_q.oft_R": torch.ones(4, 4)}, UnsupportedFormat, "OFT"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_an_error_and_leaves_the_model_as_it_was(tmp_path, files, state, error, words):
    model = load(files, "wan", "bf16")
    before = run("wan", model)
    good = write(tmp_path / "good.safetensors", of_pairs(model))
    with pytest.raises(error, match=words):
        attach_loras(model, WAN, [good, write(tmp_path / "bad.safetensors", state)])
    assert not any(isinstance(layer, LoraLinear) for layer in model.modules())
    assert torch.equal(run("wan", model), before)
