"""What is used of diffusers and torchao that they call private, or have changed between versions: all of it is here.

Checked against diffusers 0.42.1 and torchao 0.18.0; pyproject.toml allows no later minor version of either. To allow
one, run `tests/weights/test_libraries.py` and `tests/engine` with it, and write it down where a function says what it
relies on.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping
from typing import Any

import diffusers
import torch
import transformers
from diffusers.hooks import FirstBlockCacheConfig, apply_group_offloading
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from torch import nn
from torch.nn import functional

from reeltune._quiet import quiet
from reeltune.weights.fp8 import decode, product

with quiet():  # torchao warns about kernels for other cards than this machine's, which commands would print
    from torchao.quantization import Float8Tensor, Int8Tensor, PerRow
    from torchao.quantization.quantize_.workflows.float8.float8_tensor import QuantizeTensorToFloat8Kwargs
    from torchao.quantization.quantize_.workflows.int8.int8_tensor import QuantizeTensorToInt8Kwargs

_CPU = torch.device("cpu")
_GROUP_OFFLOADING = "group_offloading"
_OFFLOADING_HOOKS = ("lazy_prefetch_group_offloading", "layer_execution_tracker", _GROUP_OFFLOADING)  # last set first
_STEP_CACHE_HOOK = "fbc_leader_block_hook"
_OF_PIPELINES = {
    "LTXLatentUpsamplerModel": "diffusers.pipelines.ltx.modeling_latent_upsampler",
    **dict.fromkeys(
        ("LTX2LatentUpsamplerModel", "LTX2TextConnectors", "LTX2Vocoder", "LTX2VocoderWithBWE"),
        "diffusers.pipelines.ltx2",
    ),
}

Named = dict[str, Any]  # hooks and states of the libraries, by name


# --- classes ---------------------------------------------------------------------------------------------------


def library_class(library: str, name: str) -> Any:
    """A class of transformers or diffusers by name; `library`: the name of one of them.

    Some are only in the modules of their pipelines (`_OF_PIPELINES`): diffusers 0.42.
    """
    if name in _OF_PIPELINES:
        return getattr(importlib.import_module(_OF_PIPELINES[name]), name)
    return getattr(transformers if library == "transformers" else diffusers, name)


# --- torchao's int8 and fp8 weights ---------------------------------------------------------------------------


def int8_tensor(data: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """torchao's int8 weight from `data` [out, in] and `scale` [out, 1], which computes in `dtype`.

    The constructor `Int8Tensor(qdata, scale, block_size, dtype)`: torchao 0.18.
    """
    rows = scale.to(dtype).reshape(-1, 1)
    tensor: torch.Tensor = Int8Tensor(data, rows, [1, data.shape[1]], dtype)
    return tensor


class Fp8Tensor(Float8Tensor):  # type: ignore[misc]
    """An fp8 weight: its linear layer multiplies with the decoded weight, or in fp8 (`multiplies_in_fp8`).

    torchao's own class adds the bias after rounding the product, and quantizes activations in fp32. Here the first
    is computed as for a plain weight, to the same bits, and the second with fewer passes over the activations.
    The constructor and `implements_torch_function`: torchao 0.18.
    """


@Fp8Tensor.implements_torch_function(functional.linear)  # type: ignore[untyped-decorator]
def _fp8_linear(func: Any, types: Any, args: tuple[Any, ...], kwargs: Named) -> torch.Tensor:
    """functional.linear(input, weight, bias) for an fp8 weight."""

    def computed(input: torch.Tensor, weight: Any, bias: torch.Tensor | None = None) -> torch.Tensor:
        if multiplies_in_fp8(weight):
            return product(input, weight.qdata, weight.scale, bias)
        return functional.linear(input, dequantized(weight), bias)

    return computed(*args, **kwargs)


@Fp8Tensor.implements(torch.ops.aten._pin_memory.default)  # type: ignore[untyped-decorator]
def _fp8_pinned(func: Any, types: Any, args: tuple[Any, ...], kwargs: Named) -> torch.Tensor:
    """A copy in pinned memory: torchao's own would be of its own class, and compute as that does."""
    data, scale = quantized_parts(args[0])
    return with_quantized_parts(args[0], data.pin_memory(), scale.pin_memory())


def fp8_tensor(data: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """An fp8 weight from `data` fp8 [out, in] and `scale` [out, 1], which is decoded to `dtype` where it is used."""
    rows = scale.to(torch.float32).reshape(-1, 1).contiguous()
    tensor: torch.Tensor = Fp8Tensor(data, rows, [1, data.shape[1]], dtype=dtype)
    return tensor


def is_int8(tensor: object) -> bool:
    """Whether a tensor is one of torchao's int8 weights."""
    return isinstance(tensor, Int8Tensor)


def is_fp8(tensor: object) -> bool:
    """Whether a tensor is an fp8 weight."""
    return isinstance(tensor, Fp8Tensor)


def is_quantized(tensor: object) -> bool:
    """Whether a tensor is an int8 or an fp8 weight."""
    return isinstance(tensor, (Int8Tensor, Fp8Tensor))


def quantized_parts(weight: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Data [out, in] and scales [out, 1] of a quantized weight. Its attributes `qdata` and `scale`: torchao 0.18."""
    return weight.qdata, weight.scale


def set_quantized_parts(weight: Any, data: torch.Tensor, scale: torch.Tensor) -> None:
    """Give a quantized weight other data and scales of the same numbers. As `quantized_parts`: torchao 0.18."""
    weight.qdata = data
    weight.scale = scale


def with_quantized_parts(weight: Any, data: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Another quantized weight that computes as `weight` does. The constructors and their attributes: torchao 0.18."""
    tensor: torch.Tensor
    if is_fp8(weight):
        tensor = Fp8Tensor(data, scale, weight.block_size, act_quant_kwargs=weight.act_quant_kwargs, dtype=weight.dtype)
    else:
        tensor = Int8Tensor(data, scale, weight.block_size, weight.dtype, act_quant_kwargs=weight.act_quant_kwargs)
    return tensor


def dequantized(weight: Any) -> torch.Tensor:
    """A quantized weight in the data type it computes in. `Int8Tensor.dequantize`: torchao 0.18."""
    if is_fp8(weight):
        return decode(weight.qdata, weight.scale, weight.dtype)
    tensor: torch.Tensor = weight.dequantize()
    return tensor


def quantizes_activations(weight: Any) -> bool:
    """Whether a quantized weight is multiplied with quantized activations. `act_quant_kwargs`: torchao 0.18."""
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


def multiplying_in_fp8(weight: Any) -> torch.Tensor:
    """An fp8 weight that is multiplied with activations in fp8, with a scale for each token.

    `QuantizeTensorToFloat8Kwargs`, whose module is torchao's own: torchao 0.18.
    """
    arguments = QuantizeTensorToFloat8Kwargs(granularity=PerRow())
    tensor: torch.Tensor = Fp8Tensor(
        weight.qdata, weight.scale, weight.block_size, act_quant_kwargs=arguments, dtype=weight.dtype
    )
    return tensor


def multiplies_in_fp8(weight: Any) -> bool:
    """Whether an fp8 weight is multiplied with activations in fp8."""
    return quantizes_activations(weight)


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


# --- diffusers: sending weights to a device while they are needed ---------------------------------------------


def offload_in_groups(model: nn.Module, device: torch.device, *, by_block: bool, stream: bool, pinned: bool) -> None:
    """Keep a model's weights on the CPU, and have diffusers send them to a device as they are needed.

    `by_block`: blocks of layers, else single ones; `stream`: while others compute; `pinned`: from pinned memory.
    `apply_group_offloading` and its arguments: diffusers 0.42, which remembers a quantized weight that isn't pinned by
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
    """Give quantized weights of a group a copy to come back to, which shares their memory.

    `cpu_param_dict`, weights and what each comes back to: diffusers 0.42.
    """
    for weight, kept in group.cpu_param_dict.items():
        if kept is weight:
            group.cpu_param_dict[weight] = with_quantized_parts(weight, *quantized_parts(weight))


def keep_on_device(model: nn.Module, most_bytes: int) -> int:
    """Send the first blocks of a model to the device for good, as many as fit into `most_bytes`; returns their bytes.

    Its weights must be offloaded in groups. The groups of these blocks are sent once and never taken back:
    `onload_`, `offload_` of a group, diffusers 0.42.
    """
    kept = 0
    for blocks in model.children():
        for block in blocks if isinstance(blocks, nn.ModuleList) else ():
            size = sum(_bytes_of(tensor) for tensor in (*block.parameters(), *block.buffers()))
            if kept + size > most_bytes:
                return kept
            kept += size
            for module in block.modules():
                hook = _hooks(module).get(_GROUP_OFFLOADING)
                if hook is not None:
                    hook.group.onload_()
                    hook.group.onload_ = hook.group.offload_ = _do_nothing
    return kept


def _do_nothing() -> None:
    pass


def _bytes_of(tensor: torch.Tensor) -> int:
    parts = quantized_parts(tensor) if is_quantized(tensor) else (tensor,)
    return sum(part.numel() * part.element_size() for part in parts)


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
        own_name = getattr(self, f"{identifier}_argument_name", identifier)
        return super()._get_parameter_from_args_kwargs(own_name, *arguments)


def _register_blocks() -> None:
    """Describe the blocks that diffusers' caches don't know: what they return, and what their argument is called.

    `TransformerBlockRegistry`: diffusers 0.42, which lacks the blocks of Hunyuan Video 1.5 and LTX-2. These return the
    tokens of the video, and those of the text or the sound.
    """
    from diffusers.models.transformers.transformer_hunyuan_video15 import HunyuanVideo15TransformerBlock
    from diffusers.models.transformers.transformer_kandinsky import Kandinsky5TransformerDecoderBlock
    from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformerBlock

    register = TransformerBlockRegistry.register
    register(HunyuanVideo15TransformerBlock, TransformerBlockMetadata(0, 1))
    register(LTX2VideoTransformerBlock, _NamedArgument(0, 1, encoder_hidden_states_argument_name="audio_hidden_states"))
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
