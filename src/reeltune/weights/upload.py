"""Weights from a mapped file onto a card: copied in large chunks through pinned memory, while the next are read.

Two staging buffers take turns: a thread fills one from the mapping (which is what reads the disk) while the card's copy
engine empties the other, so reading and sending overlap. Other devices get their weights by `Module.to`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

from reeltune.weights._libraries import is_quantized, quantized_parts, with_quantized_parts

CHUNK = 64 * 1024 * 1024  # bytes
_BUFFERS = 2


def upload(model: nn.Module, device: torch.device) -> None:
    """Move a model's weights and buffers to `device`."""
    if device.type == "cuda":
        move(model, device, torch.cuda.Stream(device))  # type: ignore[no-untyped-call]
    model.to(device)  # what is no plain tensor, and everything on other devices


def move(
    model: nn.Module, device: torch.device, stream: torch.cuda.Stream | None, chunk: int = CHUNK, *, again: bool = False
) -> None:
    """Give every parameter and buffer a copy on `device`; int8 weights by the tensors they consist of.

    Without a stream the same path runs unpinned: what the tests see. `again`: also what is there already.
    """
    targets: list[tuple[torch.Tensor, torch.Tensor]] = []  # destination and source, both of bytes

    def copied(tensor: torch.Tensor) -> torch.Tensor:
        copy = torch.empty_like(tensor, device=device, memory_format=torch.contiguous_format)
        targets.append((_bytes(copy), _bytes(tensor.contiguous())))
        return copy

    owners = [
        (module, name, tensor) for module in model.modules() for name, tensor in module.named_parameters(recurse=False)
    ]
    parameters = [tensor for _, _, tensor in owners]
    replaced: dict[torch.Tensor, torch.Tensor] = {}
    for tensor in (*parameters, *model.buffers()):
        if tensor in replaced or not tensor.numel() or (tensor.device == device and not again):
            continue
        data = tensor.data
        replaced[tensor] = _quantized(data, copied) if is_quantized(data) else copied(data)
    _send(targets, stream, chunk)
    for module, name, tensor in owners:
        if tensor in replaced and is_quantized(tensor):
            setattr(module, name, nn.Parameter(replaced[tensor], requires_grad=False))
        elif tensor in replaced:
            tensor.data = replaced[tensor]
    for buffer in model.buffers():
        if buffer in replaced:
            buffer.data = replaced[buffer]


def _quantized(weight: torch.Tensor, copied: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    data, scale = quantized_parts(weight)
    return with_quantized_parts(weight, copied(data), copied(scale))


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1).view(torch.uint8)


def _pieces(
    targets: list[tuple[torch.Tensor, torch.Tensor]], chunk: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for destination, source in targets:
        for begin in range(0, len(source), chunk):
            yield destination[begin : begin + chunk], source[begin : begin + chunk]


def _send(targets: list[tuple[torch.Tensor, torch.Tensor]], stream: torch.cuda.Stream | None, chunk: int) -> None:
    """Copy all sources to their destinations, one chunk being read while the one before is sent."""
    pinned = stream is not None
    buffers = [torch.empty(chunk, dtype=torch.uint8, pin_memory=pinned) for _ in range(_BUFFERS)]
    free: list[torch.cuda.Event | None] = [None] * _BUFFERS

    def read(index: int, source: torch.Tensor) -> torch.Tensor:
        event = free[index]
        if event is not None:
            event.synchronize()  # the card has taken what the buffer held
        return buffers[index][: len(source)].copy_(source)

    pieces = list(_pieces(targets, chunk))
    if stream is not None:  # memory that work still under way has just freed is among the destinations
        stream.wait_stream(torch.cuda.current_stream(stream.device))
    with ThreadPoolExecutor(1) as reader, torch.cuda.stream(stream):
        coming = [reader.submit(read, index, source) for index, (_, source) in enumerate(pieces[:_BUFFERS])]
        for number, (destination, _) in enumerate(pieces):
            index = number % _BUFFERS
            destination.copy_(coming[index].result(), non_blocking=True)
            free[index] = stream.record_event() if stream is not None else None
            if number + _BUFFERS < len(pieces):
                coming[index] = reader.submit(read, index, pieces[number + _BUFFERS][1])
    if stream is not None:
        stream.synchronize()
