"""Stage 6: the first weights, drawn or given, and what one step says about them.

Gate: the loss at step 0 is near ln V, that of a model that prefers no token. Given weights may be
sure and wrong of texts they never saw (a model of prose, on code), so their bar is twice that.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gristmill.artifacts import Gate, Result, StageContext, read_json, write_json
from gristmill.data.loader import Loader
from gristmill.data.shards import Shard
from gristmill.data.tokenizer import Tokenizer

if TYPE_CHECKING:
    from gristmill.models import CausalLM


def run(ctx: StageContext) -> Result:
    """Write model/ (a Hugging Face folder) and variance.json."""
    from gristmill.models import build, config_from_dict
    from gristmill.models.saving import save_model
    from gristmill.training import initial

    split, config = ctx.input("split"), ctx.config.initialize
    design = read_json(ctx.input("design") / "design.json")
    model = build(config_from_dict(design["model"]))
    rules = _fill(ctx, model)
    method = "given weights" if config.from_ else config.method
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
            "method": method,
            "loss": probe.loss,
            "ln_vocabulary": uniform,
            "levels": [vars(level) for level in probe.levels],
            "parameters": {
                name: {"rule": rules[name], "variance": values, "gradient_variance": gradients}
                for name, (values, gradients) in probe.weights.items()
            },
        },
    )
    summary = f"{method}, loss {probe.loss:.3f}, ln V {uniform:.3f}"
    gate = _gate(ctx, probe.loss, uniform)
    return Result(summary, [gate], _report(method, probe, rules, uniform))


def _fill(ctx: StageContext, model: CausalLM) -> dict[str, str]:
    """Give every parameter its first value; returns the rule of each by name, in words."""
    from gristmill.training import initial

    config = ctx.config.initialize
    if config.from_ is None:
        return initial.fill(model, config, ctx.seed)
    from gristmill.checkpoint.source import open_source
    from gristmill.training import given

    source, split = open_source(config.from_), ctx.input("split")
    ctx.progress(f"reading {source.path}")
    tokenizer = read_json(split / "adopted.json")
    new = range(tokenizer["given"], tokenizer["given"] + len(tokenizer["appended"]))
    done = given.fill(model, source, new, ctx.seed)
    facts = {"source": str(source.path), "tokenizer": tokenizer, **done.plain()}
    write_json(ctx.out / "matched.json", facts)
    return done.rules


def _gate(ctx: StageContext, loss: float, uniform: float) -> Gate:
    config = ctx.config.initialize
    if config.from_:
        bar = 2.0 * uniform
        return Gate("loss at step 0, nats (bar: 2 ln V)", loss, bar, loss < bar, "matched.json")
    off = abs(loss - uniform)
    name = "|loss at step 0 - ln V|, nats"
    return Gate(name, off, config.tolerance, off <= config.tolerance, "variance.json")


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
        "what": f"Every weight is drawn by rule {method!r}, or given (then matched.json says what "
        "became of each tensor); one batch goes forward and back.",
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
