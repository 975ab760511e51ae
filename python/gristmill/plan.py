"""`gristmill plan`: what a run would do and cost, without doing it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gristmill.console import listing
from gristmill.errors import ArtifactError
from gristmill.pipeline import Pipeline
from gristmill.training.shape import cost, llama_config

if TYPE_CHECKING:
    from gristmill.config import Config


def describe(config: Config, root: Path) -> str:
    """Return the plan as text; raises ConfigError for a shape that does not fit together."""
    return listing([*_model(config), *_stages(config, root)])


def _model(config: Config) -> list[tuple[str, str]]:
    design, train = config.design, config.train
    model = llama_config(design, config.split.vocab_size)
    price = cost(model, design.context, design.batch, train.recompute)
    tokens = design.batch * design.context * train.accumulate
    if design.steps is not None:
        length = f"{design.steps:,} steps of {tokens:,} tokens: {design.steps * tokens:,} tokens"
    else:
        length = (
            f"{design.minutes:g} minutes in steps of {tokens:,} tokens; "
            "how many follows from the speed that design measures"
        )
    heads = f"{model['num_attention_heads']} heads of {model['head_dim']}"
    return [
        ("run", f"{config.project.name}, seed {config.project.seed}"),
        (
            "model",
            f"{design.preset}: {design.depth} layers, width {model['hidden_size']}, {heads}, "
            f"MLP {model['intermediate_size']}, vocabulary {model['vocab_size']:,}",
        ),
        ("parameters", f"{price.parameters:,}"),
        ("work", f"{price.flops_per_token / 1e6:.1f} MFLOP per token, forward and backward"),
        ("memory", f"{price.memory_bytes / 1e6:.0f} MB to train, in {train.dtype}"),
        ("training", length),
    ]


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
