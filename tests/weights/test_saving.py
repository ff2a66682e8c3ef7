"""`--save-quantized`: what is written, what is listed, and when nothing is, why."""

import json
import shutil
from importlib import resources
from pathlib import Path

import pytest
import tiny
import torch

from conftest import safetensors_bytes
from reeltune import Preferences, load_catalog
from reeltune.cli import main
from reeltune.errors import CheckpointError
from reeltune.events import Notice
from reeltune.weights.saving import save_quantized


@pytest.fixture
def here(root, define):
    """A function that saves what a definition's files come to, and returns paths, notices and the definition."""

    def save(id, **wishes):
        said = []
        paths = save_quantized(load_catalog(root)[id], Preferences(**wishes), listener=said.append)
        return paths, [row.message for row in said if isinstance(row, Notice)], load_catalog(root)[id]

    return save


def file(root, name, dtype=torch.bfloat16, seed=0):
    weights = {key: row.to(dtype) for key, row in tiny.original_weights(seed).items()}
    (root / "ckpts").mkdir(exist_ok=True)
    return tiny.write(root / "ckpts" / name, weights)


def urls(definition, slot="transformer"):
    return [version.url for version in definition.slots[slot]]


def test_both_data_types_one_after_the_other(here, root, define):
    """The own file is edited without touching anything else in it; the next run takes the new file."""
    file(root, "mine_bf16.safetensors")
    path = define("mine", model={"name": "Mine", "architecture": "t2v_1.3B", "URLs": ["ckpts/mine_bf16.safetensors"]})
    text = path.read_text()
    paths, said, definition = here("mine")
    assert paths == [root / "ckpts" / "mine_quanto_bf16_int8.safetensors"]
    assert "was written and verified" in said[0]
    assert urls(definition) == ["ckpts/mine_bf16.safetensors", "ckpts/mine_quanto_bf16_int8.safetensors"]
    paths, _, definition = here("mine", dtype="fp16")
    assert urls(definition)[2:] == ["ckpts/mine_quanto_fp16_int8.safetensors"]
    changed = json.loads(path.read_text())
    changed["model"]["URLs"] = changed["model"]["URLs"][:1]
    assert changed == json.loads(text)
    before = path.read_bytes()
    paths, said, _ = here("mine")
    assert (paths, said) == ([], ["No quantized file is written: mine lists an int8 version in bf16 already: "
                                  "mine_quanto_bf16_int8.safetensors."])  # fmt: skip
    assert path.read_bytes() == before


def test_a_built_in_or_referenced_list_is_overridden_not_edited(here, root, define):
    file(root, "mine_bf16.safetensors")
    model = {"name": "Mine", "architecture": "t2v_1.3B", "URLs": ["ckpts/mine_bf16.safetensors"]}
    first = define("mine", model=model)
    second = define("other", model={**model, "name": "Other", "URLs": "mine"})
    before = first.read_bytes()
    _, _, definition = here("other")
    assert first.read_bytes() == before
    assert json.loads(second.read_text())["model"]["URLs"] == urls(definition)
    assert urls(definition) == ["ckpts/mine_bf16.safetensors", "ckpts/mine_quanto_bf16_int8.safetensors"]


def test_the_list_of_a_variant_is_edited(root, define):
    file(root, "mine_bf16.safetensors")
    file(root, "small_bf16.safetensors", seed=1)
    configs = {"small": {"URLs": ["ckpts/small_bf16.safetensors"]}, "slow": {"fps": 8}}
    model = {"architecture": "t2v_1.3B", "URLs": ["ckpts/mine_bf16.safetensors"], "configs": configs}
    path = define("mine", model)
    (made,) = save_quantized(load_catalog(root)["mine"].variant("small"), Preferences())
    assert made.name == "small_quanto_bf16_int8.safetensors"
    configs["small"]["URLs"].append("ckpts/small_quanto_bf16_int8.safetensors")
    assert json.loads(path.read_text())["model"] == model
    save_quantized(load_catalog(root)["mine"].variant("slow"), Preferences())  # which has the list of the definition
    model["URLs"].append("ckpts/mine_quanto_bf16_int8.safetensors")
    assert json.loads(path.read_text())["model"] == model
    define("other", {**model, "configs": "mine"})
    said = []
    define("third", {"architecture": "t2v_1.3B", "URLs": ["ckpts/mine_bf16.safetensors"], "configs": "fourth"})
    fourth = {"tiny": {"URLs": ["ckpts/tiny_bf16.safetensors"]}}
    file(root, "tiny_bf16.safetensors", seed=2)
    define("fourth", {"architecture": "t2v_1.3B", "URLs": ["ckpts/mine_bf16.safetensors"], "configs": fourth})
    save_quantized(load_catalog(root)["third"].variant("tiny"), Preferences(), listener=said.append)
    assert "is not listed: the variant tiny is not written in third.json" in said[-1].message


def test_a_built_in_is_overridden_in_a_file_of_its_own(here, root):
    built_in = load_catalog(root)["t2v_1.3B"]
    name = next(row.file_name for row in built_in.slots["transformer"] if row.file_name.endswith("bf16.safetensors"))
    file(root, name)
    paths, said, _ = here("t2v_1.3B")
    assert json.loads((root / "finetunes" / "t2v_1.3B.json").read_text()) == {
        "model": {"URLs": [*urls(built_in), f"ckpts/{paths[0].name}"]}
    }
    assert said[-1].endswith(f"t2v_1.3B.json lists ckpts/{paths[0].name} under URLs now.")


def test_two_transformers_are_each_quantized_and_listed(here, root, define):
    file(root, "high_fp16.safetensors", torch.float16)
    file(root, "low_fp16.safetensors", torch.float16, seed=1)
    define("two", model={"name": "Two", "architecture": "t2v_2_2", "URLs": ["ckpts/high_fp16.safetensors"],
                         "URLs2": ["ckpts/low_fp16.safetensors"]})  # fmt: skip
    paths, _, definition = here("two", dtype="fp16")
    assert [path.name for path in paths] == ["high_quanto_fp16_int8.safetensors", "low_quanto_fp16_int8.safetensors"]
    assert urls(definition)[-1] == "ckpts/high_quanto_fp16_int8.safetensors"
    assert urls(definition, "transformer_2")[-1] == "ckpts/low_quanto_fp16_int8.safetensors"


def test_where_one_fails_nothing_is_listed(here, root, define):
    file(root, "high_fp16.safetensors", torch.float16)
    bad = {key: row.half() for key, row in tiny.original_weights().items()}
    bad["head.head.bias"][0] = float("inf")
    tiny.write(root / "ckpts" / "low_fp16.safetensors", bad)
    path = define("two", model={"name": "Two", "architecture": "t2v_2_2", "URLs": ["ckpts/high_fp16.safetensors"],
                                "URLs2": ["ckpts/low_fp16.safetensors"]})  # fmt: skip
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"head\.head\.bias holds NaN"):
        here("two", dtype="fp16")
    assert path.read_bytes() == before
    shutil.copy(root / "ckpts" / "high_fp16.safetensors", root / "ckpts" / "low_fp16.safetensors")
    paths, said, _ = here("two", dtype="fp16")  # the first file is there, and is held against its source
    assert (len(paths), "exists already and was verified" in said[0]) == (2, True)


def test_another_file_under_the_name_is_not_listed(here, root, define):
    file(root, "mine_bf16.safetensors")
    file(root, "mine_quanto_bf16_int8.safetensors")
    path = define("mine", model={"name": "Mine", "architecture": "t2v_1.3B", "URLs": ["ckpts/mine_bf16.safetensors"]})
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="exists already and is not what quantizing"):
        here("mine")
    assert path.read_bytes() == before


def test_definitions_with_modules_get_the_reason(here, root):
    paths, said, _ = here("vace_14B")
    assert paths == []
    assert "merges modules" in said[0]


def test_a_listed_file_that_was_deleted_is_made_again(here, root, define):
    file(root, "mine_bf16.safetensors")
    path = define("mine", model={"name": "Mine", "architecture": "t2v_1.3B", "URLs": ["ckpts/mine_bf16.safetensors"]})
    (made,), _, _ = here("mine")
    content, listed = made.read_bytes(), path.read_bytes()
    made.unlink()
    paths, said, definition = here("mine")
    assert paths == [made]
    assert made.read_bytes() == content
    assert said[0] == "ckpts/mine_quanto_bf16_int8.safetensors is listed, but doesn't exist: it is made again."
    assert path.read_bytes() == listed
    assert len(urls(definition)) == 2


def test_a_lost_file_of_another_name_is_reported_and_the_new_one_listed(here, root, define):
    file(root, "mine_bf16.safetensors")
    listed = ["ckpts/mine_bf16.safetensors", "models/old_quanto_bf16_int8.safetensors"]
    define("mine", model={"name": "Mine", "architecture": "t2v_1.3B", "URLs": listed})
    _, said, definition = here("mine")
    assert said[0] == "models/old_quanto_bf16_int8.safetensors is listed, but doesn't exist: it is made again."
    assert urls(definition) == [*listed, "ckpts/mine_quanto_bf16_int8.safetensors"]


def test_the_users_own_file_may_have_its_ending_in_capitals(here, root, define):
    file(root, "mine_bf16.safetensors")
    path = define("mine", model={"name": "Mine", "architecture": "t2v_1.3B", "URLs": ["ckpts/mine_bf16.safetensors"]})
    path = path.rename(path.with_suffix(".JSON"))
    _, _, definition = here("mine")
    assert len(urls(definition)) == 2
    assert [row.name for row in (root / "finetunes").iterdir()] == ["mine.JSON"]


def test_saving_int8_changes_nothing_about_what_is_preferred(root, define):
    """Asked for 16 bits, the video is made in 16 bits, whatever is saved beside it."""
    from reeltune import Engine

    shutil.copytree(Path(str(resources.files("reeltune"))) / "nano", root / "ckpts")
    (root / "ckpts" / "nano_t2v_quanto_bf16_int8.safetensors").unlink()
    define("nano_t2v", model={"URLs": ["ckpts/nano_t2v_bf16.safetensors"]})
    for quantization in ("bf16", "int8"):
        preferences = Preferences(quantization=quantization)
        with Engine(load_catalog(root)["nano_t2v"], preferences=preferences, save_quantized=True) as engine:
            choice = engine.prepare().selection.choices["transformer"]
            assert (root / "ckpts" / "nano_t2v_quanto_bf16_int8.safetensors").is_file()
            assert (choice.quantization == "quanto_int8") == (quantization == "int8")


def test_quantize_with_nothing_to_do_says_so(root, define, capsys):
    (root / "ckpts").mkdir()
    (root / "ckpts" / "x_quanto_bf16_int8.safetensors").write_bytes(
        safetensors_bytes(
            {"head.modulation": ("BF16", [1, 2, 4]), "patch_embedding.weight": ("BF16", [4, 16, 1, 2, 2]),
             "blocks.0.self_attn.q.weight._data": ("I8", [4, 4]), "blocks.0.self_attn.q.weight._scale": ("BF16", [4, 1])}
        )
    )  # fmt: skip
    define("mine", {"architecture": "t2v", "URLs": ["ckpts/x_quanto_bf16_int8.safetensors"]})
    main(["quantize", "mine", "--root", str(root)])
    assert "Nothing to do" in capsys.readouterr().out


def test_fp8_versions_where_fp8_is_preferred(here, root, define):
    file(root, "mine_bf16.safetensors")
    define("mine", model={"name": "Mine", "architecture": "t2v_1.3B", "URLs": ["ckpts/mine_bf16.safetensors"]})
    paths, said, definition = here("mine", quantization="fp8")
    assert paths == [root / "ckpts" / "mine_fp8_e4m3fn_scaled.safetensors"]
    assert "was written and verified" in said[0]
    assert urls(definition) == ["ckpts/mine_bf16.safetensors", "ckpts/mine_fp8_e4m3fn_scaled.safetensors"]
    paths, said, _ = here("mine", quantization="fp8", dtype="fp16")
    assert (paths, said) == ([], ["No quantized file is written: mine lists an fp8 version already: "
                                  "mine_fp8_e4m3fn_scaled.safetensors."])  # fmt: skip
    paths, _, _ = here("mine")
    assert [path.name for path in paths] == ["mine_quanto_bf16_int8.safetensors"]


def test_an_fp8_file_that_is_there_is_verified(here, root, define):
    file(root, "mine_bf16.safetensors")
    path = define("mine", model={"name": "Mine", "architecture": "t2v_1.3B", "URLs": ["ckpts/mine_bf16.safetensors"]})
    text = path.read_text()
    here("mine", quantization="fp8")
    path.write_text(text)
    _, said, _ = here("mine", quantization="fp8")
    assert "exists already and was verified against mine_bf16.safetensors" in said[0]


def test_the_command_writes_fp8(root, define, capsys):
    file(root, "mine_bf16.safetensors")
    define("mine", model={"name": "Mine", "architecture": "t2v_1.3B", "URLs": ["ckpts/mine_bf16.safetensors"]})
    main(["quantize", "mine", "--to", "fp8", "--root", str(root)])
    assert "mine_fp8_e4m3fn_scaled.safetensors" in capsys.readouterr().out
    source = str(root / "ckpts" / "mine_bf16.safetensors")
    main(["quantize", source, "--to", "fp8", "--scales", "none"])
    out = capsys.readouterr().out
    assert "mine_fp8_e4m3fn.safetensors" in out
    assert "20 layers in fp8" in out
