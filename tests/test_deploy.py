"""The files in deploy/, as far as they can be checked without Docker: their structure, and what they run."""

import configparser
import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer.main
import yaml

from reeltune.cli.app import app
from reeltune.server.keys import warnings_about
from servers import Server

PROJECT = Path(__file__).parents[1]
DEPLOY = PROJECT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
COMPOSE, CUDA = (
    yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8")) for name in ("compose.yaml", "compose.cuda.yaml")
)
KNOWN = {"ARG", "FROM", "ENV", "RUN", "WORKDIR", "COPY", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT"}
KEY = "a-key-of-more-than-16-characters"


def instructions():
    """The instructions of the Dockerfile, each with its arguments on one line."""
    lines = [line for line in DOCKERFILE.splitlines() if not line.startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


INSTRUCTIONS = instructions()


def arguments(name):
    return [rest.strip() for word, rest in INSTRUCTIONS if word == name]


ENTRYPOINT = json.loads(arguments("ENTRYPOINT")[0])
HEALTH_CHECK = json.loads(arguments("HEALTHCHECK")[0].partition("CMD")[2])


def unit():
    parser = configparser.ConfigParser(interpolation=None, strict=True, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str
    parser.read_string((DEPLOY / "reeltune.service").read_text(encoding="utf-8"))
    return parser


UNIT = unit()


def assert_options_exist(words):
    """Whether the words after `reeltune` are a command with options that it has."""
    command = typer.main.get_command(app).commands[words[0]]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if word.startswith("--")} <= known


# --- Docker -----------------------------------------------------------------------------------------------------


def test_the_dockerfile_has_only_known_instructions_in_two_stages():
    assert DOCKERFILE.startswith("# syntax=docker/dockerfile:1\n")
    assert {word for word, _ in INSTRUCTIONS} == KNOWN
    stages = arguments("FROM")
    assert [stage.split()[0] for stage in stages] == ["python:${PYTHON}-slim"] * 2
    assert stages[0].endswith(" AS build")
    assert INSTRUCTIONS[0] == ("ARG", "PYTHON=3.11")
    defined = {argument.partition("=")[0] for argument in arguments("ARG")}
    assert {"TORCH", "UID"} <= defined
    assert set(re.findall(r"\$\{(\w+)", DOCKERFILE)) <= defined


def ignored(name):
    """Whether .dockerignore leaves a file or folder out of what Docker sees."""
    lines = (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    return f"!{name}" not in rules


def test_what_is_copied_exists_and_is_not_ignored():
    copied = [argument.split()[:-1] for argument in arguments("COPY") if not argument.startswith("--from=build ")]
    names = [Path(name).name for words in copied for name in words]
    assert set(names) == {"constraints.txt", "pyproject.toml", "LICENSE", "README.md", "src"}
    for name in names:
        assert (PROJECT / name).exists()
        assert not ignored(name)
    assert ignored("tests")


def test_everything_that_the_build_of_the_package_needs_is_copied():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    needed |= {Path(package).parts[0] for package in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]}
    copied = {name.removeprefix("./") for argument in arguments("COPY") for name in argument.split()}
    assert needed <= copied


def test_sources_are_copied_after_the_dependencies_are_installed():
    order = [(word, rest) for word, rest in INSTRUCTIONS if word == "COPY" or "pip install" in rest]
    sources = next(number for number, (_, rest) in enumerate(order) if rest.startswith("src "))
    before = " ".join(rest for _, rest in order[:sources])
    assert before.count("pip install") == 2
    assert before.count("-c constraints.txt") == 2
    assert "${TORCH}" in before
    assert "pip install --no-deps ." in order[sources + 1][1]


def test_the_list_of_dependencies_is_that_of_the_project():
    [command] = [rest for rest in arguments("RUN") if "tomllib" in rest]
    words = shlex.split(command.partition(" > ")[0])
    assert words[0] == "python"
    answer = subprocess.run([sys.executable, *words[1:]], cwd=PROJECT, capture_output=True, text=True, check=True)
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert answer.stdout.split() == [*project["dependencies"], *project["optional-dependencies"]["mcp"]]


def test_the_image_runs_as_a_user_with_a_volume_and_without_keys():
    assert arguments("USER") == ["reeltune"]
    users = [number for number, (word, _) in enumerate(INSTRUCTIONS) if word == "USER"]
    assert not [word for word, _ in INSTRUCTIONS[users[0] :] if word == "RUN"]
    assert arguments("VOLUME") == ["/data"]
    assert arguments("EXPOSE") == ["7860"]
    assert "REELTUNE_ROOT=/data" in arguments("ENV")[-1]
    assert KEY not in DOCKERFILE
    assert ENTRYPOINT[0] == "reeltune"
    assert_options_exist(ENTRYPOINT[1:])


def test_compose_starts_the_same_image_on_a_cpu_or_a_card():
    [(name, service)] = COMPOSE["services"].items()
    assert service["build"]["dockerfile"] == "deploy/Dockerfile"
    assert (DEPLOY / service["build"]["context"]).resolve() == PROJECT
    assert set(service["build"]["args"]) <= {argument.partition("=")[0] for argument in arguments("ARG")}
    assert service["build"]["args"]["TORCH"] == "cpu"
    assert service["restart"] == "unless-stopped"
    assert service["ports"] == ["127.0.0.1:${REELTUNE_PORT:-7860}:7860"]
    assert [volume.rpartition(":")[2] for volume in service["volumes"]] == ["/data", "/data/ckpts"]
    assert service["secrets"] == list(COMPOSE["secrets"]) == [Path(ENTRYPOINT[-1]).name]
    assert Path(ENTRYPOINT[-1]).parent == Path("/run/secrets")
    check = service["healthcheck"]
    assert check["test"] == ["CMD", *HEALTH_CHECK]
    times = f"--interval={check['interval']} --timeout={check['timeout']} --start-period={check['start_period']}"
    assert arguments("HEALTHCHECK")[0].startswith(f"{times} --retries={check['retries']} ")
    assert {"root", "models"} == set(COMPOSE["volumes"])
    assert list(CUDA["services"]) == [name]
    card = CUDA["services"][name]
    assert card["build"]["args"]["TORCH"].endswith(":-cu128}")
    assert card["image"] != service["image"]
    [device] = card["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


class Container(Server):
    """The server as the image starts it, with the files and the port of a test."""

    started = "/healthz"

    def command(self):
        return [sys.executable, "-m", "reeltune", *self.adapted(ENTRYPOINT[1:])]

    def adapted(self, words):
        """A command of the image, with the port and the key file of the test."""
        replaced = {"7860": str(self.port), ENTRYPOINT[-1]: str(self.root / "keys.txt")}
        return [replaced.get(word, word.replace(":7860/", f":{self.port}/")) for word in words]

    def healthy(self):
        program, *words = self.adapted(HEALTH_CHECK)
        assert program == "python"
        environment = {**os.environ, "http_proxy": "http://127.0.0.1:9"}  # a container may have one
        return subprocess.run([sys.executable, *words], env=environment, capture_output=True, check=False).returncode


def test_what_the_image_runs_works_in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("REELTUNE_ROOT", str(tmp_path / "data"))
    container = Container(tmp_path / "data", offline=True)
    keys = tmp_path / "data" / "keys.txt"
    keys.write_text(f"{KEY}\n", encoding="utf-8")
    keys.chmod(0o600)
    assert container.healthy() == 1
    container.start()
    try:
        assert container.healthy() == 0
        assert container.ask("/v1/models")[0] == 401
        status, models = container.ask("/v1/models", {"authorization": f"Bearer {KEY}"})
        assert status == 200
        assert b"nano_t2v" in models
        assert (tmp_path / "data" / "finetunes").is_dir()
        assert container.process is not None
        container.process.send_signal(signal.SIGTERM)
        assert container.process.wait(120) == 0
    finally:
        container.stop()
    assert KEY not in container.log()


def test_without_the_secret_the_error_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("REELTUNE_ROOT", str(tmp_path))
    command = Container(tmp_path).command()
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert answer.returncode == 1
    assert "--api-key-file" in answer.stderr
    assert "Traceback" not in answer.stderr


# --- systemd ----------------------------------------------------------------------------------------------------

# All options of the unit, so that a misspelled one is noticed without systemd, which ignores those it doesn't know.
OPTIONS = {
    "Unit": "Description Wants After",
    "Service": "Type User Group StateDirectory StateDirectoryMode CacheDirectory WorkingDirectory Environment "
    "LoadCredential ExecStart KillSignal KillMode TimeoutStopSec Restart RestartSec OOMPolicy NoNewPrivileges "
    "ProtectSystem ProtectHome PrivateTmp ProtectClock ProtectControlGroups ProtectHostname ProtectKernelLogs "
    "ProtectKernelModules ProtectKernelTunables ProtectProc CapabilityBoundingSet LockPersonality RemoveIPC "
    "RestrictAddressFamilies RestrictNamespaces RestrictRealtime RestrictSUIDSGID SystemCallArchitectures "
    "SystemCallFilter SystemCallErrorNumber UMask",
    "Install": "WantedBy",
}


def test_the_unit_has_only_options_of_systemd():
    assert {name: set(UNIT[name]) for name in UNIT.sections()} == {
        name: set(options.split()) for name, options in OPTIONS.items()
    }


def test_the_unit_protects_the_system_and_the_keys():
    service = UNIT["Service"]
    assert (service["ProtectSystem"], service["NoNewPrivileges"], service["Restart"]) == ("strict", "yes", "on-failure")
    assert service["CapabilityBoundingSet"] == ""
    name, _, path = service["LoadCredential"].partition(":")
    assert path.startswith("/etc/")
    program, *words = shlex.split(service["ExecStart"])
    assert words[-2:] == ["--api-key-file", f"%d/{name}"]
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert_options_exist(words)
    comment = (DEPLOY / "reeltune.service").read_text(encoding="utf-8").partition("[Unit]")[0]
    assert f"{Path(program).parent}/pip install" in comment


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd is not installed; the tests above check it"
)
def test_systemd_accepts_the_unit(tmp_path):
    program = shlex.split(UNIT["Service"]["ExecStart"])[0]
    text = (DEPLOY / "reeltune.service").read_text(encoding="utf-8").replace(f"={program} ", f"={sys.executable} ")
    path = tmp_path / "reeltune.service"
    path.write_text(text, encoding="utf-8")
    answer = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True, check=False, timeout=300
    )
    assert (answer.returncode, answer.stderr) == (0, "")


def test_systemd_s_copy_of_the_keys_causes_no_warning(tmp_path, monkeypatch):
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY}\n", encoding="utf-8")
    keys.chmod(0o440)  # as systemd shows its access list
    assert "chmod 600" in warnings_about(keys)[0]
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert warnings_about(keys) == []


# --- the commands in the files' own comments ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["compose.yaml", "reeltune.service"])
def test_the_command_that_makes_a_key_works(name, tmp_path):
    text = (DEPLOY / name).read_text(encoding="utf-8")
    [command] = [line.strip("# ") for line in text.splitlines() if "token_urlsafe" in line]
    target = re.search(r"> (\S+)\)$", command)[1]
    path = tmp_path / "keys"
    subprocess.run(["sh", "-c", command.replace(target, str(path))], check=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_text(encoding="utf-8").strip()) >= 40
