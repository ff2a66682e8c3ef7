"""Speed by preference: attention's kernel, compiled blocks, int8 arithmetic."""

import numpy as np
import pytest
import torch
from torch import nn

from reeltune import Engine, Notice, Preferences, load_catalog
from reeltune.engine.speed import dynamic_int8
from reeltune.weights.load import int8_tensor
from reeltune.weights.quanto import quantize_tensor

FAST = {"num_inference_steps": 2, "guidance_scale": 3.0, "seed": 3, "video_length": 5}


def make(root, **wishes):
    events = []
    preferences = Preferences(**{"quantization": "int8", **wishes})
    with Engine(load_catalog(root)["nano_t2v"], preferences=preferences, listener=events.append) as engine:
        frames = engine.generate(**FAST).frames
    return frames, " ".join(event.message for event in events if isinstance(event, Notice))


def test_dynamic_int8_is_the_product_of_rounded_rows():
    """y = (round(x / s_x) @ q.T) * s_x * s_w, s_x = absmax of a token's row / 127."""
    torch.manual_seed(0)
    linear = nn.Linear(64, 32, bias=False)
    weight = (torch.randn(32, 64) * 0.1).to(torch.bfloat16)
    data, scale = quantize_tensor(weight, torch.bfloat16)
    linear.weight = nn.Parameter(int8_tensor(data, scale, torch.bfloat16), requires_grad=False)
    x = torch.randn(20, 64).to(torch.bfloat16)
    assert dynamic_int8(nn.Sequential(linear)) == 1
    with torch.no_grad():
        found = linear(x).float().numpy()
    rows = x.float().numpy()
    token = np.abs(rows).max(1, keepdims=True) / 127
    wanted = np.rint(rows / token) @ data.numpy().T.astype(np.float32) * token * scale.float().numpy().reshape(1, -1)
    assert np.abs(found - wanted).max() < 0.02 * np.abs(wanted).max()  # bf16 scales
    assert dynamic_int8(nn.Sequential(linear)) == 0  # once is enough


def test_dynamic_int8_in_a_video(root):
    weights, _ = make(root)
    dynamic, _ = make(root, int8="dynamic")
    assert not np.array_equal(weights, dynamic)
    psnr = 10 * np.log10(255**2 / np.square(weights.astype(float) - dynamic).mean())
    assert psnr > 20
    for profile in ("stages", "streamed", "minimum"):
        assert np.array_equal(make(root, int8="dynamic", memory_profile=profile)[0], dynamic)


@pytest.mark.parametrize("wish", ["sage", "flash", "flash3", "xformers"])
def test_attention_that_is_not_there_is_said(root, wish):
    plain, told = make(root)
    assert "Attention" not in told
    frames, told = make(root, attention=wish)
    assert f"Attention by {wish} can't be had here" in told
    assert np.array_equal(frames, plain)


def test_attention_by_name(root):
    plain, _ = make(root)
    frames, told = make(root, attention="sdpa")
    assert "Attention" not in told
    assert np.array_equal(frames, plain)


def test_blocks_are_compiled_once(root, monkeypatch):
    from diffusers import WanTransformer3DModel

    compiled = []
    monkeypatch.setattr(WanTransformer3DModel, "compile_repeated_blocks", lambda self: compiled.append(self))
    _, told = make(root, compile=True)
    assert len(compiled) == 1
    assert "blocks are compiled" in told
