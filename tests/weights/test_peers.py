"""The int8 format between programs: mmgp and optimum-quanto read our files, and we read theirs."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file

from reeltune.checkpoints.formats.quanto_int8 import DATA
from reeltune.checkpoints.header import read_header
from reeltune.weights.load import load_transformer
from reeltune.weights.quantize import quantize

BF16 = torch.bfloat16
CONFIG = tiny.CONFIG | {"attention_head_dim": 32, "ffn_dim": 128}  # quanto's kernel reads past rows of other lengths


def random():
    """A small Wan in bf16, in diffusers' names, as its peers keep it."""
    torch.manual_seed(0)
    found = empty()
    found.load_state_dict({name: torch.randn_like(row) * 0.1 for name, row in found.state_dict().items()})
    return found


@pytest.fixture
def model():
    return random()


@pytest.fixture
def ours(tmp_path, model):
    """Our int8 file of it, and what our model makes of it."""
    path = tmp_path / "x_bf16.safetensors"
    save_file(model.state_dict(), path, {"config": json.dumps(CONFIG)})
    made = quantize(path).path
    return made, tiny.forward(load_transformer(made, "bf16"))


def close(mine, theirs):
    """Equal but for the order in which products are summed."""
    error = ((mine.float() - theirs.float()).norm() / mine.float().norm()).item()
    return error == pytest.approx(0, abs=0.012)


def empty():
    """The class in bf16, its tables of positions as they were made: bf16 would round them."""
    found = WanTransformer3DModel(**CONFIG).eval().requires_grad_(False)
    for row in found.parameters():
        row.data = row.data.to(BF16)
    return found


def in_mmgp(body, *paths):
    """Run a body in a process of its own: importing mmgp replaces parts of safetensors. Returns what it makes."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nimport test_peers, tiny, torch\n{MMGP}{body}"
    )
    subprocess.run([sys.executable, "-c", code, *map(str, paths)], check=True, capture_output=True)
    return torch.load(paths[-1], weights_only=True)


MMGP = """
from mmgp import offload
*files, answer = sys.argv[1:]
"""
READ = """
model = test_peers.empty()
offload.load_model_data(model, files[0])
linear = model.blocks[0].attn1.to_q
assert type(linear).__name__.startswith("QLinear"), type(linear)
torch.save({"data": linear.weight._data, "video": tiny.forward(model)}, answer)
"""
WRITE = """
model = test_peers.random()
offload.save_model(model, files[0], do_quantize=True, config_file_path=files[1])
torch.save({"video": tiny.forward(model)}, answer)
"""


def test_mmgp_reads_ours(tmp_path, ours):
    path, wanted = ours
    theirs = in_mmgp(READ, path, tmp_path / "answer.pt")
    assert torch.equal(theirs["data"], load_file(path)["blocks.0.attn1.to_q" + DATA])
    assert close(wanted, theirs["video"])


def test_optimum_quanto_reads_ours(ours):
    from optimum.quanto import requantize

    path, wanted = ours
    table = json.loads(base64.b64decode(read_header(path).metadata["quantization_map_base64"]))
    theirs = empty()
    requantize(theirs, load_file(path), table, device=torch.device("cpu"))
    assert close(wanted, tiny.forward(theirs.eval()))


def test_we_read_mmgps(tmp_path, model):
    """It quantizes every linear it finds: embeddings, projections and the head too."""
    path, config = tmp_path / "theirs_quanto_bf16_int8.safetensors", tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG))
    theirs = in_mmgp(WRITE, path, config, tmp_path / "answer.pt")["video"]
    stored = [name for name in read_header(path).tensors if name.endswith(DATA)]
    assert any(not name.startswith("blocks") for name in stored)
    plain, mine = tiny.forward(model), tiny.forward(load_transformer(path, "bf16"))
    assert close(mine, theirs)
    assert (mine - plain).norm() / plain.norm() < 0.05


def test_we_read_optimum_quantos(tmp_path, model):
    from optimum.quanto import freeze, qint8, quantization_map
    from optimum.quanto import quantize as their_quantize

    their_quantize(model, weights=qint8)
    freeze(model)
    state = {name: row.contiguous() for name, row in model.state_dict().items()}
    path = tmp_path / "theirs.safetensors"
    save_file(state, path, {"config": json.dumps(CONFIG)})
    (tmp_path / "theirs_map.json").write_text(json.dumps(quantization_map(model)))
    assert close(tiny.forward(load_transformer(path, "bf16")), tiny.forward(model))
