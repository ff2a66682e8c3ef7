"""Names of weights in the original and in diffusers' layout, by a family's table of renames.

Works on names alone: `blocks.3.self_attn.q.weight._data` is the module `blocks.3.self_attn.q` and the
rest `.weight._data`; only the module part is translated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

from reeltune.families import Rename

Layout = Literal["original", "diffusers"]
WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})  # what torch puts between
_MAX_SUFFIX = 2  # segments after the module's name: none, "weight", or "weight._data"


class Renamed(Protocol):
    """What has a table of renames: a family, or the layout of a component's file."""

    @property
    def renames(self) -> tuple[Rename, ...]:
        """The modules under both names."""

    @property
    def others(self) -> tuple[str, ...]:
        """How the names of tensors begin that belong to other models in the same file."""

    def __hash__(self) -> int:
        """It never changes, so tables made of it are kept."""


@dataclass(frozen=True)
class Places:
    """Where a stored tensor goes: one name, or several whose rows it holds stacked.

    `swapped`: its halves change places.
    """

    names: tuple[str, ...]
    swapped: bool = False


@lru_cache(maxsize=16)
def _table(family: Renamed, source: Layout) -> dict[str, Places]:
    if source == "original":
        return {rename.original: Places((rename.diffusers, *rename.more), rename.swapped) for rename in family.renames}
    table = {}
    for rename in family.renames:
        for name in (rename.diffusers, *rename.more):
            table[name] = Places((rename.original,))
    return table


def places(name: str, family: Renamed, source: Layout) -> Places | None:
    """Where `name` goes in the other layout, or None where the family has no such module."""
    return _places(name, _table(family, source))


def _places(name: str, table: Mapping[str, Places]) -> Places | None:
    segments = name.split(".")
    number = next((index for index, segment in enumerate(segments) if segment.isdigit()), None)
    for cut in range(len(segments), max(0, len(segments) - _MAX_SUFFIX - 1), -1):
        module, suffix = segments[:cut], segments[cut:]
        block = ""
        targets = table.get(".".join(module))
        if targets is None and number is not None and number < cut:
            block = module[number]
            module[number] = "{}"
            targets = table.get(".".join(module))
        if targets is not None:
            names = [".".join([target.replace("{}", block), *suffix]) for target in targets.names]
            return Places(tuple(names), targets.swapped)
    return None


def translate(name: str, family: Renamed, source: Layout) -> str | None:
    """`name` in the other layout (the first one of a stack), or None where the family has no such module."""
    targets = places(name, family, source)
    return targets.names[0] if targets else None


def matches(name: str, pattern: str) -> bool:
    """Whether a module's name fits a pattern in which `{}` stands for any number."""
    segments, wanted = name.split("."), pattern.split(".")
    if len(segments) != len(wanted):
        return False
    pairs = zip(segments, wanted, strict=True)
    return all(segment == want or (want == "{}" and segment.isdigit()) for segment, want in pairs)


@dataclass(frozen=True)
class NameMap:
    """A checkpoint's names sorted out: which are the model's (stored name -> other), which are not."""

    layout: Layout
    prefix: str
    original: dict[str, str]  # stored name -> original name
    diffusers: dict[str, Places]  # stored name -> where it goes in diffusers' model
    unknown: tuple[str, ...]


def prefixes(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """What stands before the `known` names in a file, whatever container its writer kept the model in.

    Each ends in a dot or is empty; the shortest comes first.
    """
    endings = tuple(known)
    before = set()
    for name in names:
        for ending in endings:
            if name == ending or name.endswith("." + ending):
                before.add(name.removesuffix(ending))
    return sorted(before, key=lambda prefix: (len(prefix), prefix))


def unwrapped(name: str) -> str:
    """A tensor's name without the modules that torch wraps others in (compiled, sharded, checkpointed)."""
    if not any(wrapper in name for wrapper in WRAPPERS):
        return name
    return ".".join(segment for segment in name.split(".") if segment not in WRAPPERS)


def map_names(names: Iterable[str], family: Renamed, layout: Layout, prefix: str = "") -> NameMap:
    """Sort out all names of a file, given its layout and prefix (as `prefixes` finds it)."""
    original: dict[str, str] = {}
    diffusers: dict[str, Places] = {}
    unknown: list[str] = []
    table = _table(family, layout)  # looked up once: the hash of a family covers all that it declares
    for stored in names:
        bare = unwrapped(stored.removeprefix(prefix))
        if bare.startswith(family.others):
            continue
        targets = _places(bare, table) if stored.startswith(prefix) else None
        if targets is None:
            unknown.append(stored)
        elif targets.names == ("",):
            continue  # a constant that diffusers computes
        elif layout == "original":
            original[stored] = bare
            diffusers[stored] = targets
        else:
            original[stored] = targets.names[0]
            diffusers[stored] = Places((bare,))
    return NameMap(layout, prefix, original, diffusers, tuple(unknown))
