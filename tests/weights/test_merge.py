"""Merging: every method against a plain fp32 reference, from every format and layout, in bounded memory, verified."""

import hashlib
import json
import math

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from test_families import CASES, random_model
from test_quantize import fp8_file, left

from layouts import original_layout
from reeltune.checkpoints.header import read_header
from reeltune.checkpoints.keys import translate
from reeltune.errors import Cancelled, CheckpointError, TensorMismatch
from reeltune.events import CancelToken, Notice, Progress
from reeltune.families.wan import WAN
from reeltune.weights import buffers, stream
from reeltune.weights.formats.quanto_int8 import dequantize
from reeltune.weights.load import load_transformer
from reeltune.weights.merging import Ingredient, measuring, merge
from reeltune.weights.quantize import quantize

METHODS = ("weighted", "add-difference", "slerp", "ties")
DENSITY = 0.3


def finetunes():
    """fp32 weights of two finetunes and their base: the differences are small, as those of real ones."""
    base = tiny.original_weights(0)
    others = [{name: base[name] + 0.05 * row for name, row in tiny.original_weights(seed).items()} for seed in (1, 2)]
    return [*others, base]


def stored_as(path, weights, kind):
    """A file in a format, and what its numbers are, fp32, by original name."""
    if kind in ("bf16", "fp16", "fp32"):
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[kind]
        state = {name: row.to(dtype) for name, row in weights.items()}
        return tiny.write(path, state), {name: row.float() for name, row in state.items()}
    if kind == "fp8":
        file, exact = fp8_file(path, weights, scaled=True)
        return file, {name: row.float() for name, row in exact.items()}
    if kind == "int8":
        state, metadata = tiny.quantized(weights, torch.bfloat16)
        exact = {}
        for name in weights:
            if f"{name}._data" in state:
                exact[name] = dequantize(state[f"{name}._data"], state[f"{name}._scale"], torch.float32)
            else:
                exact[name] = state[name].float()
        return tiny.write(path, state, metadata), exact
    assert kind == "diffusers"
    state = {prefixed(name): row.to(torch.bfloat16) for name, row in weights.items()}
    return tiny.write(path, state), {name: row.to(torch.bfloat16).float() for name, row in weights.items()}


def prefixed(name):
    return f"model.diffusion_model.{translate(name, WAN, 'original')}"


def reference(method, models, weights, base):
    """One tensor by the formulas of the papers, all at once in fp64."""
    models, base = [row.double() for row in models], base.double()
    if method == "weighted":
        return sum(weight * row for weight, row in zip(weights, models, strict=True)) / sum(weights)
    if method == "add-difference":
        return base + sum(weight * (row - base) for weight, row in zip(weights, models, strict=True))
    if method == "slerp":
        share = weights[1] / sum(weights)
        cosine = float((models[0] * models[1]).sum() / (models[0].norm() * models[1].norm()))
        if abs(cosine) > 0.9995:
            return (1 - share) * models[0] + share * models[1]
        angle = math.acos(cosine)
        parts = math.sin((1 - share) * angle) * models[0] + math.sin(share * angle) * models[1]
        return parts / math.sin(angle)
    differences = []
    for row in models:
        difference = (row.float() - base.float()).double()
        keep = max(1, round(DENSITY * difference.numel()))
        smallest = difference.abs().flatten().sort(descending=True).values[keep - 1]
        differences.append(torch.where(difference.abs() >= smallest, difference, 0))
    parts = [weight * row for weight, row in zip(weights, differences, strict=True)]
    elected = torch.sign(sum(parts))
    even = sum(parts).abs() < 1e-6 * sum(row.abs() for row in parts)  # which sign wins is a matter of rounding
    total, divisor = torch.zeros_like(base), torch.zeros_like(base)
    for weight, row in zip(weights, differences, strict=True):
        agrees = (torch.sign(row) == elected) & (row != 0)
        total += torch.where(agrees, weight * row, 0)
        divisor += torch.where(agrees, weight, 0.0)
    merged = base + torch.where(divisor > 0, total / divisor.clamp(min=1e-9), 0)
    return merged.masked_fill(even, torch.nan)


def made(tmp_path, method, kinds, weights=(0.6, 0.4), **options):
    """The merged file, and the reference by original name."""
    files, numbers = [], []
    for index, (kind, state) in enumerate(zip(kinds, finetunes(), strict=True)):
        file, exact = stored_as(tmp_path / f"source_{index}_{kind}.safetensors", state, kind)
        files.append(file)
        numbers.append(exact)
    base = files[2] if method in ("add-difference", "ties") else None
    models = [Ingredient(file, weight) for file, weight in zip(files, weights, strict=False)]
    merged = merge(models, tmp_path / "merged.safetensors", method=method, base=base, density=DENSITY, **options)
    wanted = {}
    for name in numbers[0]:
        wanted[name] = reference(method, [numbers[0][name], numbers[1][name]], weights, numbers[2][name])
    return merged, wanted


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "kinds", [("fp32",) * 3, ("bf16",) * 3, ("fp8", "fp8", "bf16"), ("int8", "bf16", "fp8"), ("bf16", "diffusers", "diffusers")],
    ids="+".join,
)  # fmt: skip
def test_a_merge_is_the_reference(tmp_path, method, kinds):
    merged, wanted = made(tmp_path, method, kinds, to="bf16")
    found = load_file(merged.path)
    assert found.keys() == wanted.keys()
    for name, row in wanted.items():
        kept = found[name].dtype == torch.float32
        assert kept or found[name].dtype == torch.bfloat16
        tolerance = 1e-6 if kept else 2.0**-8  # of the rounding to bf16
        even = row.isnan()
        assert even.float().mean() < 0.01
        torch.testing.assert_close(found[name].double()[~even], row[~even], rtol=tolerance, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_int8_is_quantized_from_the_merged_numbers(tmp_path, method):
    merged, wanted = made(tmp_path, method, ("bf16",) * 3, to="int8")
    found = load_file(merged.path)
    assert merged.modules == 20
    name = "blocks.1.ffn.0.weight"
    data, scale = found[f"{name}._data"], found[f"{name}._scale"]
    exact = wanted[name].nan_to_num(0)
    torch.testing.assert_close(scale.double(), exact.abs().amax(1, keepdim=True) / 127, rtol=2.0**-8, atol=0)
    assert ((data * scale.double() - exact).abs() <= 0.501 * scale.double() + 0.01 * scale.double()).all()
    load_transformer(merged.path, "bf16")


def test_the_first_file_decides_the_layout_and_the_data_type(tmp_path):
    merged, wanted = made(tmp_path, "weighted", ("diffusers", "fp16", "bf16"))
    found = load_file(merged.path)
    assert found.keys() == {prefixed(name) for name in wanted}
    assert found[prefixed("blocks.0.ffn.0.weight")].dtype == torch.bfloat16
    (tmp_path / "fp16").mkdir()
    merged, _ = made(tmp_path / "fp16", "weighted", ("fp16", "diffusers", "bf16"))
    assert load_file(merged.path)["blocks.0.ffn.0.weight"].dtype == torch.float16


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("first", ["original", "diffusers"])
def test_layers_stacked_in_one_file_and_apart_in_the_other(tmp_path, name, first):
    family, model_class, config, stored = CASES[name]
    states = []
    for seed in range(2):
        torch.manual_seed(seed)
        states.append(
            {key: torch.randn_like(row) for key, row in random_model(model_class, config).state_dict().items()}
        )
    layouts = [original_layout(states[0], family), states[1]]
    expected = {key: 0.25 * states[0][key] + 0.75 * states[1][key] for key in states[0]}
    weights = [0.25, 0.75]
    if first == "diffusers":
        layouts, weights = layouts[::-1], weights[::-1]
    else:
        expected = original_layout(expected, family)
    metadata = {"config": json.dumps(stored)}
    files = [tiny.write(tmp_path / f"{index}.safetensors", state, metadata) for index, state in enumerate(layouts)]
    models = [Ingredient(file, weight) for file, weight in zip(files, weights, strict=True)]
    found = load_file(merge(models, tmp_path / "merged.safetensors").path)
    assert found.keys() == expected.keys()
    for key, row in expected.items():
        torch.testing.assert_close(found[key].float(), row.float(), rtol=2.0**-8, atol=1e-6)


def test_small_pieces_give_the_same_bits(tmp_path, monkeypatch):
    files = [stored_as(tmp_path / f"{index}.safetensors", state, "bf16")[0] for index, state in enumerate(finetunes())]
    models = [Ingredient(file, 0.5) for file in files[:2]]
    for method in METHODS:
        base = files[2] if method in ("add-difference", "ties") else None
        whole = merge(models, tmp_path / f"{method}_1.safetensors", method=method, base=base, density=DENSITY)
        with monkeypatch.context() as patch:
            patch.setattr(stream, "READ_BYTES", 4096)
            patch.setattr(buffers, "CHUNK", 512)
            if method != "slerp":  # whose sums depend on it, by a rounding error
                patch.setattr(measuring, "_VALUES", 512)
            again = merge(models, tmp_path / f"{method}_2.safetensors", method=method, base=base, density=DENSITY)
        assert again.path.read_bytes() == whole.path.read_bytes()


@pytest.mark.parametrize("density", [0.001, 0.1, 0.5, 0.9999, 1.0])
def test_the_threshold_is_the_kth_largest_magnitude(density):
    torch.manual_seed(3)
    values = torch.randn(300, 70) * torch.logspace(-6, 2, 70)
    values[:40] = 0

    class Rows:
        def __init__(self, matrix):
            self._matrix = matrix

        def copy(self, first, block):
            block.copy_(self._matrix[first : first + len(block)])

    found = measuring.threshold(Rows(values), Rows(torch.zeros_like(values)), (300, 70), density)
    keep = max(1, round(density * values.numel()))
    assert found == float(values.abs().flatten().sort(descending=True).values[keep - 1])


def test_loras_are_added_to_the_merged_model(tmp_path):
    torch.manual_seed(5)
    lora = {}
    for module, (rows, columns) in {"blocks.0.ffn.0": (64, 48), "blocks.1.self_attn.q": (48, 48)}.items():
        lora[f"diffusion_model.{module}.lora_A.weight"] = torch.randn(4, columns) * 0.1
        lora[f"diffusion_model.{module}.lora_B.weight"] = torch.randn(rows, 4) * 0.1
    lora["diffusion_model.blocks.1.self_attn.q.dora_scale"] = torch.rand(1, 48) + 0.5
    path = tmp_path / "style.safetensors"
    save_file(lora, path)
    events = []
    merged, wanted = made(tmp_path, "ties", ("fp32",) * 3, loras=[(path, 0.5)], listener=events.append)
    found = load_file(merged.path)
    product = (
        lora["diffusion_model.blocks.0.ffn.0.lora_B.weight"] @ lora["diffusion_model.blocks.0.ffn.0.lora_A.weight"]
    )
    plain = wanted["blocks.0.ffn.0.weight"] + 0.5 * product.double()
    torch.testing.assert_close(found["blocks.0.ffn.0.weight"].double(), plain, rtol=2.0**-8, atol=1e-6)
    name = "diffusion_model.blocks.1.self_attn.q"
    changed = (
        wanted["blocks.1.self_attn.q.weight"] + (lora[f"{name}.lora_B.weight"] @ lora[f"{name}.lora_A.weight"]).double()
    )
    changed = changed * lora[f"{name}.dora_scale"].double() / changed.norm(dim=0, keepdim=True)
    half = 0.5 * wanted["blocks.1.self_attn.q.weight"] + 0.5 * changed
    torch.testing.assert_close(found["blocks.1.self_attn.q.weight"].double(), half, rtol=2.0**-7, atol=1e-5)
    assert any(isinstance(event, Notice) and "style.safetensors × 0.5" in event.message for event in events)
    told = json.loads(read_header(merged.path).metadata["reeltune_merge"])
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert told["loras"] == [{"name": "style.safetensors", "weight": 0.5, "sha256": digest}]


def test_the_metadata_tell_where_it_comes_from(tmp_path):
    states = finetunes()
    licensed = {**tiny.METADATA, "license": "apache-2.0", "reeltune_loras": '[["style.safetensors", 0.5]]'}
    first = tiny.write(tmp_path / "a_bf16.safetensors", {n: row.bfloat16() for n, row in states[0].items()}, licensed)
    second = tiny.write(tmp_path / "b_bf16.safetensors", {n: row.bfloat16() for n, row in states[1].items()})
    base = tiny.write(tmp_path / "base_bf16.safetensors", {n: row.bfloat16() for n, row in states[2].items()})
    models = [Ingredient(first, 0.6), Ingredient(second, 0.4, license="apache-2.0")]
    merged = merge(models, tmp_path / "m.safetensors", method="ties", base=base, density=0.25)
    metadata = read_header(merged.path).metadata
    told = json.loads(metadata["reeltune_merge"])
    sums = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (first, second, base)]
    assert told == {
        "method": "ties",
        "models": [
            {"name": first.name, "sha256": sums[0], "license": "apache-2.0", "loras": [["style.safetensors", 0.5]], "weight": 0.6},
            {"name": second.name, "sha256": sums[1], "license": "apache-2.0", "weight": 0.4},
        ],
        "density": 0.25,
        "base": {"name": base.name, "sha256": sums[2]},
    }  # fmt: skip
    assert metadata["license"] == "apache-2.0"
    assert merged.sha256 == hashlib.sha256(merged.path.read_bytes()).hexdigest()
    again = merge([Ingredient(merged.path, 1), Ingredient(second, 1)], tmp_path / "n.safetensors")
    nested = json.loads(read_header(again.path).metadata["reeltune_merge"])
    assert nested["models"][0]["merged_from"] == told


def test_models_that_differ_are_refused_with_a_bounded_list(tmp_path):
    first = tiny.write(tmp_path / "a.safetensors", tiny.original_weights())
    wide = {**tiny.CONFIG, "num_layers": 3, "ffn_dim": 96}
    other = random_model(tiny.WanTransformer3DModel, wide).state_dict()
    second = tiny.write(tmp_path / "b.safetensors", other)
    with pytest.raises(TensorMismatch) as caught:
        merge([Ingredient(first, 1), Ingredient(second, 1)], tmp_path / "m.safetensors")
    error = caught.value
    assert "tensors only there (blocks.2." in error.message
    assert "blocks.0.ffn.0.weight [96, 48] instead of [64, 48]" in error.message
    assert len(error.message) < 2000
    assert all(name.startswith("blocks.2.") for name in error.unexpected)
    with pytest.raises(TensorMismatch, match=r"\d+ tensors missing \(blocks\.2\."):
        merge([Ingredient(second, 1), Ingredient(first, 1)], tmp_path / "m.safetensors")
    assert left(tmp_path) == ["a.safetensors", "b.safetensors"]


def test_what_makes_no_sense_is_refused_before_anything_is_read(tmp_path):
    first = tiny.write(tmp_path / "a.safetensors", tiny.original_weights())
    two = [Ingredient(first, 0.5), Ingredient(first, 0.5)]
    out = tmp_path / "m.safetensors"
    cases = [
        (two, {"method": "average"}, "Invalid value 'average'"),
        (two, {"method": "ties"}, "needs the base model"),
        (two, {"base": first}, "doesn't use a base model"),
        (two, {"method": "ties", "base": first, "density": 0.0}, "Invalid value 0.0 for the density"),
        ([*two, two[0]], {"method": "slerp"}, "merges two models, not 3"),
        (two[:1], {}, "merges 2 to 16 models, not 1"),
        ([Ingredient(first, 1), Ingredient(first, -1)], {}, "sum of the weights is 0"),
        ([Ingredient(first, 2), Ingredient(first, -1)], {"method": "slerp"}, "no negative weights"),
        ([Ingredient(first, float("nan")), two[0]], {}, "Invalid weight nan"),
        (two, {"to": "int4"}, "Invalid value 'int4' for to"),
    ]
    for models, options, message in cases:
        with pytest.raises(CheckpointError, match=message):
            merge(models, out, **options)
    with pytest.raises(CheckpointError, match="is the file that is read"):
        merge(two, first, overwrite=True)
    assert left(tmp_path) == ["a.safetensors"]


def test_weights_that_do_not_add_up_to_one_are_reported(tmp_path):
    events = []
    merged, wanted = made(tmp_path, "weighted", ("fp32",) * 3, weights=(3.0, 1.0), listener=events.append)
    assert [event.message for event in events if isinstance(event, Notice)] == [
        "The weights are divided by their sum, 4."
    ]
    name = "blocks.0.ffn.0.weight"
    torch.testing.assert_close(load_file(merged.path)[name].double(), wanted[name], rtol=2.0**-8, atol=1e-6)


def test_cancelling_and_damage_leave_nothing_behind(tmp_path, monkeypatch):
    files = [stored_as(tmp_path / f"{index}.safetensors", state, "bf16")[0] for index, state in enumerate(finetunes())]
    before = left(tmp_path)
    models = [Ingredient(files[0], 0.5), Ingredient(files[1], 0.5)]
    for stage in ("sha256", "measure", "quantize", "verify"):
        cancel = CancelToken()

        def listen(event, stage=stage, cancel=cancel):
            if isinstance(event, Progress) and event.stage == stage:
                cancel.cancel()

        with pytest.raises(Cancelled):
            merge(models, tmp_path / "m.safetensors", method="ties", base=files[2], listener=listen, cancel=cancel)
        assert left(tmp_path) == before
    write_piece = stream.write_piece

    def damaging(buffers, piece):
        write_piece(buffers, piece)
        if piece.task.source.name == "blocks.1.ffn.0.weight":
            with buffers.output.open("r+b") as file:
                file.seek(piece.task.outputs[0].begin + 7)
                file.write(b"\x55")

    monkeypatch.setattr("reeltune.weights.quantize.write_piece", damaging)
    for to in ("int8", "bf16"):
        with pytest.raises(CheckpointError, match=r"blocks\.1\.ffn\.0\.weight.* was not written"):
            merge(models, tmp_path / "m.safetensors", to=to)
        assert left(tmp_path) == before


def test_a_merge_of_one_model_with_itself_is_that_model(tmp_path):
    path, _ = stored_as(tmp_path / "a.safetensors", finetunes()[0], "bf16")
    for method in ("weighted", "slerp"):
        merged = merge([Ingredient(path, 0.5)] * 2, tmp_path / f"{method}.safetensors", method=method, to="int8")
        wanted = load_file(quantize(path, tmp_path / f"{method}_q.safetensors").path)
        found = load_file(merged.path)
        assert all(torch.equal(found[name], row) for name, row in wanted.items())
