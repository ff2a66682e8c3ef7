"""The LoRAs that the page offers for a model, and what it says about those that were chosen."""

import json
import os
import re

import pytest

from conftest import safetensors_bytes, workspace_of
from reeltune import load_catalog
from reeltune.checkpoints.names import lora_name
from reeltune.errors import MediaError, SettingsError
from reeltune.service import lora_files, loras
from reeltune.service.drafts import check_draft, draft_with_settings, new_draft
from reeltune.service.fields import PHASE_KEYS, fields_of, initial_settings, settings_from_form
from reeltune.service.labels import loras_in_words
from reeltune.service.lora_adding import add_lora, draft_with_lora
from reeltune.service.loras import check_loras, loras_for
from reeltune.service.uploads import IncomingFile, UploadRefused


def wan_lora(side, *, prefix="diffusion_model.", rank=4):
    """The tensors of a LoRA on the self-attention of two blocks of Wan."""
    names = [f"{prefix}blocks.{block}.self_attn.{part}" for block in range(2) for part in "qkvo"]
    downs = {f"{name}.lora_A.weight": ("BF16", [rank, side]) for name in names}
    return downs | {f"{name}.lora_B.weight": ("BF16", [side, rank]) for name in names}


def other_lora(*names, side=3072):
    return {f"transformer.{name}.lora_A.weight": ("BF16", [4, side]) for name in names} | {
        f"transformer.{name}.lora_B.weight": ("BF16", [side, 4]) for name in names
    }


HUNYUAN = other_lora("single_blocks.0.linear2", "double_blocks.3.img_attn_proj")
LTX = other_lora("transformer_blocks.0.attn1.to_q", "transformer_blocks.0.attn2.to_k", side=2048)
IMAGES = {"lora_unet_input_blocks_1_1_proj_in.lora_down.weight": ("F16", [4, 320])}


@pytest.fixture
def put(root):
    def write(name, tensors, metadata=None, folder="loras"):
        path = root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(safetensors_bytes(tensors, metadata))
        return path

    return write


@pytest.fixture
def small(root):
    return load_catalog(root)["t2v_1.3B"]


def sources(choices):
    return [choice.source for choice in choices if choice.fits]


def reasons(choices):
    return {choice.source: choice.reason for choice in choices if not choice.fits}


def test_loras_of_the_model_come_first_and_others_have_a_reason(workspace, small, put):
    put("wan_1.3B/zebra.safetensors", wan_lora(1536))
    put("wan_1.3B/styles/Ink.safetensors", wan_lora(1536))
    put("wan/everywhere.safetensors", wan_lora(1536, prefix="lora_unet_"))
    put("top.safetensors", wan_lora(1536))
    put("wan/large.safetensors", wan_lora(5120))
    put("hunyuan/face.safetensors", HUNYUAN)
    put("ltxv/fast.safetensors", LTX)
    put("wan_1.3B/picture.safetensors", IMAGES)
    choices = loras_for(workspace, small)
    assert sources(choices) == [
        "styles/Ink.safetensors", "zebra.safetensors", "top.safetensors", "wan/everywhere.safetensors"
    ]  # fmt: skip
    assert [choice.own for choice in choices if choice.fits] == [True, True, False, False]
    assert reasons(choices) == {
        "picture.safetensors": "it belongs to a model of another kind",
        "hunyuan/face.safetensors": "it was made for Hunyuan Video",
        "ltxv/fast.safetensors": "it was made for LTX Video",
        "wan/large.safetensors": "it was made for a model of another size (5,120, here 1,536)",
    }
    assert not any(choice.damaged for choice in choices)
    assert choices[1].bytes == (workspace.root / "loras/wan_1.3B/zebra.safetensors").stat().st_size
    large = load_catalog(workspace.root)["t2v"]
    assert sources(loras_for(workspace, large)) == ["large.safetensors"]
    assert sources(loras_for(workspace, load_catalog(workspace.root)["hunyuan"])) == ["face.safetensors"]


def test_the_size_is_that_of_the_file_on_disk(workspace, root, put, headers):
    small = load_catalog(root)["nano_t2v"]
    put("wan_1.3B/published.safetensors", wan_lora(1536))
    assert sources(loras_for(workspace, small)) == []
    reason = reasons(loras_for(workspace, small))["published.safetensors"]
    side = int(reason.rpartition("here ")[2].rstrip(")"))
    put("wan_1.3B/nano.safetensors", wan_lora(side))
    assert sources(loras_for(workspace, small)) == ["nano.safetensors"]


def test_damaged_files_and_other_kinds_of_files_are_listed_with_the_reason(workspace, small, put, root):
    folder = root / "loras" / "wan_1.3B"
    good = put("wan_1.3B/good.safetensors", wan_lora(1536)).read_bytes()
    (folder / "cut.safetensors").write_bytes(good[:-1])
    (folder / "empty.safetensors").write_bytes(b"")
    (folder / "page.safetensors").write_bytes(b"<!DOCTYPE html><html><body>Not found</body></html>")
    (folder / "folder.safetensors").mkdir()
    (folder / "notes.txt").write_text("no LoRA")
    (folder / "half.safetensors.partial").write_bytes(b"x")
    (folder / "gone.safetensors").symlink_to(folder / "nowhere.safetensors")
    put("wan_1.3B/model.safetensors", {"blocks.0.self_attn.q.weight": ("BF16", [1536, 1536])})
    put("wan_1.3B/oft.safetensors", {"blocks.0.self_attn.q.oft_blocks": ("BF16", [4, 8, 8])})
    choices = loras_for(workspace, small)
    assert sources(choices) == ["good.safetensors"]
    found = reasons(choices)
    assert sorted(found) == sorted(f"{name}.safetensors" for name in ("cut", "empty", "page", "model", "oft"))
    assert "truncated" in found["cut.safetensors"]
    assert "too short" in found["empty.safetensors"]
    assert "whole weights of a model" in found["model.safetensors"]
    assert "OFT" in found["oft.safetensors"]
    for reason in found.values():
        assert str(folder) not in reason
        assert not reason.endswith(".")
        assert len(reason) <= 300
    assert all(choice.damaged for choice in choices if not choice.fits)


def test_a_file_that_can_not_be_read_is_listed(workspace, small, put, monkeypatch):
    path = put("wan_1.3B/secret.safetensors", wan_lora(1536))
    inner = type(path).stat

    def stat(self, **options):
        if self.name == "secret.safetensors":
            raise PermissionError(13, "Permission denied")
        return inner(self, **options)

    monkeypatch.setattr(type(path), "stat", stat)
    (choice,) = loras_for(workspace, small)
    assert (choice.bytes, choice.reason) == (0, "it can't be read: Permission denied")


def test_each_header_is_read_once_until_its_file_changes(workspace, small, put, monkeypatch):
    for number in range(5):
        put(f"wan_1.3B/{number}.safetensors", wan_lora(1536))
    reads = []
    inner = lora_files.read_header
    monkeypatch.setattr(lora_files, "read_header", lambda path: (reads.append(path.name), inner(path))[1])
    for _ in range(3):
        assert len(sources(loras_for(workspace, small))) == 5
    assert len(reads) == 5
    path = put("wan_1.3B/2.safetensors", wan_lora(5120))
    os.utime(path, (1, 1))
    assert len(sources(loras_for(workspace, small))) == 4
    assert reads[5:] == ["2.safetensors"]
    path.unlink()
    assert len(loras_for(workspace, small)) == 4


def test_model_folders_have_loras_inside_or_beside_them(root, put, tmp_path, small):
    other = tmp_path / "wangp"
    for place, name in (("loras/wan_1.3B", "theirs"), ("ckpts/loras", "inside")):
        path = other / place / f"{name}.safetensors"
        path.parent.mkdir(parents=True)
        path.write_bytes(safetensors_bytes(wan_lora(1536)))
    put("wan_1.3B/theirs.safetensors", wan_lora(1536, rank=8))
    (root / "reeltune.json").write_text(json.dumps({"model_folders": [str(other / "ckpts")]}))
    workspace = workspace_of(root)
    choices = {choice.path: choice.source for choice in loras_for(workspace, small)}
    assert choices[root / "loras/wan_1.3B/theirs.safetensors"] == "theirs.safetensors"
    assert choices[other / "ckpts/loras/inside.safetensors"] == "inside.safetensors"
    # its name stands for the file in the root, so that only the whole path names it
    assert choices[other / "loras/wan_1.3B/theirs.safetensors"] == str(other / "loras/wan_1.3B/theirs.safetensors")
    assert check_loras(workspace, small, list(choices.values())) == []


def test_no_folder_and_too_many_files(workspace, small, put, monkeypatch):
    assert loras_for(workspace, small) == ()
    put("wan_1.3B/own.safetensors", wan_lora(1536))
    for number in range(4):
        put(f"a/{number}.safetensors", wan_lora(1536))
    monkeypatch.setattr(loras, "MAX_LORAS", 2)
    choices = loras_for(workspace, small)
    assert len(choices) == 2
    assert choices[0].source == "own.safetensors"


# --- words ------------------------------------------------------------------------------------------------------


def only(workspace, definition):
    (choice,) = loras_for(workspace, definition)
    return choice


def test_trigger_words_and_a_sample_are_read_from_the_metadata(workspace, small, put):
    metadata = {
        "modelspec.trigger_phrase": "  ohwx\nstyle ",
        "modelspec.usage_hint": "Use it with a weight of 0.8.",
        "ss_tag_frequency": json.dumps({"1_a": {"rare": 1, "ohwx": 9}, "2_b": {"red": 4}}),
    }
    put("wan_1.3B/a.safetensors", wan_lora(1536), metadata)
    choice = only(workspace, small)
    assert (choice.trigger, choice.sample) == ("ohwx style", "Use it with a weight of 0.8.")
    put("wan_1.3B/a.safetensors", wan_lora(1536), {"ss_tag_frequency": metadata["ss_tag_frequency"]})
    os.utime(choice.path, (1, 1))
    assert (only(workspace, small).trigger, only(workspace, small).sample) == ("", "ohwx, red, rare")


def test_the_text_beside_a_lora_is_its_sample_and_followed_when_it_changes(workspace, small, put):
    path = put("wan_1.3B/a.safetensors", wan_lora(1536), {"modelspec.usage_hint": "hint"})
    assert only(workspace, small).sample == "hint"
    path.with_suffix(".txt").write_bytes(b"\xef\xbb\xbfA fox,\r\n\tink \x07 wash \xff")
    assert only(workspace, small).sample == "A fox, ink \ufffd wash \ufffd"
    path.with_suffix(".txt").write_text("something else")
    assert only(workspace, small).sample == "something else"
    path.with_suffix(".txt").write_text("x" * 30_000)
    assert only(workspace, small).sample == "hint"


@pytest.mark.parametrize(
    "metadata",
    [
        {"ss_tag_frequency": "{"},
        {"ss_tag_frequency": "[1, 2]"},
        {"ss_tag_frequency": '{"a": [1], "b": {"x": "many"}, "c": null}'},
        {"ss_tag_frequency": "[" * 100_000},
        {"modelspec.trigger_phrase": " \n ", "modelspec.usage_hint": "None"},
    ],
)
def test_odd_metadata_is_no_error(workspace, small, put, metadata):
    put("wan_1.3B/a.safetensors", wan_lora(1536), metadata)
    choice = only(workspace, small)
    assert (choice.fits, choice.trigger, choice.sample) == (True, "", "")


def test_long_and_hostile_words_are_bounded_and_cleaned(workspace, small, put):
    put("wan_1.3B/a.safetensors", wan_lora(1536), {"modelspec.trigger_phrase": "\ud800\x1b[31m" + "word " * 100_000})
    choice = only(workspace, small)
    assert len(choice.trigger) == 300
    assert choice.trigger.startswith("\ufffd\ufffd[31mword word")
    choice.trigger.encode()


# --- checks -----------------------------------------------------------------------------------------------------


def test_unknown_names_are_errors_that_name_the_folder_and_what_is_similar(workspace, small, put):
    with pytest.raises(SettingsError, match=r"style.safetensors isn't in loras/wan_1.3B/ or another folder") as caught:
        check_loras(workspace, small, ["style.safetensors"])
    assert caught.value.hint == "Choose one from the list, enter a URL, or copy the file to loras/wan_1.3B/."
    put("wan_1.3B/ink/styles.safetensors", wan_lora(1536))
    with pytest.raises(SettingsError) as caught:
        check_loras(workspace, small, ["style.safetensors"])
    assert caught.value.hint == "Did you mean ink/styles.safetensors?"
    with pytest.raises(SettingsError, match="isn't in"):
        check_loras(workspace, small, ["a\0b", "x" * 5000])
    assert check_loras(workspace, small, []) == []
    assert check_loras(workspace, small, ["https://h/never_asked.safetensors", "styles.safetensors"]) == []


def test_a_lora_that_fits_nothing_or_is_damaged_is_an_error_before_the_job_is_added(workspace, root, put):
    nano = workspace.catalog()["nano_t2v"]
    values = {**initial_settings(nano), "prompt": "a red circle"}
    for name, tensors, words in (
        ("face", HUNYUAN, "None of the 2 modules in face.safetensors belongs to this model"),
        ("large", wan_lora(5120), "large.safetensors was made for a model of another size"),
        ("model", {"blocks.0.self_attn.q.weight": ("BF16", [4, 4])}, "whole weights of a model"),
    ):
        put(f"wan_1.3B/{name}.safetensors", tensors)
        with pytest.raises(SettingsError, match=re.escape(words)):
            check_draft(workspace, nano, {**values, "activated_loras": [f"{name}.safetensors"]})
    (root / "loras/wan_1.3B/cut.safetensors").write_bytes(b"x")
    with pytest.raises(SettingsError, match=r"cut\.safetensors can't be used: cut\.safetensors is too short"):
        check_draft(workspace, nano, {**values, "activated_loras": ["cut.safetensors"]})
    with pytest.raises(SettingsError, match="loras_multipliers: invalid item 'much'"):
        check_draft(workspace, nano, {**values, "loras_multipliers": "1 much"})


def test_what_does_not_fit_is_a_notice(workspace, put):
    nano = workspace.catalog()["nano_t2v"]
    put("wan_1.3B/published.safetensors", wan_lora(1536))
    side = int(reasons(loras_for(workspace, nano))["published.safetensors"].rpartition("here ")[2].rstrip(")"))
    extra = {"diffusion_model.blocks.900.self_attn.q.lora_A.weight": ("BF16", [4, side])}
    extra |= {"diffusion_model.blocks.900.self_attn.q.lora_B.weight": ("BF16", [side, 4])}
    put("wan_1.3B/long.safetensors", wan_lora(side) | extra)
    (notice,) = check_loras(workspace, nano, ["long.safetensors"])
    assert notice.startswith("long.safetensors: applied 8 of 9 modules; the model has no ")


def test_users_from_elsewhere_can_not_name_files_outside(root, tmp_path, put):
    workspace = workspace_of(root, local=False)
    outside = tmp_path / "outside.safetensors"
    outside.write_bytes(safetensors_bytes(wan_lora(1536)))
    definition = workspace.catalog()["t2v_1.3B"]
    for path in (str(outside), "../../../outside.safetensors", str(tmp_path / "nothing.safetensors")):
        with pytest.raises(SettingsError, match="outside the folders"):
            check_loras(workspace, definition, [path])
    put("wan_1.3B/a.safetensors", wan_lora(1536))
    assert check_loras(workspace, definition, ["a.safetensors"]) == []
    assert check_loras(workspace_of(root), definition, [str(outside)]) == []


# --- forms and drafts -------------------------------------------------------------------------------------------


def test_every_form_has_loras_and_fields_of_phases_only_where_they_matter(root, define):
    define("steps", {"architecture": "t2v", "URLs": "t2v"}, guidance_phases=3)
    catalog = load_catalog(root)
    for id in catalog:
        fields = {field.key: field for field in fields_of(catalog[id])}
        assert (fields["activated_loras"].kind, fields["loras_multipliers"].kind) == ("loras", "weights")
        assert not fields["activated_loras"].basic
        passes = catalog[id].architecture.family.name == "ltx2"
        shows = "transformer_2" in catalog[id].slots or id == "steps" or passes
        assert set(PHASE_KEYS).isdisjoint(fields) != shows, id
    assert catalog["t2v_2_2"].slots.keys() >= {"transformer_2"}
    phases = next(field for field in fields_of(catalog["t2v_2_2"]) if field.key == "guidance_phases")
    assert phases.choices == (("One", 1), ("Two", 2), ("Three", 3))
    plain = catalog["t2v"]
    assert set(PHASE_KEYS) <= {field.key for field in fields_of(plain, {"guidance_phases": 2})}
    for odd in ("2", None, [2], 1):
        assert set(PHASE_KEYS).isdisjoint(field.key for field in fields_of(plain, {"guidance_phases": odd}))


def test_a_form_without_loras_turns_those_of_the_definition_off(root, define):
    define("mine", {"architecture": "t2v", "URLs": "t2v"}, activated_loras=["a.safetensors"], loras_multipliers="0.5")
    mine = load_catalog(root)["mine"]
    assert initial_settings(mine)["activated_loras"] == ["a.safetensors"]
    settings = settings_from_form(mine, {"activated_loras": [], "loras_multipliers": ""})
    assert (settings["activated_loras"], settings["loras_multipliers"]) == ([], "")


def test_drafts_take_loras_and_phases_along(workspace):
    settings = {"activated_loras": ["gone.safetensors"], "loras_multipliers": "1;0", "guidance_phases": 2}
    draft = draft_with_settings(workspace, "nano_t2v", settings)
    assert {key: draft.settings[key] for key in settings} == settings
    assert draft.notices == new_draft(workspace, "nano_t2v").notices
    assert draft.settings["guidance3_scale"] == draft.settings["guidance2_scale"] == draft.settings["guidance_scale"]


def test_loras_in_a_line():
    assert loras_in_words({}) == loras_in_words({"activated_loras": 3}) == loras_in_words({"activated_loras": []}) == ""
    assert loras_in_words({"activated_loras": "a/b.safetensors"}) == "b"
    many = [f"https://h/x/{number}.safetensors?download=true" for number in range(5)]
    assert loras_in_words({"activated_loras": many}) == "0, 1, 2, 2 more"
    assert len(loras_in_words({"activated_loras": ["x" * 900]})) == 40
    assert lora_name("folder/style.safetensors") == "style"


# --- added by upload ------------------------------------------------------------------------------------------


def uploaded(workspace, name, content):
    incoming = IncomingFile(workspace.uploads, name)
    incoming.write(content)
    return incoming.finish()


@pytest.fixture
def local(workspace):
    workspace.uploads.mkdir(parents=True, exist_ok=True)
    return workspace


def test_an_uploaded_lora_moves_to_the_models_folder_and_into_the_form(local):
    definition = local.catalog()["t2v_1.3B"]
    content = safetensors_bytes(wan_lora(1536))
    draft = new_draft(local, definition.id)
    entered = {"prompt": "a fox", "activated_loras": ["mine.safetensors"], "loras_multipliers": "0.5"}
    made = draft_with_lora(local, draft, definition, entered, str(uploaded(local, "style.safetensors", content)))
    assert made.settings["activated_loras"] == ["mine.safetensors", "style.safetensors"]
    assert made.settings["prompt"] == "a fox"
    assert (local.root / "loras" / "wan_1.3B" / "style.safetensors").read_bytes() == content
    assert "loras/wan_1.3B/" in made.message.text
    again = add_lora(local, definition, str(uploaded(local, "style.safetensors", content)))
    assert again == "style.safetensors"
    other = safetensors_bytes(wan_lora(1536, rank=8))
    second = add_lora(local, definition, str(uploaded(local, "style.safetensors", other)))
    assert second.startswith("style-")
    assert {path.name for path in (local.root / "loras" / "wan_1.3B").iterdir()} == {"style.safetensors", second}


@pytest.mark.parametrize(
    ("tensors", "words"),
    [(HUNYUAN, "belongs to this model"), (wan_lora(5120), "another size")],
)
def test_an_uploaded_lora_of_another_model_is_refused_and_moved_nowhere(local, tensors, words):
    definition = local.catalog()["nano_t2v"]
    path = uploaded(local, "style.safetensors", safetensors_bytes(tensors))
    with pytest.raises(SettingsError, match=words):
        add_lora(local, definition, str(path))
    assert not (local.root / "loras").exists()


@pytest.mark.parametrize("tensors", [IMAGES, {"head.head.weight": ("BF16", [4, 4])}])
def test_other_safetensors_files_are_no_uploads(local, tensors):
    with pytest.raises(UploadRefused, match="can't be used"):
        uploaded(local, "x.safetensors", safetensors_bytes(tensors))


def test_others_and_paths_outside_the_uploads_add_nothing(local, tmp_path):
    definition = local.catalog()["t2v_1.3B"]
    outside = tmp_path / "outside.safetensors"
    outside.write_bytes(safetensors_bytes(wan_lora(1536)))
    with pytest.raises(MediaError):
        add_lora(local, definition, str(outside))
    path = uploaded(local, "style.safetensors", safetensors_bytes(wan_lora(1536)))
    local.local = False
    with pytest.raises(SettingsError, match="only be added on the machine"):
        add_lora(local, definition, str(path))


def test_users_from_elsewhere_are_offered_only_what_they_may_use_and_no_absolute_paths(root, put, tmp_path):
    other = tmp_path / "wangp"
    for place, name in (("loras/wan_1.3B", "theirs"), ("loras/wan_1.3B", "beside"), ("ckpts/loras", "inside")):
        path = other / place / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(safetensors_bytes(wan_lora(1536)))
    put("wan_1.3B/theirs.safetensors", wan_lora(1536, rank=8))
    (root / "reeltune.json").write_text(json.dumps({"model_folders": [str(other / "ckpts")]}))
    workspace = workspace_of(root, local=False)
    definition = workspace.catalog()["t2v_1.3B"]
    choices = [choice.source for choice in loras_for(workspace, definition)]
    assert sorted(choices) == ["beside.safetensors", "inside.safetensors", "theirs.safetensors"]
    assert check_loras(workspace, definition, choices) == []
    assert check_loras(workspace, definition, [str(other / "loras/wan_1.3B/beside.safetensors")]) == []
