"""Weights sent in chunks arrive whole, whatever their sizes and data types."""

import pytest
import torch
from torch import nn

from reeltune.weights._libraries import int8_tensor
from reeltune.weights.upload import move, upload

HERE = torch.device("cpu")


def model():
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(33, 7), nn.Conv3d(3, 5, 2).to(torch.bfloat16), nn.BatchNorm1d(4))
    made[0].weight = nn.Parameter(made[0].weight.T.contiguous().T, requires_grad=False)  # not contiguous
    return made.requires_grad_(False)


@pytest.mark.parametrize("chunk", [7, 64, 1 << 20])
def test_chunks_arrive_whole(chunk):
    made = model()
    before = {name: row.clone() for name, row in made.state_dict().items()}
    places = [row.data_ptr() for row in made.parameters() if row.numel()]
    move(made, HERE, None, chunk, again=True)
    after = made.state_dict()
    assert all(torch.equal(after[name], row) for name, row in before.items())
    assert all(row.data_ptr() not in places for row in made.parameters() if row.numel())


def test_int8_weights_keep_what_they_are():
    linear = nn.Linear(8, 4)
    linear.weight = nn.Parameter(
        int8_tensor(torch.ones(4, 8, dtype=torch.int8), torch.ones(4, 1), torch.bfloat16), requires_grad=False
    )
    linear.requires_grad_(False)
    move(linear, HERE, None, again=True)
    assert torch.equal(linear.weight.dequantize(), torch.ones(4, 8, dtype=torch.bfloat16))


def test_other_devices_move_at_once():
    made = model()
    upload(made, HERE)
    assert made[0].weight.device == HERE
