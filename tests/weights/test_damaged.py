"""Damaged and hostile weight files: whatever their bytes are, what comes out is a typed error or a sound result."""

import json
import random

import pytest
import tiny
import torch
from test_families import CASES, random_model

import nvfp4_files
from layouts import original_layout
from mutations import header_and_data, mutated_safetensors, safetensors_file
from reeltune.checkpoints.inspection import inspect
from reeltune.errors import ReeltuneError
from reeltune.weights.draft import prepare
from reeltune.weights.load import load_transformer

SEEDS = 12
EACH = 250  # damaged files of each seed: 3,000 together


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Small sound files of every kind that is read: their headers and data."""
    folder = tmp_path_factory.mktemp("sound")
    weights = {name: row.to(torch.bfloat16) for name, row in tiny.original_weights().items()}
    quanto, metadata = tiny.quantized(weights, torch.bfloat16)
    files = [
        tiny.write(folder / "wan.safetensors", weights),
        tiny.write(folder / "quanto.safetensors", quanto, metadata),
    ]
    for kind in ("comfyui", "lightx2v", "modelopt"):
        state, _, noted = nvfp4_files.stored_as(weights, nvfp4_files.in_blocks, kind)
        files.append(tiny.write(folder / f"{kind}.safetensors", state, tiny.METADATA | noted))
    for name, (family, model_class, config, stored) in CASES.items():
        state = original_layout(random_model(model_class, config).state_dict(), family)
        files.append(tiny.write(folder / f"{name}.safetensors", state, {"config": json.dumps(stored)}))
    lora = {
        f"diffusion_model.blocks.0.ffn.0.{key}": torch.ones(shape)
        for key, shape in {"lora_A.weight": (2, 48), "lora_B.weight": (64, 2), "alpha": ()}.items()
    }
    lora |= {
        "diffusion_model.blocks.1.ffn.2.diff": torch.ones(48, 64),
        "diffusion_model.blocks.1.diff_m": torch.ones(1, 6, 48),
    }
    lora |= {f"blocks.0.ffn.2.{key}": torch.ones(shape) for key, shape in
             {"lokr_w1": (4, 4), "lokr_w2_a": (12, 2), "lokr_w2_b": (2, 16), "alpha": ()}.items()}  # fmt: skip
    lora |= {f"lora_unet_blocks_1_ffn_0.hada_w{number}_{side}": torch.ones((64, 2) if side == "a" else (2, 48))
             for number in "12" for side in "ab"}  # fmt: skip
    lora |= {f"blocks.1.self_attn.q.{key}": torch.ones(shape) for key, shape in
             {"lora_down.weight": (2, 48), "lora_up.weight": (48, 2), "dora_scale": (1, 48), "lora_up.bias": (48,)}.items()}  # fmt: skip
    files.append(tiny.write(folder / "lora.safetensors", lora, {}))
    return [
        header_and_data(path.read_bytes()) for path in (*files, files[-1])
    ]  # LoRAs twice as often: there is more to them


@pytest.mark.parametrize("seed", range(SEEDS))
def test_damaged_files_are_typed_errors_or_sound(tmp_path, sound, seed):
    rng = random.Random(seed)
    whole = tmp_path / "whole.safetensors"
    whole.write_bytes(safetensors_file(*sound[0]))
    path = tmp_path / "x.safetensors"
    uses = [
        lambda: json.dumps(inspect(path).as_json()).encode(),
        lambda: load_transformer(path, "bf16"),
        lambda: prepare(path),
        lambda: prepare(whole, loras=[(path, 1.0)]),
    ]
    for number in range(EACH):
        path.write_bytes(mutated_safetensors(rng, *rng.choice(sound)))
        for use in uses if number % 10 == 0 else uses[:1]:  # to load each takes a minute
            try:
                use()
            except ReeltuneError as error:
                str(error).encode("utf-8")


@pytest.mark.parametrize(
    "config",
    [
        {"rope_max_seq_len": 10**11}, {"rope_max_seq_len": -1}, {"num_attention_heads": 1, "rope_max_seq_len": 10**10},
        {"eps": 1e300}, {"eps": -1.0},
    ],
)  # fmt: skip
def test_numbers_of_a_stored_config_never_decide_how_much_is_allocated(tmp_path, config):
    """Tables of positions are computed as the model is built, before its weights are compared."""
    weights = {name: row.to(torch.bfloat16) for name, row in tiny.original_weights().items()}
    stored = {"num_attention_heads": 2} | config
    model = load_transformer(tiny.write(tmp_path / "x.safetensors", weights, {"config": json.dumps(stored)}), "bf16")
    assert model.config.rope_max_seq_len == 1024
    assert 0 < model.config.eps < 1


def test_axes_of_another_size_than_a_head_are_not_taken(tmp_path):
    family, model_class, config, _ = CASES["hunyuan"]
    state = original_layout(random_model(model_class, config).state_dict(), family)
    path = tiny.write(tmp_path / "x.safetensors", state, {"config": json.dumps({"rope_axes_dim": [10**12, 2, 2]})})
    assert sum(load_transformer(path, "bf16").config.rope_axes_dim) <= config["attention_head_dim"]


def test_an_empty_tensor_that_hides_a_huge_side_is_named(tmp_path):
    weights = {name: row.to(torch.bfloat16) for name, row in tiny.original_weights().items()}
    weights["patch_embedding.weight"] = torch.empty(10**9, 0, 1, 2, 2, dtype=torch.bfloat16)
    with pytest.raises(ReeltuneError, match=r"patch_embedding\.weight is empty"):
        load_transformer(tiny.write(tmp_path / "x.safetensors", weights), "bf16")
