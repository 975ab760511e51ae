"""Stage 9: the chosen checkpoint as a Hugging Face folder, read back by a fresh process.

Gate: the logits there are those of the model in training, to save.tolerance.
"""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np

from gristmill.artifacts import Gate, Result, StageContext, read_json, sha256_file, write_json
from gristmill.data.chat_tokens import FACTS, write_template
from gristmill.data.loader import Loader
from gristmill.data.shards import Shard
from gristmill.data.tokenizer import Tokenizer

ROWS = 4  # of validation text on which both processes compute


def run(ctx: StageContext) -> Result:
    """Write model/ (weights, config, tokenizer, training/), reload.json and a trained adapter/."""
    from gristmill.checkpoint.folder import load_training
    from gristmill.checkpoint.reload import logits, logits_in_fresh_process
    from gristmill.models import from_pretrained
    from gristmill.models.saving import save_model

    split, folder = ctx.input("split"), ctx.out / "model"
    name = read_json(ctx.input("validate") / "verdict.json")["chosen"]
    trained = ctx.input("train") / name
    model = from_pretrained(trained)
    save_model(model, folder, load_training(trained))
    tokenizer = Tokenizer.load(split)
    tokenizer.save(folder)
    if (split / FACTS).is_file():
        template = read_json(split / FACTS)["template"]
        write_template(folder, template, tokenizer)
    if (trained / "adapter").is_dir():  # its weights are in model.safetensors already
        shutil.copytree(trained / "adapter", ctx.out / "adapter")
    context = model.config.max_position_embeddings
    ids, _ = Loader(Shard.open(split / "val"), ROWS, context, ctx.seed).batch(0)
    ctx.progress("reading it back in a fresh process")
    got = logits_in_fresh_process(folder, ids)
    difference = float(np.abs(got.astype(np.float64) - logits(trained, ids)).max())
    digest = sha256_file(folder / "model.safetensors")
    facts = {
        "checkpoint": name,
        "step": load_training(folder)["step"],
        "sha256": digest,
        "bytes": (folder / "model.safetensors").stat().st_size,
        "rows": list(ids.shape),
        "largest_difference": difference,
    }
    write_json(ctx.out / "reload.json", facts)
    bar = ctx.config.save.tolerance
    gate = Gate(
        "largest |logit difference| on reload", difference, bar, difference <= bar, "reload.json"
    )
    summary = f"{name} of step {facts['step']:,}, reloaded, difference {difference:g}"
    return Result(summary, [gate], _report(facts))


def _report(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "what": "Weights, config and tokenizer in Hugging Face's layout, and beside them the state "
        "of the optimizer; a new process loads the folder and computes the same rows.",
        "why": "A file that was never read back is a hope. transformers loads this folder too.",
        "numbers": {
            "checkpoint": facts["checkpoint"],
            "step": facts["step"],
            "weights": f"{facts['bytes'] / 1e6:.2f} MB",
            "sha256": facts["sha256"][:16],
            "largest |logit difference|": facts["largest_difference"],
        },
        "plots": [],
        "tables": [],
    }
