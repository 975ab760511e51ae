"""Trainer: the loop, its checkpoints, exact resume. The state after step n is a pure function of
config, data and seed, whether or not the run was interrupted."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gristmill.artifacts import storage_errors
from gristmill.checkpoint.folder import load_training
from gristmill.data.counter import hash64
from gristmill.errors import ArtifactError, TrainingError
from gristmill.models.adapters import load_adapter, read_adapter
from gristmill.models.causal import CausalLM
from gristmill.models.loading import from_pretrained
from gristmill.models.saving import recover, save_model
from gristmill.optim import AdamW, Plateau, learning_rate
from gristmill.training.gradients import ShardSum
from gristmill.training.groups import parameter_groups

Ids = npt.NDArray[np.int32]
Batch = tuple[Ids, Ids]
_NOISE = 7  # key of the masks of dropout under the seed


class Data(Protocol):
    """Batches by number: a pure function, so there is no cursor to save."""

    def batch(self, step: int) -> Batch:
        """(inputs, targets), both (B, T) int32; targets are shifted, negative ones ignored."""
        ...


@dataclass(frozen=True)
class TrainerConfig:
    """How to train; shares are of `steps`."""

    steps: int = 1000
    lr: float = 3e-3
    schedule: str = "wsd"
    warmup: float = 0.02
    decay: float = 0.3
    final: float = 0.0
    plateau_factor: float = 0.5
    plateau_patience: int = 3
    weight_decay: float = 0.1
    groups: Sequence[Mapping[str, Any]] = ()
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    grad_clip: float = 1.0
    accumulate: int = 1
    shards: int = 1
    label_smoothing: float = 0.0
    dropout: float = 0.0
    seed: int = 0
    dtype: str = "f32"
    recompute: bool = False
    eval_every: int = 250
    eval_batches: int = 16
    checkpoint_every: int = 250
    patience: int = 0
    progress: bool = True


@dataclass
class History:
    """What happened, row by row as in metrics.jsonl."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    best_step: int = -1
    best_loss: float = math.inf
    stopped_early: bool = False

    @property
    def losses(self) -> list[float]:
        """Training loss of every step, nats per token."""
        return [r["loss"] for r in self.rows if "loss" in r]

    @property
    def val_losses(self) -> list[tuple[int, float]]:
        """(step, validation loss) of every look, nats per token."""
        return [(r["step"], r["val_loss"]) for r in self.rows if "val_loss" in r]


class Trainer:
    """Trains `model` on `train`, looking at `val` now and then.

    With `out`, writes metrics.jsonl and the checkpoints last/ and best/ there, and goes on from
    last/ when it is already there. `on_step` gets every row of metrics.jsonl.
    """

    def __init__(
        self, model: CausalLM, train: Data, val: Data | None = None,
        config: TrainerConfig | None = None, out: str | Path | None = None,
        on_step: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:  # fmt: skip
        self.model, self.train, self.val, self.on_step = model, train, val, on_step
        self.config = config or TrainerConfig()
        self.out = None if out is None else Path(out)
        self.history = History()
        model.compute = {"f32": "float32", "bf16": "bfloat16"}[self.config.dtype]
        model.recompute = self.config.recompute
        c = self.config
        if c.shards & (c.shards - 1) or c.accumulate % c.shards:
            raise ValueError(
                f"shards {c.shards} given with accumulate {c.accumulate}; allowed: a power of two "
                "that divides accumulate"
            )
        groups = parameter_groups(model, c.weight_decay, c.groups)
        self.optimizer = AdamW(groups, c.lr, c.betas, c.eps, c.weight_decay)
        self.plateau = Plateau(c.plateau_factor, c.plateau_patience, c.final)
        self.noise = int(hash64(c.seed, _NOISE)[0] >> 1)
        self.looks_without_progress = 0

    def fit(self) -> History:
        """Train to the last step (or until patience ends); returns the history."""
        from tqdm import tqdm

        c = self.config
        first = self._resume()
        bar = tqdm(range(first, c.steps), initial=first, total=c.steps, unit="step",
                   disable=not c.progress, leave=False, dynamic_ncols=True)  # fmt: skip
        for step in bar:
            if self._out_of_patience():
                self.history.stopped_early = True
                break
            row = self._step(step)
            last = step + 1 == c.steps
            keep = (step + 1) % c.checkpoint_every == 0 or last
            look = self.val is not None and ((step + 1) % c.eval_every == 0 or last)
            if keep or look:  # what is written below replaces a good checkpoint
                self._check_weights(step)
            if look:
                row["val_loss"] = self._look(step)
            self._log(row)
            if self.on_step is not None:
                self.on_step(row)
            bar.set_postfix_str(f"loss {row['loss']:.3f}, {row['tokens_per_second']:.0f} tokens/s")
            if keep or self._out_of_patience():
                self._checkpoint("last", step + 1)
        return self.history

    def _out_of_patience(self) -> bool:
        return 0 < self.config.patience <= self.looks_without_progress

    def _step(self, step: int) -> dict[str, Any]:
        c = self.config
        start = time.perf_counter()
        self.optimizer.zero_grad()
        loss, tokens = 0.0, 0
        sum_up = ShardSum(self.optimizer)
        batches = [self.train.batch(step * c.accumulate + i) for i in range(c.accumulate)]
        counts = [int((targets >= 0).sum()) for _, targets in batches]
        for micro, ((inputs, targets), count) in enumerate(zip(batches, counts, strict=True)):
            tokens += inputs.size
            if count or not sum(counts):  # else nothing to learn here, and no mean of nothing
                # a target weighs the same in whichever micro-batch it stands
                share = count / max(1, sum(counts))
                loss += self._learn(step, micro, inputs, targets, share)
            if c.shards > 1 and (micro + 1) % (c.accumulate // c.shards) == 0:
                sum_up.close(micro + 1 == c.accumulate)
        norm = self.optimizer.clip(c.grad_clip)
        if not math.isfinite(norm):
            self._stop_gradient(step)
        self.optimizer.lr = (
            learning_rate(step, c.steps, c.lr, c.schedule, c.warmup, c.decay, c.final)
            * self.plateau.scale
        )
        self.optimizer.step()
        seconds = time.perf_counter() - start
        return {"step": step, "loss": loss, "lr": self.optimizer.lr, "grad_norm": norm,
                "tokens": tokens, "tokens_per_second": tokens / seconds}  # fmt: skip

    def _learn(self, step: int, micro: int, inputs: Ids, targets: Ids, share: float) -> float:
        """Add the gradients of share * loss of one micro-batch; returns share * loss."""
        c = self.config
        with self.model.drop.on(c.dropout, self.noise, step * c.accumulate + micro):
            part = self.model.loss(inputs, targets, c.label_smoothing)
            loss = part.item() * share
            if not math.isfinite(loss):
                self._stop(step, "the loss", self.model.first_nonfinite(inputs))
            (part if c.accumulate == 1 else part * share).backward()
        return loss

    def _stop_gradient(self, step: int) -> None:
        """By parameter: which of several micro-batches it came from is in their sum no more."""
        where = self.model.nonfinite_gradient()
        if where is None:
            self._stop(step, "the norm of the gradient", "the sum of squares: all else is finite")
        else:
            self._stop(step, "the gradient", where)

    def _check_weights(self, step: int) -> None:
        """The update itself may overflow: its step's loss and gradient were finite."""
        for name, p in self.model.named_parameters():
            if not np.isfinite(p.numpy()).all():
                self._stop(step, "a weight after the update", name)

    def _stop(self, step: int, what: str, where: str) -> None:
        last = None if self.out is None else self.out / "last"
        kept = f"; the last good checkpoint is {last}" if last and last.exists() else ""
        raise TrainingError(
            f"step {step}: {what} is not finite, first in {where}{kept}. "
            "Lower train.lr or train.grad_clip, or raise train.warmup."
        )

    def _look(self, step: int) -> float:
        assert self.val is not None
        total, count = 0.0, 0
        for i in range(self.config.eval_batches):
            inputs, targets = self.val.batch(i)
            losses = self.model.token_losses(inputs, targets)
            total += float(losses.astype(np.float64).sum())
            count += int((targets >= 0).sum())
        if not count:
            raise TrainingError(
                f"step {step}: none of the {self.config.eval_batches} batches of validation holds "
                "a token that counts; raise train.eval_batches"
            )
        loss = total / count
        if not math.isfinite(loss):
            self._stop(step, "the validation loss", self.model.first_nonfinite(inputs))
        if self.config.schedule == "plateau":
            self.plateau.look(loss)
        if loss < self.history.best_loss:
            self.history.best_loss, self.history.best_step = loss, step
            self.looks_without_progress = 0
            self._checkpoint("best", step + 1)
        else:
            self.looks_without_progress += 1
        return loss

    # ------------------------------------------------------------------ files
    def _log(self, row: dict[str, Any]) -> None:
        self.history.rows.append(row)
        if self.out is not None:
            with storage_errors(self.out), open(self.out / "metrics.jsonl", "a") as file:
                file.write(json.dumps(row) + "\n")

    def _checkpoint(self, name: str, steps: int) -> None:
        if self.out is None:
            return
        state = self.optimizer.state_dict()
        save_model(self.model, self.out / name, {
            "step": steps, "optimizer_steps": state["steps"], "arrays": state["arrays"],
            "best_step": self.history.best_step, "best_loss": self.history.best_loss
            if math.isfinite(self.history.best_loss) else None,
            "looks_without_progress": self.looks_without_progress,
            "plateau": self.plateau.state_dict(),
            "config": asdict(self.config),
        })  # fmt: skip

    def _resume(self) -> int:
        if self.out is None:
            return 0
        with storage_errors(self.out):
            self.out.mkdir(parents=True, exist_ok=True)
        recover(self.out / "best")
        if not recover(self.out / "last"):
            (self.out / "metrics.jsonl").unlink(missing_ok=True)
            return 0
        state = load_training(self.out / "last")
        mine = json.loads(json.dumps(asdict(self.config)))
        changed = [k for k in mine if k != "progress" and mine[k] != state["config"].get(k)]
        if changed:
            raise ArtifactError(
                f"{self.out / 'last'} was trained with other {', '.join(changed)}; "
                "train into another folder"
            )
        if self.model.adapter is not None:  # model.safetensors has it merged, and rounded by that
            self._resume_adapter(self.out / "last" / "adapter")
        else:
            saved = from_pretrained(self.out / "last")
            self.model.load_state_dict({n: p.numpy() for n, p in saved.named_parameters()})
        self.optimizer.load_state_dict(
            {"steps": state["optimizer_steps"], "arrays": state["arrays"]}
        )
        self.history.best_step = state["best_step"]
        self.history.best_loss = math.inf if state["best_loss"] is None else state["best_loss"]
        self.looks_without_progress = state["looks_without_progress"]
        self.plateau.load_state_dict(state["plateau"])
        self._cut_metrics(int(state["step"]))
        return int(state["step"])

    def _resume_adapter(self, folder: Path) -> None:
        then, now = read_adapter(folder), self.model.adapter
        if then != now:
            raise ArtifactError(
                f"{folder} was trained as {then}, now it is {now}; train into another folder"
            )
        load_adapter(self.model, folder)

    def _cut_metrics(self, steps: int) -> None:
        """Keep the rows before the checkpoint; the steps after it run again."""
        assert self.out is not None
        path = self.out / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:  # half a line from a kill
                break
            if row["step"] < steps:
                self.history.rows.append(row)
        beside = path.with_suffix(".new")
        with storage_errors(path):
            beside.write_text("".join(json.dumps(r) + "\n" for r in self.history.rows))
            os.replace(beside, path)
