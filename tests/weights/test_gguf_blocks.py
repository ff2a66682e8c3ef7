"""Every type of blocks: the reference package's numbers, bit for bit, compiled and in plain torch."""

import numpy as np
import pytest
import torch

from gguf_files import SCALE_PLACES, decoded, random_blocks
from reeltune.checkpoints.gguf_types import BLOCK_TYPES, DECODED, TYPES
from reeltune.errors import CheckpointError
from reeltune.weights.formats import gguf as decoder
from reeltune.weights.formats.gguf import BlockWeight, fill

COUNT = 10_000


@pytest.fixture(params=["numba", "torch"])
def _arithmetic(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(decoder, "_compiled", lambda: None)
    else:
        assert decoder._compiled() is not None


def filled(type_name, blocks):
    numbers = torch.empty(len(blocks), BLOCK_TYPES[type_name].values)
    fill(torch.from_numpy(blocks), type_name, numbers, "x")
    return numbers.numpy()


@pytest.mark.usefixtures("_arithmetic")
@pytest.mark.parametrize("type_name", DECODED)
def test_random_blocks_are_the_references_bit_for_bit(type_name):
    blocks = np.random.default_rng(1).integers(0, 256, (COUNT, BLOCK_TYPES[type_name].bytes), dtype=np.uint8)
    for place in SCALE_PLACES[type_name]:  # every scale that is a number: also 0, -0 and denormals
        blocks[:, place + 1][(blocks[:, place + 1] & 0x7C) == 0x7C] &= 0xBF
    assert np.array_equal(filled(type_name, blocks).view(np.uint32), decoded(type_name, blocks).view(np.uint32))


@pytest.mark.usefixtures("_arithmetic")
@pytest.mark.parametrize("type_name", DECODED)
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_scales_that_are_no_numbers_are_refused(type_name, bad):
    for place in SCALE_PLACES[type_name]:
        blocks = random_blocks(type_name, 50)
        assert np.isfinite(filled(type_name, blocks)).all()
        blocks[7, place : place + 2] = np.float16([bad]).view(np.uint8)
        with pytest.raises(CheckpointError, match="scales are NaN or infinite"):
            filled(type_name, blocks)


def test_the_table_of_types_is_the_references():
    import gguf

    wanted = {int(kind): (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    ours = {number: (block.name, block.values, block.bytes) for number, block in TYPES.items()}
    assert wanted.items() <= ours.items()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_weight_is_decoded_in_parts(dtype, monkeypatch):
    monkeypatch.setattr(decoder, "CHUNK", 1000)
    blocks = random_blocks("Q4_K", 40)
    whole = torch.from_numpy(decoded("Q4_K", blocks)).view(20, 512)
    weight = BlockWeight(torch.from_numpy(blocks).view(20, -1), "Q4_K", (20, 512), "x")
    assert torch.equal(weight.decoded(dtype), whole.to(dtype))
    assert torch.equal(weight.rows(3, 9).in_memory(dtype), whole[3:9].to(dtype))
    assert torch.equal(weight.swapped().decoded(dtype), torch.cat([whole[10:], whole[:10]]).to(dtype))
    assert len(list(weight.blocks())) == 20
