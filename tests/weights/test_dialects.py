"""The same LoRA written in every dialect, for tiny models of each family: bit for bit what the plain dialect makes."""

import json
import math
import time

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from test_families import CASES, random_model

from layouts import original_layout
from reeltune.checkpoints.keys import places
from reeltune.checkpoints.loras.adapter import read_adapter
from reeltune.checkpoints.loras.names import Located, _table, foreign, locate
from reeltune.errors import CheckpointError, LoraMismatch, UnsupportedFormat
from reeltune.families import FAMILIES
from reeltune.families.hunyuan import HUNYUAN
from reeltune.families.ltx import LTX
from reeltune.families.ltx2 import LTX_2
from reeltune.families.wan import WAN
from reeltune.weights.quantize import quantize

RANK = 4


class Model:
    """A tiny checkpoint in both layouts, and the modules of it that a LoRA changes."""

    def __init__(self, folder, name):
        self.name, self.folder = name, folder
        if name == "wan":
            self.family, self.metadata = WAN, tiny.METADATA
            self.original = {key: row.to(torch.bfloat16) for key, row in tiny.original_weights().items()}
            self.diffusers = {places(key, WAN, "original").names[0]: row for key, row in self.original.items()}
        else:
            self.family, model_class, config, stored = CASES[name]
            self.metadata = {"config": json.dumps(stored)}
            self.diffusers = random_model(model_class, config).state_dict()
            self.original = original_layout(self.diffusers, self.family)
        self.files = {
            layout: tiny.write(folder / f"{name}_{layout}_bf16.safetensors", getattr(self, layout), self.metadata)
            for layout in ("original", "diffusers")
        }
        torch.manual_seed(3)
        self.pairs = {
            key.removesuffix(".weight"): (torch.randn(len(row), RANK), torch.randn(RANK, row[0].numel()))
            for key, row in self.original.items()
            if key.endswith(".weight") and row.ndim == 2 and "block" in key and not places(key, self.family, "original").swapped
        }  # fmt: skip

    def in_diffusers(self, module):
        """The module's name in diffusers' layout; its own where the original keeps several stacked."""
        found = places(module, self.family, "original")
        return found.names[0] if len(found.names) == 1 else module

    def alias(self, module):
        """The module's name as ComfyUI writes it."""
        number = next((word for word in module.split(".") if word.isdigit()), "")
        names = {original.replace("{}", number): alias for alias, original in self.family.aliases.items()}
        return names.get(module, module).replace("{}", number)

    def merge(self, state, layout="original", weight=0.5, metadata=None, config=None, name="style.safetensors"):
        """What the checkpoint becomes with a LoRA file of this content, and the report."""
        folder = self.folder / f"lora{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        save_file({key: row.clone().contiguous() for key, row in state.items()}, folder / name, metadata)
        if config is not None:
            (folder / "adapter_config.json").write_text(json.dumps(config))
        made = quantize(self.files[layout], folder / "out.safetensors", to="bf16", loras=[(folder / name, weight)])
        return load_file(made.path), made.applied[0]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return {name: Model(tmp_path_factory.mktemp(name), name) for name in ("wan", *CASES)}


def written(model, name, ending=("lora_A.weight", "lora_B.weight"), alpha=None):
    """The LoRA's tensors, its modules named by `name`."""
    state = {}
    for module, (up, down) in model.pairs.items():
        key = name(module)
        state |= {f"{key}.{ending[0]}": down, f"{key}.{ending[1]}": up}
        if alpha is not None:
            state[f"{key}.alpha"] = torch.tensor(float(alpha))
    return state


def flat(text):
    return text.replace(".", "_")


NAMES = {
    "bare": lambda model, module: module,
    "ComfyUI": lambda model, module: f"diffusion_model.{model.alias(module)}",
    "ComfyUI, flat": lambda model, module: f"lora_unet_{flat(model.alias(module))}",
    "diffusers": lambda model, module: f"transformer.{model.in_diffusers(module)}",
    "PEFT around it": lambda model, module: f"base_model.model.diffusion_model.{module}",
    "kohya, musubi": lambda model, module: f"lora_unet_{flat(module)}",
    "VideoX-Fun": lambda model, module: f"lora_unet__{flat(module)}",
    "SimpleTuner": lambda model, module: f"lycoris_{flat(model.in_diffusers(module))}",
    "DiffSynth": lambda model, module: f"pipe.dit.{module}",
    "DiffSynth, short": lambda model, module: f"dit.{module}",
    "compiled": lambda model, module: f"_orig_mod.{module}",
    "compiled inside": lambda model, module: module.replace(".0.", ".0._orig_mod.", 1),
    "parallel": lambda model, module: f"module.net.{module}",
    "official Hunyuan": lambda model, module: f"Hunyuan_video_I2V_lora_{flat(module)}",
    "unheard of": lambda model, module: f"my-trainer.v2.lora_{flat(module)}",
}
ENDINGS = {
    "PEFT": ("lora_A.weight", "lora_B.weight"),
    "PEFT with its name": ("lora_A.default.weight", "lora_B.default.weight"),
    "PEFT with another name": ("lora_A.style_1.weight", "lora_B.style_1.weight"),
    "kohya": ("lora_down.weight", "lora_up.weight"),
    "diffusers, old": ("lora.down.weight", "lora.up.weight"),
    "A and B": ("lora.A.weight", "lora.B.weight"),
    "linear layer": ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight"),
}


@pytest.fixture(scope="module")
def plain(models):
    """What each model becomes by the plain dialect, in both layouts."""
    made = {}
    for name, model in models.items():
        for layout in ("original", "diffusers"):
            found, applied = model.merge(written(model, lambda module: f"diffusion_model.{module}"), layout)
            assert (applied.modules, applied.total, applied.left) == (len(model.pairs), len(model.pairs), ())
            before = getattr(model, layout)
            assert not all(torch.equal(found[key], before[key]) for key in before)
            made[name, layout] = found
    return made


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for key in wanted:
        assert torch.equal(found[key], wanted[key]), key


@pytest.mark.parametrize("layout", ["original", "diffusers"])
@pytest.mark.parametrize("dialect", NAMES)
@pytest.mark.parametrize("name", ["wan", *CASES])
def test_every_way_to_name_a_module_is_the_same_lora(models, plain, name, dialect, layout):
    model = models[name]
    found, applied = model.merge(written(model, lambda module: NAMES[dialect](model, module)), layout)
    assert_same(found, plain[name, layout])
    assert str(applied) == f"style.safetensors × 0.5: applied {len(model.pairs)} of {len(model.pairs)} modules."


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", ["wan", *CASES])
def test_every_way_to_name_the_matrices_is_the_same_lora(models, plain, name, ending):
    model = models[name]
    found, applied = model.merge(written(model, lambda module: f"lora_unet_{flat(module)}", ENDINGS[ending]))
    assert_same(found, plain[name, "original"])
    assert applied.modules == applied.total == len(model.pairs)


# --- strength -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["wan", *CASES])
def test_alpha_is_the_same_wherever_it_stands(models, name):
    model = models[name]
    named = written(model, lambda module: f"diffusion_model.{module}")
    wanted, _ = model.merge(written(model, lambda module: f"diffusion_model.{module}", alpha=1))
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 1}
    found, applied = model.merge(named, config=config)
    assert_same(found, wanted)
    assert "alpha 1 is that of adapter_config.json beside style.safetensors" in str(applied)
    told = {f"transformer.{key}": value for key, value in config.items()}
    found, _ = model.merge(
        named, metadata={"lora_adapter_metadata": json.dumps(told)}, config={"r": RANK, "lora_alpha": 7}
    )
    assert_same(found, wanted)
    found, _ = model.merge(named, config={"r": RANK, "lora_alpha": 1 / math.sqrt(RANK), "use_rslora": True})
    assert_same(found, wanted)
    patterns = dict.fromkeys((rf"^diffusion_model\.{key}$".replace("0", r"\d+") for key in model.pairs), 1) | {".*": 1}
    found, _ = model.merge(named, config={"r": RANK, "lora_alpha": 9, "alpha_pattern": patterns})
    assert_same(found, wanted)
    found, _ = model.merge(written(model, lambda module: module, alpha=1), config={"r": RANK, "lora_alpha": 9})
    assert_same(found, wanted)  # a module's own alpha counts


def test_a_description_of_another_lora_is_not_used(models, plain):
    """Many people keep all their LoRAs in one folder."""
    model = models["wan"]
    named = written(model, lambda module: f"diffusion_model.{module}")
    found, applied = model.merge(named, config={"r": 64, "lora_alpha": 1})
    assert_same(found, plain["wan", "original"])
    assert "describes a LoRA of rank 64, not 4: it is not used" in str(applied)
    found, _ = model.merge(named, config={"r": 64, "rank_pattern": {"ffn.0": RANK}, "lora_alpha": RANK})
    assert_same(found, plain["wan", "original"])


@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        ("{", CheckpointError, "not valid JSON"),
        ([], CheckpointError, "not a JSON object"),
        ({"lora_alpha": "x"}, CheckpointError, "lora_alpha is not a number"),
        ({"lora_alpha": 1e999}, CheckpointError, "lora_alpha is not a number"),
        ({"peft_type": "BOFT"}, UnsupportedFormat, "BOFT can't be merged"),
        ({"init_lora_weights": "pissa_niter_4"}, UnsupportedFormat, "changed by pissa"),
        ({"fan_in_fan_out": True}, UnsupportedFormat, "transposed"),
        ({"alpha_pattern": {"(a+)+$": 3}}, CheckpointError, "not a module's name"),
        ({"use_dora": True}, CheckpointError, "its magnitude is missing"),
    ],
)
def test_descriptions_that_cannot_be_followed_are_errors(models, config, error, words):
    model = models["wan"]
    named = written(model, lambda module: module)
    folder = model.folder / f"bad{len(list(model.folder.iterdir()))}"
    folder.mkdir()
    save_file(named, folder / "x.safetensors")
    (folder / "adapter_config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(error, match=words):
        quantize(
            model.files["original"], folder / "out.safetensors", to="bf16", loras=[(folder / "x.safetensors", 1.0)]
        )


# --- biases, whole weights, norms -----------------------------------------------------------------------------


def test_biases_differences_and_whole_weights_in_every_dialect(models):
    model, weights = models["wan"], models["wan"].original
    q, norm, modulation = "blocks.0.self_attn.q", "blocks.0.norm3", "blocks.1.modulation"
    torch.manual_seed(1)
    values = {f"{q}.weight": 0, f"{q}.bias": 0, f"{norm}.weight": 0, f"{norm}.bias": 0, modulation: 0}
    values = {name: torch.randn(weights[name].shape) for name in values}
    added = {name: (weights[name].float() + 0.5 * row).to(torch.bfloat16) for name, row in values.items()}
    replaced = {name: (0.5 * weights[name].float() + 0.5 * row).to(torch.bfloat16) for name, row in values.items()}
    up, down = torch.zeros(48, RANK), torch.zeros(RANK, 48)
    dialects = [
        ({f"diffusion_model.{q}.diff": f"{q}.weight", f"diffusion_model.{q}.diff_b": f"{q}.bias"}, added),
        ({f"lora_unet_{flat(norm)}.w_norm": f"{norm}.weight", f"lora_unet_{flat(norm)}.b_norm": f"{norm}.bias"}, added),
        ({f"diffusion_model.{modulation}.diff": modulation}, added),
        ({"diffusion_model.blocks.1.diff_m": modulation}, added),
        ({"lora_unet_blocks_1.diff_m": modulation}, added),
        ({f"{q}.lora_B.bias": f"{q}.bias"}, added),
        ({f"lora_unet__{flat(q)}.set_weight": f"{q}.weight", f"{norm}.set_weight": f"{norm}.weight"}, replaced),
        ({f"base_model.model.{norm}.modules_to_save.weight": f"{norm}.weight"}, replaced),
        ({f"base_model.model.{norm}.weight": f"{norm}.weight", f"{norm}.bias": f"{norm}.bias"}, replaced),
        ({f"transformer.{modulation}": modulation}, replaced),
        ({"transformer.blocks.1.scale_shift_table": modulation}, replaced),
    ]
    for keys, wanted in dialects:
        state = {key: values[name] for key, name in keys.items()}
        state |= {f"{q}.lora_A.weight": down, f"{q}.lora_B.weight": up}  # it is a LoRA, whatever else it holds
        found, applied = model.merge(state)
        changed = {name for name in found if not torch.equal(found[name], weights[name])}
        assert changed == set(keys.values()), keys
        for name in changed:
            assert torch.equal(found[name], wanted[name]), keys
        assert (applied.modules, applied.left) == (applied.total, ()), keys


def test_an_added_bias_counts_alpha_over_rank(models):
    """As the matrix that it is the bias of (PEFT: lora_B(lora_A(x)) * scaling)."""
    model, weights, q = models["wan"], models["wan"].original, "blocks.0.self_attn.q"
    bias = torch.randn(48)
    state = {
        f"{q}.lora_A.weight": torch.zeros(RANK, 48),
        f"{q}.lora_B.weight": torch.zeros(48, RANK),
        f"{q}.lora_B.bias": bias,
    }
    found, _ = model.merge(state, config={"r": RANK, "lora_alpha": 1, "lora_bias": True})
    assert torch.equal(found[f"{q}.bias"], (weights[f"{q}.bias"].float() + 0.125 * bias).to(torch.bfloat16))


# --- DoRA, LoKr, LoHa -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["original", "diffusers"])
@pytest.mark.parametrize("name", ["wan", *CASES])
def test_dora_by_rows_in_both_dialects(models, name, layout):
    model = models[name]
    module = next(
        key
        for key in model.pairs
        if len(places(key, model.family, "original").names) == (3 if name == "hunyuan" else 1)
    )
    up, down = model.pairs[module]
    base = model.original[f"{module}.weight"].float()
    magnitude = torch.rand(len(base)) + 0.5
    merged = base + up @ down
    wanted = base + 0.5 * (magnitude[:, None] * merged / merged.norm(dim=1, keepdim=True) - base)
    pair = {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}
    first, applied = model.merge(pair | {f"{module}.dora_scale": magnitude[:, None]}, layout)
    second, _ = model.merge(pair | {f"{module}.lora_magnitude_vector.default.weight": magnitude}, layout)
    assert_same(first, second)
    assert applied.modules == applied.total == 1
    whole = first if layout == "original" else original_layout(first, model.family)
    torch.testing.assert_close(whole[f"{module}.weight"].float(), wanted, rtol=0.01, atol=1e-3)


@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_dora_by_columns(models, layout):
    """LyCORIS's older files: the lengths of columns."""
    model, module = models["wan"], "blocks.0.ffn.0"
    up, down = model.pairs[module]
    base = model.original[f"{module}.weight"].float()
    magnitude = torch.rand(1, base.shape[1]) + 0.5
    merged = base + up @ down
    wanted = base + 0.5 * (magnitude * merged / merged.norm(dim=0, keepdim=True) - base)
    state = {f"lora_unet_{flat(module)}.{key}": row for key, row in
             {"lora_down.weight": down, "lora_up.weight": up, "dora_scale": magnitude}.items()}  # fmt: skip
    found, _ = model.merge(state, layout)
    whole = found if layout == "original" else original_layout(found, model.family)
    torch.testing.assert_close(whole[f"{module}.weight"].float(), wanted, rtol=0.01, atol=1e-3)


LOKR = {  # w1 is [4, 3], w2 [16, 16]: together ffn.0's [64, 48]
    "whole": lambda w1, w2: {"lokr_w1": w1[0] @ w1[1], "lokr_w2": w2[0] @ w2[1], "alpha": torch.tensor(99.0)},
    "second apart": lambda w1, w2: {"lokr_w1": w1[0] @ w1[1], "lokr_w2_a": w2[0], "lokr_w2_b": w2[1]},
    "both apart": lambda w1, w2: {"lokr_w1_a": w1[0], "lokr_w1_b": w1[1], "lokr_w2_a": w2[0], "lokr_w2_b": w2[1]},
    "with alpha": lambda w1, w2: {"lokr_w1": w1[0] @ w1[1] * RANK, "lokr_w2_a": w2[0], "lokr_w2_b": w2[1], "alpha": torch.tensor(1.0)},
}  # fmt: skip


@pytest.mark.parametrize("layout", ["original", "diffusers"])
@pytest.mark.parametrize("form", LOKR)
def test_lokr_is_a_kronecker_product(models, form, layout):
    model, module = models["wan"], "blocks.0.ffn.0"
    torch.manual_seed(2)
    w1, w2 = (torch.randn(4, RANK), torch.randn(RANK, 3)), (torch.randn(16, RANK), torch.randn(RANK, 16))
    state = {f"lycoris_{flat(module)}.{key}": row for key, row in LOKR[form](w1, w2).items()}
    found, applied = model.merge(state, layout)
    plain, _ = model.merge({f"{module}.diff": torch.kron(w1[0] @ w1[1], w2[0] @ w2[1])}, layout)
    assert_same(found, plain)
    assert applied.modules == applied.total == 1


@pytest.mark.parametrize("alpha", [None, 1])
def test_loha_is_a_product_of_two(models, alpha):
    model, module = models["wan"], "blocks.0.ffn.0"
    torch.manual_seed(2)
    parts = {
        f"hada_w{number}_{side}": torch.randn((64, RANK) if side == "a" else (RANK, 48))
        for number in "12"
        for side in "ab"
    }
    delta = (parts["hada_w1_a"] @ parts["hada_w1_b"]) * (parts["hada_w2_a"] @ parts["hada_w2_b"])
    extra = {} if alpha is None else {"alpha": torch.tensor(float(alpha))}
    found, _ = model.merge({f"lora_unet_{flat(module)}.{key}": row for key, row in (parts | extra).items()})
    plain, _ = model.merge({f"{module}.diff": delta * (1 if alpha is None else alpha / RANK)})
    for key in plain:
        torch.testing.assert_close(found[key].float(), plain[key].float(), rtol=0.01, atol=1e-3)


def test_tucker_cores_of_convolutions(models):
    """LyCORIS's form for kernels: here the patch embedding, [48, 16, 1, 2, 2]."""
    model, key = models["wan"], "patch_embedding"
    torch.manual_seed(2)
    core, up, down = torch.randn(3, 3, 1, 2, 2), torch.randn(3, 48), torch.randn(3, 16)
    delta = torch.einsum("ijklm,ip,jr->prklm", core, up, down)
    state = {f"hada_t{number}": core for number in "12"} | {f"hada_w{number}_a": up for number in "12"}
    state |= {f"hada_w{number}_b": down for number in "12"}
    found, _ = model.merge({f"lora_unet_{key}.{name}": row for name, row in state.items()})
    plain, _ = model.merge({f"{key}.diff": delta * delta})
    torch.testing.assert_close(found[f"{key}.weight"], plain[f"{key}.weight"], rtol=0.01, atol=1e-3)


# --- counts, and what is not the model's ----------------------------------------------------------------------


def pair(module, rows=64, columns=48):
    return {f"{module}.lora_A.weight": torch.ones(RANK, columns), f"{module}.lora_B.weight": torch.ones(rows, RANK)}


def test_modules_are_counted_not_their_parts(models):
    model = models["wan"]
    state = pair("blocks.0.ffn.0") | pair("blocks.9.ffn.0") | pair("blocks.1.ffn.0", rows=99)
    state |= {f"{name}.alpha": torch.tensor(4.0) for name in ("blocks.0.ffn.0", "blocks.9.ffn.0", "blocks.1.ffn.0")}
    state |= {"blocks.9.ffn.0.diff_b": torch.ones(64), "blocks.0.ffn.0.lora_B.bias": torch.ones(3)}
    _, applied = model.merge(state)
    assert (applied.modules, applied.total) == (1, 3)
    assert set(applied.left) == {
        "blocks.9.ffn.0", "blocks.1.ffn.0 [99, 48], here [64, 48]", "blocks.0.ffn.0.lora_B.bias [3, 1], here [64, 1]",
    }  # fmt: skip


def test_vace_modules_are_left_over_on_a_model_without_vace(models):
    model = models["wan"]
    for name in ("vace_blocks.0.ffn.0", "lora_unet_vace_blocks_0_ffn_0", "lora_unet__vace_blocks_0_ffn_0"):
        other = "lora_unet_blocks_1_ffn_0" if "_vace" in name else "blocks.1.ffn.0"
        found, applied = model.merge(pair(name) | pair(other))
        assert (applied.modules, applied.total, applied.left) == (1, 2, ("vace_blocks.0.ffn.0",))
        assert torch.equal(found["blocks.0.ffn.0.weight"], model.original["blocks.0.ffn.0.weight"])


def test_modules_that_only_look_like_the_models_are_left_over(models):
    model = models["wan"]
    state = (
        pair("lora_unet_blocks_0_ffn_0")
        | pair("lora_unet_audio_blocks_0_ffn_0")
        | pair("lora_unet_audio_blocks_1_ffn_0")
    )
    found, applied = model.merge(state)
    assert (applied.modules, applied.total) == (1, 3)
    assert torch.equal(found["blocks.1.ffn.0.weight"], model.original["blocks.1.ffn.0.weight"])


@pytest.mark.parametrize("first", ["transformer.", "high_noise_model.", "diffusion_model."])
@pytest.mark.parametrize("second", ["transformer_2.", "low_noise_model."])
def test_one_file_for_both_transformers(models, tmp_path, first, second):
    model = models["wan"]
    state = pair(f"{first}blocks.0.ffn.0") | pair(f"{second}blocks.1.ffn.0") | pair(f"{second}blocks.0.ffn.0")
    found, applied = model.merge(state)
    assert str(applied).endswith("1 of 1 modules; these are for the first transformer, 2 others for the second.")
    assert torch.equal(found["blocks.1.ffn.0.weight"], model.original["blocks.1.ffn.0.weight"])
    save_file(state, tmp_path / "lora.safetensors")
    for name in ("wan2.2_low_noise_bf16.safetensors", "Wan2_2-T2V-LowNoise_bf16.safetensors", "x_low_bf16.safetensors"):
        tiny.write(tmp_path / name, model.original)
        made = quantize(tmp_path / name, to="bf16", loras=[(tmp_path / "lora.safetensors", 1.0)])
        assert str(made.applied[0]).endswith(
            "2 of 2 modules; these are for the second transformer, 1 others for the first."
        )


@pytest.mark.parametrize("name", ["wan", *CASES])
def test_a_lora_of_another_family_fits_nothing(models, name):
    for other in models.values():
        if other.family is models[name].family or (other.family, models[name].family) == (LTX, LTX_2):
            continue  # the blocks of LTX Video have the names and the sizes of those for the video in LTX-2
        for layout, prefix in (("original", "diffusion_model."), ("diffusers", "transformer.")):
            modules = [
                key.removesuffix(".weight")
                for key, row in getattr(other, layout).items()
                if key.endswith(".weight") and row.ndim == 2
            ]
            state = {key: row for module in modules for key, row in pair(f"{prefix}{module}").items()}
            with pytest.raises(LoraMismatch):  # a few names are those of two families: then it is the sizes
                models[name].merge({key: row for key, row in state.items() if "block" in key})
        with pytest.raises(LoraMismatch):
            models[name].merge(written(other, lambda module: f"lora_unet_{flat(module)}"))


def test_a_lora_for_ltx_2_is_refused_by_name_though_most_of_it_fits_ltx_video(models):
    modules = [f"transformer_blocks.0.{attention}.to_q" for attention in ("attn1", "attn2", "audio_attn1")]
    state = {key: row for module in modules for key, row in pair(f"diffusion_model.{module}", 32, 32).items()}
    with pytest.raises(LoraMismatch, match="is a LoRA for LTX-2, and the model is LTX Video"):
        models["ltx"].merge(state)
    without_sound = {key: row for key, row in state.items() if "audio" not in key}
    assert "2 of 2" in str(models["ltx"].merge(without_sound)[1])
    unknown = state | pair("diffusion_model.transformer_blocks.0.attn7.to_q", 32, 32)  # of neither family
    assert "2 of 4" in str(models["ltx"].merge(unknown)[1])


def test_names_that_end_like_the_models_are_not_its_own():
    assert locate("transformer_blocks.0.attn1.to_q", WAN) is None
    assert locate("diffusion_model.transformer_blocks.0.attn1.to_q", WAN) is None
    assert locate("transformer.blocks.0.attn1.to_q", WAN).name == "blocks.0.attn1.to_q"
    assert locate("transformer.single_transformer_blocks.0.proj_out", WAN) is None
    assert locate("lora_unet_audio_blocks_3_proj_out", WAN) is None
    assert locate("transformer_2.proj_out", WAN).name == "proj_out"
    assert locate("vace_blocks.0.self_attn.q", WAN).name == "vace_blocks.0.self_attn.q"


def test_a_factor_that_would_take_all_memory_is_left_over(models):
    model = models["wan"]
    state = pair("blocks.0.ffn.0") | {
        "blocks.1.ffn.0.lokr_w1_a": torch.ones(60_000, 1),
        "blocks.1.ffn.0.lokr_w1_b": torch.ones(1, 60_000),
        "blocks.1.ffn.0.lokr_w2": torch.ones(1, 1),
    }
    _, applied = model.merge(state)
    assert applied.left == ("blocks.1.ffn.0 [60000, 60000] as a factor of [64, 48]",)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_no_two_modules_of_a_family_are_one_without_dots(family):
    names = {name for row in family.renames for name in (row.original, row.diffusers, *row.more) if name}
    assert len({name.replace(".", "_") for name in names}) == len(names)
    assert set(family.aliases.values()) <= names
    for name in (*names, *family.aliases):
        text = f"x_{name.replace('{}', '12').replace('.', '_')}"
        expected = family.aliases.get(name, name).replace("{}", "12")
        found = locate(text, family)
        assert found is not None
        assert (found.name, found.prefix) == (expected, "x_")
    assert len(_table(family)) == len(names | set(family.aliases)) - len(
        {flat(name) for name in family.aliases} & {flat(name) for name in names}
    )
    assert locate("single_blocks.3.linear1", HUNYUAN).name == "single_blocks.3.linear1"


# --- hostile files --------------------------------------------------------------------------------------------


def test_many_prefixes_and_patterns_are_refused_quickly(tmp_path):
    start = time.process_time()
    parts = [(Located("x_" * number, "blocks.0.ffn.0"), ("up",)) for number in range(20_000)]
    with pytest.raises(CheckpointError, match="more than 64 different prefixes"):
        foreign(parts)
    for patterns in (dict.fromkeys((f"m{number}" for number in range(20_000)), 1), {f"*{n}": 1 for n in range(1_000)}):
        metadata = {"lora_adapter_metadata": json.dumps({"lora_alpha": 1, "alpha_pattern": patterns})}
        with pytest.raises(CheckpointError, match="alpha_pattern has more than"):
            read_adapter(tmp_path / "x.safetensors", metadata, ())
    assert time.process_time() - start < 10  # it took minutes


def test_the_first_pattern_counts_and_many_are_read_quickly(tmp_path):
    patterns = {"b*.q": 2, "blocks.0.q": 3, "k": 4, "*.k": 5, "blocks.*.v": 6, "v": 7}
    patterns |= dict.fromkeys((f"m{number}" for number in range(1_900)), 1)
    metadata = {"lora_adapter_metadata": json.dumps({"lora_alpha": 1, "alpha_pattern": patterns})}
    adapter = read_adapter(tmp_path / "x.safetensors", metadata, ())
    names = ("x.blocks.0.q", "blocks.0.k", "x.blocks.9.v", "v", "other", "a.m7")
    assert [adapter.alpha_of(name) for name in names] == [2, 4, 6, 7, 1, 1]
    start = time.process_time()
    assert all(adapter.alpha_of(f"x.blocks.{number}.o") == 1 for number in range(5_000))
    assert time.process_time() - start < 10  # it took minutes
