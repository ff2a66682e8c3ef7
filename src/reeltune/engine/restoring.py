"""Moves weights from a device back to where they were, without a copy if that is a mapped file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import nn

from reeltune.weights._libraries import int8_parts, is_int8, remove_offloading

_CPU = torch.device("cpu")
Restore = Callable[[], None]


def restorer(model: nn.Module, *, copies: bool = False) -> Restore:
    """A function that puts a model's weights back where they are now, after they were moved to a device.

    Weights in a mapped file are pointed at it again, so that nothing is copied. `copies`: all other weights are copied
    back, instead of being held in the machine's memory while they are on the device.
    """
    restores = [_restorer(module, name, tensor, copies) for module, name, tensor in _tensors(model)]

    def restore_all() -> None:
        for restore in restores:
            restore()

    return restore_all


def to_memory(model: nn.Module) -> None:
    """Move all weights to the machine's memory, and remove the hooks that send them to a device."""
    remove_offloading(model)
    model.to(_CPU)


def _tensors(model: nn.Module) -> Iterator[tuple[nn.Module, str, torch.Tensor]]:
    """The parameters and buffers of a model, each with its module and its name there."""
    for module in model.modules():
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            yield module, name, tensor


def _restorer(module: nn.Module, name: str, tensor: torch.Tensor, copies: bool) -> Restore:
    """A function that puts one parameter or buffer back."""
    if copies and not in_mapped_file(tensor):
        return partial(_copy_to_memory, module, name)
    if is_int8(tensor):
        return partial(setattr, module, name, tensor)
    return partial(_set_data, tensor, tensor.data)


def _copy_to_memory(module: nn.Module, name: str) -> None:
    tensor = getattr(module, name)
    if isinstance(tensor, nn.Parameter):
        setattr(module, name, nn.Parameter(tensor.data.to(_CPU), requires_grad=False))
    else:
        tensor.data = tensor.data.to(_CPU)


def _set_data(tensor: torch.Tensor, data: torch.Tensor) -> None:
    tensor.data = data


def in_mapped_file(tensor: torch.Tensor) -> bool:
    """Whether a tensor is a view of a mapped checkpoint: the mapping is one storage, larger than the tensor itself."""
    part = tensor.data
    if is_int8(part):
        part, _ = int8_parts(part)
    return part.device.type == "cpu" and part.untyped_storage().nbytes() > part.numel() * part.element_size()
