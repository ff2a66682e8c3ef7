"""Wan's relatives: their names are complete in both layouts at their true size, and equal those of diffusers' converters."""

import json

import pytest
import tiny
import torch
from accelerate import init_empty_weights
from diffusers import (
    ChronoEditTransformer3DModel,
    SkyReelsV2Transformer3DModel,
    WanAnimateTransformer3DModel,
    WanTransformer3DModel,
)
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

from layouts import original_layout
from reeltune.checkpoints.contents import Header, Tensor
from reeltune.checkpoints.header import read_header
from reeltune.checkpoints.identify import identify
from reeltune.checkpoints.keys import map_names
from reeltune.checkpoints.source import WeightSource
from reeltune.errors import TensorMismatch
from reeltune.families import ARCHITECTURES
from reeltune.families.wan import WAN
from reeltune.weights.building import empty_model, model_config
from reeltune.weights.load import load_transformer
from reeltune.weights.matching import check_names
from reeltune.weights.quantize import quantize

BF16 = torch.bfloat16
TINY_ANIMATE = {
    "in_channels": 36, "latent_channels": 16, "image_dim": 8, "added_kv_proj_dim": 48, "num_layers": 4,
    "motion_encoder_channel_sizes": {"4": 8, "8": 6, "16": 4}, "motion_encoder_size": 16, "motion_style_dim": 8,
    "motion_dim": 4, "motion_encoder_dim": 6, "face_encoder_hidden_dim": 8, "face_encoder_num_heads": 2,
    "inject_face_latents_blocks": 2,
}  # fmt: skip
CASES = {
    "lucy_edit": (WanTransformer3DModel, {"in_channels": 96, "out_channels": 48}),
    "sky_df_1.3B": (SkyReelsV2Transformer3DModel, {"inject_sample_info": True}),
    "sky_df_14B": (SkyReelsV2Transformer3DModel, {}),
    "animate": (WanAnimateTransformer3DModel, TINY_ANIMATE),
    "chrono_edit": (ChronoEditTransformer3DModel, {"in_channels": 36, "image_dim": 8, "added_kv_proj_dim": 48}),
}


def random_model(name, seed=0):
    torch.manual_seed(seed)
    model_class, config = CASES[name]
    model = model_class(**tiny.CONFIG | config)
    model.load_state_dict({key: torch.randn_like(row) * 0.1 for key, row in model.state_dict().items()})
    for key, row in model.named_parameters():
        kept = any(part in key.split(".") for part in type(model)._keep_in_fp32_modules)
        row.data = row.data.to(BF16).float() if kept else row.data.to(BF16)
    return model.eval()


def forward(name, model):
    torch.manual_seed(1)
    config, frames = model.config, 3
    inputs = {
        "hidden_states": torch.randn(1, config.in_channels, frames, 8, 8, dtype=BF16),
        "timestep": torch.tensor([500.0]), "encoder_hidden_states": torch.randn(1, 512, 32, dtype=BF16),
    }  # fmt: skip
    if config.get("image_dim"):
        inputs["encoder_hidden_states_image"] = torch.randn(1, 5, 8, dtype=BF16)
    if name == "animate":
        inputs["pose_hidden_states"] = torch.randn(1, 16, frames - 1, 8, 8, dtype=BF16)
        inputs["face_pixel_values"] = torch.randn(1, 3, 5, 16, 16, dtype=BF16)
    if name.startswith("sky"):
        inputs |= {"timestep": torch.tensor([[500, 300, 999]]), "enable_diffusion_forcing": True, "fps": [1]}
    with torch.no_grad():
        return model(**inputs, return_dict=False)[0]


def write(folder, name, state, file="x", metadata=None):
    stored = {"config": json.dumps({"num_attention_heads": 2, "rope_max_seq_len": 64})}
    return tiny.write(folder / f"{file}_{name}.safetensors", dict(state), stored | (metadata or {}))


def published_layout(state):
    """An original file of Animate as it is published: with blur kernels, and biases of four dimensions."""
    state = dict(state)
    for name in list(state):
        if "net_app.convs." in name and name.endswith(".bias"):
            state[name] = state[name].view(1, -1, 1, 1)
        if name.endswith((".conv2.1.weight", ".skip.1.weight")):
            kernel = name.replace("conv2.1.weight", "conv2.0.kernel").replace("skip.1.weight", "skip.0.kernel")
            state[kernel] = torch.ones(4, 4, dtype=BF16) / 16
    return state


@pytest.mark.parametrize("name", CASES)
def test_original_and_diffusers_layouts_load_bit_for_bit(tmp_path, name):
    model = random_model(name)
    original = original_layout(model.state_dict(), WAN)
    files = [write(tmp_path, name, original), write(tmp_path, name, model.state_dict(), "diffusers")]
    if name == "animate":
        files.append(write(tmp_path, name, published_layout(original), "published"))
    expected = forward(name, model)
    for file in files:
        ours = load_transformer(file, "bf16", config=ARCHITECTURES[name].config)
        assert type(ours) is type(model)
        assert {key: ours.config[key] for key in CASES[name][1]} == CASES[name][1]
        state = model.state_dict()
        assert ours.state_dict().keys() == state.keys()
        assert all(torch.equal(row, state[key]) for key, row in ours.state_dict().items())
        assert torch.equal(forward(name, ours), expected)


@pytest.mark.parametrize("name", CASES)
def test_int8_versions_stay_close(tmp_path, name):
    model = random_model(name)
    weights = original_layout(model.state_dict(), WAN)
    state, metadata = tiny.quantized_file(weights, WAN, BF16)
    wanted = forward(name, model).float()
    config = ARCHITECTURES[name].config
    plain = write(tmp_path, name, {key: row.to(BF16) for key, row in weights.items()})
    written = quantize(plain, tmp_path / "ours.safetensors").path
    for ours in (
        load_transformer(write(tmp_path, name, state, "quanto_bf16_int8", metadata), "bf16", config=config),
        load_transformer(written, "bf16", config=config),
        load_transformer(plain, "bf16", quantize=True, config=config),
    ):
        int8 = [row for row in ours.parameters() if type(row).__name__ == "Int8Tensor"]
        assert len(int8) >= 10 * model.config.num_layers + (8 if name == "animate" else 0)
        error = (forward(name, ours).float() - wanted).norm() / wanted.norm()
        assert error < 0.015


# --- names at true size ---------------------------------------------------------------------------------------------

_14B = {"num_attention_heads": 40, "attention_head_dim": 128, "ffn_dim": 13824, "num_layers": 40, "text_dim": 4096}
_1_3B = {"num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960, "num_layers": 30, "text_dim": 4096}
_5B = {"num_attention_heads": 24, "attention_head_dim": 128, "ffn_dim": 14336, "num_layers": 30, "text_dim": 4096}
_IMAGE = {"in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 5120}
TRUE_SIZE = {
    "lucy_edit": (_5B | {"in_channels": 96, "out_channels": 48}, 825, "x.safetensors"),
    "sky_df_1.3B": (_1_3B | {"inject_sample_info": True}, 830, "x.safetensors"),
    "sky_df_14B": (_14B, 1095, "sky_reels2_diffusion_forcing_720p_14B_mbf16.safetensors"),
    "animate": (_14B | _IMAGE, 1427, "x.safetensors"),
    "chrono_edit": (_14B | _IMAGE, 1303, "wan2.1_chrono_edit_14B_mbf16.safetensors"),
}


def meta_model(name):
    with init_empty_weights():
        return CASES[name][0](**TRUE_SIZE[name][0])


def source_of(shapes, file):
    header = Header(file, {key: Tensor(key, "BF16", tuple(shape), 0, 0) for key, shape in shapes.items()}, {}, 0, 0)
    identity = identify(header)
    return WeightSource(header, identity, map_names(shapes, WAN, identity.layout, identity.prefix))


@pytest.mark.parametrize("name", TRUE_SIZE)
@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_names_are_complete_at_true_size(name, layout):
    _, count, file = TRUE_SIZE[name]
    model = meta_model(name)
    state = model.state_dict()
    original = original_layout(state, WAN)
    assert len(original) == count
    shapes = {key: row.shape for key, row in (original if layout == "original" else state).items()}
    source = source_of(shapes, file)
    assert source.identity.architectures == (name,)
    assert source.identity.layout == layout
    derived = model_config(WAN, [source], ARCHITECTURES[name].config)
    ours = empty_model(WAN, derived)
    assert type(ours) is type(model)
    derived_only = ("_use_default_values", "motion_encoder_channel_sizes")
    assert {key: ours.config[key] for key in model.config if key not in derived_only} == {
        key: value for key, value in model.config.items() if key not in derived_only
    }
    check_names([source], {key: tuple(row.shape) for key, row in ours.state_dict().items()})


def test_the_published_file_of_animate():
    """1,441 tensors, as the header of wan2.2_animate_14B_bf16.safetensors lists them."""
    original = published_layout(original_layout(meta_model("animate").state_dict(), WAN))
    assert len(original) == 1441
    for name, shape in {
        "pose_patch_embedding.weight": (5120, 16, 1, 2, 2),
        "motion_encoder.enc.net_app.convs.0.1.bias": (1, 32, 1, 1),
        "motion_encoder.enc.net_app.convs.7.skip.1.weight": (512, 512, 1, 1),
        "motion_encoder.enc.net_app.convs.7.conv2.0.kernel": (4, 4),
        "motion_encoder.enc.net_app.convs.8.weight": (512, 512, 4, 4),
        "motion_encoder.enc.fc.4.bias": (20,),
        "motion_encoder.dec.direction.weight": (512, 20),
        "face_encoder.conv1_local.conv.weight": (4096, 512, 3),
        "face_encoder.padding_tokens": (1, 1, 1, 5120),
        "face_adapter.fuser_blocks.7.linear1_kv.weight": (10240, 5120),
        "face_adapter.fuser_blocks.0.q_norm.weight": (128,),
    }.items():
        assert tuple(original[name].shape) == shape
    source = source_of({name: row.shape for name, row in original.items()}, "x.safetensors")
    assert source.unknown() == []
    assert source.identity.architectures == ("animate",)
    assert not any("not the model's" in line for line in source.identity.evidence)
    model = empty_model(WAN, model_config(WAN, [source], {}))
    assert model.config.motion_encoder_channel_sizes == {
        "4": 512, "8": 512, "16": 512, "32": 512, "64": 256, "128": 128, "256": 64, "512": 32,
    }  # fmt: skip
    check_names([source], {name: tuple(row.shape) for name, row in model.state_dict().items()})


@pytest.mark.parametrize("name", ["lucy_edit", "sky_df_14B", "animate", "chrono_edit"])
def test_names_equal_those_of_diffusers_converter(name):
    model = random_model(name)
    original = original_layout(model.state_dict(), WAN)
    if name == "animate":
        original = published_layout(original)
        original = {key: row for key, row in original.items() if not key.endswith("kernel")}  # the converter keeps them
    theirs = convert_wan_transformer_to_diffusers(dict(original))
    state = model.state_dict()
    assert theirs.keys() == state.keys()
    assert all(torch.equal(theirs[key], state[key]) for key in state)


def test_the_names_of_skyreels_that_the_converter_does_not_know():
    model = random_model("sky_df_1.3B")
    names = {"fps_embedding.weight": "fps_embedding.weight"}
    for kind in ("weight", "bias"):
        names[f"fps_projection.0.{kind}"] = f"fps_projection.net.0.proj.{kind}"
        names[f"fps_projection.2.{kind}"] = f"fps_projection.net.2.{kind}"
    original = original_layout(model.state_dict(), WAN)
    theirs = convert_wan_transformer_to_diffusers(
        {key: row for key, row in original.items() if not key.startswith("fps_")}
    )
    theirs |= {new: original[old] for old, new in names.items()}
    state = model.state_dict()
    assert theirs.keys() == state.keys()
    assert all(torch.equal(theirs[key], state[key]) for key in state)


def test_an_incomplete_file_of_animate_is_refused(tmp_path):
    state = published_layout(original_layout(random_model("animate").state_dict(), WAN))
    del state["motion_encoder.enc.net_app.convs.1.conv1.1.bias"]
    with pytest.raises(TensorMismatch, match="1 missing"):
        load_transformer(write(tmp_path, "animate", state), "bf16")
    state["motion_encoder.enc.net_app.convs.1.conv1.1.bias"] = torch.ones(1, 1, 5, 1, dtype=BF16)
    with pytest.raises(TensorMismatch, match="of another shape"):
        load_transformer(write(tmp_path, "animate", state), "bf16")


def test_constants_are_left_out_of_a_quantized_file(tmp_path):
    state = published_layout(original_layout(random_model("animate").state_dict(), WAN))
    plain = write(tmp_path, "animate", {key: row.to(BF16) for key, row in state.items()})
    made = quantize(plain, tmp_path / "q.safetensors")
    names = read_header(made.path).tensors
    assert not any(name.endswith("kernel") for name in names)
    assert "face_adapter.fuser_blocks.0.linear1_kv.weight._data" in names
    load_transformer(made.path, "bf16")
