"""The loader: order is a function of (seed, epoch, step); every token of an epoch is seen once."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.data import fim
from gristmill.data.loader import IGNORED, Loader
from gristmill.data.shards import Shard, write_shard
from gristmill.errors import DataError

SPECIAL = {
    name: id for id, name in enumerate((fim.EOS, fim.PREFIX, fim.MIDDLE, fim.SUFFIX, fim.PAD))
}
PAD = SPECIAL[fim.PAD]


def make_shard(folder: Path, lengths: list[int]) -> Shard:
    """Documents of distinct ids from 5 on, each closed by eos, so that a token names its place."""
    docs, id = [], 5
    for length in lengths:
        docs.append([*range(id, id + length), 0])
        id += length
    write_shard(folder, docs, max(id, 5))
    return Shard.open(folder)


def rows_of(loader: Loader, windows: range) -> list[tuple[list[int], list[int]]]:
    """(inputs, targets) of windows counted over all epochs."""
    rows = []
    for window in windows:
        inputs, targets = loader.batch(window // loader.size)
        row = window % loader.size
        rows.append((inputs[row].tolist(), targets[row].tolist()))
    return rows


SIZES = st.lists(st.integers(0, 90), min_size=1, max_size=12)


@settings(max_examples=60)
@given(SIZES, st.integers(2, 40), st.integers(1, 4), st.integers(0, 2**40))
def test_an_epoch_holds_every_token_once(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: list[int],
    context: int,
    batch: int,
    seed: int,
) -> None:
    shard = make_shard(tmp_path_factory.mktemp("s"), lengths)
    loader = Loader(shard, batch, context, seed, special=SPECIAL)
    first = 0
    for epoch in range(2):
        windows = range(first, first + loader.windows(epoch))
        rows = rows_of(loader, windows)
        seen = [i for inputs, _ in rows for i in inputs if i != PAD]
        assert sorted(seen) == sorted(shard.tokens.tolist())
        first = windows.stop


@settings(max_examples=60)
@given(SIZES, st.integers(2, 40))
def test_targets_follow_inputs(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], context: int
) -> None:
    shard = make_shard(tmp_path_factory.mktemp("s"), lengths)
    loader = Loader(shard, 1, context, 3, special=SPECIAL)
    follows = dict(zip(shard.tokens.tolist(), shard.tokens.tolist()[1:], strict=False))
    for inputs, targets in rows_of(loader, range(loader.windows(0))):
        assert targets[:-1] == [i if i != PAD else IGNORED for i in inputs[1:]]
        for token, target in zip(inputs, targets, strict=True):
            if token not in (0, PAD):  # an eos is followed by the next document
                assert target == follows[token]


def test_order_is_a_function_of_seed_epoch_and_step(tmp_path: Path) -> None:
    shard = make_shard(tmp_path, [30, 5, 120, 60, 7])

    def make(seed: int) -> Loader:
        return Loader(shard, 3, 32, seed, 0.5, 0.5, SPECIAL)

    forward = make(1)
    steps = [forward.batch(step) for step in range(40)]  # several epochs
    assert forward._locate(3 * 40)[0] >= 3
    backward = make(1)
    for step in reversed(range(40)):
        again = backward.batch(step)
        assert (again[0] == steps[step][0]).all() and (again[1] == steps[step][1]).all()
    assert (make(1).batch(39)[0] == steps[39][0]).all()
    other = [make(2).batch(step)[0] for step in range(4)]
    assert any((a != b[0]).any() for a, b in zip(other, steps, strict=False))


def test_epochs_differ_and_rows_are_shuffled(tmp_path: Path) -> None:
    shard = make_shard(tmp_path, [400] * 8)
    loader = Loader(shard, 1, 16, 5, special=SPECIAL)
    n = loader.windows(0)
    first, second = ([row[0][0] for row in rows_of(loader, range(at, at + n))] for at in (0, n))
    assert first != second
    neighbours = [b - a == 16 for a, b in itertools.pairwise(first)]
    assert np.mean(neighbours) < 0.1


@settings(max_examples=60)
@given(SIZES, st.integers(24, 64), st.integers(0, 2**40))
def test_with_holes_every_token_is_still_seen_once(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], context: int, seed: int
) -> None:
    shard = make_shard(tmp_path_factory.mktemp("s"), lengths)
    loader = Loader(shard, 2, context, seed, 0.7, 0.5, SPECIAL)
    rows = rows_of(loader, range(loader.windows(0)))
    seen = [i for inputs, _ in rows for i in inputs if i >= 5]
    assert sorted(seen) == [i for i in shard.tokens.tolist() if i >= 5]
    for inputs, targets in rows:
        assert not {SPECIAL[n] for n in (fim.PREFIX, fim.MIDDLE, fim.SUFFIX, fim.PAD)} & set(
            targets
        )
        assert inputs.count(1) == inputs.count(2) == inputs.count(3)
        for at, following in enumerate(inputs[1:]):
            if following in (1, 2, 3):
                assert targets[at] == IGNORED
            elif following != PAD:  # before the padding stands what the document goes on with
                assert targets[at] == following


def test_the_hole_rate_is_kept(tmp_path: Path) -> None:
    shard = make_shard(tmp_path, [1000] * 60)
    loader = Loader(shard, 1, 128, 5, 0.5, 0.5, SPECIAL)
    rows = rows_of(loader, range(loader.windows(0)))
    assert np.mean([1 in inputs for inputs, _ in rows]) == pytest.approx(0.5, abs=0.1)


def test_windows_with_holes_are_nearly_full(tmp_path: Path) -> None:
    shard = make_shard(tmp_path, [1000] * 60)
    loader = Loader(shard, 1, 128, 5, 1.0, 0.5, SPECIAL)
    rows = rows_of(loader, range(loader.windows(0)))
    assert np.mean([inputs.count(PAD) for inputs, _ in rows[:-1]]) <= fim.SLACK + 1


def test_holes_at_characters(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    from gristmill.data.tokenizer import train_tokenizer

    texts = [Path(f).read_text("utf-8") for f in (json.decoder.__file__, json.encoder.__file__)]
    codec = train_tokenizer(texts, 500)
    write_shard(tmp_path, [[*codec.encode(t), codec.eos] for t in texts], codec.vocab_size)
    loader = Loader(Shard.open(tmp_path), 2, 96, 5, 1.0, 0.0, codec.special, codec)
    rows = rows_of(loader, range(loader.windows(0)))
    pieces = []
    for inputs, _ in rows:
        for part in codec.decode(inputs).split("<|fim_prefix|>")[1:]:
            prefix, rest = part.split("<|fim_suffix|>")
            suffix, middle = rest.split("<|fim_middle|>")
            pieces.append(prefix + middle.split("<|endoftext|>")[0] + suffix)
    text = "\0".join(texts)
    assert all(piece in text for piece in pieces)
    assert sum(map(len, pieces)) > 0.95 * sum(map(len, texts))


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    write_shard(tmp_path / "empty", [], 10)
    with pytest.raises(DataError, match="holds no tokens"):
        Loader(Shard.open(tmp_path / "empty"), 1, 8, 0)
    shard = make_shard(tmp_path / "full", [9])
    with pytest.raises(ValueError, match="batch 0"):
        Loader(shard, 0, 8, 0)
    with pytest.raises(ValueError, match="special tokens"):
        Loader(shard, 1, 8, 0, 0.5)
    with pytest.raises(ValueError, match="step -1"):
        Loader(shard, 1, 8, 0).batch(-1)
