"""Why the header of a file contradicts what it is listed as: a model, a module or a component."""

from __future__ import annotations

from reeltune.checkpoints.identify import Identity
from reeltune.definitions.slots import TRANSFORMER, Role, Slot
from reeltune.families import Architecture, Component
from reeltune.families.components import KINDS


def contradiction(
    identity: Identity, architecture: Architecture, role: Role = Role.WHOLE, slot: Slot = TRANSFORMER
) -> str:
    """Why a header can't be that of a version of this architecture; empty if it can. `slot`: of a component."""
    if role is Role.COMPONENT:
        return _component_contradiction(identity, component_of(architecture, slot))
    same_family = identity.family == architecture.family.name
    if same_family and _suits(identity, architecture, role):
        return ""
    if same_family and role is Role.MODULE:
        return "it is a whole model, not a module"
    actual = ", ".join(identity.compatible) or identity.family or "no known model"
    return f"its header is that of {actual} ({', '.join(identity.evidence)})"


def component_of(architecture: Architecture, slot: str) -> Component:
    """The component of an architecture with the name of a slot."""
    return next(component for component in architecture.parts if component.name == slot)


def kinds_of(component: Component) -> tuple[str, ...]:
    """The kinds of files that a component may be in, whole or in part."""
    return tuple(dict.fromkeys((component.kind, *(part.kind for part in component.assembled))))


def _component_contradiction(identity: Identity, component: Component) -> str:
    if any(match.kind == component.kind for match in identity.components):
        return ""
    return f"its header is not that of the {KINDS[component.kind].label} ({', '.join(identity.evidence)})"


def size_contradiction(identity: Identity, component: Component, size: int | None) -> str:
    """Why a component doesn't suit a transformer that needs one of a `size`, if that is known; empty if it does."""
    kinds = kinds_of(component)
    sizes = [match.size for match in identity.components if match.size is not None and match.kind in kinds]
    if size is None or not sizes or size in sizes:
        return ""
    return f"its size is {sizes[0]}, and the transformer needs a {component.name} of size {size}"


def _suits(identity: Identity, architecture: Architecture, role: Role) -> bool:
    if role is Role.MODULE:
        return identity.role == "module"
    if role is Role.BASE:  # what the modules bring isn't in it
        return identity.role == "model" and architecture.signature.allows(identity.config)
    return identity.fits(architecture.id)
