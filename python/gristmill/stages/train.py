"""Stage 7: training, resumable bit for bit after a kill.

Checkpoints last/ and best/ (by validation loss) are Hugging Face folders with training/ beside the
weights; metrics.jsonl has a row per step. Gate: the loss on validation files fell.
"""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gristmill.artifacts import Gate, Result, StageContext, read_json, write_json
from gristmill.data.loader import Loader
from gristmill.data.shards import Shard
from gristmill.data.tokenizer import Tokenizer

if TYPE_CHECKING:
    from gristmill.models import CausalLM

POINTS = 400  # of a curve on the page


def run(ctx: StageContext) -> Result:
    """Write last/, best/, metrics.jsonl and time.json."""
    from gristmill.models import from_pretrained
    from gristmill.training.adapting import adapt, has_new_tokens
    from gristmill.training.trainer import Trainer, TrainerConfig

    design = read_json(ctx.input("design") / "design.json")
    first = read_json(ctx.input("initialize") / "variance.json")["loss"]
    t = ctx.config.train
    config = TrainerConfig(
        steps=design["steps"], lr=t.lr, schedule=t.schedule, warmup=t.warmup, decay=t.decay,
        final=t.final, plateau_factor=t.plateau_factor, plateau_patience=t.plateau_patience,
        weight_decay=t.weight_decay, groups=[group.model_dump() for group in t.group],
        shards=t.shards, label_smoothing=t.label_smoothing, dropout=t.dropout, seed=ctx.seed,
        betas=t.betas, eps=t.eps,
        grad_clip=t.grad_clip, accumulate=t.accumulate, dtype=design["train"]["dtype"],
        recompute=t.recompute, eval_every=t.eval_every, eval_batches=t.eval_batches,
        checkpoint_every=t.checkpoint_every, patience=t.patience, progress=False,
    )  # fmt: skip
    train, val = _loaders(ctx, design)
    _forget_peak()
    model = from_pretrained(ctx.input("initialize") / "model")
    if ctx.config.initialize.from_:  # its loss is low before the first step
        first = _loss(model, val, t.eval_batches)
    new = has_new_tokens(ctx.input("split"))
    adapt(model, t.lora, new, ctx.seed, None if new else ctx.config.initialize.from_)
    trainer = Trainer(model, train, val, config, ctx.out, on_step=_Meter(ctx, design))
    history = trainer.fit()
    trained = history.rows[-1]["step"] + 1
    facts = {
        # in steps, looks and checkpoints aside; what a killed process spent is in it
        "seconds": sum(row["tokens"] / row["tokens_per_second"] for row in history.rows),
        "seconds_predicted": trained * pace if (pace := design.get("seconds_per_step")) else None,
        # of the whole process, Python and the data included; predicted: training's tensors alone
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "memory_bytes_predicted": design["memory_bytes"],
        "steps": trained,
        "steps_planned": design["steps"],
        "stopped_early": history.stopped_early,
        "tokens": sum(row["tokens"] for row in history.rows),
        "best_step": history.best_step + 1,
        "best_loss": history.best_loss,
        "last_loss": history.val_losses[-1][1],
    }
    write_json(ctx.out / "time.json", facts)
    gate = Gate(
        "best validation loss, nats per token", history.best_loss, first,
        history.best_loss < first, "metrics.jsonl",
    )  # fmt: skip
    summary = f"{trained:,} steps, {facts['tokens']:,} tokens, val loss {history.best_loss:.3f}"
    return Result(summary, [gate], _report(facts, history.rows, design))


def _loaders(ctx: StageContext, design: dict[str, Any]) -> tuple[Loader, Loader]:
    """Return batches to train on, with holes, and to look at, without."""
    split, t = ctx.input("split"), ctx.config.train
    tokenizer = Tokenizer.load(split)
    size = (design["batch"], design["context"], ctx.seed)
    train = Loader(
        Shard.open(split / "train"), *size, fim_rate=t.fim_rate, spm_rate=t.spm_rate,
        special=tokenizer.special, tokenizer=tokenizer,
    )  # fmt: skip
    return train, Loader(Shard.open(split / "val"), *size)


def _loss(model: CausalLM, data: Loader, batches: int) -> float:
    """Return the mean loss of the first batches, nats per token."""
    total, count = 0.0, 0
    for i in range(batches):
        ids, targets = data.batch(i)
        total += float(model.token_losses(ids, targets).astype("float64").sum())
        count += int((targets >= 0).sum())
    return total / count


def _forget_peak() -> None:
    """Let the peak of this process's memory begin anew: earlier stages may have needed more."""
    with suppress(OSError):  # then theirs counts too
        Path("/proc/self/clear_refs").write_text("5")


class _Meter:
    """Progress of every step: loss, speed, share of the machine's peak, time left."""

    def __init__(self, ctx: StageContext, design: dict[str, Any]) -> None:
        self.ctx, self.steps = ctx, design["steps"]
        peak = design.get("peak_flops")
        self.share = design["flops_per_token"] / peak if peak else None
        self.pace: float | None = None  # tokens per second, smoothed

    def __call__(self, row: dict[str, Any]) -> None:
        now = row["tokens_per_second"]
        self.pace = now if self.pace is None else 0.95 * self.pace + 0.05 * now
        done = row["step"] + 1
        left = (self.steps - done) * row["tokens"] / self.pace
        peak = f", {self.pace * self.share:.0%} of peak" if self.share else ""
        looked = f", val {row['val_loss']:.3f}" if "val_loss" in row else ""
        self.ctx.progress(
            f"step {done:,}/{self.steps:,}, loss {row['loss']:.3f}{looked}, "
            f"{self.pace:,.0f} tokens/s{peak}, {left:.0f} s left"
        )


def _report(
    facts: dict[str, Any], rows: list[dict[str, Any]], design: dict[str, Any]
) -> dict[str, Any]:
    steps = [row["step"] + 1 for row in rows]
    looks = [row for row in rows if "val_loss" in row]
    training = {"name": "training", **_thin(steps, [row["loss"] for row in rows])}
    validation = {
        "name": "validation",
        "x": [row["step"] + 1 for row in looks],
        "y": [row["val_loss"] for row in looks],
    }
    predicted = facts["seconds_predicted"]
    memory = {k: f"{facts[k] / 1e6:.0f} MB" for k in ("peak_bytes", "memory_bytes_predicted")}
    return {
        "what": f"{facts['steps']:,} steps of {design['batch']} x {design['context']} tokens by "
        "AdamW; half of the stretches of files in a window, unless train.fim_rate says otherwise, "
        "have a hole to fill.",
        "why": "Every step is a pure function of seed, data and configuration: a run that was "
        "killed goes on to the same bits.",
        "numbers": {
            "best validation loss, nats per token": facts["best_loss"],
            "at step": facts["best_step"],
            "tokens": facts["tokens"],
            "seconds in steps": round(facts["seconds"], 1),
            "predicted by design": None if predicted is None else round(predicted, 1),
            "memory at most, whole process": memory["peak_bytes"],
            "predicted by design, tensors alone": memory["memory_bytes_predicted"],
            "stopped early": facts["stopped_early"],
        },
        "plots": [
            _line("Loss", "nats per token", [training, validation]),
            _line("Learning rate", "rate", [{"name": "rate", **_thin(steps, _column(rows, "lr"))}]),
            _line(
                "Gradient norm before clipping", "norm",
                [{"name": "norm", **_thin(steps, _column(rows, "grad_norm"))}],
            ),
            _line(
                "Speed", "tokens per second",
                [{"name": "speed", **_thin(steps, _column(rows, "tokens_per_second"))}],
            ),
        ],
    }  # fmt: skip


def _column(rows: list[dict[str, Any]], name: str) -> list[float]:
    return [row[name] for row in rows]


def _line(title: str, unit: str, series: list[dict[str, Any]]) -> dict[str, Any]:
    return {"title": title, "kind": "line", "x_label": "step", "y_label": unit, "series": series}


def _thin(x: list[int], y: list[float]) -> dict[str, list[Any]]:
    """Return means of at most POINTS groups of neighbours, each at its last step."""
    size = -(-len(x) // POINTS)
    groups = range(0, len(x), size)
    means = [sum(y[i : i + size]) / len(y[i : i + size]) for i in groups]
    return {"x": [x[min(i + size, len(x)) - 1] for i in groups], "y": means}
