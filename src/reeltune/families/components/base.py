"""Declarations of components in single files: how a file is recognized, and how its names and sizes are read.

A component of a pipeline (a text encoder, a VAE) is one model, which programs store under different names. A *kind*
is that model. A *layout* is one way to name its tensors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from reeltune.families.base import Config, Shapes, frozen


@dataclass(frozen=True)
class NameRule:
    r"""Names in a file, and the names that the model's class has for them.

    `pattern`: a regular expression for the whole name. `names`: templates such as `encoder.layers.\1`; several where
    the file stacks the rows of several tensors.
    """

    pattern: str
    names: tuple[str, ...]

    def targets(self, name: str) -> tuple[str, ...]:
        """The names in the class for a name in the file; empty if the rule isn't for it."""
        match = re.fullmatch(self.pattern, name)
        if match is None:
            return ()
        return tuple(match.expand(template) for template in self.names)


def rule(pattern: str, *names: str) -> NameRule:
    """A rule; without `names`, the class has the name of the file."""
    return NameRule(pattern, names or (r"\g<0>",))


@dataclass(frozen=True)
class Layout:
    """One way to name the tensors of a kind.

    `label`: what reports call it. `marker`: a name that a file of this layout has; what comes before it is the prefix
    of all names, and names without that prefix belong to other models. `has`, `lacks`: names that the file must have,
    or must not have, with that prefix; after a star, with any prefix. `rules`: the first one that fits a name counts.
    `ignored`: how names begin that the class doesn't need. `aliases`: second names of tensors, used if the first name
    is missing. `told_by_name`: whether other models have the same names and sizes, so that only a published name tells
    that a file is this one.
    """

    label: str
    marker: str
    rules: tuple[NameRule, ...]
    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict, hash=False)
    told_by_name: bool = False

    def targets(self, name: str) -> tuple[str, ...]:
        """The names in the class for a name without its prefix; empty if the model has no such tensor."""
        for name_rule in self.rules:
            targets = name_rule.targets(name)
            if targets:
                return targets
        return ()


@dataclass(frozen=True)
class ComponentKind:
    """A model that is a component, or a part of one.

    `label`: what reports call it. `derive_config`: computes the config of the class from the shapes by the class's
    names, and from the config stored in the file where the shapes don't determine it. `published`: sizes in the config
    of the published model, by keys such as `d_model` or `text_config.hidden_size`; a model of other sizes is used only
    if its file has a published name. `size`: the key of the size that the transformer depends on. `blocks`: a regular
    expression for names inside of blocks, which all have the same tensors. `quantizable`: the linear layers that may
    become int8, by the class's names. `files`: the names of published files, with their folder where the name alone
    says nothing.
    """

    name: str
    label: str
    layouts: tuple[Layout, ...]
    derive_config: Callable[[Shapes, Config], Config]
    published: Config = field(default_factory=frozen, hash=False)
    size: str = ""
    blocks: str = ""
    quantizable: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    def layout(self, label: str) -> Layout:
        """The layout with a label."""
        return next(layout for layout in self.layouts if layout.label == label)


def count(shapes: Shapes, pattern: str) -> int:
    """The number of blocks. Raises ValueError if there are none, or if a forged number exceeds the tensor count."""
    matches = [re.match(pattern, name) for name in shapes]
    blocks = 1 + max(int(match[1]) for match in matches if match)
    if blocks > len(shapes):
        raise ValueError(f"{blocks} blocks in {len(shapes)} tensors")
    return blocks


def heads(width: int, head_size: int, stored: Config, *keys: str) -> int:
    """The number of attention heads: stored under one of `keys` if that divides the width, else by the head size."""
    for key in keys:
        value = stored.get(key)
        if type(value) is int and value > 0 and width % value == 0:
            return value
    return max(1, width // head_size)


def part_of(shapes: Shapes, prefix: str) -> Shapes:
    """The shapes whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}


def nested(stored: Config, key: str) -> Config:
    """A config inside a stored one; an empty one if there is none."""
    inner = stored.get(key)
    return inner if isinstance(inner, Mapping) else frozen()


def uniform(counts: Sequence[int]) -> bool:
    """Whether all blocks have equally many tensors; the first one may have more."""
    later = set(counts[1:])
    return len(later) <= 1 and all(counts[0] >= number for number in later)
