"""Which component a file contains, from its header alone: a text encoder, an image encoder or a VAE.

A file may contain several: Llava contains Llama, and an all-in-one checkpoint a VAE. File names don't matter.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from reeltune.checkpoints.contents import Header
from reeltune.checkpoints.formats import WeightFormat, format_by_header
from reeltune.checkpoints.keys import NameMap, Places, prefixes
from reeltune.checkpoints.metadata import config_if_any
from reeltune.dtypes import DType
from reeltune.families.base import Config, Shapes
from reeltune.families.components import KINDS, ComponentKind, Layout
from reeltune.families.components.base import uniform

_MARKERS = tuple(dict.fromkeys(layout.marker for kind in KINDS.values() for layout in kind.layouts))
_MOST_PREFIXES = 4  # of models of one kind in one file
_MOST_TENSORS = 20_000  # of files that are compared with all layouts; the largest published ones have 3,000
_BAD_SHAPES = (KeyError, ValueError, IndexError, ZeroDivisionError, TypeError)


@dataclass(frozen=True)
class ComponentMatch:
    """A component in a file.

    `kind`: a key of `KINDS`; `layout`: its label. `config`: of the model's class. `memory_bytes`: what its weights take
    in memory in a run of 16 bits, without those of other models in the file.
    """

    kind: str
    layout: str
    prefix: str
    config: Config
    memory_bytes: int = 0

    @property
    def label(self) -> str:
        """What reports call it."""
        kind = KINDS[self.kind]
        return f"{kind.label} or a similar model" if kind.layout(self.layout).told_by_name else kind.label

    @property
    def size(self) -> int | None:
        """The size that the transformer depends on; None if the kind has none."""
        return size_in(self.config, KINDS[self.kind].size)

    @property
    def is_published(self) -> bool:
        """Whether it is the published model by its names and sizes, and no other model has them too."""
        kind = KINDS[self.kind]
        return not kind.layout(self.layout).told_by_name and self.has_published_sizes

    @property
    def has_published_sizes(self) -> bool:
        """Whether its sizes are those of the published model."""
        published = KINDS[self.kind].published
        return all(_plain(_value_in(self.config, key)) == _plain(value) for key, value in published.items())


def size_in(config: Config, key: str) -> int | None:
    """A number in a config, by a key such as `text_config.hidden_size`; None if it isn't there."""
    value = _value_in(config, key)
    return value if type(value) is int else None


def _value_in(config: Config, key: str) -> object:
    value: object = config
    for name in key.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def component_matches(header: Header, weight_format: WeightFormat) -> tuple[ComponentMatch, ...]:
    """The components in a file; empty for files of other models, and for components with missing tensors."""
    if len(header.tensors) > _MOST_TENSORS:
        return ()
    marked = [weight_format.weight_name(name) for name in header.tensors]
    marked = [name for name in marked if name.endswith(_MARKERS)]
    if not marked:
        return ()
    matches = []
    for kind in KINDS.values():
        for layout in kind.layouts:
            match = _match(header, weight_format, kind, layout, marked)
            if match is not None:
                matches.append(match)
                break
    return _without_other_sizes(matches)


def _without_other_sizes(matches: list[ComponentMatch]) -> tuple[ComponentMatch, ...]:
    """The matches without those of a layout that another kind has too, whose published sizes the file has."""
    certain = {(match.prefix, _layout(match)) for match in matches if match.has_published_sizes}
    return tuple(
        match for match in matches if match.has_published_sizes or (match.prefix, _layout(match)) not in certain
    )


def _layout(match: ComponentMatch) -> Layout:
    return KINDS[match.kind].layout(match.layout)


def _match(
    header: Header, weight_format: WeightFormat, kind: ComponentKind, layout: Layout, marked: Collection[str]
) -> ComponentMatch | None:
    """The match of one layout; None if the file doesn't have it, or not completely."""
    found = prefixes(marked, (layout.marker,))[:_MOST_PREFIXES]
    for prefix in found:
        if not _fits(header, layout, prefix):
            continue
        names = component_names(header.tensors, layout, prefix)
        shapes = class_shapes(header, names, weight_format)
        try:
            config = kind.derive_config(shapes, config_if_any(header.metadata))
        except _BAD_SHAPES:
            continue
        if not kind.blocks or _is_complete(shapes, kind.blocks):
            stored = (header.tensors[name] for name in names.diffusers)
            size = sum(weight_format.bytes_in_memory(tensor, DType.BF16) for tensor in stored)
            return ComponentMatch(kind.name, layout.label, prefix, config, size)
    return None


def component_start(header: Header, kind: ComponentKind) -> tuple[Layout, str] | None:
    """The layout and the prefix of a kind in a file, whether or not it is complete; None if it isn't there."""
    weight_format = format_by_header(header)
    marked = [weight_format.weight_name(name) for name in header.tensors]
    for layout in kind.layouts:
        for prefix in prefixes(marked, (layout.marker,))[:_MOST_PREFIXES]:
            if _fits(header, layout, prefix):
                return layout, prefix
    return None


def _fits(header: Header, layout: Layout, prefix: str) -> bool:
    """Whether a file has the names that a layout must have, and none of those that it must not have."""
    if any(_holds(header, prefix, name) for name in layout.lacks):
        return False
    return all(_holds(header, prefix, name) for name in layout.has)


def _holds(header: Header, prefix: str, name: str) -> bool:
    """Whether a file has a name with the prefix, or with any prefix if the name begins with a star."""
    if name.startswith("*"):
        return any(stored.endswith(name[1:]) for stored in header.tensors)
    return prefix + name in header.tensors


def component_names(names: Collection[str], layout: Layout, prefix: str) -> NameMap:
    """A file's names with those of the class.

    Names without the prefix are left out, since they belong to other models; names that are unknown otherwise are
    reported by the map.
    """
    class_names: dict[str, str] = {}
    places: dict[str, Places] = {}
    unknown: list[str] = []
    for stored in names:
        if not stored.startswith(prefix):
            continue
        bare = stored.removeprefix(prefix)
        alias = layout.aliases.get(bare)
        if alias is not None and prefix + alias not in names:
            targets: tuple[str, ...] = (alias,)
        elif bare.startswith(layout.ignored):
            continue
        else:
            targets = layout.targets(bare)
        if not targets:
            unknown.append(stored)
            continue
        class_names[stored] = targets[0]
        places[stored] = Places(targets)
    return NameMap("original", prefix, class_names, places, tuple(unknown))


def class_shapes(header: Header, names: NameMap, weight_format: WeightFormat) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights by the names of the class; of stacked tensors, the first name has the whole shape."""
    shapes: dict[str, tuple[int, ...]] = {}
    for stored, places in names.diffusers.items():
        if not weight_format.is_part(stored):
            name = weight_format.weight_name(places.names[0])
            shapes[name] = weight_format.weight_shape(header.tensors[stored])
    return shapes


def _is_complete(shapes: Shapes, blocks: str) -> bool:
    """Whether every block has all of its tensors."""
    counts: dict[int, int] = {}
    for name in shapes:
        match = re.fullmatch(blocks, name)
        if match:
            number = int(match[1])
            counts[number] = counts.get(number, 0) + 1
    return sorted(counts) == list(range(len(counts))) and uniform([counts[number] for number in sorted(counts)])


def _plain(value: object) -> object:
    """A value with lists for tuples, as JSON has them."""
    return list(value) if isinstance(value, tuple) else value
