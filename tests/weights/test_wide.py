"""Products in fp32: the numbers of 16-bit products up to rounding, for everything a model multiplies."""

import pytest
import torch
from torch.nn import functional
from torchao.quantization import Int8Tensor

from reeltune.machine import Machine, probe
from reeltune.weights.wide import products_in_fp32

TYPES = [torch.bfloat16, torch.float16]


def random(*shape, dtype):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape))).to(dtype)


def close(actual, expected):
    assert actual.dtype == expected.dtype
    error = (actual.float() - expected.float()).norm() / expected.float().norm()
    assert error < 1e-2


@pytest.mark.parametrize("dtype", TYPES)
def test_products_agree_with_those_in_16_bits(dtype):
    x, weight, bias = random(3, 40, 64, dtype=dtype), random(32, 64, dtype=dtype), random(32, dtype=dtype)
    heads = random(1, 4, 40, 16, dtype=dtype)
    mask = torch.zeros(40, 40, dtype=dtype)
    products = [
        lambda: functional.linear(x, weight, bias),
        lambda: functional.linear(x, weight),
        lambda: functional.scaled_dot_product_attention(heads, heads, heads),
        lambda: functional.scaled_dot_product_attention(query=heads, key=heads, value=heads, attn_mask=mask),
        lambda: x @ weight.T,
        lambda: torch.matmul(x, weight.T),
        lambda: x.matmul(weight.T),
        lambda: torch.bmm(x, x.transpose(1, 2)),
    ]
    for product in products:
        expected = product()
        with products_in_fp32(True):
            close(product(), expected)


def test_int8_weights_stay_as_they_are():
    data = torch.randint(-127, 128, (32, 64), dtype=torch.int8)
    scale = torch.rand(32, 1).to(torch.bfloat16) / 100
    weight = Int8Tensor(data, scale, [1, 64], torch.bfloat16)
    x, bias = random(5, 64, dtype=torch.bfloat16), random(32, dtype=torch.bfloat16)
    with products_in_fp32(True):
        wide = functional.linear(x, weight, bias)
    close(wide, functional.linear(x, weight, bias))
    exact = x.double() @ (data.double() * scale.double()).T + bias.double()
    assert (wide.double() - exact).abs().max() <= exact.abs().max() * 2**-8  # rounded once, at the end


def test_the_error_is_never_larger_than_that_of_16_bits():
    x, weight = random(64, 512, dtype=torch.bfloat16), random(128, 512, dtype=torch.bfloat16)
    exact = x.double() @ weight.double().T
    with products_in_fp32(True):
        wide = (functional.linear(x, weight).double() - exact).norm()
    assert wide <= (functional.linear(x, weight).double() - exact).norm() * 1.01


def test_fp32_and_switched_off_are_left_alone():
    x = random(4, 8, dtype=torch.float32)
    with products_in_fp32(True):
        assert torch.equal(functional.linear(x, x), x @ x.T)
    half = x.to(torch.bfloat16)
    with products_in_fp32(False):
        assert torch.equal(functional.linear(half, half), torch.nn.functional.linear(half, half))


def test_the_machine_says_where_it_is_needed(monkeypatch):
    slow = Machine(1, 1, cpu_types=frozenset())
    assert slow.products_in_fp32("auto", "bf16")
    assert not slow.products_in_fp32("cuda", "bf16")
    assert not Machine(1, 1).products_in_fp32("cpu", "bf16")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert probe().cpu_types in (frozenset(), frozenset({"bf16", "fp16"}))  # x86 or another processor


def test_the_rule_agrees_with_torch():
    supported = {
        "bf16": torch.ops.mkldnn._is_mkldnn_bf16_supported(),
        "fp16": torch.ops.mkldnn._is_mkldnn_fp16_supported(),
    }
    if torch.backends.mkldnn.is_available():
        assert {dtype: dtype in probe().cpu_types for dtype in supported} == supported
