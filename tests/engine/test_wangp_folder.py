"""A WanGP `ckpts` folder is used in place: the same video as from diffusers' folders, without the network."""

import numpy as np
import pytest
import tiny_parts
import torch
import transformers
from diffusers import AutoencoderKLWan
from PIL import Image

import wangp
from reeltune import Engine, Notice, Preferences, explain, load_catalog
from reeltune.errors import Offline
from reeltune.families import ARCHITECTURES

FAST = {"num_inference_steps": 2, "resolution": "32x32", "video_length": 5, "seed": 3, "prompt": "a cat walks"}
BF16_WISHED = Preferences(quantization="bf16", text_encoder_quantization="bf16")


@pytest.fixture(scope="module")
def models():
    """Tiny models whose files are laid out as the published ones."""
    torch.manual_seed(0)
    text = transformers.UMT5Config(vocab_size=300, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    vision = transformers.CLIPVisionConfig(
        hidden_size=8, num_hidden_layers=3, num_attention_heads=1, image_size=28, intermediate_size=16, patch_size=14,
        hidden_act="gelu",
    )  # fmt: skip
    return {
        "tokenizer": tiny_parts.byte_tokenizer(),
        "text_encoder": transformers.UMT5EncoderModel(text).to(torch.bfloat16),
        "vae": AutoencoderKLWan(base_dim=4),
        "image_encoder": transformers.CLIPVisionModel(vision).to(torch.bfloat16),
        "image_processor": transformers.CLIPImageProcessor(crop_size=28, size=28),
    }


def write_diffusers(models, root, architecture):
    folder = root / "ckpts" / ARCHITECTURES[architecture].components_repo.replace("/", "--")
    for row in ARCHITECTURES[architecture].parts:
        models[row.name].save_pretrained(folder / row.name)


def write_wangp(models, ckpts, int8=False):
    models["tokenizer"].save_pretrained(ckpts / "umt5-xxl")
    (ckpts / "umt5-xxl" / "spiece.model").write_bytes(b"")  # which the tokenizer's json makes needless
    text = wangp.umt5(models["text_encoder"].state_dict())
    wangp.write(ckpts / wangp.UMT5_FILE, text)
    if int8:
        wangp.write(ckpts / wangp.UMT5_INT8_FILE, *wangp.int8(text, r"blocks\.\d+\.(attn|ffn)\..*"))
    wangp.write(ckpts / wangp.VAE_FILE, wangp.wan_vae(models["vae"].state_dict()))
    wangp.write(ckpts / wangp.CLIP_FILE, wangp.open_clip(models["image_encoder"].state_dict()))


@pytest.fixture
def definition(root, define, monkeypatch, request):
    """A definition of an architecture with nothing but its transformer, and no network."""
    monkeypatch.setenv("REELTUNE_OFFLINE", "1")
    lists = tiny_parts.transformer_files(root / "ckpts", request.param)
    define("mine", {"architecture": request.param, **lists})
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 64, 3), dtype=np.uint8)).save(root / "start.png")
    return load_catalog(root)["mine"]


def video(definition, preferences=BF16_WISHED):
    events = []
    inputs = {"image_start": "start.png"} if definition.architecture.id == "i2v" else {}
    with Engine(definition, preferences=preferences, listener=events.append) as engine:
        return engine.generate(**FAST | inputs).frames, [row.message for row in events if isinstance(row, Notice)]


@pytest.mark.parametrize("definition", ["t2v", "i2v", "vace_14B"], indirect=True)
def test_the_same_video_from_either_folder(definition, models, root, tmp_path):
    write_wangp(models, tmp_path / "WanGP" / "ckpts")
    preferences = Preferences(
        quantization="bf16", text_encoder_quantization="bf16", model_folders=(str(tmp_path / "WanGP" / "ckpts"),)
    )
    plan = explain(definition, preferences)
    assert not plan.missing
    placement = {item.subject: item.path for item in plan.items}
    assert placement["text_encoder"] == tmp_path / "WanGP" / "ckpts" / wangp.UMT5_FILE
    assert placement["tokenizer"] == tmp_path / "WanGP" / "ckpts" / "umt5-xxl"
    frames, said = video(definition, preferences)
    assert not any("is not used:" in message for message in said)
    write_diffusers(models, root, definition.architecture.id)
    placement = [item.path for item in explain(definition, preferences).items]
    assert not any(path.is_relative_to(tmp_path / "WanGP") for path in placement)  # diffusers' folder wins
    theirs, _ = video(definition, preferences)
    assert frames.std() > 0
    assert np.array_equal(frames, theirs)


@pytest.mark.parametrize("definition", ["t2v"], indirect=True)
def test_the_text_encoder_in_int8_or_in_16_bits(definition, models, root):
    write_wangp(models, root / "ckpts", int8=True)
    int8 = Preferences(quantization="bf16")
    assert explain(definition, int8).path("text_encoder").name.endswith("quanto_int8.safetensors")
    assert explain(definition, BF16_WISHED).path("text_encoder").name.endswith("bf16.safetensors")
    plain, _ = video(definition)
    quantized, said = video(definition, int8)
    assert not any("is preferred, but" in message for message in said)
    assert 0 < np.abs(plain.astype(int) - quantized.astype(int)).mean() < 3
    (root / "ckpts" / wangp.UMT5_INT8_FILE).unlink()
    same, said = video(definition, int8)
    assert np.array_equal(same, plain)
    assert not explain(definition, int8).item("text_encoder").quantize  # too small to save memory


@pytest.mark.parametrize("definition", ["i2v"], indirect=True)
def test_a_broken_file_is_passed_over_and_to_be_fetched(definition, models, root):
    write_wangp(models, root / "ckpts")
    clip = root / "ckpts" / wangp.CLIP_FILE
    sizes = {item.subject: item.bytes for item in explain(definition, BF16_WISHED).items}
    assert (sizes["image_encoder"], sizes["image_processor"]) == (clip.stat().st_size, 0)  # one file, counted once
    clip.write_bytes(clip.read_bytes()[:-1])
    plan = explain(definition, BF16_WISHED)
    assert [item.subject for item in plan.missing] == ["image_encoder", "image_processor"]
    assert sum(f"{clip} is not used" in text and "truncated" in text for text in plan.notices) == 1
    with pytest.raises(Offline):
        video(definition)


@pytest.mark.parametrize("definition", ["t2v"], indirect=True)
def test_components_of_the_users_own_are_not_mixed_with_it(definition, models, root, define):
    write_wangp(models, root / "ckpts")
    files = [version.url for version in definition.slots["transformer"]]
    define("other", {"architecture": "t2v", "URLs": files, "components": "somebody/else"})
    missing = explain(load_catalog(root)["other"], BF16_WISHED).missing
    assert [item.subject for item in missing] == ["tokenizer", "text_encoder", "vae"]
