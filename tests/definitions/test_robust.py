"""Definitions that are hostile, damaged or merely odd never stop the others, nor take long."""

import json
import os
import sys
import time

import pytest

from reeltune import load_catalog
from reeltune.definitions.checking import check_files
from reeltune.definitions.schema import read_definition
from reeltune.errors import DefinitionError, DefinitionInvalid, DefinitionReference, UnknownArchitecture

WEIGHTS = ["https://h/x_bf16.safetensors"]
GOOD = {"architecture": "t2v", "URLs": WEIGHTS}
SOON = 5.0  # seconds of the processor: far more than any of it takes, far less than what quadratic work would


def test_comparing_catalogs_resolves_nothing(root, define):
    define("dangling", {"architecture": "t2v", "URLs": "nowhere"})
    define("foreign", {"architecture": "ltx2_22B_edit_anything", "URLs": WEIGHTS})
    one, other = load_catalog(root), load_catalog(root)
    same = one
    assert one != other
    assert one == same
    assert (one, 1) == (same, 1)
    assert len({one, other}) == 2
    assert one not in [None, 5, {}]
    assert [] not in one


def test_a_definition_that_cannot_resolve_is_listed_with_its_reason(root, define):
    define("dangling", {"architecture": "t2v", "URLs": "nowhere"})
    define("preloads", GOOD | {"preload_URLs": "nowhere"})
    define("foreign", {"architecture": "ltx2_22B_edit_anything", "URLs": WEIGHTS, "name": "LTX 2"})
    define("good", GOOD)
    catalog = load_catalog(root)
    rows = {row.id: row for row in catalog.summaries()}
    assert rows["good"].runnable
    for id in ("dangling", "preloads"):
        assert "'nowhere', which doesn't exist" in rows[id].reason
        with pytest.raises(DefinitionReference):
            catalog[id]
    assert rows["foreign"].architecture == "ltx2_22B_edit_anything"
    assert rows["foreign"].reason == "'ltx2_22B_edit_anything' is an architecture that reeltune doesn't support"
    with pytest.raises(UnknownArchitecture) as caught:
        catalog["foreign"]
    assert caught.value.architecture == "ltx2_22B_edit_anything"
    assert "Did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ("nano_t2v", "'nano_t2v' is a finetune. Use its architecture: 't2v_1.3B'."),
        ("t2v_14B", "Did you mean 't2v'?"),
        ("z_image", "doesn't support (it makes images)."),
        ("ace_step_v1", "doesn't support (it makes sound)."),
        ("my_own", "Supported are animate, chrono_edit, flf2v_720p, fun_inp"),
        ("mine", "'mine' is an architecture that reeltune doesn't support."),
    ],
)
def test_what_an_architecture_can_be(root, define, architecture, words):
    define("mine", {"architecture": architecture, "URLs": WEIGHTS})
    with pytest.raises(DefinitionReference) as caught:
        load_catalog(root)["mine"]
    assert words in str(caught.value)


def test_finetunes_that_name_each_other_as_architecture(root, define):
    define("a", {"architecture": "b", "URLs": WEIGHTS})
    define("b", {"architecture": "a", "URLs": WEIGHTS})
    with pytest.raises(DefinitionReference, match="The references are circular"):
        load_catalog(root)["a"]


@pytest.mark.parametrize(
    "last", [GOOD, {"architecture": "t2v", "URLs": "nowhere"}, {"architecture": "t2v", "URLs": "d0"}]
)
def test_chains_of_a_thousand_references(root, define, last):
    for number in range(1000):
        define(f"d{number}", {"architecture": "t2v", "URLs": f"d{number + 1}", "modules": [f"d{number + 1}"]})
    define("d1000", last | {"modules": [WEIGHTS]})
    depth = sys.getrecursionlimit()
    begin = time.process_time()
    catalog = load_catalog(root)
    rows = {row.id: row for row in catalog.summaries()}
    assert time.process_time() - begin < SOON
    assert sys.getrecursionlimit() == depth
    assert len(catalog.problems()) < 2000
    if last is GOOD:
        assert [version.url for version in catalog["d0"].slots["transformer"]] == WEIGHTS
        assert [version.url for version in catalog["d0"].slots["modules[0]"]] == WEIGHTS
    else:
        assert ("circular" in rows["d0"].reason) == (last["URLs"] == "d0")
        assert len(rows["d0"].reason) < 500


def test_a_chain_of_architectures(root, define):
    for number in range(1000):
        define(f"d{number}", {"architecture": f"d{number + 1}", "URLs": WEIGHTS})
    define("d1000", GOOD)
    catalog = load_catalog(root)
    assert not any(row.runnable for row in catalog.summaries() if row.id.startswith("d") and row.id != "d1000")
    with pytest.raises(DefinitionReference, match="Use its architecture: 't2v'"):
        catalog["d0"]


@pytest.mark.parametrize(
    "text",
    [
        f'{{"model": {{"architecture": "t2v", "URLs": ["u"], "name": {"9" * 310}}}}}',
        f'{{"model": {{"architecture": "t2v", "URLs": ["u"], "fps": {"9" * 310}}}, "seed": {"9" * 5000}}}',
        '{"model": {"architecture": "t2v", "URLs": ["u"], "\\ud800": 1, "name": "\\udfff"}, "\\ud801": 2}',
        '{"model": {"architecture": "t2v", "URLs": ["u"], "name": "a\\u0000b", "description": "\\u001b[31m"}}',
        '{"model": {"architecture": "t2v", "URLs": ["u"], "visible": "yes", "auto_quantize": 1, "sha256": {"u": "x"}}}',
        '{"model": {"architecture": "t2v", "URLs": ["u"], "resolutions": [5, ["a", "832x480"], "big", "64x64"]}}',
        '{"model": {"architecture": "t2v", "URLs": ["u"], "loras_multipliers": {"a": 1}, "image_outputs": "no"}}',
    ],
)
def test_odd_values_are_left_out_and_the_rest_counts(root, text):
    (root / "finetunes" / "odd.json").write_text(text, encoding="utf-8")
    catalog = load_catalog(root)
    assert not catalog.broken
    definition = catalog["odd"]
    assert definition.runnable
    assert (definition.architecture.fps, definition.visible) == (0, True)
    for problem in catalog.problems():
        str(problem).encode()
        assert problem.severity == "warning"


def test_one_odd_sum_does_not_cost_the_others(root, define):
    define("mine", GOOD | {"sha256": {"a": "A" * 64, "b": "zz", "c": 5}})
    definition = load_catalog(root)["mine"]
    assert dict(definition.sha256) == {"a": "A" * 64}
    assert "'zz'" in " ".join(map(str, definition.notices))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"architecture": "t2v", "URLs": []}, "`URLs` is empty."),
        ({"architecture": "", "URLs": WEIGHTS}, "`architecture` is empty."),
        ({"architecture": "t2v", "url": WEIGHTS}, "Rename 'url' to 'URLs'."),
        ({"Architecture": "t2v", "URLs": WEIGHTS}, "Rename 'Architecture' to 'architecture'."),
        ({"architecture": "t2v", "URLs": {"a": 1}}, "It must be a list of URLs"),
    ],
)
def test_what_a_new_definition_lacks(root, define, model, words):
    define("mine", model)
    (error,) = load_catalog(root).broken.values()
    assert words in str(error)


def test_keys_of_the_model_that_stand_outside_it(root):
    value = {"model": {"architecture": "t2v"}, "URLs": WEIGHTS}
    (root / "finetunes" / "mine.json").write_text(json.dumps(value), encoding="utf-8")
    (error,) = load_catalog(root).broken.values()
    assert "Move 'URLs' into the `model` object." in str(error)


def test_files_that_only_look_as_if_they_were_read(root, define):
    define("good", GOOD)
    folder = root / "finetunes"
    for name in (
        "CAPS.JSON",
        "sub/x.json",
        "sub/deep/y.JSON",
        "notes.json.txt",
        "a.jsonc",
        ".hidden.json",
        "._good.json",
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"model": GOOD}), encoding="utf-8")
    catalog = load_catalog(root)
    assert "CAPS" in catalog
    assert not {"x", "y", "notes", ".hidden", "._good"} & set(catalog)
    below, odd = (str(row) for row in catalog.problems())
    assert "sub/x.json, sub/deep/y.JSON" in below
    assert "a.jsonc, notes.json.txt" in odd
    assert [str(row) for row in check_files(catalog, [folder])[0]] == [below, odd]


@pytest.mark.skipif(
    sys.platform != "linux", reason="other systems keep no two names that differ in case only, or refuse"
)
def test_two_files_of_one_id_and_names_that_are_no_text(root, define):
    define("x", GOOD | {"name": "first"})
    (root / "finetunes" / "x.JSON").write_text(json.dumps({"model": {"name": "second"}}), encoding="utf-8")
    for name in (b"caf\xe9.json", b"line\nbreak.json"):
        (root / "finetunes" / os.fsdecode(name)).write_text("{}", encoding="utf-8")
    os.mkfifo(root / "finetunes" / "pipe.json")
    (root / "finetunes" / "folder.json").mkdir()
    catalog = load_catalog(root)
    assert catalog["x"].name == "first"
    assert len(catalog.broken) == 5
    assert "has the same id as x.json" in str(catalog.broken[root / "finetunes" / "x.JSON"])


def members(rows):
    """A definition whose model object holds further members."""
    return f'{{"model": {{"architecture": "t2v", "URLs": ["u"], {", ".join(rows)}}}}}'


@pytest.mark.parametrize(
    "text",
    [
        members(f'"zz": {number}' for number in range(40_000)),
        members(f'"zz{number // 2}": 1' for number in range(40_000)),
        members(f'"{number}": {{"k": 1, "k": 1}}' for number in range(20_000)),
        json.dumps({"model": {"architecture": "x" * 1_000_000, "URLs": WEIGHTS}}),
        json.dumps({"model": {"architecture": "x" * 400, "URLs": "x" * 4000}}),
        json.dumps({"model": GOOD | {"URLs": ["file:///x"] * 20_000}}),
        json.dumps({"model": GOOD | {"modules": [["\x00"]] * 20_000}}),
        json.dumps({"model": GOOD | {f"URLS{number}": 1 for number in range(40_000)}}),
        json.dumps({"model": GOOD, **{f"guidance_scal{number}": number for number in range(100_000)}}),
        json.dumps({"model": GOOD | {"x" * 1_000_000: 1}}),
        json.dumps({"model": GOOD | {"resolutions": [["x", "y"]] * 100_000}}),
        '{"model": {"URLs": ' + "[" * 100_000 + "]" * 100_000 + "}}",
        '"model": {"URLs": [' + '"a",' * 200_000 + "]},",
        '"model": {' + '"a": {},' * 200_000 + "},",
        '"model": {' + "\n" * 300_000 + "},",
    ],
    ids=["repeated key", "repeated keys", "repeated in objects", "architecture", "long names", "wrong URLs", "wrong modules", "unknown keys", "unknown settings", "long key", "resolutions",
         "deep", "pasted list", "pasted object", "pasted lines"],
)  # fmt: skip
def test_large_files_take_no_time(root, text):
    path = root / "finetunes" / "large.json"
    path.write_text(text, encoding="utf-8")
    begin = time.process_time()
    catalog = load_catalog(root)
    catalog.summaries()
    problems = catalog.problems()
    assert time.process_time() - begin < SOON
    assert len(problems) < 50
    assert sum(len(str(problem)) for problem in problems) < 20_000


def test_many_wrong_values_are_counted(root, define):
    path = define("mine", GOOD | {"URLs": ["file:///x"] * 1000})
    with pytest.raises(DefinitionInvalid) as caught:
        read_definition(path)
    assert len(caught.value.problems) == 21
    assert "980 more" in str(caught.value.problems[-1])


def test_an_id_that_is_no_text_is_not_found(root):
    with pytest.raises(DefinitionError):
        load_catalog(root)["\ud800"]
