"""Where weights go when memory gets short, as far as it can be seen without a card."""

import json
import struct

import pytest
import torch
from torch import nn
from torchao.quantization import Int8Tensor

from reeltune.engine import placing, stages
from reeltune.engine.placing import Placement, offload
from reeltune.engine.reporting import Reporter
from reeltune.engine.restoring import in_mapped_file, restorer
from reeltune.planning.memory import ChosenProfile, MemoryProfile
from reeltune.weights import _libraries
from reeltune.weights._libraries import int8_tensor
from reeltune.weights.tensors import TensorFile
from reeltune.weights.upload import move


@pytest.fixture
def mapped(tmp_path):
    """A model of two linear layers and a buffer: one weight lies in a mapped file, the others in memory of their own."""
    values = torch.arange(32, dtype=torch.float32)
    head = json.dumps({"w": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]},
                       "v": {"dtype": "F32", "shape": [4, 4], "data_offsets": [64, 128]}}).encode()  # fmt: skip
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(head)) + head + values.numpy().tobytes())
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4), nn.BatchNorm1d(4)).requires_grad_(False)
    model[0].weight = nn.Parameter(TensorFile(path)["w"], requires_grad=False)
    return model


def to_card(model, device):
    """What `upload` does on a card: every weight gets another memory."""
    move(model, device, None, again=True)


def test_weights_in_a_mapped_file_are_told_from_others(mapped):
    assert in_mapped_file(mapped[0].weight)
    assert not in_mapped_file(mapped[1].weight)
    data = torch.zeros(4, 4, dtype=torch.int8)
    assert not in_mapped_file(int8_tensor(data, torch.ones(4, 1), torch.bfloat16))
    whole = torch.zeros(100, dtype=torch.int8)
    assert in_mapped_file(int8_tensor(whole[:16].view(4, 4), torch.ones(4, 1), torch.bfloat16))


def test_stepping_down_from_resident_copies_nothing_that_is_in_a_file(mapped, monkeypatch):
    monkeypatch.setattr(placing, "upload", to_card)
    before = {name: tensor.clone() for name, tensor in mapped.state_dict().items()}
    address = mapped[0].weight.data_ptr()
    said = []
    placement = Placement(ChosenProfile(MemoryProfile.RESIDENT, ""), torch.device("cpu"), Reporter(said.append))
    placement.place(mapped)
    assert mapped[0].weight.data_ptr() != address
    placement._step_down("out of memory")
    assert mapped[0].weight.data_ptr() == address  # the mapped file again
    assert all(torch.equal(tensor, before[name]) for name, tensor in mapped.state_dict().items())
    assert [notice.message for notice in said] == [
        "Out of memory with memory profile resident: the same step again with stages."
    ]


def test_weights_without_a_file_are_held_once_while_they_are_on_the_card(mapped):
    first = mapped[1].weight.data_ptr()
    take_back = restorer(mapped, copies=True)
    to_card(mapped, torch.device("cpu"))
    on_card = mapped[1].weight.data_ptr()
    take_back()
    assert on_card != first
    assert mapped[1].weight.data_ptr() == on_card  # copied from the card; to the CPU there is nothing to copy here
    held = restorer(mapped)
    to_card(mapped, torch.device("cpu"))
    held()
    assert mapped[1].weight.data_ptr() == on_card


def test_int8_weights_come_back_too(mapped):
    whole = torch.arange(100, dtype=torch.int8)
    mapped[0].weight = nn.Parameter(
        int8_tensor(whole[:16].view(4, 4), torch.ones(4, 1), torch.bfloat16), requires_grad=False
    )
    address = mapped[0].weight.qdata.data_ptr()
    take_back = restorer(mapped, copies=True)
    to_card(mapped, torch.device("cpu"))
    assert mapped[0].weight.qdata.data_ptr() != address
    take_back()
    assert isinstance(mapped[0].weight, Int8Tensor)
    assert mapped[0].weight.qdata.data_ptr() == address


@pytest.mark.parametrize(("name", "streams"), [("streamed", True), ("minimum", False)])
def test_only_the_streamed_profile_uses_streams_for_which_memory_is_pinned(monkeypatch, name, streams):
    calls = []
    monkeypatch.setattr(_libraries, "apply_group_offloading", lambda model, **options: calls.append(options))
    offload(nn.Linear(2, 2), ChosenProfile(MemoryProfile(name), "", pinned=True), torch.device("cuda", 0))
    assert calls[0]["use_stream"] is streams
    assert calls[0]["non_blocking"] is streams


def test_a_card_has_its_number_as_its_tensors_do(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert stages.torch_device("cuda") == torch.device("cuda:0")
    assert stages.torch_device("cuda:1") == torch.device("cuda:1")
    assert stages.torch_device("cpu") == torch.device("cpu")


class Blocks(nn.Module):
    """Four blocks of 100 + 10 numbers in fp32."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(10, 10) for _ in range(4))

    def forward(self, values):
        for block in self.blocks:
            values = block(values)
        return values


@pytest.mark.parametrize("profile", [MemoryProfile.STREAMED, MemoryProfile.MINIMUM])
@pytest.mark.parametrize(("preload", "kept"), [(0, 0), (439, 0), (440, 1), (1000, 2), (10_000, 4)])
def test_the_first_blocks_stay_on_the_device(profile, preload, kept):
    model = Blocks().requires_grad_(False)
    values = torch.ones(2, 10)
    expected = model(values)
    placement = Placement(
        ChosenProfile(profile, "", preload=preload), torch.device("cpu"), Reporter(lambda event: None)
    )
    assert torch.equal(placement.run([model], lambda: model(values)), expected)
    groups = [_libraries._hooks(block)["group_offloading"].group for block in model.blocks]
    assert sum(group.offload_ is _libraries._do_nothing for group in groups) == kept
    placement.forget(model)
    assert torch.equal(model(values), expected)


def test_nothing_stays_on_the_device_once_memory_ran_out():
    chosen = ChosenProfile(MemoryProfile.STAGES, "", preload=5)
    assert chosen.smaller("x").preload == 5
    assert chosen.smaller("x").smaller("x").preload == 0
