"""`gristmill plan`: what a run would do and cost, without doing it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gristmill.artifacts import MANIFEST, read_json
from gristmill.console import listing
from gristmill.errors import ArtifactError
from gristmill.pipeline import Pipeline, given_model
from gristmill.runs import STAGES
from gristmill.training.shape import cost, model_config, sizes

if TYPE_CHECKING:
    from gristmill.config import Config


def describe(config: Config, root: Path) -> str:
    """Return the plan as text; raises ConfigError for a shape that does not fit together."""
    return listing([*_model(config, root), *_stages(config, root)])


def _model(config: Config, root: Path) -> list[tuple[str, str]]:
    from gristmill.training.estimate import resolve_dtype

    design, train = config.design, config.train
    model = _shape(config)
    price = cost(model, design.context, design.batch, train.recompute, train.shards)
    if train.lora.rank:
        from gristmill.training.adapting import adapted_cost

        price = adapted_cost(price, model, train.lora, _new_tokens(config))
    z = sizes(model)
    return [
        ("run", f"{config.project.name}, seed {config.project.seed}"),
        (
            "model",
            f"{model['model_type']}: {z.layers} layers, width {z.hidden}, "
            f"{z.heads} heads of {z.head_dim}, MLP {z.inner}, vocabulary {model['vocab_size']:,}",
        ),
        ("parameters", f"{price.parameters:,}"),
        ("work", f"{price.flops_per_token / 1e6:.1f} MFLOP per token, forward and backward"),
        ("memory", f"{price.memory_bytes / 1e6:.0f} MB to train, in {resolve_dtype(train.dtype)}"),
        ("training", _training(config, _measured(config, model, root))),
    ]


def _shape(config: Config) -> dict[str, Any]:
    """Return config.json's content as stage design would; of a given model where there is one."""
    given = given_model(config)
    if given is None:
        return model_config(config.design, config.split.vocab_size)
    from gristmill.training.given import check

    return check(given, config.design)


def _new_tokens(config: Config) -> bool:
    """Say whether stage split would append tokens to those of the given model."""
    from gristmill.data.adopting import adopt

    given = given_model(config)
    return given is not None and bool(adopt(given).appended)


def _training(config: Config, known: tuple[float, str] | None) -> str:
    """Return steps, tokens and time; known: seconds per step and when they were measured."""
    from gristmill.training.estimate import seconds_for, steps_for

    design = config.design
    tokens = design.batch * design.context * config.train.accumulate
    if known is None:
        if design.steps is None:
            minutes = f"{design.minutes:g} minutes in steps of {tokens:,} tokens"
            return f"{minutes}, how many is measured in design"
        total = f"{design.steps:,} steps of {tokens:,} tokens: {design.steps * tokens:,} tokens"
        return f"{total}, time measured in design"
    pace, when = known
    steps = design.steps or steps_for(design.minutes, pace)
    return (
        f"{steps:,} steps of {tokens:,} tokens: {steps * tokens:,} tokens, "
        f"{seconds_for(steps, pace) / 60:.1f} minutes at the speed measured {when}"
    )


def _measured(config: Config, model: dict[str, Any], root: Path) -> tuple[float, str] | None:
    """Return what the newest finished design of this shape in `root` has measured, if any."""
    found = []
    for path in (root / STAGES).glob("design-*/" + MANIFEST):
        facts, begun = read_json(path.with_name("design.json")), read_json(path)["begun"]
        if facts.get("seconds_per_step") and _same(config, model, facts):
            found.append((begun, facts["seconds_per_step"]))
    if not found:
        return None
    begun, pace = max(found)
    return pace, begun


def _same(config: Config, model: dict[str, Any], facts: dict[str, Any]) -> bool:
    """Say whether a finished design made steps of the same work."""
    from gristmill.training.estimate import resolve_dtype

    design, train = config.design, config.train
    wanted = {
        "dtype": resolve_dtype(train.dtype),
        "accumulate": train.accumulate,
        "recompute": train.recompute,
    }
    theirs = {key: facts["model"].get(key) for key in model if key != "eos_token_id"}
    ours = {key: value for key, value in model.items() if key != "eos_token_id"}
    shape = (design.batch, design.context, wanted)
    return theirs == ours and (facts["batch"], facts["context"], facts["train"]) == shape


def _stages(config: Config, root: Path) -> list[tuple[str, str]]:
    """Return per stage whether it is done; a key depends on what earlier stages gave."""
    pipeline = Pipeline(config, root)
    rows = []
    known = root.is_dir()
    for stage in pipeline.stages:
        text = "to do"
        if known:
            try:
                done = pipeline.finished(stage)
            except ArtifactError as error:
                done, text = None, str(error)
            if done is None:
                known = False
            else:
                pipeline.done.append(done)
                text = f"done, {done.manifest['seconds']:.1f} s then: {done.manifest['summary']}"
        rows.append((f"{stage.number:2} {stage.folder[3:]}", text))
    return rows
