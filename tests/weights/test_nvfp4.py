"""nvfp4: decoded to the bits of independent references; files of every program that writes them, and damaged ones."""

import json
import re

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from test_families import CASES, HUNYUAN_CONFIG, random_model
from test_families import forward as forward_of
from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor

import nvfp4_files
from layouts import original_layout
from nvfp4_files import E4M3, KINDS, LEVELS, in_tiles, layer, numbers_of, packed, quantized, stored_as
from reeltune.checkpoints.header import read_header
from reeltune.checkpoints.identify import identify
from reeltune.checkpoints.keys import matches, translate
from reeltune.dtypes import Quantization
from reeltune.errors import CheckpointError, ReeltuneError, TensorMismatch, UnsupportedFormat
from reeltune.families.hunyuan import HUNYUAN
from reeltune.families.wan import WAN
from reeltune.weights import stream
from reeltune.weights.formats.nvfp4 import Nvfp4Decoder
from reeltune.weights.load import MergedLora, load_transformer
from reeltune.weights.merging.merge import Ingredient, merge
from reeltune.weights.quantize import check, quantize
from reeltune.weights.tensors import TensorFile

LINEAR = "blocks.0.ffn.0"
NAN_CODES = (0x7F, 0xFF)


@pytest.fixture
def weights():
    return {name: row.to(torch.bfloat16) for name, row in tiny.original_weights().items()}


def is_linear(name):
    module = name.removesuffix(".weight")
    return name.endswith(".weight") and any(matches(module, pattern) for pattern in WAN.quantizable)


def files(folder, weights, kind, **more):
    """A file in nvfp4, and one of its numbers in fp32 where it has nvfp4."""
    state, numbers, metadata = stored_as(weights, is_linear, kind, **more)
    path = tiny.write(folder / "x_nvfp4.safetensors", state, tiny.METADATA | metadata)
    return path, tiny.write(folder / "plain.safetensors", numbers)


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


def assert_same_files(ours, wanted):
    ours, wanted = load_file(ours), load_file(wanted)
    assert ours.keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in ours.items())


# --- arithmetic -----------------------------------------------------------------------------------------------------


def random_codes(rows, columns):
    """Codes and scales of all kinds: every code with every scale that is a number, zero and negative ones included."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 16, (rows, columns), dtype=np.uint8)
    codes[0, :16] = np.arange(16)
    scales = rng.choice([code for code in range(256) if code not in NAN_CODES], (rows, columns // 16)).astype(np.uint8)
    scales[0, 0] = 0
    return codes, scales


@pytest.mark.parametrize("factor", [1.0, 3.7e-5, 1e-38, 250.0])
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_blocks_are_decoded_to_the_bits_of_torchao(tmp_path, kind, factor):
    """200 rows and 50 scales in each, so that rows and columns of scales are padded."""
    codes, scales = random_codes(200, 800)
    state, numbers = layer("m", codes, scales, np.float32(factor), kind)
    path = tmp_path / "x.safetensors"
    save_file(state, path)
    file = TensorFile(path)
    names = set(state)
    weight = identify_format(path).stored_weight("m.weight", names)
    found = Nvfp4Decoder().read(file, weight).decoded(torch.float32)
    assert found.shape == (200, 800)
    assert torch.equal(found.view(torch.int32), numbers.view(torch.int32))
    if kind.startswith("lightx2v"):
        return  # whose factor is rounded once more
    low_first = torch.from_numpy(packed(codes, high_first=False).copy())
    stored, swizzled = state["m.weight_scale"], kind != "modelopt"
    theirs = NVFP4Tensor(
        low_first, stored, 16, torch.float32, state["m.weight_scale_2"], is_swizzled_scales=swizzled
    ).dequantize(torch.float32)
    assert torch.equal(found.view(torch.int32), theirs.view(torch.int32))


def identify_format(path):
    from reeltune.checkpoints.formats import format_by_header

    return format_by_header(read_header(path))


def test_the_reference_is_what_the_documents_say():
    assert LEVELS[:8].tolist() == [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    assert (LEVELS[8:] == -LEVELS[:8]).all()
    assert packed(np.array([[5, 1]], np.uint8), high_first=True).tolist() == [[0x51]]
    assert packed(np.array([[5, 1]], np.uint8), high_first=False).tolist() == [[0x15]]
    tiles = in_tiles(np.arange(256, dtype=np.int64).reshape(64, 4).astype(np.uint8)).ravel()
    assert tiles[:4].tolist() == [0, 1, 2, 3]  # row 0
    assert tiles[4:8].tolist() == [128, 129, 130, 131]  # row 32
    assert tiles[16:20].tolist() == [4, 5, 6, 7]  # row 1
    assert numbers_of(np.full((1, 16), 7, np.uint8), np.full((1, 1), 0x38, np.uint8), 0.5).tolist() == [[3.0] * 16]
    assert E4M3[0x38] == 1


@pytest.mark.parametrize("code", NAN_CODES)
@pytest.mark.parametrize("kind", KINDS)
def test_scales_that_are_no_numbers_are_faults_of_the_file(tmp_path, weights, kind, code):
    state, _, metadata = stored_as(weights, is_linear, kind)
    scales = state[f"{LINEAR}.weight_scale"].view(torch.uint8)
    scales[0, 1] = code  # of row 0 in either order
    path = tiny.write(tmp_path / "x.safetensors", state, tiny.METADATA | metadata)
    for quantized_on_load in (False, True):
        with pytest.raises(CheckpointError, match=f"{LINEAR}.weight: its nvfp4 scales are NaN or infinite"):
            load_transformer(path, "bf16", quantize=quantized_on_load)
    for to in ("int8", "bf16", "fp8"):
        with pytest.raises(CheckpointError, match=f"{LINEAR}.weight: its nvfp4 scales are NaN or infinite"):
            quantize(path, to=to)
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("comfyui", "weight_scale_2", float("nan")),
        ("modelopt", "weight_scale_2", float("inf")),
        ("lightx2v", "weight_global_scale", 0.0),
        ("lightx2v alpha", "alpha", float("inf")),
    ],
)
def test_factors_that_are_no_numbers_are_faults_of_the_file(tmp_path, weights, kind, name, value):
    state, _, _ = stored_as(weights, is_linear, kind)
    state[f"{LINEAR}.{name}"] = torch.tensor(value)
    path = tiny.write(tmp_path / "x.safetensors", state)
    for work in (quantize, lambda file: load_transformer(file, "bf16")):
        with pytest.raises(CheckpointError, match="its nvfp4 scales are NaN or infinite"):
            work(path)


def test_padding_of_scales_is_never_looked_at(tmp_path, weights):
    state, numbers, _ = stored_as(weights, is_linear, "comfyui")
    tile = state[f"{LINEAR}.weight_scale"].view(torch.uint8)  # [64, 3] in a tile of 128 by 4
    flat = tile.view(32, 4, 4)
    flat[:, :, 3] = 0x7F
    flat[:, 2:] = 0x7F
    path = tiny.write(tmp_path / "x.safetensors", state)
    assert_same(
        load_transformer(path, "bf16"), load_transformer(tiny.write(tmp_path / "y.safetensors", numbers), "bf16")
    )
    quantize(path)


# --- loading and converting -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantized_on_load", [True, False], ids=["int8", "16 bits"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_loads_as_its_numbers_do(tmp_path, weights, kind, quantized_on_load):
    path, plain = files(tmp_path, weights, kind)
    for dtype in ("bf16", "fp16"):
        ours = load_transformer(path, dtype, quantize=quantized_on_load)
        assert_same(ours, load_transformer(plain, dtype, quantize=quantized_on_load))


@pytest.mark.parametrize("notes", ["tensors", "metadata", "none"])
def test_notes_may_be_tensors_or_metadata_and_prefixed(tmp_path, weights, notes):
    path, plain = files(tmp_path, weights, "comfyui", notes=notes, prefix="model.diffusion_model.")
    found = identify(read_header(path))
    assert (found.quantization, found.objection, found.prefix) == (Quantization.NVFP4, "", "model.diffusion_model.")
    assert_same(load_transformer(path, "bf16"), load_transformer(plain, "bf16"))


@pytest.mark.parametrize("to", ["int8", "bf16", "fp16", "fp8"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_quantized_and_converted_as_its_numbers_are(tmp_path, weights, kind, to, monkeypatch):
    monkeypatch.setattr(stream, "READ_BYTES", 400)  # several pieces for a weight
    path, plain = files(tmp_path, weights, kind)
    made = quantize(path, to=to)
    names = {"int8": "quanto_bf16_int8", "fp8": "fp8_e4m3fn_scaled"}
    assert made.path.name == f"x_{names.get(to, to)}.safetensors"
    assert_same_files(made.path, quantize(plain, to=to, dtype="bf16" if to in names else "auto").path)
    if to == "int8":
        assert made.modules == 20
        assert_same(load_transformer(made.path, "bf16"), load_transformer(path, "bf16", quantize=True))
        check(path, made.path, dtype="bf16")


def test_rows_of_several_tiles(tmp_path, monkeypatch):
    """300 rows are three tiles, of which pieces begin anywhere."""
    monkeypatch.setattr(tiny, "CONFIG", tiny.CONFIG | {"ffn_dim": 304, "num_layers": 1})
    monkeypatch.setattr(stream, "READ_BYTES", 24 * 37)
    weights = {name: row.to(torch.bfloat16) for name, row in tiny.original_weights().items()}
    path, plain = files(tmp_path, weights, "comfyui")
    assert_same_files(quantize(path).path, quantize(plain, dtype="bf16").path)


def test_what_the_new_file_says_of_itself(tmp_path, weights):
    state, _, metadata = stored_as(weights, is_linear, "comfyui", notes="metadata")
    path = tiny.write(tmp_path / "x.safetensors", state, tiny.METADATA | metadata | {"license": "mine"})
    told = read_header(quantize(path, to="bf16").path)
    assert told.metadata["license"] == "mine"
    assert "_quantization_metadata" not in told.metadata
    assert not [name for name in told.tensors if "scale" in name or "comfy" in name]


def test_what_a_header_tells(tmp_path, weights):
    path, plain = files(tmp_path, weights, "comfyui")
    ours, wanted = identify(read_header(path)), identify(read_header(plain))
    assert (ours.quantization, ours.architectures, ours.config) == (
        Quantization.NVFP4,
        wanted.architectures,
        wanted.config,
    )
    assert (ours.parameters, ours.memory_bytes, ours.dtype) == (wanted.parameters, wanted.memory_bytes, "bf16")


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_other_families_stay_close(tmp_path, name, kind):
    """With layers stacked in one tensor, and halves swapped."""
    family, model_class, config, stored = CASES[name]
    model = random_model(model_class, config)
    weights = original_layout(model.state_dict(), family)

    def is_packable(key):
        return nvfp4_files.in_blocks(key) and weights[key].ndim == 2 and weights[key].shape[1] % 16 == 0

    state, _, metadata = stored_as(weights, is_packable, kind)
    assert sum(key.endswith(".weight_scale") for key in state) > 4
    path = tiny.write(tmp_path / "x.safetensors", state, {"config": json.dumps(stored)} | metadata)
    wanted = forward_of(name, model).float()
    for quantized_on_load in (True, False):
        ours = forward_of(name, load_transformer(path, "bf16", quantize=quantized_on_load)).float()
        assert (ours - wanted).norm() / wanted.norm() < 0.25


@pytest.mark.parametrize("kind", KINDS)
def test_stacked_and_swapped_layers_are_the_rows_of_their_numbers(tmp_path, kind):
    state = random_model(CASES["hunyuan"][1], HUNYUAN_CONFIG).state_dict()
    weights = original_layout(state, HUNYUAN)
    config = {"config": json.dumps(CASES["hunyuan"][3])}

    def is_packable(key):
        return key.endswith(".weight") and weights[key].ndim == 2 and weights[key].shape[1] % 16 == 0

    stored, numbers, metadata = stored_as(weights, is_packable, kind)
    path = tiny.write(tmp_path / "x.safetensors", stored, config | metadata)
    plain = tiny.write(tmp_path / "plain.safetensors", numbers, config)
    for quantized_on_load in (True, False):
        ours = load_transformer(path, "bf16", quantize=quantized_on_load)
        assert_same(ours, load_transformer(plain, "bf16", quantize=quantized_on_load))


def test_layers_in_diffusers_layout(tmp_path, weights):
    """As ModelOpt exports them."""
    named = {translate(name, WAN, "original"): row for name, row in weights.items()}
    linears = {translate(name, WAN, "original") for name in weights if is_linear(name)}
    state, numbers, _ = stored_as(named, linears.__contains__, "modelopt")
    path = tiny.write(tmp_path / "x.safetensors", state)
    plain = tiny.write(tmp_path / "plain.safetensors", numbers)
    assert_same(load_transformer(path, "bf16"), load_transformer(plain, "bf16"))


def test_files_that_mix_formats(tmp_path, weights):
    """Layers in nvfp4, scaled fp8, int8 and 16 bits, each with its own note."""
    state, numbers, _ = stored_as(weights, is_linear, "comfyui")
    layers = [name.removesuffix(".weight") for name in weights if is_linear(name)]
    for number, module in enumerate(layers):
        if number % 4 == 0:
            continue
        for ending in ("weight_scale_2", "input_scale"):
            del state[f"{module}.{ending}"]
        row = weights[f"{module}.weight"].float()
        note, scale = None, None
        if number % 4 == 1:
            scale = row.abs().amax() / 448
            stored = (row / scale).to(torch.float8_e4m3fn)
            note = {"format": "float8_e4m3fn", "full_precision_matrix_mult": True}
        elif number % 4 == 2:
            scale = row.abs().amax(dim=1, keepdim=True) / 127
            stored = (row / scale).round().to(torch.int8)
            note = {"format": "int8_tensorwise"}
        else:
            stored = row.to(torch.float16)
        del state[f"{module}.weight_scale"]
        del state[f"{module}.comfy_quant"]
        state[f"{module}.weight"] = stored
        numbers[f"{module}.weight"] = stored.float() if scale is None else stored.float() * scale
        if note:
            state[f"{module}.weight_scale"] = scale
            state[f"{module}.comfy_quant"] = torch.tensor(list(json.dumps(note).encode()), dtype=torch.uint8)
    path = tiny.write(tmp_path / "x_nvfp4_mixed.safetensors", state)
    plain = tiny.write(tmp_path / "plain.safetensors", numbers)
    assert identify(read_header(path)).quantization is Quantization.NVFP4
    for quantized_on_load in (True, False):
        ours = load_transformer(path, "bf16", quantize=quantized_on_load)
        assert_same(ours, load_transformer(plain, "bf16", quantize=quantized_on_load))
    made = quantize(path)
    assert made.path.name == "x_quanto_bf16_int8.safetensors"
    assert_same_files(made.path, quantize(plain, dtype="bf16").path)


@pytest.mark.parametrize("note", [{"group_size": 16}, {"group_size": 16, "orig_dtype": "torch.bfloat16"}])
def test_notes_may_repeat_what_is_always_so(tmp_path, weights, note):
    state, _, _ = stored_as(weights, is_linear, "comfyui")
    text = json.dumps(nvfp4_files.NOTE | note).encode()
    for name in state:
        if name.endswith(".comfy_quant"):
            state[name] = torch.tensor(list(text), dtype=torch.uint8)
    load_transformer(tiny.write(tmp_path / "x.safetensors", state), "bf16")


@pytest.mark.parametrize("dora", [False, True])
def test_loras_are_merged_while_it_is_quantized_or_loaded(tmp_path, weights, dora):
    path, plain = files(tmp_path, weights, "lightx2v")
    torch.manual_seed(2)
    name = f"diffusion_model.{LINEAR}"
    rows = {f"{name}.lora_A.weight": torch.randn(4, 48), f"{name}.lora_B.weight": torch.randn(64, 4)}
    if dora:
        rows[f"{name}.dora_scale"] = torch.rand(64, 1) + 1
    lora = tmp_path / "lora.safetensors"
    save_file(rows, lora)
    ours = quantize(path, loras=[(lora, 0.5)]).path
    assert_same_files(ours, quantize(plain, loras=[(lora, 0.5)], output=tmp_path / "p.safetensors", dtype="bf16").path)
    loras = [MergedLora(lora, 0.5)]
    assert_same(
        load_transformer(path, "bf16", quantize=True, loras=loras),
        load_transformer(plain, "bf16", quantize=True, loras=loras),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_it_can_be_merged_with_other_models(tmp_path, weights, kind):
    path, plain = files(tmp_path, weights, kind)
    other = tiny.write(tmp_path / "other.safetensors", {name: row + 0.01 for name, row in weights.items()})
    merged = []
    for number, source in enumerate((path, plain)):
        for order in ([source, other], [other, source]):
            output = tmp_path / f"{number}{order[0].stem}.safetensors"
            merged.append(merge([Ingredient(file, 0.5) for file in order], output, dtype="bf16").path)
    assert_same_files(merged[0], merged[2])
    assert_same_files(merged[1], merged[3])


# --- files that are refused -----------------------------------------------------------------------------------------


def refused(path, words):
    """Refused by its header, everywhere."""
    assert re.search(words, identify(read_header(path)).objection)
    for work in (quantize, lambda file: load_transformer(file, "bf16")):
        with pytest.raises(UnsupportedFormat, match=words):
            work(path)


def test_scales_that_may_lie_in_rows_or_in_tiles_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tiny, "CONFIG", tiny.CONFIG | {"attention_head_dim": 64, "ffn_dim": 256, "text_dim": 128})
    weights = {name: row.to(torch.bfloat16) for name, row in tiny.original_weights().items()}
    for kind in ("comfyui", "modelopt"):
        path, _ = files(tmp_path, weights, kind, notes="none")
        refused(
            path, r"doesn't tell whether its nvfp4 scales lie in tiles or in rows: notes \(comfy_quant\) are missing"
        )
    for kind in ("comfyui", "lightx2v", "lightx2v alpha"):
        path, plain = files(tmp_path, weights, kind)
        assert_same(load_transformer(path, "bf16"), load_transformer(plain, "bf16"))


MODELOPT = {"quantization_config": json.dumps({"quant_algo": "NVFP4", "producer": {"name": "modelopt"}})}


def test_files_of_modelopt_for_comfyui_are_refused(tmp_path, weights):
    for notes in ("tensors", "metadata", "none"):
        state, _, metadata = stored_as(weights, is_linear, "comfyui", notes=notes)
        path = tiny.write(tmp_path / "x.safetensors", state, tiny.METADATA | metadata | MODELOPT)
        refused(path, "it is ModelOpt's, and doesn't tell which half of a byte comes first")
    state, numbers, _ = stored_as(weights, is_linear, "modelopt")
    path = tiny.write(tmp_path / "x.safetensors", state, tiny.METADATA | MODELOPT)
    assert_same(
        load_transformer(path, "bf16"), load_transformer(tiny.write(tmp_path / "y.safetensors", numbers), "bf16")
    )
    assert "quantization_config" not in read_header(quantize(path, to="bf16").path).metadata


def test_notes_that_contradict_the_shapes_are_refused(tmp_path, weights):
    state, _, _ = stored_as(weights, is_linear, "modelopt")
    layers = {name.removesuffix(".weight"): nvfp4_files.NOTE for name in weights if is_linear(name)}
    metadata = tiny.METADATA | {"_quantization_metadata": json.dumps({"layers": layers})}
    refused(tiny.write(tmp_path / "x.safetensors", state, metadata), "say that its nvfp4 scales lie in tiles")


def test_scales_of_both_orders_are_refused(tmp_path, weights):
    state, _, _ = stored_as(weights, is_linear, "modelopt")
    of_layer, _ = layer(LINEAR, *quantized(weights[f"{LINEAR}.weight"]), "comfyui")
    refused(tiny.write(tmp_path / "x.safetensors", state | of_layer), "lie in tiles, those of others in rows")


@pytest.mark.parametrize(
    ("added", "words"),
    [
        ({f"{LINEAR}.pre_quant_scale": torch.ones(48)}, "smoothed"),
        ({f"{LINEAR}.weight_global_scale": torch.ones(())}, "have scales of two programs"),
        ({f"{LINEAR}.weight_packed": torch.ones(64, 24, dtype=torch.uint8)}, "compressed-tensors"),
    ],
)
def test_variants_that_are_not_supported(tmp_path, weights, added, words):
    state, _, _ = stored_as(weights, is_linear, "comfyui")
    refused(tiny.write(tmp_path / "x.safetensors", state | added), words)


@pytest.mark.parametrize(
    ("note", "words"),
    [
        ({"group_size": 32}, "contains 'group_size', which isn't known"),
        ({"rotation": 1}, "contains 'rotation', which isn't known"),
        ({"convrot": True}, "stored as nvfp4 and rotated"),
        ({"format": "int8_blockwise"}, "'int8_blockwise', which isn't known"),
    ],
)
def test_notes_of_another_storage(tmp_path, weights, note, words):
    state, _, _ = stored_as(weights, is_linear, "comfyui")
    text = json.dumps(nvfp4_files.NOTE | note).encode()
    state[f"{LINEAR}.comfy_quant"] = torch.tensor(list(text), dtype=torch.uint8)
    refused(tiny.write(tmp_path / "x.safetensors", state), words)


# --- damaged files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop(f"{LINEAR}.weight_scale"), rf"1 missing \({LINEAR}.weight_scale\)"),
        (lambda state: state.update({f"{LINEAR}.weight_scale": torch.ones(7, 2)}), "F32 scales"),
        (
            lambda state: state.update({f"{LINEAR}.weight_scale": torch.ones(64, 9).to(torch.float8_e4m3fn)}),
            r"F8_E4M3 scales \[64, 9\]",
        ),
        (lambda state: state.update({f"{LINEAR}.weight": torch.ones(64, 23, dtype=torch.uint8)}), "of another shape"),
        (lambda state: state.update({f"{LINEAR}.weight": torch.ones(60, 24, dtype=torch.uint8)}), "of another shape"),
        (lambda state: state.pop("blocks.1.ffn.2.weight"), "missing"),
    ],
)
def test_damaged_files_are_named(tmp_path, weights, kind, change, words):
    state, _, _ = stored_as(weights, is_linear, kind)
    change(state)
    path = tiny.write(tmp_path / "x.safetensors", state)
    for work in (quantize, lambda file: load_transformer(file, "bf16")):
        with pytest.raises(TensorMismatch, match=words):
            work(path)


@pytest.mark.parametrize("kind", KINDS)
def test_missing_and_odd_factors_are_named(tmp_path, weights, kind):
    state, _, _ = stored_as(weights, is_linear, kind)
    factor = {"lightx2v": "weight_global_scale", "lightx2v alpha": "alpha"}.get(kind, "weight_scale_2")
    for value, words in ((None, "missing"), (torch.ones(2), "is not one number"), (torch.tensor(1), "not one number")):
        changed = {name: row for name, row in state.items() if name != f"{LINEAR}.{factor}"}
        if value is not None:
            changed[f"{LINEAR}.{factor}"] = value
        path = tiny.write(tmp_path / "x.safetensors", changed)
        with pytest.raises(TensorMismatch, match=words):
            load_transformer(path, "bf16")


def test_scales_of_no_weight_are_named(tmp_path, weights):
    state, _, _ = stored_as(weights, is_linear, "comfyui")
    state[f"{LINEAR}.weight"] = weights[f"{LINEAR}.weight"]
    path = tiny.write(tmp_path / "x.safetensors", state)
    with pytest.raises(ReeltuneError, match=f"{LINEAR}.weight_scale"):
        load_transformer(path, "bf16")
