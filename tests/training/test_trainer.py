"""The training loop: accumulation, exact resume, and what happens when values are not finite."""

import json

import numpy as np
import pytest
from tiny_llama import Patterns, digest, settings, small, train

import gristmill as gm
from gristmill.errors import ArtifactError, TrainingError


def test_the_loss_falls():
    _, history = train(steps=40)
    assert history.losses[-1] < 0.5 * history.losses[0]


class Halves(Patterns):
    """The batches of Patterns cut in two micro-batches."""

    def batch(self, step):
        x, y = super().batch(step // 2)
        part = slice(0, 2) if step % 2 == 0 else slice(2, 4)
        return x[part], y[part]


def test_accumulation_equals_a_larger_batch():
    """Gradients, not weights: AdamW's first step and clipping would hide a wrong scale.

    Only the order in which 128 tokens are added differs: at most 128 roundings, 8e-6.
    """
    whole, cut = small(), small()
    one = gm.Trainer(whole, Patterns(), None, settings(1)).fit()
    two = gm.Trainer(cut, Halves(), None, settings(1, accumulate=2)).fit()
    assert two.losses[0] == pytest.approx(one.losses[0], rel=1e-6)
    assert two.rows[0]["tokens"] == one.rows[0]["tokens"] == 128
    for (name, p), q in zip(whole.named_parameters(), cut.parameters(), strict=True):
        want, got = p.grad.numpy(), q.grad.numpy()
        assert np.linalg.norm(got - want) <= 8e-6 * np.linalg.norm(want), name


class Stop(Patterns):
    """Ctrl-C in one step."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def batch(self, step):
        if step == self.at:
            raise KeyboardInterrupt
        return super().batch(step)


def interrupted(steps, at, out):
    with pytest.raises(KeyboardInterrupt):
        train(steps, out, Stop(at))


def steps_in(folder):
    return [json.loads(x)["step"] for x in (folder / "metrics.jsonl").read_text().splitlines()]


def test_an_interrupted_run_ends_with_the_same_bits(tmp_path):
    whole, _ = train(steps=9, out=tmp_path / "whole")
    interrupted(9, 5, tmp_path / "cut")
    model, _ = train(steps=9, out=tmp_path / "cut")
    assert digest(model) == digest(whole)
    assert steps_in(tmp_path / "cut") == list(range(9))


def test_a_resumed_run_with_another_config_is_refused(tmp_path):
    train(steps=3, out=tmp_path)
    with pytest.raises(ArtifactError, match="other steps"):
        train(steps=4, out=tmp_path)


LAYER = "model.layers.1.mlp.up_proj.weight"


class Breaks(Patterns):
    """In one step a weight becomes NaN before it, or the optimizer's average as large as `update`:
    loss and gradient are finite, the update is not (3e38) or what follows from it (1e17)."""

    def __init__(self, at, update):
        super().__init__()
        self.at, self.update, self.trainer = at, update, None

    def batch(self, step):
        if step == self.at and self.update:
            self.trainer.optimizer.state_dict()["arrays"]["0.m"][...] = self.update
        elif step == self.at:
            weight = self.trainer.model.state_dict()[LAYER]
            weight.copy_(np.full(weight.shape, np.nan))
        return super().batch(step)


def broken(at, update, out):
    """The message of a training that breaks in step `at`; checkpoints after steps 2, 4, 6, 8."""
    data = Breaks(at, update)
    data.trainer = gm.Trainer(small(), data, Patterns(), settings(8), out)
    with pytest.raises(TrainingError) as caught:
        data.trainer.fit()
    return str(caught.value)


@pytest.mark.parametrize("update", [None, 3e38], ids=["weight", "update"])
@pytest.mark.parametrize("at", [4, 5, 7])  # plain, before a checkpoint, before both and the end
def test_values_that_are_not_finite_stop_it_and_the_checkpoint_stays(tmp_path, at, update):
    good, out = tmp_path / "good", tmp_path / "run"
    train(8, good)
    interrupted(8, at, out)
    before = {p: p.read_bytes() for p in (out / "last").rglob("*") if p.is_file()}
    assert len(before) == 5
    message = broken(at, update, out)
    assert ("model.embed_tokens.weight" if update else LAYER) in message
    assert f"the last good checkpoint is {out / 'last'}" in message
    assert {p: p.read_bytes() for p in (out / "last").rglob("*") if p.is_file()} == before
    kept = gm.models.from_pretrained(out / "last")
    assert all(np.isfinite(p.numpy()).all() for p in kept.parameters())
    assert "NaN" not in (out / "metrics.jsonl").read_text()
    train(8, out)
    for name in ("last/model.safetensors", "best/model.safetensors"):
        assert (out / name).read_bytes() == (good / name).read_bytes(), name


@pytest.mark.parametrize("update", [None, 3e38], ids=["weight", "update"])
def test_no_checkpoint_is_named_where_there_is_none(tmp_path, update):
    message = broken(1, update, tmp_path)
    assert "not finite" in message and "checkpoint" not in message
    assert not (tmp_path / "last").exists()


def test_a_validation_loss_that_is_not_finite_stops_it(tmp_path):
    """Before a checkpoint of weights that are finite and of no use."""
    message = broken(7, 1e17, tmp_path)
    assert message.startswith("step 7: the validation loss is not finite, first in model.layers.0")
    assert json.loads((tmp_path / "last/training/state.json").read_text())["step"] == 6
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
