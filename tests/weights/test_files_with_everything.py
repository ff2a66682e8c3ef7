"""Files that hold a transformer and the components of its pipeline, as LTX-2 is released."""

import json

import pytest
import tiny
import torch
from test_families import CASES, random_model

from layouts import original_layout
from reeltune import Notice
from reeltune.checkpoints.header import read_header
from reeltune.checkpoints.identify import identify
from reeltune.weights.quantize import quantize

VAE = {"vae.encoder.conv_in.conv.weight": torch.zeros(8, 4, 3, 3, 3, dtype=torch.bfloat16)}


@pytest.fixture
def files(tmp_path):
    """The transformer alone, and with a part of a VAE."""
    family, model_class, config, stored = CASES["ltx2"]
    state = original_layout(random_model(model_class, config).state_dict(), family)
    whole = {f"model.diffusion_model.{name}": row.to(torch.bfloat16) for name, row in state.items()}
    metadata = {"config": json.dumps(stored)}
    alone = tiny.write(tmp_path / "alone.safetensors", whole, metadata)
    return alone, tiny.write(tmp_path / "everything.safetensors", whole | VAE, metadata)


def test_components_are_no_part_of_the_transformer(files):
    alone, everything = (identify(read_header(path)) for path in files)
    size = 8 * 4 * 27
    assert everything.architectures == alone.architectures
    assert everything.parameters == alone.parameters
    assert (alone.others_bytes, everything.others_bytes) == (0, 2 * size)
    assert everything.memory_bytes - everything.others_bytes == alone.memory_bytes


def test_quantizing_tells_what_it_leaves_out(files, tmp_path):
    for path, told in zip(files, (False, True), strict=True):
        events = []
        made = quantize(path, output=tmp_path / f"{path.stem}_int8.safetensors", listener=events.append)
        notices = " ".join(event.message for event in events if isinstance(event, Notice))
        assert ("stay in everything.safetensors, which is still needed" in notices) == told
        assert not any(name.startswith("vae.") for name in read_header(made.path).tensors)
