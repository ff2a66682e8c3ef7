"""Write the documents that are generated from the code.

These are the JSON Schema of definitions, the help of all commands, the OpenAPI document of the HTTP API, and the
tables of models.

python docs/generate.py
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from model_tables import models_text

HERE = Path(__file__).parent


def schema_text() -> str:
    """The content of `finetune.schema.json`."""
    from reeltune.definitions.schema import json_schema

    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def openapi_text() -> str:
    """The content of `openapi.json`: what a server answers at `/openapi.json`."""
    from reeltune.api.app import build_api
    from reeltune.jobs import Runner
    from reeltune.service.workspace import Workspace

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        document = build_api(Workspace(root, Runner(root))).openapi()
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def cli_text() -> str:
    """The content of `cli.md`: the help of every command, as a terminal shows it."""
    os.environ["TERMINAL_WIDTH"] = "100"
    os.environ["NO_COLOR"] = "1"
    import typer.main
    from typer.testing import CliRunner

    from reeltune.cli.app import app

    runner, parts = (
        CliRunner(),
        ["# The command line\n\nWritten by `python docs/generate.py` from the program's own help.\n"],
    )
    for words in _commands(typer.main.get_command(app)):
        answer = runner.invoke(app, [*words, "--help"], prog_name="reeltune", env={"TERMINAL_WIDTH": "100"})
        lines = [line.rstrip() for line in answer.output.strip().splitlines()]
        parts.append(f"## reeltune {' '.join(words)}".rstrip() + "\n\n```\n" + "\n".join(lines).strip() + "\n```\n")
    return "\n".join(parts)


def _commands(command: object, words: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [words]
    for name, child in sorted(getattr(command, "commands", {}).items()):
        found += _commands(child, (*words, name))
    return found


TEXTS = {
    "finetune.schema.json": schema_text,
    "openapi.json": openapi_text,
    "cli.md": cli_text,
    "models.md": models_text,
}


def main() -> None:
    """Write all files."""
    for name, text in TEXTS.items():
        (HERE / name).write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
