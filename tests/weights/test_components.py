import json

import pytest
import torch
import transformers
from diffusers import AutoencoderKLHunyuanVideo, AutoencoderKLWan
from safetensors.torch import load_file, save_file
from torchao.quantization import Int8Tensor

import wangp
from conftest import safetensors_bytes
from reeltune.engine.stages import load_component
from reeltune.errors import CheckpointError, HeaderError, TensorMismatch, UnsupportedFormat
from reeltune.families import ARCHITECTURES
from reeltune.weights.components import load_component_file

BF16, FP32 = torch.bfloat16, torch.float32
LINEARS = r"blocks\.\d+\.(attn|ffn)\..*"


def part(architecture, name):
    return next(row for row in ARCHITECTURES[architecture].parts if row.name == name)


def seeded(model_class, *args, dtype=BF16, **config):
    torch.manual_seed(0)
    model = model_class(*args, **config).eval().to(dtype)
    for row in model.parameters():
        row.data = torch.randn_like(row) * (0.3 if row.dim() > 1 else 0.1) + (row.dim() == 1)
    return model


def text_model(model_class=transformers.UMT5EncoderModel, config_class=transformers.UMT5Config):
    model = seeded(
        model_class,
        config_class(
            vocab_size=50, d_model=32, d_kv=8, d_ff=48, num_layers=3, num_heads=4, feed_forward_proj="gated-gelu"
        ),
    )
    model.tie_weights()
    return model


def embed(model):
    ids = torch.arange(14).reshape(2, 7)
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    with torch.inference_mode():
        return model(ids, mask).last_hidden_state


def test_umt5_bit_for_bit(tmp_path):
    theirs = text_model()
    path = wangp.write(tmp_path / "t5.safetensors", wangp.umt5(theirs.state_dict()))
    ours = load_component(part("t2v", "text_encoder"), path, BF16)
    assert type(ours) is transformers.UMT5EncoderModel
    assert ours.encoder.embed_tokens.weight is ours.shared.weight
    assert ours.shared.weight.untyped_storage().nbytes() == path.stat().st_size  # still on the mapped file
    assert all(row.dtype == BF16 and not row.requires_grad for row in ours.parameters())
    assert torch.equal(embed(ours), embed(theirs))


@pytest.mark.parametrize("dtype", [BF16, torch.float16])
def test_umt5_as_the_folder_loads_it(tmp_path, dtype):
    """What stays in fp32 for fp16 stays so."""
    theirs = text_model()
    theirs.save_pretrained(tmp_path / "text_encoder")
    path = wangp.write(tmp_path / "t5.safetensors", wangp.umt5(theirs.state_dict()))
    folder = load_component(part("t2v", "text_encoder"), tmp_path / "text_encoder", dtype)
    ours = load_component(part("t2v", "text_encoder"), path, dtype)
    assert {name: row.dtype for name, row in ours.named_parameters()} == {
        name: row.dtype for name, row in folder.named_parameters()
    }
    assert torch.equal(embed(ours), embed(folder))


def difference(left, right):
    return float((left.float() - right.float()).norm() / right.float().norm())


@pytest.mark.parametrize("layers", [LINEARS, LINEARS + r"|token_embedding\.weight"])
def test_umt5_in_int8(tmp_path, layers):
    torch.manual_seed(0)
    config = transformers.UMT5Config(vocab_size=50, d_model=64, d_kv=16, d_ff=96, num_layers=2, num_heads=4)
    theirs = transformers.UMT5EncoderModel(config).eval().to(BF16)  # weights as large as they are when training begins
    state, metadata = wangp.int8(wangp.umt5(theirs.state_dict()), layers)
    path = wangp.write(tmp_path / "t5.safetensors", state, metadata)
    exact, ours = (load_component_file(part("t2v", "text_encoder"), path, dtype) for dtype in (FP32, BF16))
    kinds = {name: isinstance(row.data, Int8Tensor) for name, row in ours.named_parameters()}
    assert sum(kinds.values()) == 2 * 7
    assert not any(kinds[name] for name in kinds if "norm" in name or "bias" in name or "shared" in name)
    plain = theirs.float()
    assert difference(embed(exact), embed(plain)) < 0.015  # what int8 itself costs, without bf16's rounding
    for name, row in plain.named_parameters():
        stored = exact.get_parameter(name)
        row.data = stored.dequantize() if kinds[name] else stored.clone()
    assert difference(embed(exact), embed(plain)) < 1e-5
    assert difference(embed(ours), embed(plain.to(BF16))) < 0.01


def test_t5_under_its_own_names_with_and_without_the_second_one(tmp_path):
    theirs = text_model(transformers.T5EncoderModel, transformers.T5Config)
    whole = theirs.state_dict()
    for left_out in ("shared.weight", "encoder.embed_tokens.weight", ""):
        state = {name: row for name, row in whole.items() if name != left_out}
        path = wangp.write(tmp_path / "x.safetensors", state | {"decoder.block.0.x": torch.zeros(1)})
        ours = load_component_file(part("ltxv_13B", "text_encoder"), path, BF16)
        assert torch.equal(embed(ours), embed(theirs))


def look(model):
    with torch.inference_mode():
        torch.manual_seed(1)
        answer = model(torch.randn(2, 3, 28, 28).to(model.dtype), output_hidden_states=True)
        return answer.hidden_states[-2], answer.pooler_output


@pytest.mark.parametrize("heads", [2, 4])
def test_clip_vision_bit_for_bit(tmp_path, heads):
    config = transformers.CLIPVisionConfig(
        hidden_size=160, num_hidden_layers=3, num_attention_heads=heads, image_size=28, intermediate_size=24,
        patch_size=14, hidden_act="gelu",
    )  # fmt: skip
    theirs = seeded(transformers.CLIPVisionModel, config)
    metadata = {"config": json.dumps({"num_attention_heads": 4})} if heads == 4 else None
    path = wangp.write(tmp_path / "clip.safetensors", wangp.open_clip(theirs.state_dict()), metadata)
    ours = load_component(part("i2v", "image_encoder"), path, BF16)
    assert all(torch.equal(*pair) for pair in zip(look(ours), look(theirs), strict=True))
    in_fp32 = load_component(part("i2v", "image_encoder"), path, FP32)
    assert all(torch.equal(*pair) for pair in zip(look(in_fp32), look(theirs.float()), strict=True))
    processor = load_component(part("i2v", "image_processor"), path, BF16)
    assert (processor.crop_size["height"], processor.size["shortest_edge"]) == (28, 28)
    at_224 = transformers.CLIPImageProcessor()
    assert (processor.image_mean, processor.image_std) == (at_224.image_mean, at_224.image_std)


@pytest.mark.parametrize("dtype", [BF16, FP32])
def test_wan_vae_bit_for_bit(tmp_path, dtype):
    theirs = seeded(AutoencoderKLWan, base_dim=4, dtype=dtype)
    path = wangp.write(tmp_path / "vae.safetensors", wangp.wan_vae(theirs.state_dict()))
    ours = load_component(part("t2v", "vae"), path, dtype)
    assert ours.config.latents_mean == theirs.config.latents_mean
    video = torch.rand(1, 3, 5, 16, 16).to(dtype) * 2 - 1
    with torch.inference_mode():
        left, right = (model.encode(video).latent_dist.mode() for model in (ours, theirs))
        assert torch.equal(left, right)
        assert left.isfinite().all()
        assert torch.equal(ours.decode(left).sample, theirs.decode(right).sample)


@pytest.mark.parametrize("prefix", ["", "vae."])
def test_hunyuan_vae_bit_for_bit(tmp_path, prefix):
    theirs = seeded(AutoencoderKLHunyuanVideo, block_out_channels=(32, 32, 64, 64), dtype=FP32)
    state = {prefix + name: row for name, row in theirs.state_dict().items()}
    ours = load_component(part("hunyuan", "vae"), wangp.write(tmp_path / "vae.safetensors", state), FP32)
    assert ours.config.scaling_factor == theirs.config.scaling_factor
    latents = torch.randn(1, 16, 2, 2, 2)
    with torch.inference_mode():
        assert torch.equal(ours.decode(latents).sample, theirs.decode(latents).sample)


def test_clip_text_from_the_folder_of_the_whole_model(tmp_path):
    text = transformers.CLIPTextConfig(
        bos_token_id=2, eos_token_id=1, pad_token_id=0, hidden_size=16, intermediate_size=16, num_attention_heads=2,
        num_hidden_layers=2, vocab_size=60, projection_dim=8,
    )  # fmt: skip
    vision = transformers.CLIPVisionConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=28, intermediate_size=16, patch_size=14
    )
    config = transformers.CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8)
    whole = seeded(transformers.CLIPModel, config)
    whole.save_pretrained(tmp_path)
    ours = load_component(part("hunyuan", "text_encoder_2"), tmp_path, BF16)
    ids = torch.tensor([[2, 5, 9, 1]])
    with torch.inference_mode():
        assert torch.equal(ours(ids).pooler_output, whole.text_model(ids).pooler_output)


# --- files that can't be the component ----------------------------------------------------------------------


def refused(tmp_path, state, error, match, component=("t2v", "text_encoder")):
    path = wangp.write(tmp_path / "x.safetensors", state)
    with pytest.raises(error, match=match) as caught:
        load_component(part(*component), path, BF16)
    assert str(path) in str(caught.value)
    assert "downloaded instead" in caught.value.hint


def test_wrong_names_and_shapes_are_named(tmp_path):
    state = wangp.umt5(text_model().state_dict())
    without = {name: row for name, row in state.items() if name != "blocks.1.ffn.fc2.weight"}
    refused(tmp_path, without, TensorMismatch, r"1 missing .*block\.1\.layer\.1\.DenseReluDense\.wo")
    refused(tmp_path, state | {"blocks.0.lora_A": torch.zeros(2)}, TensorMismatch, r"not the model's.*lora_A")
    refused(tmp_path, state | {"norm.weight": torch.zeros(5)}, TensorMismatch, "of another shape.*final_layer_norm")
    refused(tmp_path, state | {"blocks.999999.norm1.weight": torch.zeros(32)}, CheckpointError, "1000000 blocks")
    refused(tmp_path, {"a": torch.zeros(2)}, CheckpointError, "tensors are missing")
    bias = {"blocks.0.pos_embedding.embedding.weight": torch.zeros(32, 0)}
    refused(tmp_path, state | bias, CheckpointError, "determine the model's size")
    int8 = {name: row.to(torch.int8) for name, row in state.items()}
    refused(tmp_path, int8, UnsupportedFormat, "int8")


def test_wrong_vaes_and_image_encoders_are_named(tmp_path):
    vae = wangp.wan_vae(seeded(AutoencoderKLWan, base_dim=4, dtype=FP32).state_dict())
    of = ("t2v", "vae")
    refused(tmp_path, vae | {"decoder.upsamples.x.y": torch.zeros(1)}, TensorMismatch, "not the model's", of)
    twice = vae | {"quant_conv.bias": vae["conv1.bias"]}
    refused(tmp_path, twice, TensorMismatch, "not the model's", of)
    refused(tmp_path, {"encoder.conv1.weight": torch.zeros(2)}, CheckpointError, "tensors are missing", of)
    config = transformers.CLIPVisionConfig(
        hidden_size=80, num_hidden_layers=1, num_attention_heads=1, image_size=28, intermediate_size=8, patch_size=14
    )
    clip = wangp.open_clip(seeded(transformers.CLIPVisionModel, config).state_dict())
    of = ("i2v", "image_encoder")
    refused(tmp_path, clip | {"visual.cls_embedding": torch.zeros(1, 2, 80)}, TensorMismatch, "class_embedding", of)
    refused(
        tmp_path, clip | {"visual.pos_embedding": torch.zeros(())}, CheckpointError, "determine the model's size", of
    )


def test_a_file_that_is_no_checkpoint(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes({"norm.weight": ("BF16", [4])})[:-2])
    with pytest.raises(HeaderError, match="truncated"):
        load_component(part("t2v", "text_encoder"), path, BF16)


# --- folders: the libraries' own loaders would take these without noticing -----------------------------------


@pytest.mark.parametrize("damage", ["fp8", "scaled fp8", "pointer", "pointer to the tokenizer"])
def test_folders_that_would_load_as_noise_are_refused(tmp_path, damage):
    model = text_model()
    model.save_pretrained(tmp_path)
    weights, name = tmp_path / "model.safetensors", "text_encoder"
    state = load_file(weights)
    if "fp8" in damage:
        state = {key: row.to(torch.float8_e4m3fn) if row.ndim == 2 else row for key, row in state.items()}
    if damage == "scaled fp8":
        state |= {key.replace(".weight", ".scale_weight"): torch.ones(()) for key in state if key.endswith("wo.weight")}
    save_file(state, weights, {"format": "pt"})
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 123456789\n"
    if damage == "pointer":
        weights.write_bytes(pointer)
    if damage == "pointer to the tokenizer":
        name = "tokenizer"
        (tmp_path / "tokenizer.json").write_bytes(pointer)
    with pytest.raises(UnsupportedFormat, match="fp8" if "fp8" in damage else "Git LFS pointer.*123,456,789 bytes"):
        load_component(part("t2v", name), tmp_path, BF16)
