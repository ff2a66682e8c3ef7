"""The private and unstable parts of diffusers and torchao that the program uses are there, and do what it expects.

Where one of these fails with a new version, `weights/_libraries.py` is the only module to change.
"""

import re
import tomllib
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, WanTransformer3DModel
from torch import nn

import reeltune
from reeltune.weights import _libraries as libraries

SOURCE = Path(reeltune.__file__).parent
PRIVATE = re.compile(
    r"torchao|diffusers\.(hooks|loaders)|_diffusers_hook|cpu_param_dict|_execution_device|_keep_in_fp32|_state_cache"
    r"|act_quant_kwargs|\.qdata|group_offloading"
)
TINY = {
    "num_attention_heads": 2, "attention_head_dim": 24, "in_channels": 16, "out_channels": 16, "text_dim": 32,
    "freq_dim": 32, "ffn_dim": 64, "num_layers": 2, "cross_attn_norm": True, "rope_max_seq_len": 64,
}  # fmt: skip


def int8_weight():
    data = torch.arange(-16, 16, dtype=torch.int8).view(4, 8)
    return libraries.int8_tensor(data, torch.full((4, 1), 0.5), torch.bfloat16)


def wan():
    return WanTransformer3DModel(**TINY).eval().requires_grad_(False)


def inputs():
    return {
        "hidden_states": torch.ones(1, 16, 1, 4, 4),
        "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": torch.ones(1, 3, 32),
    }


def test_no_other_module_uses_them():
    for path in SOURCE.rglob("*.py"):
        code = "\n".join(line.split("#")[0] for line in path.read_text(encoding="utf-8").splitlines())
        statements = re.sub(r'"""(?:.|\n)*?"""', "", code)
        assert path.name == "_libraries.py" or not PRIVATE.search(statements), path


@pytest.mark.parametrize("library", ["diffusers", "torchao"])
def test_the_versions_are_bounded_by_the_one_that_was_checked(library):
    project = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    bound = next(row for row in project["project"]["dependencies"] if row.startswith(library))
    checked = re.search(rf"{library} (\d+)\.(\d+)\.\d+", libraries.__doc__)
    assert bound.endswith(f",<{checked[1]}.{int(checked[2]) + 1}")


def test_int8_weights_are_made_taken_apart_and_put_together():
    weight = int8_weight()
    assert libraries.is_int8(weight)
    assert libraries.is_int8(nn.Parameter(weight, requires_grad=False))
    assert not libraries.is_int8(torch.ones(1))
    data, scale = libraries.quantized_parts(weight)
    assert (data.dtype, scale.dtype, scale.shape) == (torch.int8, torch.bfloat16, (4, 1))
    other = libraries.with_quantized_parts(weight, data.clone(), scale.clone())
    assert torch.equal(libraries.dequantized(other), (data * 0.5).to(torch.bfloat16))
    libraries.set_quantized_parts(other, torch.zeros_like(data), scale)
    assert not libraries.dequantized(other).any()


def test_int8_weights_may_quantize_activations():
    weight = int8_weight()
    dynamic = libraries.quantizing_activations(weight)
    assert not libraries.quantizes_activations(weight)
    assert libraries.quantizes_activations(dynamic)
    assert libraries.quantizes_activations(libraries.with_quantized_parts(dynamic, *libraries.quantized_parts(dynamic)))


def test_models_say_what_they_keep_in_fp32():
    assert "time_embedder" in libraries.modules_in_fp32(WanTransformer3DModel)
    assert libraries.modules_in_fp32(nn.Linear(1, 1)) == ()
    assert libraries.modules_strictly_in_fp32(nn.Linear(1, 1)) == ()


@pytest.mark.parametrize("by_block", [True, False])
def test_weights_are_sent_in_groups_and_the_model_is_restored(by_block):
    model = wan()
    wanted = model(**inputs(), return_dict=False)[0]
    libraries.offload_in_groups(model, torch.device("cpu"), by_block=by_block, stream=False, pinned=False)
    hooked = [module for module in model.modules() if libraries._hooks(module)]
    assert hooked
    assert torch.equal(model(**inputs(), return_dict=False)[0], wanted)
    libraries.remove_offloading(model)
    assert not any(libraries._hooks(module) for module in hooked)
    assert torch.equal(model(**inputs(), return_dict=False)[0], wanted)


def test_the_step_cache_remembers_and_tells_what_it_skipped():
    model = wan()
    libraries.enable_step_cache(model, 1e9, {})
    skipped = []
    for _ in range(2):
        with model.cache_context("cond"):
            model(**inputs())
        skipped.append(libraries.step_was_skipped(model, "cond"))
    assert skipped == [False, True]
    states = libraries.step_cache_states(model)
    model.disable_cache()
    with pytest.raises(LookupError, match="First Block Cache"):
        libraries.step_cache_states(model)
    libraries.enable_step_cache(model, 1e9, states)
    assert libraries.step_cache_states(model).keys() == {"cond"}


def test_a_pipeline_computes_where_it_is_told_to():
    assert isinstance(DiffusionPipeline._execution_device, property)
    pipeline = type("Pinned", (libraries.ComputesOnItsDevice, DiffusionPipeline), {})()
    pipeline.computes_on = torch.device("meta")
    assert pipeline._execution_device == torch.device("meta")
