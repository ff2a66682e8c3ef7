"""Every family: true headers map onto the true config, weights equal diffusers' own conversion, modules merge."""

import json

import pytest
import tiny
import torch
from diffusers import (
    HunyuanVideo15Transformer3DModel,
    HunyuanVideoTransformer3DModel,
    Kandinsky5Transformer3DModel,
    LTX2VideoTransformer3DModel,
    LTXVideoTransformer3DModel,
    WanTransformer3DModel,
    WanVACETransformer3DModel,
)
from diffusers.loaders.single_file_utils import (
    convert_hunyuan_video_transformer_to_diffusers,
    convert_ltx2_transformer_to_diffusers,
    convert_ltx_transformer_checkpoint_to_diffusers,
)

import ltx2_files
from layouts import original_layout
from reeltune._quiet import quiet
from reeltune.checkpoints.contents import Header, Tensor
from reeltune.checkpoints.identify import identify
from reeltune.checkpoints.keys import map_names
from reeltune.checkpoints.source import WeightSource
from reeltune.errors import TensorMismatch, UnsupportedFormat
from reeltune.families import ARCHITECTURES, FAMILIES
from reeltune.families.hunyuan import HUNYUAN
from reeltune.families.hunyuan15 import HUNYUAN_1_5
from reeltune.families.kandinsky5 import KANDINSKY_5
from reeltune.families.ltx import LTX
from reeltune.families.ltx2 import LTX_2
from reeltune.families.wan import WAN
from reeltune.weights._libraries import modules_in_fp32
from reeltune.weights.building import empty_model, model_config
from reeltune.weights.load import load_transformer
from reeltune.weights.matching import check_names
from reeltune.weights.quantize import quantize

BF16 = torch.bfloat16
HUNYUAN_CONFIG = {
    "in_channels": 4, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2,
    "num_single_layers": 2, "num_refiner_layers": 1, "mlp_ratio": 2.0, "patch_size": 2, "patch_size_t": 1,
    "guidance_embeds": True, "text_embed_dim": 16, "pooled_projection_dim": 8, "rope_axes_dim": (4, 6, 6),
}  # fmt: skip
LTX_CONFIG = {
    "in_channels": 8, "out_channels": 8, "num_attention_heads": 4, "attention_head_dim": 8, "cross_attention_dim": 32,
    "num_layers": 2, "caption_channels": 24,
}  # fmt: skip
HUNYUAN_1_5_CONFIG = {
    "in_channels": 65, "out_channels": 32, "num_attention_heads": 3, "attention_head_dim": 16, "num_layers": 2,
    "num_refiner_layers": 1, "mlp_ratio": 2.0, "patch_size": 1, "patch_size_t": 1, "text_embed_dim": 16,
    "text_embed_2_dim": 12, "image_embed_dim": 8, "rope_axes_dim": (4, 6, 6), "use_meanflow": True,
}  # fmt: skip
KANDINSKY_5_CONFIG = {
    "in_visual_dim": 4, "out_visual_dim": 4, "in_text_dim": 16, "in_text_dim2": 8, "time_dim": 12, "model_dim": 32,
    "patch_size": (1, 2, 2), "ff_dim": 48, "num_text_blocks": 1, "num_visual_blocks": 2, "axes_dims": (4, 6, 6),
    "visual_cond": True,
}  # fmt: skip
LTX_2_CONFIG = {
    "in_channels": 8, "out_channels": 8, "num_attention_heads": 4, "attention_head_dim": 8, "cross_attention_dim": 32,
    "audio_in_channels": 16, "audio_out_channels": 16, "audio_num_attention_heads": 4, "audio_attention_head_dim": 4,
    "audio_cross_attention_dim": 16, "num_layers": 2, "caption_channels": 24, "rope_type": "split",
    "perturbed_attn": True,
}  # fmt: skip
LTX_2_3_CONFIG = LTX_2_CONFIG | {
    "gated_attn": True, "audio_gated_attn": True, "cross_attn_mod": True, "audio_cross_attn_mod": True,
    "use_prompt_embeddings": False, "caption_channels": 32,
}  # fmt: skip
LTX_2_5_CONFIG = LTX_2_3_CONFIG | {"ff_bias": False, "use_keyframes_abs_pos_embedding": True}
LTX_2_HEADS = {"num_attention_heads": 4, "audio_num_attention_heads": 4}
CASES = {
    "ltx2": (LTX_2, LTX2VideoTransformer3DModel, LTX_2_CONFIG, LTX_2_HEADS),
    "ltx2_3": (LTX_2, LTX2VideoTransformer3DModel, LTX_2_3_CONFIG, {}),
    "ltx2_5": (LTX_2, LTX2VideoTransformer3DModel, LTX_2_5_CONFIG, {}),
    "hunyuan_1_5": (
        HUNYUAN_1_5,
        HunyuanVideo15Transformer3DModel,
        HUNYUAN_1_5_CONFIG,
        {"rope_axes_dim": [4, 6, 6]},
    ),
    "kandinsky_5": (KANDINSKY_5, Kandinsky5Transformer3DModel, KANDINSKY_5_CONFIG, {}),
    "hunyuan": (HUNYUAN, HunyuanVideoTransformer3DModel, HUNYUAN_CONFIG, {"rope_axes_dim": [4, 6, 6]}),
    "ltx": (LTX, LTXVideoTransformer3DModel, LTX_CONFIG, {"num_attention_heads": 4}),
}


def random_model(model_class, config, seed=0):
    torch.manual_seed(seed)
    model = model_class(**config)
    model.load_state_dict({name: torch.randn_like(row) * 0.1 for name, row in model.state_dict().items()})
    for name, weight in model.named_parameters():  # tables of positions stay in fp32
        kept = any(part in name for part in modules_in_fp32(model))
        weight.data = weight.data.to(BF16).float() if kept else weight.data.to(BF16)
    return model.eval()


def forward(name, model):
    torch.manual_seed(1)
    if name == "ltx":
        inputs = {
            "hidden_states": torch.randn(1, 12, 8), "encoder_hidden_states": torch.randn(1, 7, 24),
            "timestep": torch.tensor([500.0]), "encoder_attention_mask": torch.ones(1, 7),
            "num_frames": 3, "height": 2, "width": 2,
        }  # fmt: skip
    elif name.startswith("ltx2"):
        widths = (24, 24) if name == "ltx2" else (32, 16)
        inputs = {
            "hidden_states": torch.randn(1, 12, 8), "audio_hidden_states": torch.randn(1, 5, 16),
            "encoder_hidden_states": torch.randn(1, 7, widths[0]),
            "audio_encoder_hidden_states": torch.randn(1, 7, widths[1]), "timestep": torch.tensor([500.0]),
            "sigma": torch.tensor([500.0]), "num_frames": 3, "height": 2, "width": 2, "audio_num_frames": 5,
        }  # fmt: skip
    elif name == "hunyuan_1_5":
        inputs = {
            "hidden_states": torch.randn(1, 65, 3, 4, 4), "timestep": torch.tensor([500.0]),
            "timestep_r": torch.tensor([300.0]), "encoder_hidden_states": torch.randn(1, 7, 16),
            "encoder_attention_mask": torch.tensor([[1.0] * 5 + [0.0] * 2]),
            "encoder_hidden_states_2": torch.randn(1, 4, 12), "encoder_attention_mask_2": torch.ones(1, 4),
            "image_embeds": torch.randn(1, 3, 8),
        }  # fmt: skip
    elif name == "kandinsky_5":
        inputs = {
            "hidden_states": torch.randn(1, 3, 4, 4, 9), "timestep": torch.tensor([500.0]),
            "encoder_hidden_states": torch.randn(1, 7, 16), "pooled_projections": torch.randn(1, 8),
        }  # fmt: skip
    else:
        inputs = {
            "hidden_states": torch.randn(1, 4, 3, 4, 4), "timestep": torch.tensor([500.0]),
            "encoder_hidden_states": torch.randn(1, 7, 16), "encoder_attention_mask": torch.ones(1, 7),
            "pooled_projections": torch.randn(1, 8), "guidance": torch.tensor([6000.0]),
        }  # fmt: skip
    inputs = {key: row.to(BF16) if isinstance(row, torch.Tensor) and "mask" not in key else row
              for key, row in inputs.items()}  # fmt: skip
    if name == "kandinsky_5":
        inputs["visual_rope_pos"] = [torch.arange(3), torch.arange(2), torch.arange(2)]
        inputs["text_rope_pos"] = torch.arange(7)
    with torch.no_grad(), quiet():  # Kandinsky's norms of queries and keys get fp32 and have 16-bit weights
        return model(**inputs, return_dict=False)[0]


def original_file(path, name, model):
    family, _, _, stored = CASES[name]
    weights = original_layout(model.state_dict(), family)
    weights = {key: row.to(BF16) for key, row in weights.items()}
    return tiny.write(path, weights, {"config": json.dumps(stored)}), weights


@pytest.mark.parametrize("name", CASES)
def test_original_and_diffusers_layouts_load_bit_for_bit(tmp_path, name):
    _, model_class, config, stored = CASES[name]
    model = random_model(model_class, config)
    path, _ = original_file(tmp_path / "x.safetensors", name, model)
    for file in (
        path,
        tiny.write(tmp_path / "d.safetensors", dict(model.state_dict()), {"config": json.dumps(stored)}),
        tiny.write(tmp_path / "p.safetensors", original_layout(model.state_dict(), CASES[name][0]),
                   {"config": json.dumps(stored)}, prefix="model.diffusion_model."),
    ):  # fmt: skip
        ours = load_transformer(file, "bf16")
        assert {key: ours.config[key] for key in config} == config
        assert torch.equal(forward(name, ours), forward(name, model))


def test_ltx_equals_diffusers_converter(tmp_path):
    model = random_model(LTXVideoTransformer3DModel, LTX_CONFIG)
    path, weights = original_file(tmp_path / "x.safetensors", "ltx", model)
    theirs = convert_ltx_transformer_checkpoint_to_diffusers(dict(weights))
    ours = load_transformer(path, "bf16").state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("name", ["ltx2", "ltx2_3", "ltx2_5"])
def test_ltx2_equals_diffusers_converter(tmp_path, name):
    model = random_model(LTX2VideoTransformer3DModel, CASES[name][2])
    path, weights = original_file(tmp_path / "x.safetensors", name, model)
    late = {key: row for key, row in weights.items() if "prompt_adaln_single" in key}  # newer than the converter
    theirs = convert_ltx2_transformer_to_diffusers({key: row for key, row in weights.items() if key not in late})
    theirs |= {key.replace("adaln_single", "adaln"): row for key, row in late.items()}
    ours = load_transformer(path, "bf16").state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_ltx2_in_a_file_with_everything_else(tmp_path):
    """As the original release stores it: its connectors, VAEs and vocoder beside the transformer."""
    model = random_model(LTX2VideoTransformer3DModel, LTX_2_3_CONFIG)
    weights = {f"model.diffusion_model.{name}": row for name, row in original_layout(model.state_dict(), LTX_2).items()}
    others = (
        "model.diffusion_model.video_embeddings_connector.learnable_registers", "vae.decoder.conv_in.conv.weight",
        "text_embedding_projection.video_aggregate_embed.weight", "audio_vae.decoder.conv_in.conv.weight",
        "vocoder.vocoder.conv_pre.weight", "model.diffusion_model.audio_embeddings_connector.learnable_registers",
    )  # fmt: skip
    path = tiny.write(tmp_path / "x.safetensors", weights | {name: torch.zeros(4, 8) for name in others}, {})
    ours = load_transformer(path, "bf16").state_dict()
    assert all(torch.equal(row.to(BF16), ours[name].to(BF16)) for name, row in model.state_dict().items())


@pytest.mark.parametrize("heads", [2, 192])
def test_hunyuan_equals_diffusers_converter(tmp_path, heads):
    """The converter only splits `linear1` for a hidden size of 3072 (192 heads of 16): else that one is split here."""
    config = HUNYUAN_CONFIG | {"num_attention_heads": heads, "num_layers": 1, "num_single_layers": 1, "mlp_ratio": 0.25}
    with torch.device("meta"):
        shapes = {name: row.shape for name, row in HunyuanVideoTransformer3DModel(**config).state_dict().items()}
    state = {name: (torch.arange(shape.numel()) % (251 + index) / 64).to(BF16).view(shape)
             for index, (name, shape) in enumerate(shapes.items())}  # fmt: skip
    weights = original_layout(state, HUNYUAN)
    path = tiny.write(tmp_path / "x.safetensors", weights, {"config": json.dumps({"rope_axes_dim": [4, 6, 6]})})
    dim = heads * 16
    split = {} if dim == 3072 else {name: row for name, row in weights.items() if ".linear1." in name}
    theirs = convert_hunyuan_video_transformer_to_diffusers(
        {name: row for name, row in weights.items() if name not in split}
    )
    for name, row in split.items():
        parts = torch.split(row, [dim, dim, dim, row.shape[0] - 3 * dim])
        block, kind = name.split(".")[1], name.rpartition(".")[2]
        for layer, part in zip(("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"), parts, strict=True):
            theirs[f"single_transformer_blocks.{block}.{layer}.{kind}"] = part
    ours = load_transformer(path, "bf16").state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


HUNYUAN_1_5_NAMES = {
    "time_in.mlp.{0,2}": "time_embed.timestep_embedder.linear_{1,2}",
    "time_r_in.mlp.{0,2}": "time_embed.timestep_embedder_r.linear_{1,2}",
    "txt_in.t_embedder.mlp.{0,2}": "context_embedder.time_text_embed.timestep_embedder.linear_{1,2}",
    "txt_in.c_embedder.linear_{1,2}": "context_embedder.time_text_embed.text_embedder.linear_{1,2}",
    "txt_in.input_embedder": "context_embedder.proj_in",
    "txt_in.individual_token_refiner.blocks.#.norm{1,2}": "context_embedder.token_refiner.refiner_blocks.#.norm{1,2}",
    "txt_in.individual_token_refiner.blocks.#.self_attn_proj":
        "context_embedder.token_refiner.refiner_blocks.#.attn.to_out.0",
    "txt_in.individual_token_refiner.blocks.#.mlp.fc{1,2}":
        "context_embedder.token_refiner.refiner_blocks.#.ff.net.{0.proj,2}",
    "txt_in.individual_token_refiner.blocks.#.adaLN_modulation.1":
        "context_embedder.token_refiner.refiner_blocks.#.norm_out.linear",
    "byt5_in.{layernorm,fc1,fc2,fc3}": "context_embedder_2.{norm,linear_1,linear_2,linear_3}",
    "vision_in.proj.{0,1,3,4}": "image_embedder.{norm_in,linear_1,linear_2,norm_out}",
    "img_in.proj": "x_embedder.proj", "cond_type_embedding": "cond_type_embed", "final_layer.linear": "proj_out",
    "double_blocks.#.{img,txt}_mod.linear": "transformer_blocks.#.{norm1,norm1_context}.linear",
    "double_blocks.#.img_attn_{q,k,v}": "transformer_blocks.#.attn.{to_q,to_k,to_v}",
    "double_blocks.#.txt_attn_{q,k,v}": "transformer_blocks.#.attn.{add_q_proj,add_k_proj,add_v_proj}",
    "double_blocks.#.img_attn_{q,k}_norm": "transformer_blocks.#.attn.{norm_q,norm_k}",
    "double_blocks.#.txt_attn_{q,k}_norm": "transformer_blocks.#.attn.{norm_added_q,norm_added_k}",
    "double_blocks.#.{img,txt}_attn_proj": "transformer_blocks.#.attn.{to_out.0,to_add_out}",
    "double_blocks.#.{img,txt}_mlp.fc1": "transformer_blocks.#.{ff,ff_context}.net.0.proj",
    "double_blocks.#.{img,txt}_mlp.fc2": "transformer_blocks.#.{ff,ff_context}.net.2",
}  # fmt: skip
REFINER_QKV = "txt_in.individual_token_refiner.blocks.#.self_attn_qkv"


def spelled_out(pattern):
    """`a.{b,c}` as a.b and a.c."""
    before, brace, rest = pattern.partition("{")
    inside, _, after = rest.partition("}")
    return [before + word + after for word in inside.split(",")] if brace else [before]


def hunyuan_1_5_converted(weights, layers=2, refiners=1):
    """Original weights under diffusers' names, as its script for Hunyuan Video 1.5 names them."""
    modules = {}
    for own, other in HUNYUAN_1_5_NAMES.items():
        blocks = range(refiners if "refiner" in own else layers) if "#" in own else ("",)
        for left, right in zip(spelled_out(own), spelled_out(other), strict=True):
            modules |= {left.replace("#", str(block)): right.replace("#", str(block)) for block in blocks}
    result, names = {}, dict.fromkeys(weights)
    for name in names:
        module, _, kind = name.rpartition(".")
        block = module.split(".")[3] if "refiner" in module else ""
        if module == REFINER_QKV.replace("#", block):
            for letter, part in zip("qkv", weights[name].chunk(3), strict=True):
                result[f"context_embedder.token_refiner.refiner_blocks.{block}.attn.to_{letter}.{kind}"] = part
        elif module == "final_layer.adaLN_modulation.1":
            shift, scale = weights[name].chunk(2)
            result[f"norm_out.linear.{kind}"] = torch.cat([scale, shift])
        else:
            result[f"{modules[module]}.{kind}"] = weights[name]
    return result


def test_hunyuan_1_5_equals_the_names_of_diffusers_script(tmp_path):
    model = random_model(HunyuanVideo15Transformer3DModel, HUNYUAN_1_5_CONFIG)
    path, weights = original_file(tmp_path / "x.safetensors", "hunyuan_1_5", model)
    theirs = hunyuan_1_5_converted(weights)
    ours = load_transformer(path, "bf16").state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


TRUE_SIZES = {
    "ltx2": (LTX_2, LTX2VideoTransformer3DModel, ltx2_files.TRANSFORMER_2_0, ("ltx2_19B",)),
    "ltx2_3": (LTX_2, LTX2VideoTransformer3DModel, ltx2_files.TRANSFORMER_2_3, ("ltx2_22B",)),
    "ltx2_5": (LTX_2, LTX2VideoTransformer3DModel, ltx2_files.TRANSFORMER_2_5, ("ltx2_25_22B",)),
    "hunyuan_1_5": (HUNYUAN_1_5, HunyuanVideo15Transformer3DModel, {}, ("hunyuan_1_5_t2v", "hunyuan_1_5_i2v")),
    "hunyuan_1_5 in steps": (
        HUNYUAN_1_5, HunyuanVideo15Transformer3DModel, {"use_meanflow": True}, ("hunyuan_1_5_i2v",),
    ),
    "kandinsky_5 lite": (
        KANDINSKY_5, Kandinsky5Transformer3DModel,
        {"in_visual_dim": 16, "out_visual_dim": 16, "model_dim": 1792, "ff_dim": 7168, "visual_cond": True},
        ("k5_lite_t2v", "k5_lite_i2v"),
    ),
    "kandinsky_5 pro": (
        KANDINSKY_5, Kandinsky5Transformer3DModel,
        {"in_visual_dim": 16, "out_visual_dim": 16, "model_dim": 4096, "ff_dim": 16384, "time_dim": 1024,
         "num_text_blocks": 4, "num_visual_blocks": 60, "axes_dims": (32, 48, 48), "visual_cond": True},
        ("k5_pro_t2v", "k5_pro_i2v"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", ["original", "diffusers"])
@pytest.mark.parametrize("name", TRUE_SIZES)
def test_name_tables_are_complete_at_the_true_size(name, layout):
    family, model_class, config, architectures = TRUE_SIZES[name]
    with torch.device("meta"):
        model = model_class(**config)
    state = model.state_dict()
    stored = original_layout(state, family) if layout == "original" else state
    tensors = {key: Tensor(key, "BF16", tuple(row.shape), 0, 0) for key, row in stored.items()}
    header = Header("x", tensors, {}, 0, 0)
    identity = identify(header)
    assert identity.architectures == architectures
    source = WeightSource(header, identity, map_names(tensors, family, layout, ""))
    assert not source.names.unknown
    assert {place for places in source.names.diffusers.values() for place in places.names} == set(state)
    ours = empty_model(family, model_config(family, [source], {}))
    assert {key: ours.config[key] for key in config} == config
    expected = {key: tuple(row.shape) for key, row in state.items()}
    assert {key: tuple(row.shape) for key, row in ours.state_dict().items()} == expected
    check_names([source], expected)


@pytest.mark.parametrize("name", CASES)
def test_int8_versions_stay_close(tmp_path, name):
    family, model_class, config, stored = CASES[name]
    model = random_model(model_class, config)
    weights = original_layout(model.state_dict(), family)
    state, metadata = tiny.quantized_file(weights, family, BF16)
    path = tiny.write(tmp_path / "x_quanto_bf16_int8.safetensors", state, metadata | {"config": json.dumps(stored)})
    plain, _ = original_file(tmp_path / "x_bf16.safetensors", name, model)
    wanted = forward(name, model).float()
    written = quantize(plain, tmp_path / "ours_quanto_bf16_int8.safetensors").path
    for ours in (
        load_transformer(path, "bf16"),
        load_transformer(written, "bf16"),
        load_transformer(plain, "bf16", quantize=True),
    ):
        int8 = [row for row in ours.parameters() if type(row).__name__ == "Int8Tensor"]
        assert len(int8) > 10
        error = (forward(name, ours).float() - wanted).norm() / wanted.norm()
        assert error < 0.015


REAL = {
    "wan_t2v_1.3B": ("t2v_1.3B", ()), "wan_t2v_14B": ("t2v", ()), "wan_i2v_14B": ("i2v", ()),
    "wan_t2v_14B + module": ("vace_14B", ("wan_vace_module_14B",)),
    "wan_t2v_1.3B + module": ("vace_1.3B", ("wan_vace_module_1.3B",)),
    "hunyuan_t2v_13B": ("hunyuan", ()), "hunyuan_i2v_token_replace_13B": ("hunyuan_i2v", ()),
    "hunyuan_i2v_concat_13B": ("hunyuan_i2v", ()),
}  # fmt: skip


def source_of(label, headers):
    tensors = {name: Tensor(name, "BF16", tuple(shape), 0, 0) for name, shape in headers[label].items()}
    header = Header(label, tensors, {}, 0, 0)
    identity = identify(header)
    family = next(row for row in FAMILIES if row.name == identity.family)
    return family, WeightSource(header, identity, map_names(tensors, family, identity.layout, identity.prefix))


@pytest.mark.parametrize("case", REAL)
def test_real_headers_map_onto_the_real_config(headers, case):
    architecture, modules = REAL[case]
    pairs = [source_of(label, headers) for label in (case.partition(" + ")[0], *modules)]
    family, sources = pairs[0][0], [source for _, source in pairs]
    model = empty_model(family, model_config(family, sources, ARCHITECTURES[architecture].config))
    assert all(parameter.is_meta for parameter in model.parameters())
    check_names(sources, {name: tuple(row.shape) for name, row in model.state_dict().items()})
    if modules:
        assert isinstance(model, WanVACETransformer3DModel)
        assert model.config.vace_layers == ([*range(0, 40, 5)] if "14B" in case else [*range(0, 30, 2)])
    kinds = {"hunyuan_i2v_token_replace_13B": "token_replace", "hunyuan_i2v_concat_13B": "latent_concat"}
    if family is HUNYUAN:
        assert model.config.image_condition_type == kinds.get(case)


def test_every_header_of_the_facts_is_tried(headers):
    tried = {label for case, (_, modules) in REAL.items() for label in (case.partition(" + ")[0], *modules)}
    assert tried == set(headers)


VACE = tiny.CONFIG | {"num_layers": 4, "vace_layers": [0, 2], "vace_in_channels": 96}


def vace_files(folder, quantize=""):
    """A tiny VACE model as base and module, each in bf16 or int8; and the whole model."""
    model = random_model(WanVACETransformer3DModel, VACE)
    model.scale_shift_table.data = model.scale_shift_table.data.float()
    weights = original_layout({name: row.float() for name, row in model.state_dict().items()}, WAN)
    paths = []
    for kind in ("base", "module"):
        part = {name: row for name, row in weights.items() if name.startswith("vace_") == (kind == "module")}
        if quantize in (kind, "both"):
            state, metadata = tiny.quantized_file(part, WAN, BF16)
        else:
            state, metadata = {name: row.to(BF16) for name, row in part.items()}, {}
        extra = tiny.METADATA if kind == "base" else {"format": "pt"}
        paths.append(tiny.write(folder / f"{kind}_{quantize}.safetensors", state, extra | metadata))
    return paths, weights


def vace_forward(model):
    torch.manual_seed(1)
    inputs = {
        "hidden_states": torch.randn(1, 16, 3, 8, 8, dtype=BF16), "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": torch.randn(1, 7, 32, dtype=BF16),
        "control_hidden_states": torch.randn(1, 96, 3, 8, 8, dtype=BF16),
    }  # fmt: skip
    with torch.no_grad():
        return model(**inputs, return_dict=False)[0]


@pytest.mark.parametrize("quantize", ["", "base", "module", "both"])
def test_a_module_merges_with_its_base(tmp_path, quantize):
    (base, module), weights = vace_files(tmp_path, quantize)
    ours = load_transformer(base, "bf16", modules=[module])
    assert isinstance(ours, WanVACETransformer3DModel)
    assert ours.config.vace_layers == [0, 2]
    whole = tiny.write(tmp_path / "whole.safetensors", {name: row.to(BF16) for name, row in weights.items()})
    wanted = vace_forward(load_transformer(whole, "bf16"))
    got = vace_forward(ours)
    if not quantize:
        assert torch.equal(got, wanted)
    assert (got.float() - wanted.float()).norm() / wanted.float().norm() < 0.015


def test_modules_that_do_not_fit_are_refused_before_memory_is_taken(tmp_path):
    (base, module), _ = vace_files(tmp_path)
    with pytest.raises(TensorMismatch, match="given twice"):
        load_transformer(base, "bf16", modules=[module, module])
    with pytest.raises(UnsupportedFormat, match="no module"):
        load_transformer(base, "bf16", modules=[base])
    wide = tiny.CONFIG | {"attention_head_dim": 36}
    weights = original_layout(dict(WanTransformer3DModel(**(wide | {"num_layers": 4})).state_dict()), WAN)
    other = tiny.write(tmp_path / "wide.safetensors", {name: row.to(BF16) for name, row in weights.items()})
    with pytest.raises(TensorMismatch, match="another size"):
        load_transformer(other, "bf16", modules=[module])
