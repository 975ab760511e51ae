"""What training can do beside AdamW on matrices: each against its definition, and resumed."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_llama import Patterns, digest, settings, small, train

import gristmill as gm
from gristmill.optim import Plateau
from gristmill.training.gradients import ShardSum
from gristmill.training.groups import parameter_groups

BREADTH = {"accumulate": 4, "shards": 2, "label_smoothing": 0.1, "dropout": 0.2,
           "schedule": "plateau", "plateau_patience": 0, "seed": 3}  # fmt: skip


# ------------------------------------------------------------------------------------ shards


def gradients(model, micro_batches, shards):
    """The gradients of all micro-batches, added as the trainer adds them; an array a run."""
    optimizer = gm.optim.AdamW(model.parameters())
    optimizer.zero_grad()
    total = ShardSum(optimizer)
    for i in micro_batches:
        model.loss(*Patterns().batch(i)).backward()
        if shards > 1 and (i + 1) % (len(micro_batches) // shards) == 0:
            total.close(i == micro_batches[-1])
    return [g.numpy().copy() for g in optimizer.gradients()]


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_that_share_the_shards_add_up_to_the_same_bits(ranks):
    """8 micro-batches in 4 shards: a rank adds its own, then the ranks are added as a tree."""
    whole = gradients(small(), range(8), 4)
    each = [
        gradients(small(), range(r * 8 // ranks, (r + 1) * 8 // ranks), 4 // ranks)
        for r in range(ranks)
    ]
    while len(each) > 1:
        each = [
            [a + b for a, b in zip(x, y, strict=True)]
            for x, y in zip(each[::2], each[1::2], strict=True)
        ]
    for got, want in zip(each[0], whole, strict=True):
        np.testing.assert_array_equal(got, want)


def test_shards_change_only_the_order_of_additions():
    one, four = gradients(small(), range(8), 1), gradients(small(), range(8), 4)
    assert any((a != b).any() for a, b in zip(one, four, strict=True))  # else nothing is tested
    for a, b in zip(one, four, strict=True):  # at most 8 additions in another order
        assert np.linalg.norm(a - b) <= 8 * 2.0**-23 * np.linalg.norm(a)


@pytest.mark.parametrize(("shards", "accumulate"), [(3, 3), (2, 3), (8, 4)])
def test_shards_that_do_not_divide_are_an_error(shards, accumulate):
    with pytest.raises(ValueError, match="a power of two that divides accumulate"):
        gm.Trainer(small(), Patterns(), config=settings(shards=shards, accumulate=accumulate))


# ----------------------------------------------------------------------------------- dropout


def test_dropout_is_off_but_in_training_and_differs_from_step_to_step():
    model, ids = small(), Patterns().batch(0)
    plain = model.loss(*ids).item()
    dropped = []
    for number in (0, 0, 1):
        with model.drop.on(0.3, 5, number):
            dropped.append(model.loss(*ids).item())
    assert model.loss(*ids).item() == plain
    assert dropped[0] == dropped[1] != dropped[2]
    assert plain not in dropped


def test_recomputation_draws_the_same_masks():
    found = []
    for again in (False, True):
        model = small()
        model.recompute = again
        with model.drop.on(0.3, 5, 2):
            model.loss(*Patterns().batch(0)).backward()
        found.append([p.grad.numpy().copy() for p in model.parameters()])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_mean_over_many_masks_is_the_plain_pass():
    """Of the embeddings, where dropout is linear: 400 masks, 4 standard errors of each mean."""
    model, ids = small(), Patterns().batch(0)[0]
    plain = model.embed(ids).numpy()
    total = np.zeros_like(plain, dtype=np.float64)
    for number in range(400):
        with model.drop.on(0.25, 1, number):
            total += model.drop(model.embed(ids)).numpy()
    error = np.abs(plain) * np.sqrt(0.25 / 0.75 / 400)
    assert (np.abs(total / 400 - plain) <= 6 * error + 1e-12).all()


# ------------------------------------------------------------------------------------ groups


def test_groups_have_their_own_weight_decay_and_rate():
    """A step of a gradient that is zero is the weight decay alone: w - rate * decay * w."""
    groups = [{"match": ["*.embed_tokens.*"], "weight_decay": 0.0},
              {"match": ["*.mlp.*"], "weight_decay": None, "lr_scale": 0.5}]  # fmt: skip
    model = small()
    before = {n: p.numpy().copy() for n, p in model.named_parameters()}
    optimizer = gm.optim.AdamW(parameter_groups(model, 0.1, groups), lr=1e-2)
    optimizer.step()
    for name, p in model.named_parameters():
        rate = 5e-3 if ".mlp." in name else 1e-2
        decay = 0.0 if p.ndim < 2 or "embed_tokens" in name else 0.1
        want = before[name].astype(np.float64) * (1 - rate * decay)
        np.testing.assert_allclose(p.numpy(), want, rtol=2 * 2.0**-23, err_msg=name)


def test_without_groups_matrices_decay_and_vectors_do_not():
    (matrices, vectors) = parameter_groups(small(), 0.1)
    assert matrices["weight_decay"] == 0.1 and {p.ndim for p in matrices["params"]} == {2}
    assert vectors["weight_decay"] == 0.0 and {p.ndim for p in vectors["params"]} == {1}


def test_a_group_that_names_nothing_is_an_error():
    with pytest.raises(ValueError, match=r"'\*\.lm_haed\.\*' matches no parameter"):
        parameter_groups(small(), 0.1, [{"match": ["*.lm_haed.*"]}])


# ----------------------------------------------------------------------------------- plateau


def test_plateau_is_torchs():
    torch = pytest.importorskip("torch")
    losses = [3.0, 2.0, 2.1, 1.99999, 2.5, 2.2, 1.5, 1.6, 1.7, 1.8, 1.9, 1.5, 1.6]
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.1, patience=2, min_lr=0.005
    )
    ours = Plateau(factor=0.1, patience=2, floor=0.005)
    for loss in losses:
        theirs.step(loss)
        assert ours.look(loss) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
    assert ours.scale < 1.0


class Noise(Patterns):
    """Tokens without a pattern: the better the patterns are known, the worse they are foreseen."""

    def batch(self, step):
        ids = np.random.default_rng(step).integers(0, 64, (4, 33), dtype=np.int32)
        return np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:])


def test_the_rate_falls_when_validation_does_not_down_to_its_floor():
    config = settings(40, schedule="plateau", plateau_patience=1, final=0.2)
    history = gm.Trainer(small(), Patterns(), Noise(), config).fit()
    rates = sorted({row["lr"] for row in history.rows}, reverse=True)
    assert rates == pytest.approx([1e-2, 5e-3, 2.5e-3, 2e-3])


# ------------------------------------------------------------------------------ all together


def test_an_interrupted_run_with_all_of_it_ends_with_the_same_bits(tmp_path):
    class Stop(Patterns):
        def batch(self, step):
            if step == 4 * 9:
                raise KeyboardInterrupt
            return super().batch(step)

    whole, history = train(14, tmp_path / "whole", **BREADTH)
    with pytest.raises(KeyboardInterrupt):
        train(14, tmp_path / "cut", Stop(), **BREADTH)
    again, resumed = train(14, tmp_path / "cut", **BREADTH)
    assert digest(again) == digest(whole)
    assert [row["lr"] for row in resumed.rows] == [row["lr"] for row in history.rows]


def test_smoothing_raises_the_loss_of_a_sure_model_and_validation_stays_plain():
    plain, _ = train(40)
    sure = plain.loss(*Patterns().batch(99)).item()
    assert plain.loss(*Patterns().batch(99), 0.1).item() > sure + 0.1
