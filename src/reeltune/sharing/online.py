"""`check --online`: a definition compared with what is behind its URLs: dead and gated ones, pages, headers, names.

Only the first few hundred KB of each file are read, all files at the same time, within a limited time.
"""

from __future__ import annotations

import fnmatch
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from reeltune.checkpoints.identify import Identity
from reeltune.checkpoints.inspection import contradictions
from reeltune.checkpoints.keys import map_names
from reeltune.checkpoints.loras import Targets, fit_lora
from reeltune.checkpoints.names import format_objection
from reeltune.checkpoints.source import WeightSource
from reeltune.definitions import Definition, Version
from reeltune.definitions.locks import Lock, lock_beside
from reeltune.definitions.slots import PRELOAD, TRANSFORMER, TRANSFORMER_2, Role, Slot, role_of
from reeltune.errors import CheckpointError, InvalidJSON, LockError, Problem, ReeltuneError, Unreachable
from reeltune.events import CancelToken
from reeltune.families import Component
from reeltune.files import is_folder
from reeltune.library.inventory import PACKAGE_FILES
from reeltune.net import Session, hub_endpoint, run_within, shown, without_secrets
from reeltune.planning.contradiction import contradiction
from reeltune.planning.facts import listed_sha256
from reeltune.planning.loras import split_source
from reeltune.sharing.probing import SECONDS_PER_FILE, ProbedFile, Question, in_parallel, probe_all
from reeltune.untrusted import parse_json

_SECONDS = 120.0
_LORAS = "loras"
_MAX_LISTING_BYTES = 4_000_000
_LOW_NOISE = re.compile(r"(?<![a-z])low[_.-]?noise|(?<![a-z])low(?![a-z])", re.IGNORECASE)
_HIGH_NOISE = re.compile(r"(?<![a-z])high[_.-]?noise|(?<![a-z])high(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class _Listed:
    """A URL of a definition, with its place in it and its slot."""

    definition: Definition
    file: Path
    where: str
    slot: str
    url: str

    def problem(self, message: str, fix: str = "", severity: str = "error") -> Problem:
        return Problem(str(self.file), self.where, f"{shown(self.url)}: {message}", fix, severity)


def online_problems(
    definitions: Sequence[tuple[Definition, Path]],
    tokens: Mapping[str, str],
    *,
    seconds: float = _SECONDS,
    cancel: CancelToken | None = None,
) -> list[Problem]:
    """The problems of definitions with their URLs. Each definition comes with its file, for messages.

    Every URL is asked once, for at most `seconds` together. Raises Cancelled.
    """
    end = time.monotonic() + seconds
    listed = [entry for definition, file in definitions for entry in _listed(definition, file)]
    questions = [
        Question(entry.url, weights=entry.slot != PRELOAD) for entry in listed if not format_objection(entry.url)
    ]
    answers = probe_all(questions, tokens, seconds=seconds, cancel=cancel)
    problems: list[Problem] = []
    for definition, file in definitions:
        own = [entry for entry in listed if entry.file == file and entry.definition is definition]
        problems += _definition_problems(definition, file, own, answers)
    remaining = max(1.0, end - time.monotonic())
    return [*problems, *_component_problems(definitions, tokens, remaining, cancel)]


def _listed(definition: Definition, file: Path) -> Iterator[_Listed]:
    lists = [*definition.all_versions.items(), (PRELOAD, definition.preload), (Slot(_LORAS), definition.loras)]
    for slot, versions in lists:
        key = _LORAS if slot == _LORAS else slot.key
        for index, version in enumerate(versions):
            if version.remote:
                place = f"model.{slot if key == 'modules' else key}[{index}]"
                yield _Listed(definition, file, place, slot, version.url)
    named = definition.settings.get("activated_loras") or ()
    for index, source in enumerate([named] if isinstance(named, str) else named):
        url, _ = split_source(source)
        if Version(url).remote:
            yield _Listed(definition, file, f"activated_loras[{index}]", _LORAS, url)


def _definition_problems(
    definition: Definition, file: Path, listed: Sequence[_Listed], answers: Mapping[str, ProbedFile]
) -> Iterator[Problem]:
    try:
        lock = lock_beside(file)
    except LockError as error:
        lock = None
        yield Problem(str(file), "", error.message, error.hint)
    for entry in listed:
        if without_secrets(entry.url) != entry.url:
            yield entry.problem("the URL contains a token, which everybody can read.", "Remove it.", "warning")
        answer = answers.get(entry.url)
        if answer is not None:
            yield from _answer_problems(entry, answer, lock)
    yield from _swapped(definition, file)
    yield from _lora_problems(definition, listed, answers)


def _answer_problems(entry: _Listed, answer: ProbedFile, lock: Lock | None) -> Iterator[Problem]:
    error = answer.error
    if error is not None:
        message = error.message.removeprefix(shown(entry.url)).lstrip(": ")
        severity = "warning" if not answer.asked or (isinstance(error, Unreachable) and error.retry_after) else "error"
        yield entry.problem(message, error.hint, severity)
        return
    yield from _sha256_problems(entry, answer, lock)
    identity = answer.identity
    if identity is None or entry.slot == _LORAS:
        return
    role = role_of(Slot(entry.slot), entry.definition.slots)
    objection = contradiction(identity, entry.definition.architecture, role, Slot(entry.slot))
    if objection:
        fix = f"The definition's architecture is {entry.definition.architecture.id}: correct it, or the URL."
        yield entry.problem(f"{objection}.", fix)
        return
    for lie in contradictions(answer.name or entry.url, identity):
        yield entry.problem(lie, "Rename the file: other programs go by its name.", "warning")
    if _is_other_size(identity, entry.definition, role):
        models = " or ".join(identity.architectures)
        message = f"its header looks like {models}, and the definition says {entry.definition.architecture.id}."
        yield entry.problem(message, severity="warning")


def _is_other_size(identity: Identity, definition: Definition, role: Role) -> bool:
    if role is not Role.WHOLE or not identity.architectures:
        return False
    architecture = definition.architecture
    return not {architecture.id, architecture.transformer_of}.intersection(identity.architectures)


def _sha256_problems(entry: _Listed, answer: ProbedFile, lock: Lock | None) -> Iterator[Problem]:
    expected = listed_sha256(entry.definition.sha256, entry.url, Version(entry.url).file_name, answer.name)
    if expected and answer.sha256 and expected.lower() != answer.sha256.lower():
        message = f"it serves a file with the sha256 {answer.sha256}, and the definition lists {expected.lower()}."
        yield entry.problem(message, "The file was replaced: check it, then correct `sha256`.")
    locked = None if lock is None else lock.get(entry.url)
    if locked is not None and answer.bytes is not None and locked.bytes != answer.bytes:
        message = f"it serves {answer.bytes:,} bytes, and the lock lists {locked.bytes:,}."
        yield entry.problem(message, "The file was replaced: check it, then run `reeltune lock`.")


def _swapped(definition: Definition, file: Path) -> Iterator[Problem]:
    """A warning if the names say that the two transformers are in each other's place."""
    first, second = definition.slots.get(TRANSFORMER, ()), definition.slots.get(TRANSFORMER_2, ())
    if not first or not second:
        return
    names = [version.file_name for version in first], [version.file_name for version in second]
    low_first = all(_LOW_NOISE.search(name) and not _HIGH_NOISE.search(name) for name in names[0])
    high_second = all(_HIGH_NOISE.search(name) and not _LOW_NOISE.search(name) for name in names[1])
    if low_first and high_second:
        message = "The names say low noise under URLs and high noise under URLs2: they are probably swapped."
        yield Problem(str(file), "model.URLs", message, "The first transformer is the one for high noise.", "warning")


# --- LoRAs ------------------------------------------------------------------------------------------------------


def _lora_problems(
    definition: Definition, listed: Sequence[_Listed], answers: Mapping[str, ProbedFile]
) -> Iterator[Problem]:
    """LoRAs that don't fit any version of the model whose header was read."""
    targets = {slot: _targets(definition, slot, answers) for slot in (TRANSFORMER, TRANSFORMER_2)}
    for entry in listed:
        answer = answers.get(entry.url)
        if entry.slot != _LORAS or answer is None or answer.header is None:
            continue
        errors: list[CheckpointError] = []
        for slot, target in targets.items():
            if target is None:
                continue
            try:
                path = definition.root / "loras" / Version(entry.url).file_name
                fit_lora(path, answer.header, target, second=slot == TRANSFORMER_2)
                errors = []
                break
            except CheckpointError as error:
                errors.append(error)
        if errors:
            yield entry.problem(errors[0].message, errors[0].hint)


def _targets(definition: Definition, slot: Slot, answers: Mapping[str, ProbedFile]) -> Targets | None:
    """The parameters of a slot's model, by the first header that was read and belongs to it."""
    for version in definition.slots.get(slot, ()):
        answer = answers.get(version.url)
        if answer is None or answer.header is None or answer.identity is None:
            continue
        role = role_of(slot, definition.slots)
        if contradiction(answer.identity, definition.architecture, role):
            continue
        family = definition.architecture.family
        names = map_names(answer.header.tensors, family, answer.identity.layout or "original", answer.identity.prefix)
        return Targets(family, WeightSource(answer.header, answer.identity, names))
    return None


# --- components -------------------------------------------------------------------------------------------------


def _component_problems(
    definitions: Sequence[tuple[Definition, Path]],
    tokens: Mapping[str, str],
    seconds: float,
    cancel: CancelToken | None,
) -> list[Problem]:
    """Repositories of components that are missing, gated or incomplete. Each folder is asked for once."""
    asked: dict[tuple[str, str], Component] = {}
    for definition, _ in definitions:
        if _names_own_components(definition):
            for component in definition.architecture.parts:
                asked.setdefault((definition.components, component.name), component)
    end = time.monotonic() + seconds

    def ask(key: tuple[str, str]) -> ReeltuneError | list[str]:
        return _component_files(*key, tokens, min(SECONDS_PER_FILE, end - time.monotonic()), cancel)

    found = dict(zip(asked, in_parallel(ask, list(asked)), strict=True))
    problems = []
    for definition, file in definitions:
        if not _names_own_components(definition):
            continue
        for component in definition.architecture.parts:
            fault = _component_fault(found[definition.components, component.name], component)
            if fault:
                message = f"{definition.components}: {component.name} {fault}"
                problems.append(Problem(str(file), "model.components", message, "Name another repository."))
                break  # the other folders have the same fault
    return problems


def _names_own_components(definition: Definition) -> bool:
    """Whether a definition names a repository of its own, which isn't in the package or a local folder."""
    if definition.components == definition.architecture.components_repo:
        return False
    in_package = PACKAGE_FILES / definition.components.replace("/", "--")
    return not (is_folder(definition.root / definition.components) or is_folder(in_package))


def _component_files(
    repository: str, name: str, tokens: Mapping[str, str], seconds: float, cancel: CancelToken | None
) -> ReeltuneError | list[str]:
    """The names of the files in a component's folder, or why they can't be listed."""
    url = f"{hub_endpoint()}/api/models/{repository}/tree/main/{name}"
    with Session(tokens=tokens, connections=1) as session:
        try:
            body = run_within(
                max(0.1, seconds), lambda: session.read(url, _MAX_LISTING_BYTES), stop=session.interrupt,
                name=shown(url), cancel=cancel,
            )  # fmt: skip
            entries = parse_json(body, "the list of files")
        except InvalidJSON as error:
            return error
        except ReeltuneError as error:
            return error
    if not isinstance(entries, list):
        return Unreachable("The answer is not a list of files.")
    paths = [entry.get("path") for entry in entries if isinstance(entry, dict)]
    return [PurePosixPath(path).name for path in paths if isinstance(path, str)]


def _component_fault(found: ReeltuneError | list[str], component: Component) -> str:
    """What is wrong with a component, to follow its name; empty if nothing is."""
    if isinstance(found, ReeltuneError):
        return f"can't be listed: {found.message}"
    if not any(fnmatch.filter(found, pattern) for pattern in component.files):
        return "has no files."
    needed = [pattern for pattern in component.files if pattern in ("config.json", "*.safetensors")]
    missing = [pattern for pattern in needed if not fnmatch.filter(found, pattern)]
    return f"has no {missing[0]}." if missing else ""
