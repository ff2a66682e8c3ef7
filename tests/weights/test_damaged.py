"""Damaged and hostile weight files: whatever their bytes are, what comes out is a typed error or a sound result."""

import json
import random
import struct

import pytest
import tiny
import torch
from test_families import CASES, random_model

from layouts import original_layout
from reeltune.checkpoints.inspection import inspect
from reeltune.errors import ReeltuneError
from reeltune.weights.draft import prepare
from reeltune.weights.load import load_transformer

SEEDS = 12
EACH = 250  # damaged files of each seed: 3,000 together
VALUES = [
    None, True, -1, 0, 1, 2, 3, 1.5, 2**31, 2**40, 2**61, 2**63, 10**400, "", "F32", "I8", "F8_E4M3", "F4", "BOOL", "I64",
    "\ud800", "x" * 3000, [], {}, [0], [1], [2**40], [1] * 70, [0, 4], [4, 0], float("nan"), float("inf"), {"dtype": "F32"},
]  # fmt: skip
METADATA = [
    None, {}, [], "text", 5, {"config": 5}, {"config": "{"}, {"config": "[]"}, {"config_base64": "!"}, {"config": "[" * 9000},
    {"config": '{"num_attention_heads": 0, "rope_max_seq_len": 1000000000000, "eps": 1e999}'},
    {"config": '{"num_attention_heads": -3, "num_heads": 48, "rope_max_seq_len": -1, "eps": -1.0}'},
    {"config": '{"num_attention_heads": 24, "rope_axes_dim": [1, 1, 1], "vace_layers": [0, 99]}'},
    {"config": '{"rope_axes_dim": [1000000000000, 2, 2], "vace_layers": [9999999999, -5]}'},
    {"quantization_format": "quanto", "quantization_map_base64": "e30="}, {"reeltune_loras": "[["}, {"\ud800": "\ud800"},
    {"lora_adapter_metadata": "[[["}, {"lora_adapter_metadata": '{"lora_alpha": 1e999, "alpha_pattern": 3, "r": "x"}'},
]  # fmt: skip


def parts(path):
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def packed(header, data):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


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
    return [parts(path) for path in (*files, files[-1])]  # LoRAs twice as often: there is more to them


def damaged(rng, header, data):
    """The bytes of a file with one to three things wrong."""
    header = json.loads(json.dumps(header))
    for _ in range(rng.choice((1, 1, 2, 3))):
        name = rng.choice(list(header))
        kind = rng.randrange(9)
        if kind == 0:
            header["__metadata__"] = rng.choice(METADATA)
        elif kind == 1 and name != "__metadata__":
            header[rng.choice((name + "x", "a." + name, name[1:], "lora_A", name.replace(".", "_"), "\ud800"))] = (
                header.pop(name)
            )
        elif kind == 2:
            header[name] = rng.choice(VALUES)
        elif kind == 3 and isinstance(header[name], dict):
            header[name][rng.choice(("dtype", "shape", "data_offsets", "other"))] = rng.choice(VALUES)
        elif kind == 4 and len(header) > 2:
            del header[name]
        elif kind == 5 and isinstance(header.get(name), dict) and header[name].get("shape"):
            shape = header[name]["shape"]
            if isinstance(shape, list):  # the same number of values, in another shape
                header[name]["shape"] = rng.choice(
                    (shape[::-1], [*shape, 1], [1, *shape], [sum(shape) and 1, *shape][1:])
                )
        elif kind == 6 and isinstance(header[name], dict):
            swap = {"BF16": "F16", "F16": "BF16", "F32": "I32", "I8": "U8"}
            dtype = header[name].get("dtype")
            header[name]["dtype"] = swap.get(dtype, "I8") if isinstance(dtype, str) else "I8"
        elif kind == 7:
            data = data[: rng.randrange(len(data) + 1)]
        else:
            spot = rng.randrange(len(data)) if data else 0
            data = data[:spot] + rng.randbytes(2) + data[spot + 2 :]
    raw = bytearray(packed(header, data))
    for _ in range(rng.choice((0, 0, 1, 8))):
        raw[rng.randrange(min(len(raw), 4000))] = rng.randrange(256)
    return bytes(raw)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_damaged_files_are_typed_errors_or_sound(tmp_path, sound, seed):
    rng = random.Random(seed)
    whole = tmp_path / "whole.safetensors"
    whole.write_bytes(packed(*sound[0]))
    path = tmp_path / "x.safetensors"
    uses = [
        lambda: json.dumps(inspect(path).as_json()).encode(),
        lambda: load_transformer(path, "bf16"),
        lambda: prepare(path),
        lambda: prepare(whole, loras=[(path, 1.0)]),
    ]
    for number in range(EACH):
        path.write_bytes(damaged(rng, *rng.choice(sound)))
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
