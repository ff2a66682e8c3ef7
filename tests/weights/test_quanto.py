import pytest
import torch

from reeltune.errors import CheckpointError
from reeltune.weights.formats import quanto_int8 as quanto
from reeltune.weights.formats.base import dequantize
from reeltune.weights.formats.quanto_int8 import off, quantize_tensor

DTYPES = (torch.bfloat16, torch.float16)


def reference(weight, dtype):
    """The format's definition, row by row, in plain Python."""
    data, scales = [], []
    for row in weight.float():
        scale = (row.abs().max() / 127).to(dtype)
        if scale == 0:
            data.append(torch.zeros_like(row, dtype=torch.int8))
            scales.append(torch.ones((), dtype=dtype))
            continue
        values = [max(-128, min(127, round((value / scale.float()).item()))) for value in row]
        data.append(torch.tensor(values, dtype=torch.int8))
        scales.append(scale)
    return torch.stack(data), torch.stack(scales)[:, None]


@pytest.fixture(params=["compiled", "torch"], autouse=True)
def _kernels(request, monkeypatch):
    """Everything twice: by numba's kernels, and in plain torch as where numba isn't."""
    if request.param == "torch":
        monkeypatch.setattr(quanto, "compiled", lambda: None)
    else:
        assert quanto.compiled() is not None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["normal", "heavy", "zeros", "denormal", "halves"])
@pytest.mark.parametrize("source", [torch.float32, torch.bfloat16, torch.float16])
def test_equals_the_definition_bit_for_bit(dtype, kind, source):
    torch.manual_seed(0)
    weight = torch.randn(12, 40)
    if kind == "heavy":
        weight = weight**7
    if kind == "zeros":
        weight[::3] = 0
    if kind == "denormal":
        weight[::2] *= 1e-41
    if kind == "halves":
        weight = torch.arange(480).reshape(12, 40).float() / 2
    weight = weight.to(source)
    if not torch.isfinite(weight).all() or not torch.isfinite((weight.float().abs().amax(1) / 127).to(dtype)).all():
        weight = weight.nan_to_num(0, 0, 0).clamp(-1e4, 1e4)
    data, scale = quantize_tensor(weight, dtype)
    wanted_data, wanted_scale = reference(weight, dtype)
    assert torch.equal(data, wanted_data)
    assert torch.equal(scale, wanted_scale)
    assert scale.dtype == dtype
    assert scale.shape == (12, 1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_refused_by_name(bad):
    weight = torch.zeros(3, 4)
    weight[1, 2] = bad
    with pytest.raises(CheckpointError, match=r"blocks\.0\.q holds NaN or infinity"):
        quantize_tensor(weight, torch.bfloat16, "blocks.0.q")


def test_what_does_not_fit_fp16_is_refused():
    with pytest.raises(CheckpointError, match="too large"):
        quantize_tensor(torch.full((1, 2), 1e8), torch.float16, "w")


def test_never_worse_than_optimum_quanto():
    from optimum.quanto import AbsmaxOptimizer, qint8, quantize_weight

    torch.manual_seed(0)
    for weight in (torch.randn(64, 96), torch.randn(64, 96) ** 5):
        weight = weight.to(torch.bfloat16)
        theirs_scale = AbsmaxOptimizer()(weight, qint8, axis=0)
        theirs = quantize_weight(weight, qint8, 0, scale=theirs_scale, activation_qtype=None)
        data, scale = quantize_tensor(weight, torch.bfloat16)
        assert (data.int() - theirs._data.int()).abs().max() <= 1
        ours_error = (dequantize(data, scale, torch.float32) - weight.float()).square().sum()
        theirs_error = (theirs._data.float() * theirs._scale.float() - weight.float()).square().sum()
        assert ours_error <= theirs_error


@pytest.mark.parametrize("source", [torch.float32, torch.bfloat16, torch.float16])
def test_every_16_bit_number_and_what_is_off(source):
    if source == torch.float32:
        values = torch.randn(64, 1024) * 10 ** torch.linspace(-6, 6, 64)[:, None]
    else:
        values = torch.arange(65536, dtype=torch.int32).to(torch.int16).view(source)
        values = values[torch.isfinite(values)].reshape(64, -1)
    for dtype in DTYPES:
        kept = values if dtype == torch.bfloat16 else values.clamp(-6e4, 6e4)
        data, scale = quantize_tensor(kept, dtype)
        wanted = (kept.float() / scale.float()).round().clamp(-128, 127)
        assert torch.equal(data.float(), wanted)
        assert not off(kept, data, scale)
        row = int(scale.float().argmax())
        column = int(data[row].abs().float().argmin())
        damaged = data.clone()
        damaged[row, column] += 1
        assert off(kept, damaged, scale)
