"""What is used of diffusers and torchao that they call private, or have changed between versions: all of it is here.

Checked against diffusers 0.42.1 and torchao 0.18.0; pyproject.toml allows no later minor version of either. To allow
one, run `tests/weights/test_libraries.py` and `tests/engine` with it, and write it down where a function says what it
relies on.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from diffusers.hooks import FirstBlockCacheConfig, apply_group_offloading
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from torch import nn
from torchao.quantization import Int8Tensor, PerRow
from torchao.quantization.quantize_.workflows.int8.int8_tensor import QuantizeTensorToInt8Kwargs

_CPU = torch.device("cpu")
_GROUP_OFFLOADING = "group_offloading"
_OFFLOADING_HOOKS = ("lazy_prefetch_group_offloading", "layer_execution_tracker", _GROUP_OFFLOADING)  # last set first
_STEP_CACHE_HOOK = "fbc_leader_block_hook"

Named = dict[str, Any]  # hooks and states of the libraries, by name


# --- torchao's int8 weights -----------------------------------------------------------------------------------


def int8_tensor(data: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """torchao's int8 weight from `data` [out, in] and `scale` [out, 1], which computes in `dtype`.

    The constructor `Int8Tensor(qdata, scale, block_size, dtype)`: torchao 0.18.
    """
    rows = scale.to(dtype).reshape(-1, 1)
    tensor: torch.Tensor = Int8Tensor(data, rows, [1, data.shape[1]], dtype)
    return tensor


def is_int8(tensor: object) -> bool:
    """Whether a tensor is one of torchao's int8 weights."""
    return isinstance(tensor, Int8Tensor)


def int8_parts(weight: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Data [out, in] and scales [out, 1] of an int8 weight. Its attributes `qdata` and `scale`: torchao 0.18."""
    return weight.qdata, weight.scale


def set_int8_parts(weight: Any, data: torch.Tensor, scale: torch.Tensor) -> None:
    """Give an int8 weight other data and scales of the same numbers. As `int8_parts`: torchao 0.18."""
    weight.qdata = data
    weight.scale = scale


def with_int8_parts(weight: Any, data: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Another int8 weight that computes as `weight` does. The constructor and its attributes: torchao 0.18."""
    tensor: torch.Tensor = Int8Tensor(
        data, scale, weight.block_size, weight.dtype, act_quant_kwargs=weight.act_quant_kwargs
    )
    return tensor


def dequantized(weight: Any) -> torch.Tensor:
    """An int8 weight in the data type it computes in. `Int8Tensor.dequantize`: torchao 0.18."""
    tensor: torch.Tensor = weight.dequantize()
    return tensor


def quantizes_activations(weight: Any) -> bool:
    """Whether an int8 weight is multiplied with activations in int8. `act_quant_kwargs`: torchao 0.18."""
    return weight.act_quant_kwargs is not None


def quantizing_activations(weight: Any) -> torch.Tensor:
    """An int8 weight that is multiplied with activations in int8, with a scale for each token.

    `QuantizeTensorToInt8Kwargs`, whose module is torchao's own: torchao 0.18.
    """
    arguments = QuantizeTensorToInt8Kwargs(PerRow())
    tensor: torch.Tensor = Int8Tensor(
        weight.qdata, weight.scale, weight.block_size, weight.dtype, act_quant_kwargs=arguments
    )
    return tensor


# --- diffusers: loading ---------------------------------------------------------------------------------------


def modules_in_fp32(model: Any) -> tuple[str, ...]:
    """Parts of names of the modules that a model, or a class of models, keeps in fp32.

    `_keep_in_fp32_modules`: diffusers 0.42, transformers 5.23.
    """
    return tuple(getattr(model, "_keep_in_fp32_modules", None) or ())


def modules_strictly_in_fp32(model: Any) -> tuple[str, ...]:
    """As `modules_in_fp32`, of those that are kept so whatever the others' data type is.

    `_keep_in_fp32_modules_strict`: transformers 5.23.
    """
    return tuple(getattr(model, "_keep_in_fp32_modules_strict", None) or ())


def wan_vae_names(names: Mapping[str, str]) -> dict[str, str]:
    """Names of Wan's VAE in diffusers' layout, each with the value of the original name.

    `convert_wan_vae_to_diffusers`, which takes the original names with their tensors: diffusers 0.42.
    """
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    renamed: dict[str, str] = convert_wan_vae_to_diffusers(dict(names))
    return renamed


# --- diffusers: sending weights to a device while they are needed ---------------------------------------------


def offload_in_groups(model: nn.Module, device: torch.device, *, by_block: bool, stream: bool, pinned: bool) -> None:
    """Keep a model's weights on the CPU, and have diffusers send them to a device as they are needed.

    `by_block`: blocks of layers, else single ones; `stream`: while others compute; `pinned`: from pinned memory.
    `apply_group_offloading` and its arguments: diffusers 0.42, which remembers an int8 weight that isn't pinned by
    itself, so that it would never be found again once it was sent. It is remembered by a copy here.
    """
    apply_group_offloading(
        model,
        onload_device=device,
        offload_device=_CPU,
        offload_type="block_level" if by_block else "leaf_level",
        num_blocks_per_group=1 if by_block else None,
        non_blocking=stream,
        use_stream=stream,
        record_stream=stream,
        low_cpu_mem_usage=not pinned,
    )
    for module in model.modules():
        hook = _hooks(module).get(_GROUP_OFFLOADING)
        if hook is not None:
            keep_apart(hook.group)


def keep_apart(group: Any) -> None:
    """Give int8 weights of a group a copy to come back to, which shares their memory.

    `cpu_param_dict`, weights and what each comes back to: diffusers 0.42.
    """
    for weight, kept in group.cpu_param_dict.items():
        if kept is weight:
            group.cpu_param_dict[weight] = with_int8_parts(weight, *int8_parts(weight))


def offloaded_copies(model: nn.Module) -> Mapping[torch.Tensor, torch.Tensor]:
    """The copies in the machine's memory that `offload_in_groups` sends to the device, by parameter.

    `cpu_param_dict`: diffusers 0.42.
    """
    copies: dict[torch.Tensor, torch.Tensor] = {}
    for module in model.modules():
        hook = _hooks(module).get(_GROUP_OFFLOADING)
        if hook is not None:
            copies.update(hook.group.cpu_param_dict)
    return copies


def remove_offloading(model: nn.Module) -> None:
    """Undo `offload_in_groups`; weights stay where they are. Names of its hooks: diffusers 0.42."""
    for module in model.modules():
        registry: Any = getattr(module, "_diffusers_hook", None)
        if not _hooks(module):
            continue
        for name in _OFFLOADING_HOOKS:
            registry.remove_hook(name, recurse=False)


def _hooks(module: nn.Module) -> Named:
    """The hooks on a module, by name. `_diffusers_hook` and its `hooks`: diffusers 0.42."""
    registry: Any = getattr(module, "_diffusers_hook", None)
    if registry is None:
        return {}
    hooks: Named = registry.hooks
    return hooks


# --- diffusers: passes ----------------------------------------------------------------------------------------


def enable_step_cache(model: Any, threshold: float, states: Named) -> None:
    """Have a model's passes go through diffusers' First Block Cache, which continues with copies of `states`.

    `enable_cache`, `FirstBlockCacheConfig`: diffusers 0.42.
    """
    _register_blocks()
    model.enable_cache(FirstBlockCacheConfig(threshold=threshold))
    _step_cache(model).update({name: copy.copy(state) for name, state in states.items()})


class _NamedArgument(TransformerBlockMetadata):  # type: ignore[misc]
    """Metadata of blocks that call their hidden states otherwise, which the First Block Cache of 0.42 overlooks."""

    def _get_parameter_from_args_kwargs(self, identifier: str, *arguments: Any) -> Any:
        own_name = self.hidden_states_argument_name if identifier == "hidden_states" else identifier
        return super()._get_parameter_from_args_kwargs(own_name, *arguments)


def _register_blocks() -> None:
    """Describe the blocks that diffusers' caches don't know: what they return, and what their argument is called.

    `TransformerBlockRegistry`: diffusers 0.42, which lacks the blocks of Hunyuan Video 1.5. These return the tokens of
    the video and those of the text.
    """
    from diffusers.models.transformers.transformer_hunyuan_video15 import HunyuanVideo15TransformerBlock
    from diffusers.models.transformers.transformer_kandinsky import Kandinsky5TransformerDecoderBlock

    register = TransformerBlockRegistry.register
    register(HunyuanVideo15TransformerBlock, TransformerBlockMetadata(0, 1))
    register(Kandinsky5TransformerDecoderBlock, _NamedArgument(0, hidden_states_argument_name="visual_embed"))


def step_cache_states(model: nn.Module) -> Named:
    """Copies of what a model's First Block Cache remembers, by the name of the pass."""
    return {name: copy.copy(state) for name, state in _step_cache(model).items()}


def step_was_skipped(model: nn.Module, branch: str) -> bool:
    """Whether the last pass of that name went no further than the first block. `should_compute`: diffusers 0.42."""
    return not _step_cache(model)[branch].should_compute


def _step_cache(model: nn.Module) -> Named:
    """States of the first block's hook by the name of the pass.

    The hook's name, `state_manager` and `_state_cache`: diffusers 0.42.
    """
    for module in model.modules():
        hook = _hooks(module).get(_STEP_CACHE_HOOK)
        if hook is not None:
            states: Named = hook.state_manager._state_cache
            return states
    raise LookupError("no module of the model has the hook of the First Block Cache")


class ComputesOnItsDevice:
    """To be mixed into a pipeline's class: it computes on the device in its attribute `computes_on`.

    The property `_execution_device` that it replaces: diffusers 0.42.
    """

    computes_on: torch.device

    @property
    def _execution_device(self) -> torch.device:
        return self.computes_on
