"""Early stopping, also when the process dies right behind it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gristmill._C")

import gristmill as gm

SHAPE = gm.models.LlamaConfig(
    vocab_size=31, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
    num_attention_heads=1, num_key_value_heads=1, head_dim=16, max_position_embeddings=16,
)  # fmt: skip


class Noise:
    """Other random tokens every time: nothing to learn, so validation stops falling."""

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        ids = np.random.default_rng(step).integers(0, 31, (2, 17), dtype=np.int32)
        return np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:])


def train(folder: Path, patience: int) -> gm.training.trainer.History:
    gm.manual_seed(1)
    config = gm.TrainerConfig(
        steps=400, lr=3e-2, eval_every=2, eval_batches=2, checkpoint_every=50, patience=patience,
        progress=False,
    )  # fmt: skip
    return gm.Trainer(gm.models.Llama(SHAPE), Noise(), Noise(), config, folder).fit()


def test_it_stops_after_that_many_looks_without_progress(tmp_path: Path) -> None:
    history = train(tmp_path, patience=3)
    assert history.stopped_early
    looks = [loss for _, loss in history.val_losses]
    assert len(looks) < 200
    assert min(looks) == looks[-4] == history.best_loss
    state = json.loads((tmp_path / "last/training/state.json").read_text())
    assert state["step"] == history.rows[-1]["step"] + 1


def test_a_process_killed_behind_the_stop_trains_no_further(tmp_path: Path) -> None:
    first = train(tmp_path, patience=3)
    weights = (tmp_path / "last/model.safetensors").read_bytes()
    second = train(tmp_path, patience=3)
    assert second.stopped_early
    assert [r["step"] for r in second.rows] == [r["step"] for r in first.rows]
    assert (tmp_path / "last/model.safetensors").read_bytes() == weights


def test_without_patience_it_goes_to_the_end(tmp_path: Path) -> None:
    history = train(tmp_path, patience=0)
    assert not history.stopped_early
    assert history.rows[-1]["step"] == 399
