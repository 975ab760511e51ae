"""The leak check finds what is planted: groups, equal texts and near-duplicates across splits."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest

pytest.importorskip("duckdb")
pytest.importorskip("rensa")
pytest.importorskip("pydantic")

from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.data.document import Document
from gristmill.data.leaks import find_leaks
from gristmill.data.splitting import LEFT_OUT, SPLITS, Assignment


def prose(seed: int, words: int = 120) -> str:
    rng = random.Random(seed)
    return " ".join(f"w{rng.randrange(10**6)}" for _ in range(words))


def corpus(n: int) -> list[Document]:
    return [
        Document(f"{i}", "s", f"f{i}.txt", "a", "MIT", "test", 1, 0, 0, "utf-8", prose(i))
        for i in range(n)
    ]


def places(names: list[str]) -> list[Assignment]:
    return [Assignment(name, "planted", f"g{i}") for i, name in enumerate(names)]


def test_a_clean_split_has_none() -> None:
    assert find_leaks(corpus(30), places([SPLITS[i % 3] for i in range(30)]), 0.8) == []


@settings(max_examples=25)
@given(st.sampled_from(list(itertools.permutations(SPLITS, 2))), st.integers(0, 9))
def test_planted_near_duplicates_are_found(pair: tuple[str, str], word: int) -> None:
    documents = corpus(12)
    words = documents[3].text.split()
    words[word * 11] = "changed"
    documents[7] = replace(documents[7], text=" ".join(words))
    split = ["train"] * 12
    split[3], split[7] = pair
    leaks = find_leaks(documents, places(split), 0.8)
    assert [(x.kind, x.first_split, x.first, x.second_split, x.second) for x in leaks] == [
        ("near", pair[0], "s/f3.txt", pair[1], "s/f7.txt")
    ]
    assert 0.8 <= leaks[0].similarity < 1
    split[7] = split[3]
    assert find_leaks(documents, places(split), 0.8) == []


def test_equal_texts_and_groups() -> None:
    documents = corpus(6)
    documents[4] = replace(documents[4], text=documents[1].text)
    assigned = places(["train", "train", "val", "val", "test", "test"])
    assigned[5] = replace(assigned[5], group=assigned[0].group)
    assigned[2] = replace(assigned[2], group=assigned[0].group)
    leaks = find_leaks(documents, assigned, 0.8)
    assert [(x.kind, x.first, x.second) for x in leaks] == [
        ("group", "s/f0.txt", "s/f2.txt"),
        ("group", "s/f0.txt", "s/f5.txt"),
        ("group", "s/f2.txt", "s/f5.txt"),
        ("exact", "s/f1.txt", "s/f4.txt"),
    ]


def test_short_equal_texts_are_found_too() -> None:
    documents = [replace(d, text="" if i % 2 else "x") for i, d in enumerate(corpus(4))]
    leaks = find_leaks(documents, places(["train", "train", "val", "val"]), 0.8)
    assert [x.kind for x in leaks] == ["exact", "exact"]


def test_what_is_left_out_cannot_leak() -> None:
    documents = [replace(d, text="the same words in every one") for d in corpus(3)]
    assert find_leaks(documents, places(["train", LEFT_OUT, LEFT_OUT]), 0.8) == []
    assert len(find_leaks(documents, places(["train", LEFT_OUT, "test"]), 0.8)) == 1
