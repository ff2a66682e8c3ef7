"""Products in fp32 on processors that multiply bf16 and fp16 slowly.

Processors without instructions for a 16-bit type (most laptops: AVX2) take three to five times as long for a product
in it as for the same product in fp32. There, linear layers and attention compute in fp32 and round their result to the
run's data type, one layer at a time; weights stay stored as they are. The numbers are those of 16-bit products, which
sum in fp32 too, up to the order of the sums.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from reeltune.weights._libraries import dequantized, is_fp8, is_int8, quantized_parts, quantizes_activations

_NARROW = (torch.bfloat16, torch.float16)


def products_in_fp32(wanted: bool) -> AbstractContextManager[object]:
    """A context in which linear layers and attention of 16-bit tensors on the CPU compute in fp32, if `wanted`."""
    return _WideProducts() if wanted else nullcontext()


class _WideProducts(TorchFunctionMode):
    """Takes the calls of torch's functions that multiply, and passes all others on."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Compute `func`, in fp32 where it is one of those that multiply and its first argument is a 16-bit tensor."""
        options = dict(kwargs or {})
        compute = _PRODUCTS.get(func)
        if compute is None or not _is_narrow(_first(args, options)):
            return func(*args, **options)
        return compute(*args, **options)


def _first(args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    return args[0] if args else next(iter(options.values()), None)


def _is_narrow(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype in _NARROW and value.device.type == "cpu"


def _linear(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x W^T + b for x [..., in], W [out, in] in 16 bits, int8 or fp8, b [out]; the result has x's data type."""
    if is_int8(weight):
        if quantizes_activations(weight):  # its own kernel is fast
            return functional.linear(input, weight, bias)
        data, scale = quantized_parts(weight)
        product = functional.linear(input.float(), data.float())
        product *= scale.float().reshape(-1)
    else:
        plain = dequantized(weight) if is_fp8(weight) else weight
        product = functional.linear(input.float(), plain.float())
    if bias is not None:
        product += bias.float()
    return product.to(input.dtype)


def _wide(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """`function` with its 16-bit tensors in fp32, and its result in the first one's data type."""

    def compute(*args: Any, **options: Any) -> torch.Tensor:
        wide_args = [_widened(value) for value in args]
        wide_options = {name: _widened(value) for name, value in options.items()}
        return function(*wide_args, **wide_options).to(_first(args, options).dtype)

    return compute


def _widened(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and value.dtype in _NARROW else value


_PRODUCTS: Mapping[Callable[..., Any], Callable[..., torch.Tensor]] = {
    functional.linear: _linear,
    functional.scaled_dot_product_attention: _wide(functional.scaled_dot_product_attention),
    torch.matmul: _wide(torch.matmul),
    torch.Tensor.matmul: _wide(torch.matmul),
    torch.Tensor.__matmul__: _wide(torch.matmul),
    torch.bmm: _wide(torch.bmm),
    torch.baddbmm: _wide(torch.baddbmm),
}
