"""The service room knows neither the page nor HTTP, so that every interface can use it."""

import ast
import subprocess
import sys
from pathlib import Path

import reeltune.service

FORBIDDEN = {"gradio", "starlette", "fastapi", "uvicorn", "html", "torch"}
FOLDER = Path(reeltune.service.__file__).parent


def test_no_module_imports_an_interface():
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module]
            for name in names:
                assert name.partition(".")[0] not in FORBIDDEN, f"{path.name} imports {name}"
                assert not name.startswith(("reeltune.web", "reeltune.cli")), f"{path.name} imports {name}"


def test_loading_all_modules_loads_no_interface_and_no_torch():
    modules = ", ".join(f"reeltune.service.{path.stem}" for path in FOLDER.glob("*.py") if path.stem != "__init__")
    code = f"import {modules}, sys; print(sorted({FORBIDDEN - {'html'}!r} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert answer.stdout.strip() == "[]", answer.stderr
