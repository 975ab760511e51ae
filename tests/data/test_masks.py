"""Masks: a shard says which tokens count, the loader hides the others and cuts no conversation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.data.loader import IGNORED, Loader
from gristmill.data.shards import Shard, write_shard
from gristmill.errors import ArtifactError, ConfigError, DataError

# a conversation: (ids of a question, ids of its answer) in turns; the closing id 0 counts
TURNS = st.lists(st.tuples(st.integers(1, 8), st.integers(1, 8)), min_size=1, max_size=3)


def masked(folder: Path, conversations: list[list[tuple[int, int]]]) -> Shard:
    """Ids are distinct from 5 on, so that a token names its place; each closed by id 0."""
    docs, masks, id = [], [], 5
    for turns in conversations:
        mask = [count for asked, said in turns for count in [False] * asked + [True] * said]
        docs.append([*range(id, id + len(mask)), 0])
        masks.append([*mask, True])
        id += len(mask)
    write_shard(folder, docs, id, masks)
    return Shard.open(folder)


@settings(max_examples=60)
@given(st.lists(TURNS, min_size=1, max_size=12), st.integers(50, 80), st.integers(1, 4))
def test_counted_tokens_are_targets_once_and_no_conversation_is_cut(
    tmp_path_factory: pytest.TempPathFactory,
    conversations: list[list[tuple[int, int]]],
    context: int,
    batch: int,
) -> None:
    shard = masked(tmp_path_factory.mktemp("s"), conversations)
    loader = Loader(shard, batch, context, 3)
    assert shard.mask is not None
    counted = sorted(shard.tokens[shard.mask == 1].tolist())
    whole = {tuple(shard.doc(i)) for i in range(len(shard))}
    for epoch in range(2):
        first = sum(loader.windows(e) for e in range(epoch))
        targets, seen = [], []
        for window in range(first, first + loader.windows(epoch)):
            x, y = (part[window % batch] for part in loader.batch(window // batch))
            shown = y != IGNORED
            assert (y[:-1][shown[:-1]] == x[1:][shown[:-1]]).all()
            targets += y[shown].tolist()
            text = np.trim_zeros(x, "b").tolist()  # padding is id 0 here, and so is the end
            start = 0
            while start < len(text):
                end = text.index(0, start) + 1 if 0 in text[start:] else len(text)
                seen.append((*text[start:end], *([0] if end == len(text) else [])))
                start = end
        assert sorted(targets) == counted
        assert {tuple(s) if s[-2:] != (0, 0) else tuple(s[:-1]) for s in seen} == whole
        assert len(seen) == len(shard)


def test_a_function_of_seed_epoch_and_step(tmp_path: Path) -> None:
    shard = masked(tmp_path, [[(3, n)] for n in range(1, 20)])
    forward = Loader(shard, 2, 32, 1)
    steps = [forward.batch(step) for step in range(30)]
    backward = Loader(shard, 2, 32, 1)
    for step in reversed(range(30)):
        again = backward.batch(step)
        assert (again[0] == steps[step][0]).all() and (again[1] == steps[step][1]).all()
    assert any((Loader(shard, 2, 32, 2).batch(s)[0] != steps[s][0]).any() for s in range(4))


def test_what_counts_is_read_back(tmp_path: Path) -> None:
    write_shard(tmp_path / "m", [[1, 2], [3]], 10, [[False, True], [True]])
    shard = Shard.open(tmp_path / "m")
    assert [shard.counts(i).tolist() for i in range(2)] == [[False, True], [True]]
    write_shard(tmp_path / "m", [[1, 2], [3]], 10)  # the old mask speaks of other tokens
    shard = Shard.open(tmp_path / "m")
    assert shard.mask is None and shard.counts(0).tolist() == [True, True]


@pytest.mark.parametrize("masks", [[[True]], [[True], [True]], [[True, True], [True, True]]])
def test_masks_fit_id_for_id(masks: list[list[bool]], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="id for id"):
        write_shard(tmp_path, [[1, 2], [3]], 10, masks)
    assert not list(tmp_path.iterdir())


def test_damaged_masks_are_refused(tmp_path: Path) -> None:
    def fresh() -> Path:
        write_shard(tmp_path, [[1, 2], [3]], 10, [[False, True], [True]])
        return tmp_path / "mask.bin"

    for raw in (b"\0\1", b"\0\1\1\1", b"\0\0\1", b"\2\1\1"):
        fresh().write_bytes(raw)
        with pytest.raises(ArtifactError, match="of 3 tokens that 2 count"):
            Shard.open(tmp_path)
    fresh().unlink()
    with pytest.raises(ArtifactError, match="split again"):
        Shard.open(tmp_path)


def test_what_cannot_be_laid(tmp_path: Path) -> None:
    shard = masked(tmp_path / "a", [[(3, 3)], [(9, 9)], [(7, 7)]])
    with pytest.raises(DataError, match=r"2 conversations are longer than the context of 14 .* 19"):
        Loader(shard, 1, 14, 0)
    with pytest.raises(ConfigError, match=r"train.fim_rate = 0.5 given for conversations"):
        Loader(shard, 1, 32, 0, 0.5, 0.5, dict.fromkeys(("<|fim_prefix|>",), 1))
    write_shard(tmp_path / "b", [[1, 2]], 10, [[False, False]])
    with pytest.raises(DataError, match="no token of any conversation counts"):
        Loader(Shard.open(tmp_path / "b"), 1, 8, 0)
    write_shard(tmp_path / "c", [[5, 6], [7, 8]], 10, [[False, False], [False, True]])
    loader = Loader(Shard.open(tmp_path / "c"), 1, 8, 0)
    assert loader.windows(0) == 1 and 5 not in loader.batch(0)[0]
