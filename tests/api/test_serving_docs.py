"""What docs/serving.md shows is what happens: its commands and its Python run against a server, and print the same."""

import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer.main
from api_serving import api_server
from PIL import Image, ImageDraw

from reeltune.api.bodies import MAX_JSON_BYTES
from reeltune.api.errors import ERROR_CODES, RETRY_SECONDS
from reeltune.cli.app import app
from reeltune.preferences import Preferences
from reeltune.service.uploads import MAX_BYTES
from servers import ApiServer

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "serving.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, re.DOTALL)
CONSOLE = [block for kind, block in BLOCKS if kind == "console"]
SHELL = "".join(block for kind, block in BLOCKS if kind == "sh")
KEY = "a-key-of-more-than-16-characters"
MARK = "--- next command"
BLOCK_SECONDS = 240


def samples(block):
    """Every command of a block with the output that is shown below it."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, *output = part.strip("\n").split("\n")
        yield command, output


def outputs(block, server, folder):
    """What the commands of a block print, one text for each."""
    commands = [command for command, _ in samples(block)]
    script = "".join(f"echo '{MARK}'\n{command}\necho\n" for command in commands)
    (folder / "reeltune").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m reeltune "$@"\n', encoding="utf-8")
    (folder / "reeltune").chmod(0o755)
    script = f'PATH="{folder}:$PATH"\n' + script.replace("localhost:7860", f"127.0.0.1:{server.port}")
    answer = subprocess.run(
        ["bash", "-c", script], cwd=folder, capture_output=True, text=True, check=False, timeout=BLOCK_SECONDS
    )
    assert not answer.stderr, answer.stderr
    return [part.strip("\n") for part in answer.stdout.split(f"{MARK}\n")[1:]]


def until_free(server):
    """Wait until the jobs of earlier blocks have ended."""
    end = time.monotonic() + BLOCK_SECONDS
    while any(json.loads(server.ask("/api/queue")[1])["counts"][state] for state in ("queued", "running")):
        assert time.monotonic() < end
        time.sleep(0.1)


def shape(text):
    """A text without what differs from run to run: numbers, and the hashes in ids."""
    return re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "#", text)


def assert_same(printed, shown):
    """Whether a text was printed as it is shown. A line with only … stands for any others."""
    pattern = "\n".join("(?:.*\n?)*?" if line.strip() == "…" else re.escape(shape(line)) for line in shown)
    assert re.fullmatch(pattern, shape(printed)), f"\n{printed}\n--- was printed in place of\n" + "\n".join(shown)


@pytest.fixture
def folder(tmp_path):
    """A folder with the files that the commands name."""
    image = Image.new("RGB", (64, 64), "black")
    ImageDraw.Draw(image).ellipse((8, 24, 24, 40), fill="red")
    image.save(tmp_path / "start.png")
    (tmp_path / "keys.txt").write_text(f"{KEY}\n", encoding="utf-8")
    (tmp_path / "keys.txt").chmod(0o600)
    return tmp_path


def test_the_commands_print_what_is_shown(api_server, folder):
    for block in CONSOLE:
        if "keys.txt" not in block:
            until_free(api_server)  # the state of a worker is shown, too
            printed = outputs(block, api_server, folder)
            for (_, shown), text in zip(samples(block), printed, strict=True):
                assert_same(text, shown)
    with Image.open(folder / "first.webp") as first:
        assert first.size == (32, 32)
    assert (folder / "sync.mp4").read_bytes()[4:8] == b"ftyp"
    assert "Traceback" not in api_server.log()


def test_the_commands_with_a_key_print_what_is_shown(folder, tmp_path_factory):
    server = ApiServer(tmp_path_factory.mktemp("keys") / "root", "--api-key-file", str(folder / "keys.txt"))
    server.start()
    try:
        blocks = [block for block in CONSOLE if "keys.txt" in block]
        assert blocks
        for block in blocks:
            for (_, shown), text in zip(samples(block), outputs(block, server, folder), strict=True):
                assert_same(text, shown)
    finally:
        server.stop()


def test_a_proxy_s_headers_are_accepted(folder, tmp_path_factory):
    server = ApiServer(tmp_path_factory.mktemp("proxy") / "root", "--api-key-file", str(folder / "keys.txt"))
    server.start()
    try:
        key, site = {"authorization": f"Bearer {KEY}"}, "videos.example.org"
        forwarded = {**key, "host": site, "x-forwarded-proto": "https", "origin": f"https://{site}"}
        assert server.ask("/v1/models", forwarded)[0] == 200
        renamed = {**key, "x-forwarded-host": site, "origin": f"https://{site}"}
        assert server.ask("/v1/models", renamed)[0] == 200
        assert server.ask("/v1/models", {**forwarded, "origin": "https://evil.example"})[0] == 403
    finally:
        server.stop()


def test_the_three_commands_at_the_top_make_a_video(api_server, folder):
    commands = BLOCKS[0][1].strip().splitlines()
    assert len(commands) == 3
    assert commands[:2] == ["pip install .", "reeltune serve"]
    command = commands[2].replace("localhost:7860", f"127.0.0.1:{api_server.port}")
    subprocess.run(shlex.split(command), cwd=folder, check=True, capture_output=True, timeout=BLOCK_SECONDS)
    assert (folder / "video.mp4").read_bytes()[4:8] == b"ftyp"


def test_the_python_example_prints_what_is_shown(api_server, folder):
    [example] = [block for kind, block in BLOCKS if kind == "python"]
    assert len(example.strip().splitlines()) <= 12
    code = example.replace("localhost:7860", f"127.0.0.1:{api_server.port}")
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    [shown] = [block for kind, block in BLOCKS if not kind]
    assert answer.stdout == shown
    assert (folder / "out.mp4").read_bytes()[4:8] == b"ftyp"


def test_every_reeltune_command_and_option_exists():
    commands = typer.main.get_command(app).commands
    named = re.findall(r"(?:^|`)reeltune ((?!mcp\]|serve offers)[a-z]+[^`\n]*)", TEXT + SHELL, re.MULTILINE)
    assert len(named) >= 6
    for words in map(shlex.split, named):
        command = commands[words[0]]
        known = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known
    options = {name for parameter in commands["serve"].params for name in (*parameter.opts, *parameter.secondary_opts)}
    table = set(re.findall(r"^\| `(--[a-z-]+)", TEXT, re.MULTILINE))
    assert {"--host", "--api-key-file", "--auth-file", "--insecure", "--no-page"} == table <= options


def test_the_configuration_of_an_assistant_starts_a_command_that_exists():
    [block] = [block for kind, block in BLOCKS if kind == "json"]
    [server] = json.loads(block)["mcpServers"].values()
    assert server["command"] == "reeltune"
    command = typer.main.get_command(app).commands[server["args"][0]]
    assert server["args"][1] in {name for parameter in command.params for name in parameter.opts}


def test_the_tables_are_those_of_the_code():
    for status, codes, meaning in ERROR_CODES:
        assert f"| {status} | {codes} | {meaning} |\n" in TEXT
    source = (Path(__file__).parents[2] / "src/reeltune/api/metrics.py").read_text(encoding="utf-8")
    metrics = set(re.findall(r"\"(reeltune_\w+)\"", source))
    assert len(metrics) >= 6
    assert {name.removesuffix("_total") for name in re.findall(r"^\| `(reeltune_\w+)`", TEXT, re.MULTILINE)} == metrics
    fields = json.loads((DOCS / "openapi.json").read_text(encoding="utf-8"))["paths"]["/v1/videos"]["post"]
    for name in fields["requestBody"]["content"]["application/json"]["schema"]["properties"]:
        assert f"`{name}`" in TEXT


def test_the_numbers_are_those_of_the_code():
    assert f"up to {MAX_BYTES:,} bytes" in TEXT
    assert f"up to {MAX_JSON_BYTES:,} bytes" in TEXT
    assert f"At most {Preferences().queue_limit} jobs" in TEXT
    assert f"retry-after: {RETRY_SECONDS}" in TEXT
    megabytes = int(re.search(r"client_max_body_size (\d+)m;", TEXT)[1])
    assert megabytes * 1_000_000 > MAX_BYTES + 51_000_000


def test_every_link_leads_somewhere():
    anchors = {
        "#" + re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        path, _, anchor = target.partition("#")
        assert (DOCS / path).exists() if path else f"#{anchor}" in anchors, target
