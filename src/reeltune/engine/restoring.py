"""Moves weights from a device back to where they were, without a copy if that is a mapped file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import nn

from reeltune.weights._libraries import is_quantized, quantized_parts, remove_offloading

_CPU = torch.device("cpu")
Restore = Callable[[], None]


def restorer(model: nn.Module, *, copies: bool = False) -> Restore:
    """A function that puts a model's weights back where they are now, after they were moved to a device.

    Weights in a mapped file are pointed at it again, so that nothing is copied. `copies`: all other weights are copied
    back, instead of being held in the machine's memory while they are on the device. Meanwhile, layers may be replaced
    by others with the same weights, such as layers with LoRAs; what these add is copied to the machine's memory.
    """
    restores = [_restorer(model, path, name, tensor, copies) for path, name, tensor in _tensors(model)]

    def restore_all() -> None:
        for restore in restores:
            restore()
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.device != _CPU:  # of layers that were added meanwhile
                tensor.data = tensor.data.to(_CPU)

    return restore_all


def to_memory(model: nn.Module) -> None:
    """Move all weights to the machine's memory, and remove the hooks that send them to a device."""
    remove_offloading(model)
    model.to(_CPU)


def _tensors(model: nn.Module) -> Iterator[tuple[str, str, torch.Tensor]]:
    """The parameters and buffers of a model, each with the name of its module and its name there."""
    for path, module in model.named_modules():
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            yield path, name, tensor


def _restorer(model: nn.Module, path: str, name: str, tensor: torch.Tensor, copies: bool) -> Restore:
    """A function that puts one parameter or buffer back."""
    if copies and not in_mapped_file(tensor):
        return partial(_copy_to_memory, model, path, name)
    if is_quantized(tensor):
        return partial(_set_tensor, model, path, name, tensor)
    return partial(_set_data, tensor, tensor.data)


def _set_tensor(model: nn.Module, path: str, name: str, tensor: torch.Tensor) -> None:
    setattr(model.get_submodule(path), name, tensor)


def _copy_to_memory(model: nn.Module, path: str, name: str) -> None:
    """Copy a parameter or buffer, unless it was removed meanwhile."""
    try:
        module = model.get_submodule(path)
        tensor = getattr(module, name)
    except AttributeError:  # of LoRAs that were removed
        return
    if isinstance(tensor, nn.Parameter):
        setattr(module, name, nn.Parameter(tensor.data.to(_CPU), requires_grad=False))
    else:
        tensor.data = tensor.data.to(_CPU)


def _set_data(tensor: torch.Tensor, data: torch.Tensor) -> None:
    tensor.data = data


def in_mapped_file(tensor: torch.Tensor) -> bool:
    """Whether a tensor is a view of a mapped checkpoint: the mapping is one storage, larger than the tensor itself."""
    part = tensor.data
    if is_quantized(part):
        part, _ = quantized_parts(part)
    return part.device.type == "cpu" and part.untyped_storage().nbytes() > part.numel() * part.element_size()
