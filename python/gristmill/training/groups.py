"""Which parameters share a weight decay and a learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from gristmill._tensor import Parameter
from gristmill.nn.module import Module


def parameter_groups(
    model: Module, weight_decay: float, groups: Sequence[Mapping[str, Any]] = ()
) -> list[dict[str, Any]]:
    """Groups for an optimizer: those asked for, then matrices with weight decay, vectors without.

    A group has `match` (names of parameters, * stands for anything), `weight_decay` (None: as the
    others of its kind) and `lr_scale`, a factor on the learning rate. A parameter goes to the first
    group that names it. Raises ValueError for a pattern that names no parameter.
    """
    taken: dict[tuple[float, float], list[Parameter]] = {}
    used: set[str] = set()
    learning = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    for name, p in learning:
        decay, scale = weight_decay if p.ndim >= 2 else 0.0, 1.0
        for group in groups:
            hit = [pattern for pattern in group["match"] if fnmatchcase(name, pattern)]
            used |= set(hit)
            if hit:
                given = group.get("weight_decay")
                decay, scale = decay if given is None else given, group.get("lr_scale", 1.0)
                break
        taken.setdefault((decay, scale), []).append(p)
    idle = [x for group in groups for x in group["match"] if x not in used]
    if idle:
        names = [name for name, _ in learning]
        raise ValueError(
            f"train.group: {idle[0]!r} matches no parameter that an earlier group has not taken; "
            f"there are {', '.join(names[:3])} ... {names[-1]} (* stands for anything)"
        )
    return [
        {"params": members, "weight_decay": decay, "lr_scale": scale}
        for (decay, scale), members in taken.items()
    ]
