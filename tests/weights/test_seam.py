"""The seam of weight formats: a format that nobody knows is one class here, one there, and a line in each registry."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import reeltune
from reeltune.checkpoints import formats as known
from reeltune.checkpoints.formats.base import StoredWeight, WeightFormat
from reeltune.checkpoints.header import read_header
from reeltune.checkpoints.identify import identify
from reeltune.checkpoints.names import read_name
from reeltune.dtypes import Quantization
from reeltune.errors import CheckpointError
from reeltune.weights import formats as decoders
from reeltune.weights.formats.base import Decoder, FloatWeight
from reeltune.weights.load import load_transformer
from reeltune.weights.quantize import quantize

NANO = Path(reeltune.__file__).parent / "nano" / "nano_t2v_bf16.safetensors"
VALUES, FACTOR = ".negated", ".factor"


class NegatedFormat(WeightFormat):
    """Each weight `m.weight` is stored as `m.weight.negated`, to be multiplied with the number in `m.weight.factor`."""

    quantization = Quantization.W4A8  # the place of a format that can't be loaded yet
    label = "negated"
    converted_on_load = True

    def is_named_in(self, file_name):
        return "negated" in file_name

    def is_in_header(self, header):
        return any(name.endswith(VALUES) for name in header.tensors)

    def is_part(self, tensor_name):
        return tensor_name.endswith(FACTOR)

    def weight_name(self, tensor_name):
        return tensor_name.removesuffix(VALUES)

    def stored_weight(self, tensor_name, names):
        if tensor_name.endswith(VALUES):
            return StoredWeight(tensor_name, tensor_name.removesuffix(VALUES) + FACTOR)
        return StoredWeight(tensor_name)


class NegatedDecoder(Decoder):
    quantization = Quantization.W4A8

    def read(self, file, weight):
        if weight.scales is None:
            return super().read(file, weight)
        return FloatWeight(file[weight.values] * file[weight.scales])

    def is_plain(self, tensor):
        return not tensor.name.endswith(VALUES) and super().is_plain(tensor)

    def decode_rows(self, tensor, file_name, stored, scales, numbers):
        numbers.copy_(stored)
        if scales is not None:
            numbers.mul_(scales)


@pytest.fixture
def negated(tmp_path):
    """The nano model with its weights negated."""
    state = {}
    for name, tensor in load_file(NANO).items():
        if name.endswith(".weight"):
            state[name + VALUES] = -tensor
            state[name + FACTOR] = torch.tensor([-1.0])
        else:
            state[name] = tensor
    path = tmp_path / "nano_negated.safetensors"
    save_file(state, path, dict(read_header(NANO).metadata))
    return path


@pytest.fixture
def _registered(monkeypatch):
    others = tuple(known_format for known_format in known.FORMATS if known_format.quantization != Quantization.W4A8)
    monkeypatch.setattr(known, "FORMATS", (NegatedFormat(), *others))
    monkeypatch.setattr(decoders, "DECODERS", (NegatedDecoder(), *decoders.DECODERS))


@pytest.mark.usefixtures("_registered")
def test_a_new_format_loads_as_the_weights_it_holds(negated):
    assert read_name(negated.name).quantization is Quantization.W4A8
    found, plain = identify(read_header(negated)), identify(read_header(NANO))
    assert (found.quantization, found.architectures, found.config) == (
        Quantization.W4A8,
        plain.architectures,
        plain.config,
    )
    assert (found.parameters, found.memory_bytes) == (plain.parameters, plain.memory_bytes)
    ours, wanted = load_transformer(negated, "bf16").state_dict(), load_transformer(NANO, "bf16").state_dict()
    assert ours.keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in ours.items())


@pytest.mark.usefixtures("_registered")
@pytest.mark.parametrize("to", ["int8", "bf16"])
def test_a_new_format_can_be_quantized_and_converted(negated, tmp_path, to):
    ours = load_file(quantize(negated, tmp_path / "a.safetensors", to=to).path)
    wanted = load_file(quantize(NANO, tmp_path / "b.safetensors", to=to).path)
    assert ours.keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in ours.items())


def test_without_it_the_file_is_refused(negated):
    with pytest.raises(CheckpointError, match="tensors are missing"):
        load_transformer(negated, "bf16")
