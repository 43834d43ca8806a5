"""How far tuning moved each operation: the quantities of Figs. 8 and 9."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from srft_plugin.errors import UserError
from srft_plugin.prior import Prior

Weights = Mapping[str, Tensor]
Groups = Mapping[str, list[str]]


def operation_distances(start: Weights, end: Weights, groups: Groups) -> dict[str, float]:
    """||theta_t - theta_0|| / ||theta_0|| of each operation (Fig. 8).

    Operations that start at zero, as adapters do, have no relative distance and are left out.

    Args:
        start, end: parameters by name at the start and after tuning.
        groups: operation to the names of its parameters.

    Raises:
        UserError: parameters missing from ``start`` or ``end``, or of different shapes.
    """
    names = [name for members in groups.values() for name in members]
    wrong = [
        name
        for name in names
        if name not in start or name not in end or start[name].shape != end[name].shape
    ]
    if wrong:
        raise UserError(
            f"the checkpoints are of different networks: {len(wrong)} parameters are missing or "
            f"of another shape, the first is {wrong[0]!r}"
        )
    moved = {n: (end[n].double() - start[n].double()).square().sum() for n in names}
    size = {n: start[n].double().square().sum() for n in names}
    return {
        group: float((sum(moved[n] for n in members) / sum(size[n] for n in members)) ** 0.5)
        for group, members in groups.items()
        if any(size[n] for n in members)
    }


def sensitivity_weighted_distance(
    start: Weights, end: Weights, groups: Groups, prior: Prior
) -> float:
    """Sum over operations of s^p times the relative distance, over the sum of s^p (Fig. 9).

    The paper names the quantity and gives no formula; this is the mean distance, weighted by the
    prior sensitivity. Operations without a prior, or that start at zero, are left out.

    Raises:
        UserError: as ``operation_distances``, or no operation of ``groups`` has a prior.
    """
    sensitivity = {name: s for name, s in prior.sensitivity().items() if name in groups}
    if not sensitivity:
        raise UserError("no operation of the network has a prior; is it of another network?")
    distances = operation_distances(start, end, {name: groups[name] for name in sensitivity})
    total = sum(sensitivity[name] for name in distances)
    return sum(sensitivity[name] * distance for name, distance in distances.items()) / total
