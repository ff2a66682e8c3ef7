"""Speed by preference: attention's kernel, compiled blocks, int8 arithmetic."""

import shutil

import numpy as np
import pytest
import torch
from torch import nn
from torch._inductor import cpp_builder

from reeltune import Engine, Notice, Preferences, load_catalog
from reeltune.engine.speed import align, dynamic_int8
from reeltune.weights._libraries import int8_tensor
from reeltune.weights.formats.quanto_int8 import quantize_tensor

COMPILER = shutil.which("g++") or shutil.which("clang++")
FAST = {"num_inference_steps": 2, "guidance_scale": 3.0, "seed": 3, "video_length": 5}


def make(root, **wishes):
    events = []
    preferences = Preferences(**{"quantization": "int8", **wishes})
    with Engine(load_catalog(root)["nano_t2v"], preferences=preferences, listener=events.append) as engine:
        frames = engine.generate(**FAST).frames
    return frames, " ".join(event.message for event in events if isinstance(event, Notice))


def products_of_int8_are_wrong():
    """Whether torch's int8 product is told to do without VNNI while it is there: it then saturates half-way."""
    rows = torch.full((32, 64), 127, dtype=torch.int8)
    return int(torch._int_mm(rows, rows.T)[0, 0]) != 127 * 127 * 64


@pytest.mark.skipif(products_of_int8_are_wrong(), reason="ONEDNN_MAX_CPU_ISA breaks torch's own int8 product")
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
    assert f"Attention by {wish} isn't available here" in told
    assert np.array_equal(frames, plain)


def test_attention_by_name(root):
    plain, _ = make(root)
    frames, told = make(root, attention="sdpa")
    assert "Attention" not in told
    assert np.array_equal(frames, plain)


def test_without_a_compiler_blocks_run_as_they_are(root, monkeypatch):
    plain, _ = make(root)
    monkeypatch.setenv("PATH", str(root))
    monkeypatch.delenv("CXX", raising=False)
    cpp_builder.cpp_compiler_search.cache_clear()
    frames, told = make(root, compile=True)
    cpp_builder.cpp_compiler_search.cache_clear()
    assert "can't be compiled here (No working C++ compiler" in told
    assert np.array_equal(frames, plain)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # inside torch
@pytest.mark.skipif(COMPILER is None, reason="NO C++ COMPILER HERE: COMPILED BLOCKS ARE NOT TESTED")
def test_compiled_blocks_make_the_same_video_of_int8_weights_and_of_the_next_model(root):
    plain, compiled = [], []
    for found, wish in ((plain, False), (compiled, True)):
        preferences = Preferences(quantization="int8", compile=wish)
        catalog = load_catalog(root)
        with Engine(catalog["nano_t2v"], preferences=preferences) as engine:
            found.append(engine.generate(**FAST).frames)
            engine.switch(catalog["nano_neon"])
            found.append(engine.generate(**FAST).frames)
    for before, after in zip(plain, compiled, strict=True):
        assert 10 * np.log10(255**2 / np.square(before.astype(float) - after).mean()) > 40


def test_weights_that_lie_unaligned_are_copied():
    raw = torch.arange(4 * 64 + 65, dtype=torch.uint8)
    start = next(index for index in range(64) if (raw.data_ptr() + index) % 64 == 1)
    data = raw[start : start + 4 * 64].view(torch.int8).view(4, 64)
    model = nn.Linear(64, 4, bias=False)
    model.weight = nn.Parameter(int8_tensor(data, torch.ones(4, 1), torch.bfloat16), requires_grad=False)
    align(model)
    assert model.weight.qdata.data_ptr() % 64 == 0
    assert torch.equal(model.weight.qdata, data)
    before = model.weight.qdata.data_ptr()
    align(model)
    assert model.weight.qdata.data_ptr() == before  # once is enough


def test_a_compiler_that_fails_in_the_first_pass_ends_nothing(root, monkeypatch):
    """torch compiles when a block first runs: what fails then is reported, and the pass is made again without."""
    from torch._inductor.exc import InductorError

    plain, _ = make(root)

    def compile_repeated_blocks(model):
        def fails(*_, **__):
            raise InductorError(RuntimeError("Python.h: No such file"), None)

        model.blocks[0]._compiled_call_impl = fails

    monkeypatch.setattr("diffusers.WanTransformer3DModel.compile_repeated_blocks", compile_repeated_blocks)
    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", lambda: "c++")
    frames, said = make(root, compile=True)
    assert np.array_equal(frames, plain)
    assert "run without being compiled" in said
    assert "Python.h" in said
