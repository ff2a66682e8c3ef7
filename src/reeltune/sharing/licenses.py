"""The license of a published model, as the Hub names it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from reeltune.definitions.nearest import nearest_name
from reeltune.definitions.section import ModelSection
from reeltune.errors import PublishError

OTHER = "other"
SUGGESTED = (
    "apache-2.0",
    "mit",
    "openrail",
    "openrail++",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "cc-by-nc-4.0",
    "cc0-1.0",
    OTHER,
)
_KNOWN = frozenset(
    {
        *SUGGESTED, "afl-3.0", "agpl-3.0", "apple-amlr", "artistic-2.0", "bigscience-bloom-rail-1.0",
        "bigscience-openrail-m", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "bsl-1.0", "c-uda", "cc",
        "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0",
        "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cdla-permissive-1.0",
        "cdla-permissive-2.0", "cdla-sharing-1.0", "creativeml-openrail-m", "deepfloyd-if-license", "ecl-2.0",
        "epl-1.0", "epl-2.0", "eupl-1.1", "eupl-1.2", "gemma", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "isc",
        "lgpl", "lgpl-2.1", "lgpl-3.0", "lgpl-lr", "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "lppl-1.3c",
        "ms-pl", "mpl-2.0", "ncsa", "odbl", "odc-by", "ofl-1.1", "open-mdw", "osl-3.0", "pddl", "postgresql", "unknown",
        "unlicense", "wtfpl", "zlib",
    }
)  # fmt: skip
_LINK = re.compile(r"https?://\S{1,500}")


@dataclass(frozen=True)
class License:
    """A license. `id`: the Hub's name for it; `name` and `link` only for the id "other"."""

    id: str
    name: str = ""
    link: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.link})" if self.id == OTHER else self.id


def chosen_license(id: str, name: str = "", link: str = "") -> License:
    """A license as the user names it. Raises PublishError for an unknown one, or another one without name and URL."""
    id = id.strip().lower()
    if id not in _KNOWN:
        nearest = nearest_name(id, _KNOWN)
        hint = f"Did you mean {nearest!r}? " if nearest else ""
        hint += f"Usual ones: {', '.join(SUGGESTED)}. For any other: --license other --license-name … --license-link …"
        raise PublishError(f"{id[:60]!r} is not a license that the Hub knows.", hint=hint)
    if id != OTHER:
        return License(id)
    if not (name.strip() and name.isprintable() and _LINK.fullmatch(link.strip())):
        message = "The license `other` needs a name and a URL."
        raise PublishError(message, hint="Use --license-name and --license-link.")
    return License(id, name.strip(), link.strip())


def remembered_license(section: ModelSection) -> License | None:
    """The license that a definition names; None if it names none, or one that can't be used."""
    if not section.license:
        return None
    try:
        return chosen_license(section.license, section.license_name or "", section.license_link or "")
    except PublishError:
        return None
