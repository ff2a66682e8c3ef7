"""The workers that the options `--workers` and `--ray` ask for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reeltune.errors import WorkersError
from reeltune.jobs.handle import WorkerHandle
from reeltune.jobs.local import local_workers
from reeltune.jobs.ray_cluster import ClusterAddress

_CPU = "cpu"


def chosen_workers(
    root: Path,
    workers: str | None = None,
    ray: str | None = None,
    *,
    save_quantized: bool = False,
    outputs: Path | None = None,
) -> tuple[Sequence[WorkerHandle], ClusterAddress | None]:
    """The workers of this machine, and the cluster whose workers are used instead; see `Runner`.

    Args:
        root: The working folder of this program.
        workers: See `parse_workers`. With a cluster only "cpu": its nodes without a card make videos too.
        ray: The address of a Ray cluster, see `ClusterAddress`; None for none.
        save_quantized: Whether workers write what they quantize, whatever the preference. Not with a cluster.
        outputs: The folder of videos, in place of the preference's.

    Raises WorkersError, DeviceMissing.
    """
    if ray is None:
        return local_workers(root, workers, save_quantized=save_quantized, outputs=outputs), None
    if workers not in (None, _CPU):
        message = f"--workers {workers} can't be used together with --ray: the workers are the cards of the cluster."
        hint = "Leave it out, or use --workers cpu to make videos on nodes without a card too."
        raise WorkersError(message, hint=hint)
    if save_quantized:
        message = "--save-quantized can't be used together with --ray: the nodes of a cluster save no models."
        raise WorkersError(message, hint="Make the files first: reeltune quantize ID --root FOLDER_OF_THE_NODE")
    return [], ClusterAddress(ray, cpu=True if workers == _CPU else None)
