"""What keeps the code readable, counted: sizes, names, types, and imports without cycles."""

import ast
import re
import statistics
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import reeltune

SOURCE = Path(reeltune.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
TEXTS = {path: path.read_text(encoding="utf-8") for path in FILES}
TREES = {path: ast.parse(text) for path, text in TEXTS.items()}
FUNCTIONS = [
    (path, node)
    for path, tree in TREES.items()
    for node in ast.walk(tree)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
]


def name_of(path):
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


def imported(path):
    """Modules of the package that a module imports while it is imported itself."""
    for node in TREES[path].body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        if isinstance(node, ast.ImportFrom) and node.module in MODULES:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in MODULES else node.module


def test_modules_are_short():
    lengths = [len(text.splitlines()) for text in TEXTS.values()]
    assert max(lengths) <= 400
    assert statistics.median(lengths) <= 130


def test_functions_are_short():  # their bodies: a command line has a line for each option
    long = {f"{name_of(path)}.{node.name}" for path, node in FUNCTIONS if node.end_lineno - node.body[0].lineno >= 50}
    assert not long


def test_imports_have_no_cycle():
    graph = {name: {other for other in imported(path) if other != name} for name, path in MODULES.items()}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_two_classes_have_one_name():
    names = Counter(node.name for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    assert not {name for name, count in names.items() if count > 1}


def test_every_argument_is_annotated():
    for path, node in FUNCTIONS:
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        bare = [argument.arg for argument in every if argument is not None and argument.annotation is None]
        assert set(bare) <= {"self", "cls"}, (path, node.name)


def test_dictionaries_of_anything_and_ignored_types_are_few():
    text = "\n".join(TEXTS.values())
    assert len(re.findall(r"(?:Mapping|dict)\[str, Any\]", text)) <= 50
    assert text.count("type: ignore") <= 15
