"""Stage 6: the first weights, and what one step says about them.

Gate: the loss at step 0 is near ln V, that of a model that prefers no token.
"""

from __future__ import annotations

import math
from typing import Any

from gristmill.artifacts import Gate, Result, StageContext, read_json, write_json
from gristmill.data.loader import Loader
from gristmill.data.shards import Shard
from gristmill.data.tokenizer import Tokenizer


def run(ctx: StageContext) -> Result:
    """Write model/ (a Hugging Face folder) and variance.json."""
    from gristmill.models import build, config_from_dict
    from gristmill.models.saving import save_model
    from gristmill.training import initial

    split, config = ctx.input("split"), ctx.config.initialize
    design = read_json(ctx.input("design") / "design.json")
    model = build(config_from_dict(design["model"]))
    rules = initial.fill(model, config, ctx.seed)
    batch = Loader(Shard.open(split / "train"), design["batch"], design["context"], ctx.seed).batch(
        0
    )
    ctx.progress("one step forward and back")
    probe = initial.probe(model, *batch)
    uniform = math.log(model.config.vocab_size)
    save_model(model, ctx.out / "model")
    Tokenizer.load(split).save(ctx.out / "model")
    write_json(
        ctx.out / "variance.json",
        {
            "method": config.method,
            "loss": probe.loss,
            "ln_vocabulary": uniform,
            "levels": [vars(level) for level in probe.levels],
            "parameters": {
                name: {"rule": rules[name], "variance": values, "gradient_variance": gradients}
                for name, (values, gradients) in probe.weights.items()
            },
        },
    )
    off = abs(probe.loss - uniform)
    gate = Gate(
        "|loss at step 0 - ln V|, nats", off, config.tolerance, off <= config.tolerance,
        "variance.json",
    )  # fmt: skip
    summary = f"{config.method}, loss {probe.loss:.3f}, ln V {uniform:.3f}"
    return Result(summary, [gate], _report(config.method, probe, rules, uniform))


def _report(method: str, probe: Any, rules: dict[str, str], uniform: float) -> dict[str, Any]:
    names = [level.name for level in probe.levels]
    rows = [
        [name, rules[name], values, gradients]
        for name, (values, gradients) in probe.weights.items()
    ]

    def plot(title: str, values: list[float]) -> dict[str, Any]:
        return {
            "title": title,
            "kind": "line",
            "x_label": "layers above the embedding",
            "y_label": "variance",
            "y_log": all(value > 0 for value in values),
            "series": [{"name": method, "x": list(range(len(names))), "y": values}],
        }

    return {
        "what": f"Every weight is drawn by rule {method!r}; one batch goes forward and back.",
        "why": "A signal that grows or dies from layer to layer, or a first loss far from ln V, "
        "costs training its first minutes or all of it.",
        "numbers": {
            "loss at step 0": probe.loss,
            "ln V": uniform,
            "activation variance, last / first": _ratio(probe.levels, "activation"),
            "gradient variance, last / first": _ratio(probe.levels, "gradient"),
        },
        "plots": [
            plot("Residual stream, going up", [level.activation for level in probe.levels]),
            plot("Its gradient, coming down", [level.gradient for level in probe.levels]),
        ],
        "tables": [
            {
                "title": "Parameters",
                "columns": ["parameter", "rule", "variance", "variance of gradient"],
                "rows": rows,
            }
        ],
    }


def _ratio(levels: list[Any], field: str) -> float | None:
    first, last = getattr(levels[0], field), getattr(levels[-1], field)
    return last / first if first else None
