"""What an engine keeps from video to video: the weights that are loaded, where they lie, and embeddings."""

from __future__ import annotations

from reeltune.engine.embeddings import EmbeddingCache
from reeltune.engine.models import Models
from reeltune.engine.parts import PartSlot
from reeltune.engine.placing import Placement
from reeltune.engine.reporting import Reporter
from reeltune.engine.stages import torch_device
from reeltune.engine.stamps import FilesInUse
from reeltune.engine.vae import VaeSlot
from reeltune.families.base import SMALL_COMPONENTS
from reeltune.planning.memory import ChosenProfile
from reeltune.planning.plan import Plan


class Warm:
    """Loaded models and embeddings. What the next plan has in common with the one before stays loaded."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self.files = FilesInUse()
        self.models = Models(reporter, self.files)
        self.vae = VaeSlot(reporter, self.files)
        self.parts = {name: PartSlot(name, reporter, self.files) for name in SMALL_COMPONENTS}
        self.embeddings = EmbeddingCache()
        self._placement: Placement | None = None

    def placement(self, plan: Plan, profile: ChosenProfile) -> Placement:
        """Where the models of a plan lie: as before, where device and profile are the same.

        After an earlier video has run out of memory that is a smaller profile than the chosen one, which is reported.
        """
        device = torch_device(plan.device)
        placement = self._placement
        chosen = (profile.profile, profile.preload, device)
        if placement is not None and (placement.preferred, placement.preload, placement.device) != chosen:
            placement.clear()
            self.vae.drop()
            self._drop_parts(placement)
            placement = None
        if placement is None:
            placement = Placement(profile, device, self._reporter)
        elif placement.profile is not profile.profile:
            self._reporter.notice(
                f"Memory profile {placement.profile} is used in place of {profile.profile}: "
                "memory ran out in an earlier video."
            )
        self._placement = placement
        return placement

    def release(self) -> None:
        """Release all weights and embeddings."""
        self.models.drop(self._placement)
        self.vae.drop()
        self._drop_parts(self._placement)
        self._placement = None
        self.embeddings.clear()

    def _drop_parts(self, placement: Placement | None) -> None:
        for part in self.parts.values():
            part.drop(placement)
