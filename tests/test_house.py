"""The house rules: what imports what, what stays light, how large modules are, and the public API."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import reeltune

SOURCE = Path(reeltune.__file__).parent
ORDER = [
    "errors", "events", "untrusted", "files", "dtypes", "net", "machine", "families", "checkpoints", "settings", "definitions",
    "profiles", "preferences", "media", "request", "library", "planning", "fetch", "weights", "engine", "sharing", "jobs", "service", "api", "web", "server", "cli",
]  # fmt: skip
HEAVY = {"torch", "diffusers", "transformers", "accelerate", "torchao", "safetensors"}
HEAVY_HOMES = {"weights", "engine"}
SHARED = {"_version", "_quiet", "_text"}


def modules():
    return sorted(path for path in SOURCE.rglob("*.py"))


def imports(path):
    """Absolute names of modules a file imports when it runs, those under TYPE_CHECKING left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        node
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.dump(branch.test)
        for node in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


def part(path):
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_to_the_left_and_modules_are_small(path):
    own = part(path)
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    if own in ("__init__", "__main__") or own in SHARED:
        return
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "reeltune" and rest.partition(".")[0] not in SHARED and rest:
            other = rest.partition(".")[0]
            assert ORDER.index(other) <= ORDER.index(own), f"{own} imports {other}"
        if top in HEAVY:
            assert own in HEAVY_HOMES, f"{own} imports {top}"
        if top == "gradio":
            assert own == "web"


def test_only_the_worker_process_reaches_the_engine_among_what_a_page_is_made_of():
    for path in modules():
        if part(path) in ("jobs", "web", "api"):
            found = {
                name
                for name in imports(path)
                if name == "reeltune.engine.engine" or name.startswith("reeltune.weights")
            }
            text = path.read_text(encoding="utf-8")
            lazily = "import Engine" in text.split("if TYPE_CHECKING:")[-1] or "from reeltune import Engine" in text
            assert path.name == "worker.py" or not (found or lazily), path
            tree = ast.parse(text)
            at_import = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
            assert not {"reeltune", "reeltune.engine.engine"} & at_import, path


def test_families_never_import_each_other():
    families = ("wan", "hunyuan", "hunyuan15", "ltx", "kandinsky5")
    for name in families:
        found = set(imports(SOURCE / "families" / f"{name}.py"))
        assert not found & {f"reeltune.families.{other}" for other in families}


def test_no_module_names_a_model_that_is_data():
    for path in modules():
        text = path.read_text(encoding="utf-8")
        code = "\n".join(line for line in text.splitlines() if '"nano_t2v"' not in line)  # examples in docstrings
        allowed = 2 if path.parent.name == "library" else 0  # the package's data folder
        assert code.lower().count("nano") <= allowed, path


LIGHT = [
    ["--help"], ["list"], ["show", "nano_t2v"], ["explain", "nano_t2v"], ["check"],
    ["inspect", str(SOURCE / "nano" / "nano_t2v_bf16.safetensors")], ["settings", "export", "nano_t2v"], ["pull", "nano_t2v"],
    ["profiles", "t2v"], ["update"], ["merge", "--help"], ["extract-lora", "--help"], ["sheet", "--help"],
]  # fmt: skip


@pytest.mark.parametrize("words", LIGHT, ids=" ".join)
def test_light_commands_never_load_torch(words, tmp_path):
    code = (
        "import sys\nfrom reeltune.cli import main\ntry:\n    main(sys.argv[1:])\nfinally:\n"
        f"    heavy = sorted({HEAVY!r} & set(sys.modules))\n    assert not heavy, heavy\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert answer.returncode == 0, answer.stderr


def test_importing_the_package_loads_nothing():
    code = "import sys, reeltune; print([m for m in ('torch', 'pydantic', 'httpx', 'typer', 'av') if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_the_public_api_is_what_it_says():
    assert sorted(reeltune.__all__) == [
        "CancelToken", "Catalog", "Choice", "Definition", "Engine", "Event", "Inspection", "Item",
        "Notice", "Origin", "Plan", "Planned", "PlannedFile", "Preferences", "Progress", "Quantized", "Rejection", "Selection",
        "Summary", "Version", "Video", "__version__", "errors", "explain", "inspect", "load_catalog", "pull", "quantize",
    ]  # fmt: skip
    for name in reeltune.__all__:
        assert getattr(reeltune, name) is not None
    assert dir(reeltune) == sorted(reeltune.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        reeltune.nothing  # noqa: B018


def test_every_error_derives_from_one_and_stands_in_the_tree():
    from reeltune import errors

    found = [row for row in vars(errors).values() if isinstance(row, type) and issubclass(row, Exception)]
    assert all(issubclass(row, errors.ReeltuneError) for row in found)
    assert all(row.__name__ in (errors.__doc__ or "") for row in found)


def test_the_ten_line_example_of_the_readme(tmp_path, monkeypatch):
    readme = (SOURCE.parents[1] / "README.md").read_text(encoding="utf-8")
    example = readme.split("```python\n")[1].split("```")[0]
    assert example.count("\n") <= 10
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    exec(compile(example, "README.md", "exec"), {})
    assert (tmp_path / "out.mp4").stat().st_size > 500


def test_documents_made_from_code_are_current():
    docs = SOURCE.parents[1] / "docs"
    code = (
        f"import sys; sys.path.insert(0, {str(docs)!r}); import generate, pathlib\n"
        "for name, text in generate.TEXTS.items():\n"
        f"    stored = (pathlib.Path({str(docs)!r}) / name).read_text(encoding='utf-8')\n"
        "    assert stored == text(), name + ': run python docs/generate.py'\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
