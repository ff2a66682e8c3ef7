"""LoRAs of every dialect, merged in one pass: into whatever layout the checkpoint has, and never silently."""

import json

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from test_families import CASES, random_model

from layouts import original_layout
from reeltune.checkpoints.header import read_header
from reeltune.checkpoints.keys import translate
from reeltune.errors import CheckpointError, LoraMismatch, UnsupportedFormat
from reeltune.events import Notice
from reeltune.families.wan import WAN
from reeltune.weights.formats.quanto_int8 import quantize_tensor
from reeltune.weights.quantize import quantize

RANK = 4
MODULES = ("blocks.0.self_attn.q", "blocks.1.ffn.0", "text_embedding.0", "head.head")


@pytest.fixture
def weights():
    return {name: row.to(torch.bfloat16) for name, row in tiny.original_weights().items()}


@pytest.fixture
def base(tmp_path, weights):
    return tiny.write(tmp_path / "x_bf16.safetensors", weights)


def pairs(weights, modules=MODULES, seed=3):
    """module -> (up, down)"""
    torch.manual_seed(seed)
    return {
        name: (
            torch.randn(weights[f"{name}.weight"].shape[0], RANK),
            torch.randn(RANK, weights[f"{name}.weight"].shape[1]),
        )
        for name in modules
    }


def in_diffusers(name):
    return translate(name, WAN, "original")


DIALECTS = {
    "peft": lambda name, up, down: {f"diffusion_model.{name}.lora_A.weight": down, f"diffusion_model.{name}.lora_B.weight": up},
    "bare": lambda name, up, down: {f"{name}.lora_A.default.weight": down, f"{name}.lora_B.default.weight": up},
    "comfy": lambda name, up, down: {f"diffusion_model.{name}.lora_down.weight": down, f"diffusion_model.{name}.lora_up.weight": up},
    "diffusers": lambda name, up, down: {f"transformer.{in_diffusers(name)}.lora_A.weight": down, f"transformer.{in_diffusers(name)}.lora_B.weight": up},
    "wrapped": lambda name, up, down: {f"base_model.model.diffusion_model.{name}.lora_A.weight": down, f"base_model.model.diffusion_model.{name}.lora_B.weight": up},
    "old diffusers": lambda name, up, down: {f"transformer.{in_diffusers(name)}.lora.down.weight": down, f"transformer.{in_diffusers(name)}.lora.up.weight": up},
    "kohya": lambda name, up, down: {f"lora_unet_{name.replace('.', '_')}.lora_down.weight": down, f"lora_unet_{name.replace('.', '_')}.lora_up.weight": up},
}  # fmt: skip


def lora(path, rows, dialect="peft", alpha=None):
    state = {}
    for name, (up, down) in rows.items():
        named = DIALECTS[dialect](name, up, down)
        state |= named
        if alpha is not None:
            module = next(iter(named)).rpartition(".lora")[0]
            state[f"{module}.alpha"] = torch.tensor(float(alpha))
    save_file({key: row.contiguous() for key, row in state.items()}, path)
    return path


def merged(weights, rows, scale):
    found = {name: row.float() for name, row in weights.items()}
    for name, (up, down) in rows.items():
        found[f"{name}.weight"] = torch.addmm(found[f"{name}.weight"], up * scale, down)
    return found


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("alpha", [None, 2])
def test_every_dialect_merges_to_the_same_bits(tmp_path, base, weights, dialect, alpha):
    rows = pairs(weights)
    file = lora(tmp_path / "style.safetensors", rows, dialect, alpha)
    said = []
    made = quantize(base, tmp_path / "out.safetensors", loras=[(file, 0.5)], listener=said.append)
    scale = 0.5 * (1 if alpha is None else alpha / RANK)
    wanted, found = merged(weights, rows, scale), load_file(made.path)
    for name in (f"{module}.weight" for module in MODULES):
        if "blocks" in name:
            data, scales = quantize_tensor(wanted[name], torch.bfloat16)
            assert torch.equal(found[f"{name}._data"], data)
            assert torch.equal(found[f"{name}._scale"], scales)
        else:
            assert torch.equal(found[name], wanted[name].to(torch.bfloat16))
    assert torch.equal(
        found["blocks.0.self_attn.k.weight._data"],
        quantize_tensor(weights["blocks.0.self_attn.k.weight"], torch.bfloat16)[0],
    )
    assert [row.message for row in said if isinstance(row, Notice)] == [
        "style.safetensors × 0.5: applied 4 of 4 modules."
    ]


def test_one_pass_is_merging_first_and_quantizing_after(tmp_path, base, weights):
    """First merged into an fp32 file by plain torch, then quantized: the same bits."""
    rows = pairs(
        weights, [name.removesuffix(".weight") for name, row in weights.items() if "blocks" in name and row.ndim == 2]
    )
    more = pairs(weights, MODULES, seed=4)
    files = [(lora(tmp_path / "a.safetensors", rows), 0.7), (lora(tmp_path / "b.safetensors", more, "kohya"), -0.3)]
    first = merged({name: row.float() for name, row in weights.items()}, rows, 0.7)
    first = {name: row if any(part in name for part in ("blocks", "head.head.weight", "text_embedding.0.weight")) else row.to(torch.bfloat16)
             for name, row in merged(first, more, -0.3).items()}  # fmt: skip
    then = quantize(tiny.write(tmp_path / "merged.safetensors", first), tmp_path / "two.safetensors", dtype="bf16")
    once = quantize(base, tmp_path / "one.safetensors", loras=files)
    two, one = load_file(then.path), load_file(once.path)
    assert two.keys() == one.keys()
    for name in (name for name in one if name.endswith(("._data", "._scale"))):
        assert torch.equal(one[name], two[name]), name
    assert json.loads(read_header(once.path).metadata["reeltune_loras"]) == [
        ["a.safetensors", 0.7], ["b.safetensors", -0.3],
    ]  # fmt: skip


def test_differences_of_whole_tensors(tmp_path, base, weights):
    torch.manual_seed(0)
    changes = {
        "blocks.0.norm3.diff": ("blocks.0.norm3.weight", None),
        "blocks.0.self_attn.q.diff_b": ("blocks.0.self_attn.q.bias", None),
        "blocks.1.ffn.2.diff": ("blocks.1.ffn.2.weight", None),
        "blocks.1.diff_m": ("blocks.1.modulation", None),
        "patch_embedding.diff": ("patch_embedding.weight", None),
    }
    state = {f"diffusion_model.{key}": torch.randn_like(weights[name].float()) for key, (name, _) in changes.items()}
    save_file(state, tmp_path / "diff.safetensors")
    made = quantize(base, tmp_path / "out.safetensors", to="bf16", loras=[(tmp_path / "diff.safetensors", 0.5)])
    found = load_file(made.path)
    for key, (name, _) in changes.items():
        wanted = weights[name].float() + 0.5 * state[f"diffusion_model.{key}"]
        assert torch.equal(found[name], wanted.to(torch.bfloat16)), name
    assert made.applied[0].modules == 5


@pytest.mark.parametrize("stored", ["original", "diffusers"])
@pytest.mark.parametrize("named", ["original", "diffusers"])
def test_stacked_layers_take_loras_of_either_layout(tmp_path, stored, named):
    """Hunyuan keeps q, k, v (and the feed-forward's input) in one matrix, diffusers apart."""
    family, model_class, config, told = CASES["hunyuan"]
    model = random_model(model_class, config).state_dict()
    layouts = {"original": original_layout(model, family), "diffusers": model}
    torch.manual_seed(5)
    apart = {name: (torch.randn(row.shape[0], RANK), torch.randn(RANK, row.shape[1]))
             for name, row in model.items() if name.endswith(("to_q.weight", "to_k.weight", "to_v.weight", "proj_mlp.weight"))
             and "refiner" not in name}  # fmt: skip
    down = {}  # a fused LoRA has one lower factor: give all parts of a stack the same
    for name in apart:
        stack = translate(name, family, "diffusers")
        down.setdefault(stack, apart[name][1])
        apart[name] = (apart[name][0], down[stack])
    together = original_layout({name: pair[0] for name, pair in apart.items()}, family)
    rows = apart if named == "diffusers" else {name: (up, down[name]) for name, up in together.items()}
    state = {}
    for name, (up, low) in rows.items():
        module = name.removesuffix(".weight")
        state |= {f"diffusion_model.{module}.lora_B.weight": up, f"diffusion_model.{module}.lora_A.weight": low.clone()}
    save_file(state, tmp_path / "lora.safetensors")
    path = tiny.write(tmp_path / "x.safetensors", layouts[stored], {"config": json.dumps(told)})
    made = quantize(path, to="bf16", loras=[(tmp_path / "lora.safetensors", 0.25)])
    assert made.applied[0].modules == made.applied[0].total == len(rows)
    wanted = {
        name: row.float() + (0.25 * apart[name][0] @ apart[name][1] if name in apart else 0)
        for name, row in model.items()
    }
    wanted = original_layout(wanted, family) if stored == "original" else wanted
    found = load_file(made.path)
    for name, row in wanted.items():
        torch.testing.assert_close(found[name].float(), row.to(torch.bfloat16).float(), rtol=0.01, atol=1e-3)


def test_what_does_not_fit_is_named(tmp_path, base, weights):
    rows = pairs(weights, MODULES[:2])
    state = load_file(lora(tmp_path / "a.safetensors", rows))
    state |= {
        "diffusion_model.blocks.9.ffn.0.lora_A.weight": torch.zeros(2, 4),
        "diffusion_model.blocks.9.ffn.0.lora_B.weight": torch.zeros(4, 2),
    }
    save_file(state, tmp_path / "b.safetensors")
    made = quantize(base, tmp_path / "out.safetensors", loras=[(tmp_path / "b.safetensors", 1.0)])
    assert str(made.applied[0]) == "b.safetensors × 1: applied 2 of 3 modules; the model has no blocks.9.ffn.0."


@pytest.mark.parametrize(
    ("state", "error", "text"),
    [
        ({"lora_te_text_model.lora_down.weight": (2, 4), "lora_te_text_model.lora_up.weight": (4, 2)}, LoraMismatch, "The only module in l.safetensors doesn't belong"),
        ({"diffusion_model.blocks.0.ffn.0.lora_A.weight": (2, 48), "diffusion_model.blocks.0.ffn.0.lora_B.weight": (99, 2)}, LoraMismatch, "of another size"),
        ({"diffusion_model.blocks.0.ffn.0.lora_A.weight": (2, 48)}, CheckpointError, "only one half"),
        ({"diffusion_model.blocks.0.ffn.0.lora_A.weight": (2, 48), "diffusion_model.blocks.0.ffn.0.lora_B.weight": (64, 3)}, CheckpointError, "don't fit each other"),
        ({"diffusion_model.blocks.0.ffn.0.dora_scale": (64, 1)}, CheckpointError, "magnitude without its matrices"),
        ({"lora_unet_blocks_0_ffn_0.hada_w1_a": (64, 2)}, CheckpointError, "lacks hada_w1_b, hada_w2_a, hada_w2_b"),
        ({"lora_unet_blocks_0_ffn_0.lokr_w1": (2, 2)}, CheckpointError, "lacks lokr_w2_a, lokr_w2_b"),
        ({"lora_unet_blocks_0_ffn_0.oft_blocks": (4, 4, 4)}, UnsupportedFormat, "not a plain LoRA but OFT"),
        ({"base_model.model.blocks.0.ffn.0.boft_R.default": (4, 4, 4)}, UnsupportedFormat, "BOFT"),
        ({"lora_unet_blocks_0_ffn_0.b1.weight": (4, 4)}, UnsupportedFormat, "GLoRA"),
        ({"blocks.0.ffn.0.weight": (64, 48)}, UnsupportedFormat, "whole weights of a model, and is no LoRA"),
    ],
)  # fmt: skip
def test_what_would_do_nothing_or_wrong_is_an_error(tmp_path, base, state, error, text):
    save_file({name: torch.zeros(shape) for name, shape in state.items()}, tmp_path / "l.safetensors")
    with pytest.raises(error, match=text):
        quantize(base, tmp_path / "out.safetensors", loras=[(tmp_path / "l.safetensors", 1.0)])
    assert not (tmp_path / "out.safetensors").exists()


def test_a_weight_must_be_a_number(tmp_path, base, weights):
    file = lora(tmp_path / "a.safetensors", pairs(weights))
    with pytest.raises(CheckpointError, match="Invalid weight nan for a"):
        quantize(base, tmp_path / "out.safetensors", loras=[(file, float("nan"))])


def test_short_blocks_are_added_to_the_same_bits():
    """BLAS sums few rows in another order than many: what is worked out piece by piece must not show it."""
    from reeltune.weights.edits import Edit, LowRank, Segment

    torch.manual_seed(0)
    rows, columns = 1536, 8960
    up, down = torch.randn(rows, 64).bfloat16(), torch.randn(64, columns).bfloat16()
    weight = torch.randn(rows, columns)
    whole = weight + (up.float() * 0.7) @ down.float()
    edit = Edit(LowRank(up, down), 0.7, 1.0, (Segment(0, 0, rows),))
    for step in (42, 511):
        merged = weight.clone()
        for first in range(0, rows, step):
            edit.ready(torch.empty)(merged[first : first + step], first)
        assert torch.equal(merged, whole), step


def test_diffusers_tells_the_strength_in_the_metadata(tmp_path, base, weights):
    rows = pairs(weights, MODULES[:2])
    state = load_file(lora(tmp_path / "a.safetensors", rows, "diffusers"))
    told = {"transformer.r": RANK, "transformer.lora_alpha": 1, "transformer.alpha_pattern": {"net.0.proj": 8}}
    save_file(state, tmp_path / "b.safetensors", {"lora_adapter_metadata": json.dumps(told)})
    found = load_file(quantize(base, to="bf16", loras=[(tmp_path / "b.safetensors", 1.0)]).path)
    for module, alpha in zip(MODULES[:2], (1, 8), strict=True):
        wanted = merged(weights, {module: rows[module]}, alpha / RANK)[f"{module}.weight"]
        assert torch.equal(found[f"{module}.weight"], wanted.to(torch.bfloat16))


def test_parts_that_fit_nothing_are_named_beside_those_that_do(tmp_path, base, weights):
    state = load_file(lora(tmp_path / "a.safetensors", pairs(weights, MODULES[:1])))
    state["diffusion_model.blocks.0.self_attn.q.diff_m"] = torch.zeros(3)
    save_file(state, tmp_path / "b.safetensors")
    made = quantize(base, tmp_path / "out.safetensors", loras=[(tmp_path / "b.safetensors", 1.0)])
    assert str(made.applied[0]).endswith("applied 1 of 2 modules; the model has no blocks.0.self_attn.q.modulation.")
    state["transformer.blocks.0.self_attn.q.lora_A.weight"] = torch.zeros(RANK, 48)
    save_file(state, tmp_path / "c.safetensors")
    with pytest.raises(CheckpointError, match="contains a part twice"):
        quantize(base, tmp_path / "twice.safetensors", loras=[(tmp_path / "c.safetensors", 1.0)])


@pytest.mark.parametrize(
    "bad", [torch.zeros(0, 48), torch.full((2, 48), float("nan")), torch.zeros(2, 48, dtype=torch.int8)]
)
def test_damaged_loras_are_named(tmp_path, base, bad):
    state = {
        "diffusion_model.blocks.0.ffn.0.lora_A.weight": bad,
        "diffusion_model.blocks.0.ffn.0.lora_B.weight": torch.zeros(64, 2),
    }
    save_file(state, tmp_path / "l.safetensors")
    with pytest.raises(CheckpointError, match=r"l\.safetensors: blocks\.0\.ffn\.0"):
        quantize(base, tmp_path / "out.safetensors", loras=[(tmp_path / "l.safetensors", 1.0)])
