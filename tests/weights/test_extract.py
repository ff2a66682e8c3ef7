"""LoRAs extracted from finetunes: against the exact decomposition, and read back by the merging of LoRAs."""

import hashlib
import json

import pytest
import tiny
import torch
from safetensors.torch import load_file
from test_families import CASES, random_model
from test_merge import stored_as
from test_quantize import left

from layouts import original_layout
from reeltune.checkpoints.header import read_header
from reeltune.checkpoints.loras.writing import difference_key, kind_of, pair_keys
from reeltune.errors import Cancelled, CheckpointError, TensorMismatch
from reeltune.events import CancelToken, Notice, Progress
from reeltune.families.hunyuan import HUNYUAN
from reeltune.families.wan import WAN
from reeltune.weights import low_rank as low_rank_module
from reeltune.weights.extracting import extract_lora
from reeltune.weights.low_rank import low_rank
from reeltune.weights.quantize import quantize

LINEAR = "blocks.0.ffn.0.weight"


def pair(rank=3):
    """A finetune whose linear layers differ from the base by matrices of a rank, and the base, fp32."""
    base = tiny.original_weights(0)
    torch.manual_seed(9)
    tuned = {}
    for name, row in base.items():
        if name.endswith(".weight") and row.ndim == 2:
            tuned[name] = row + 0.1 * torch.randn(len(row), rank) @ torch.randn(rank, row.shape[1])
        else:
            tuned[name] = row + 0.05 * torch.randn_like(row)
    return tuned, base


@pytest.mark.parametrize(
    "kinds", [("fp32", "fp32"), ("bf16", "bf16"), ("bf16", "fp8"), ("fp8", "diffusers")], ids="-".join
)
def test_the_pairs_are_the_best_ones_of_their_rank(tmp_path, kinds):
    states = pair()
    files = [stored_as(tmp_path / f"{index}_{kind}.safetensors", state, kind)
             for index, (kind, state) in enumerate(zip(kinds, states, strict=True))]  # fmt: skip
    (tuned, tuned_numbers), (base, base_numbers) = files
    made = extract_lora(tuned, base, tmp_path / "lora.safetensors", rank=2)
    found = load_file(made.path)
    for name in tuned_numbers:
        exact = tuned_numbers[name] - base_numbers[name]
        if name.endswith(".weight") and exact.ndim == 2:
            down, up = (found[key].float() for key in pair_keys(name, WAN))
            assert down.shape == (2, exact.shape[1])
            assert up.shape == (exact.shape[0], 2)
            left_singular, values, right_singular = torch.linalg.svd(exact.double(), full_matrices=False)
            best = (left_singular[:, :2] * values[:2]) @ right_singular[:2]
            assert (up @ down - best).norm() <= 0.02 * best.norm()
        else:
            stored = found[difference_key(name, WAN)]
            assert stored.shape == exact.shape
            torch.testing.assert_close(stored.float(), exact, rtol=2.0**-8, atol=1e-6)
    whole = sum(float((tuned_numbers[name] - base_numbers[name]).double().square().sum()) for name in tuned_numbers)
    assert made.energy.total == pytest.approx(whole, rel=1e-4)
    assert 0.5 < made.energy.kept < 1
    assert made.kinds["blocks.*.ffn.0.weight"].parameters == 2


def test_a_large_matrix_is_decomposed_as_exactly(monkeypatch):
    torch.manual_seed(4)
    spectrum = torch.logspace(0, -3, 400)
    left_basis = torch.linalg.qr(torch.randn(700, 400)).Q
    matrix = left_basis * spectrum @ torch.linalg.qr(torch.randn(400, 400)).Q
    up, down = low_rank(matrix, 16)
    exact = float(spectrum[16:].square().sum())
    assert float((matrix - up @ down).square().sum()) <= 1.001 * exact
    again = low_rank(matrix, 16)
    assert torch.equal(up, again[0])
    assert torch.equal(down, again[1])
    flat = torch.randn(500, 400)  # the hardest case: no singular value stands out
    up, down = low_rank(flat, 16)
    kept = 1 - float((flat - up @ down).square().sum() / flat.square().sum())
    values = torch.linalg.svdvals(flat).square()
    assert kept >= 0.97 * float(values[:16].sum() / values.sum())
    monkeypatch.setattr(low_rank_module, "_EXACT_SIDE", 1000)
    up, down = low_rank(matrix, 16)
    assert float((matrix - up @ down).square().sum()) == pytest.approx(exact, rel=1e-3)


def test_merged_into_the_base_it_is_the_finetune_again(tmp_path):
    (tuned, _), (base, _) = (stored_as(tmp_path / f"{n}.safetensors", state, "fp32") for n, state in enumerate(pair()))
    made = extract_lora(tuned, base, tmp_path / "lora.safetensors", rank=4)
    assert made.energy.kept > 0.9999
    assert (made.left_out, made.unchanged) == (0, 0)
    events = []
    merged = load_file(quantize(base, to="bf16", loras=[(made.path, 1.0)], listener=events.append).path)
    (applied,) = [event.message for event in events if isinstance(event, Notice)]
    assert "lora.safetensors × 1: applied" in applied
    assert "the model has no" not in applied
    for name, row in load_file(tuned).items():
        torch.testing.assert_close(merged[name].float(), row, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("layouts", ["original", "diffusers", "mixed"])
def test_every_family_is_read_again_in_any_layout(tmp_path, name, layouts):
    family, model_class, config, stored = CASES[name]
    base = random_model(model_class, config).state_dict()
    torch.manual_seed(1)
    tuned = {key: row + 0.05 * torch.randn_like(row.float()).to(row.dtype) for key, row in base.items()}
    states = [tuned, base]
    if layouts != "diffusers":
        states[1] = original_layout(base, family)
    if layouts == "original":
        states[0] = original_layout(tuned, family)
    metadata = {"config": json.dumps(stored)}
    files = [tiny.write(tmp_path / f"{index}.safetensors", state, metadata) for index, state in enumerate(states)]
    made = extract_lora(*files, tmp_path / "lora.safetensors", rank=2048)
    merged = load_file(quantize(files[1], to="bf16", loras=[(made.path, 1.0)]).path)
    wanted = original_layout(tuned, family) if layouts != "diffusers" else tuned
    for key, row in wanted.items():
        torch.testing.assert_close(merged[key].float(), row.float(), rtol=0.02, atol=0.02)


def test_the_keys_are_those_that_other_programs_read():
    assert pair_keys("blocks.3.self_attn.q.weight", WAN) == (
        "diffusion_model.blocks.3.self_attn.q.lora_A.weight",
        "diffusion_model.blocks.3.self_attn.q.lora_B.weight",
    )
    assert difference_key("blocks.3.ffn.0.bias", WAN) == "diffusion_model.blocks.3.ffn.0.diff_b"
    assert difference_key("blocks.3.norm3.weight", WAN) == "diffusion_model.blocks.3.norm3.diff"
    assert difference_key("blocks.3.modulation", WAN) == "diffusion_model.blocks.3.modulation.diff"
    assert difference_key("head.modulation", WAN) == "diffusion_model.head.modulation.diff"
    assert pair_keys("double_blocks.1.img_attn_qkv.weight", HUNYUAN)[0] == (
        "diffusion_model.double_blocks.1.img_attn.qkv.lora_A.weight"
    )
    assert pair_keys("double_blocks.1.img_mlp.fc1.weight", HUNYUAN)[0] == (
        "diffusion_model.double_blocks.1.img_mlp.0.lora_A.weight"
    )
    assert difference_key("time_in.mlp.0.bias", HUNYUAN) == "diffusion_model.time_in.in_layer.diff_b"
    assert kind_of("blocks.12.ffn.0.weight", WAN) == "blocks.*.ffn.0.weight"
    assert kind_of("text_embedding.0.bias", WAN) == "text_embedding.0.bias"


def test_what_stays_the_same_is_not_stored_and_what_is_left_out_is_counted(tmp_path):
    base = tiny.original_weights(0)
    tuned = {name: row.clone() for name, row in base.items()}
    tuned[LINEAR] += 0.1
    tuned["blocks.0.norm3.weight"] += 0.1
    tuned["blocks.0.ffn.0.bias"] += 0.1
    files = [tiny.write(tmp_path / f"{index}.safetensors", state) for index, state in enumerate((tuned, base))]
    made = extract_lora(*files, tmp_path / "lora.safetensors", rank=1)
    assert (made.modules, made.differences, made.left_out, made.unchanged) == (1, 2, 0, len(base) - 3)
    assert len(load_file(made.path)) == 4
    small = extract_lora(*files, tmp_path / "small.safetensors", rank=1, whole_differences=False)
    assert (small.modules, small.differences, small.left_out) == (1, 0, 2)
    assert load_file(small.path).keys() == set(pair_keys(LINEAR, WAN))
    assert small.kinds["blocks.*.norm3.weight"].kept == 0
    assert small.energy.kept < made.energy.kept
    told = json.loads(read_header(made.path).metadata["reeltune_extract"])
    assert told["tuned"] == {"name": "0.safetensors", "sha256": hashlib.sha256(files[0].read_bytes()).hexdigest()}
    assert told["rank"] == 1
    assert told["energy_kept"] == pytest.approx(made.energy.kept, abs=1e-6)
    assert made.sha256 == hashlib.sha256(made.path.read_bytes()).hexdigest()


def test_what_can_not_be_extracted_is_refused(tmp_path):
    tuned, base = (tiny.write(tmp_path / f"{n}.safetensors", state) for n, state in enumerate(pair()))
    out = tmp_path / "lora.safetensors"
    with pytest.raises(CheckpointError, match="hold the same numbers"):
        extract_lora(base, base, out)
    with pytest.raises(CheckpointError, match="Invalid rank 0"):
        extract_lora(tuned, base, out, rank=0)
    with pytest.raises(CheckpointError, match="Invalid value 'int8' for dtype"):
        extract_lora(tuned, base, out, dtype="int8")
    with pytest.raises(CheckpointError, match="exists already"):
        extract_lora(tuned, base, base)
    wide = random_model(tiny.WanTransformer3DModel, {**tiny.CONFIG, "ffn_dim": 96}).state_dict()
    other = tiny.write(tmp_path / "other.safetensors", wide)
    with pytest.raises(TensorMismatch, match="tensors of another shape"):
        extract_lora(tuned, other, out)
    broken = {**pair()[0], LINEAR: torch.full((64, 48), torch.nan)}
    with pytest.raises(CheckpointError, match=r"blocks\.0\.ffn\.0\.weight holds NaN"):
        extract_lora(tiny.write(tmp_path / "nan.safetensors", broken), base, out)
    cancel = CancelToken()

    def listen(event):
        if isinstance(event, Progress) and event.stage == "extract":
            cancel.cancel()

    with pytest.raises(Cancelled):
        extract_lora(tuned, base, out, listener=listen, cancel=cancel)
    assert left(tmp_path) == ["0.safetensors", "1.safetensors", "nan.safetensors", "other.safetensors"]


def test_a_quantized_finetune_gives_a_notice(tmp_path):
    states = pair()
    tuned, _ = stored_as(tmp_path / "tuned.safetensors", states[0], "int8")
    base, _ = stored_as(tmp_path / "base.safetensors", states[1], "bf16")
    events = []
    extract_lora(tuned, base, tmp_path / "lora.safetensors", listener=events.append)
    assert any(isinstance(event, Notice) and "rounding errors are part" in event.message for event in events)


def test_others_may_read_the_file_as_any_new_file(tmp_path):
    tuned, base = (stored_as(tmp_path / f"{index}.safetensors", state, "bf16")[0] for index, state in enumerate(pair()))
    made = extract_lora(tuned, base, tmp_path / "lora.safetensors", rank=2)
    (tmp_path / "new").touch()
    assert made.path.stat().st_mode == (tmp_path / "new").stat().st_mode
