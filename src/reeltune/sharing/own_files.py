"""The files of a definition that are its author's own: those that it lists by a path on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reeltune.checkpoints.identify import Identity
from reeltune.checkpoints.names import quantized_name, read_name
from reeltune.definitions import Definition, Version
from reeltune.definitions.slots import PRELOAD, TRANSFORMERS, Slot
from reeltune.dtypes import DType, Quantization
from reeltune.errors import PublishError
from reeltune.library.inventory import FileOnDisk, Inventory
from reeltune.library.places import check_name
from reeltune.net import file_url
from reeltune.planning.facts import file_query
from reeltune.planning.loras import planned_loras
from reeltune.preferences import Preferences

VERSIONS = ("bf16", "fp16", "int8-bf16", "int8-fp16")
LORAS = "loras"  # the role of LoRAs
_INT8 = "int8-"


@dataclass(frozen=True)
class OwnFile:
    """A file to publish. `source`: as the definition lists it. `role`: its slot, "preload" or "loras".

    `version`: what it stores, such as "bf16" or "int8-bf16"; empty if that is unknown.
    """

    source: str
    path: Path
    role: str
    version: str

    @property
    def name(self) -> str:
        """Its name in the repository, which is also the name that it gets when it is downloaded."""
        return self.path.name


@dataclass(frozen=True)
class MissingVersion:
    """A version to make before publishing. `dtype`: what it computes in. `name`: the name that it will have."""

    slot: Slot
    dtype: DType
    name: str


@dataclass(frozen=True)
class OwnFiles:
    """What a definition has to publish. `left_out`: own files whose version isn't wanted, as they are listed."""

    files: tuple[OwnFile, ...]
    left_out: tuple[str, ...]
    missing: tuple[MissingVersion, ...]


def parse_versions(text: str | None) -> tuple[str, ...]:
    """The versions in a text such as `bf16,int8-bf16`. Raises PublishError for an unknown one."""
    versions = tuple(dict.fromkeys(part.strip().lower() for part in (text or "").split(",") if part.strip()))
    unknown = [version for version in versions if version not in VERSIONS]
    if unknown:
        raise PublishError(f"Invalid version {unknown[0]!r}.", hint=f"Use some of {', '.join(VERSIONS)}.")
    return versions


def own_files(
    definition: Definition, preferences: Preferences, versions: Sequence[str] = (), repository_url: str = ""
) -> OwnFiles:
    """The files to publish. `versions`: of the transformers, those to publish; by default all that are listed.

    `repository_url`: how the URLs of the repository begin that is published to. Files behind them that are on disk are
    own files, too, so that a definition can be published again.
    Raises PublishError for a file that doesn't exist, for two files of one name, and for a version that can't be made.
    """
    inventory = Inventory(definition.root, preferences.model_folders)
    files: list[OwnFile] = []
    left_out: list[str] = []
    missing: list[MissingVersion] = []
    for slot, listed in {**definition.all_versions, PRELOAD: definition.preload}.items():
        facts = {version.url: _facts(definition, version, slot, inventory) for version in listed}
        wanted = versions if slot in TRANSFORMERS else ()
        missing += _missing(slot, facts, wanted)
        for version in listed:
            label, file = facts[version.url]
            if version.remote and not (file is not None and _is_in(repository_url, version.url)):
                continue
            if wanted and label not in wanted:
                left_out.append(version.url)
                continue
            if file is None:
                raise PublishError(f"{version.url} doesn't exist.", hint="Put the file there, or correct the path.")
            files.append(OwnFile(version.url, file.path, slot, label))
    files += _own_loras(definition, preferences, repository_url)
    unique = tuple({(file.source, file.role): file for file in files}.values())
    _check_names(unique)
    return OwnFiles(unique, tuple(left_out), tuple(missing))


_Facts = tuple[str, FileOnDisk | None]  # what a version stores, and its file


def _facts(definition: Definition, version: Version, slot: Slot, inventory: Inventory) -> _Facts:
    file, _ = inventory.find(file_query(definition, version, slot))
    if slot == PRELOAD:
        return "", file
    if file is not None and file.identity is not None:
        return version_of(file.identity), file
    named = read_name(version.url)
    return _label(named.quantization, named.dtype or DType.BF16), file


def version_of(identity: Identity) -> str:
    """What a weight file stores, such as "bf16" or "int8-bf16"."""
    return _label(identity.quantization, identity.dtype)


def _label(quantization: Quantization, dtype: DType | None) -> str:
    if quantization is Quantization.QUANTO_INT8:
        return f"{_INT8}{dtype or DType.BF16}"
    return str(dtype or "") if quantization is Quantization.NONE else str(quantization)


def _missing(slot: Slot, facts: Mapping[str, _Facts], wanted: Sequence[str]) -> Iterator[MissingVersion]:
    """The versions to make for a slot. Raises PublishError if one can't be made."""
    labels = [label for label, _ in facts.values()]
    sources = [Version(url) for url, (label, _) in facts.items() if label in ("bf16", "fp16", "fp32")]
    for version in wanted:
        if version in labels:
            continue
        if not version.startswith(_INT8) or not sources:
            message = f"{slot.key} lists no {version} version"
            reason = "and it is not made from others" if sources else "and no 16-bit version that it could be made from"
            raise PublishError(
                f"{message}, {reason}.", hint="Add the file to the definition, or leave the version out."
            )
        dtype = DType(version.removeprefix(_INT8))
        yield MissingVersion(slot, dtype, quantized_name(sources[0].file_name, dtype))


def _is_in(repository_url: str, url: str) -> bool:
    return bool(repository_url) and file_url(url).startswith(repository_url)


def _own_loras(definition: Definition, preferences: Preferences, repository_url: str) -> list[OwnFile]:
    """The LoRAs on this machine that the definition and its settings name."""
    sources = [lora.url for lora in definition.loras]
    named = definition.settings.get("activated_loras") or ()
    sources += [named] if isinstance(named, str) else list(named)
    own = [source for source in dict.fromkeys(sources) if not Version(source).remote or _is_in(repository_url, source)]
    files = []
    for lora in planned_loras(definition, preferences, own):
        if not lora.item.present and Version(lora.source).remote:
            continue
        if not lora.item.present:
            message = f"The LoRA {lora.source} is not on disk."
            raise PublishError(message, hint="Put it into loras/, or remove it from the definition.")
        files.append(OwnFile(lora.source, lora.item.path, LORAS, ""))
    return files


def _check_names(files: Sequence[OwnFile]) -> None:
    """Raise PublishError for different files of one name, and FetchError for names that can't be used."""
    paths: dict[str, Path] = {}
    for file in files:
        check_name(file.name)
        other = paths.setdefault(file.name.casefold(), file.path)
        if not other.samefile(file.path):
            message = (
                f"Two files are called {file.name}: {other.parent.name}/ and {file.path.parent.name}/ have one each."
            )
            raise PublishError(message, hint="Rename one of them, and its path in the definition.")
