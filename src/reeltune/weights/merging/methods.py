"""The methods of merging, their formulas, and what each of them needs.

W is a weight tensor of the merged model, W_i that of the i-th model, w_i the weight given to that model, and C the
tensor of the base model.

weighted         W = sum(w_i W_i) / sum(w_i)
add-difference   W = C + sum(w_i (W_i - C)), "task arithmetic" (Ilharco et al., arXiv 2212.04089)
slerp            W on the arc between two models (Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985)
ties             W = C + the mean of the differences that agree (Yadav et al., arXiv 2306.01708)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum

from reeltune.errors import CheckpointError
from reeltune.settings.multipliers import MAX_WEIGHT

DENSITY = 0.2  # of ties: the share that the paper keeps
_MOST_MODELS = 16


class Method(StrEnum):
    """A method of merging."""

    WEIGHTED = "weighted"
    ADD_DIFFERENCE = "add-difference"
    SLERP = "slerp"
    TIES = "ties"

    @property
    def needs_base(self) -> bool:
        """Whether it works on the differences from a base model."""
        return self in (Method.ADD_DIFFERENCE, Method.TIES)


def check_method(name: str, weights: Sequence[float], *, has_base: bool, density: float) -> Method:
    """The method of a name. Raises CheckpointError where it can't work with these weights, or without a base model."""
    if name not in list(Method):
        hint = f"Use one of: {', '.join(Method)}."
        raise CheckpointError(f"Invalid value {name!r} for the method.", hint=hint)
    method = Method(name)
    if method.needs_base and not has_base:
        raise CheckpointError(f"{method} needs the base model of the finetunes.", hint="Give it with --base.")
    if has_base and not method.needs_base:
        message = f"{method} doesn't use a base model."
        raise CheckpointError(message, hint=f"Leave it out, or use {Method.ADD_DIFFERENCE} or {Method.TIES}.")
    if not 0 < density <= 1:
        raise CheckpointError(f"Invalid value {density} for the density.", hint="Use a share, such as 0.2.")
    _check_weights(method, weights)
    return method


def _check_weights(method: Method, weights: Sequence[float]) -> None:
    fewest = 1 if method.needs_base else 2
    most = 2 if method is Method.SLERP else _MOST_MODELS
    if not fewest <= len(weights) <= most:
        count = "two models" if most == fewest else f"{fewest} to {most} models"
        raise CheckpointError(f"{method} merges {count}, not {len(weights)}.")
    for weight in weights:
        if not math.isfinite(weight) or abs(weight) > MAX_WEIGHT:
            raise CheckpointError(f"Invalid weight {weight}.", hint="Give a number, such as 0.6.")
    if method in (Method.SLERP, Method.TIES) and min(weights) < 0:
        raise CheckpointError(f"{method} takes no negative weights.", hint=f"{Method.ADD_DIFFERENCE} takes them.")
    if method is not Method.ADD_DIFFERENCE and abs(sum(weights)) < 1e-6:
        raise CheckpointError("The sum of the weights is 0, and they are divided by it.", hint="Use other weights.")


def linear_factors(method: Method, weights: Sequence[float]) -> list[float]:
    """What each model is multiplied with where the method is a sum; the base model's factor is the last one.

    For `weighted` and `add-difference`.
    """
    if method is Method.WEIGHTED:
        return [weight / sum(weights) for weight in weights]
    return [*weights, 1 - sum(weights)]


def slerp_factors(squares: tuple[float, float], product: float, weights: Sequence[float]) -> list[float]:
    """What two tensors are multiplied with by slerp.

    `squares`: the sums of their squared values; `product`: their dot product. With the angle a between the tensors
    seen as vectors, and t = w_2 / (w_1 + w_2):

        W = sin((1 - t) a) / sin(a) * W_1 + sin(t a) / sin(a) * W_2

    Tensors that are nearly parallel or opposite, or zero, have no arc between them: W = (1 - t) W_1 + t W_2.
    """
    share = weights[1] / sum(weights)
    lengths = math.sqrt(squares[0]) * math.sqrt(squares[1])
    cosine = product / lengths if lengths else 1.0
    if abs(cosine) > PARALLEL:
        return [1 - share, share]
    angle = math.acos(cosine)
    return [math.sin((1 - share) * angle) / math.sin(angle), math.sin(share * angle) / math.sin(angle)]


PARALLEL = 0.9995  # cosine beyond which slerp is linear, as in most implementations
