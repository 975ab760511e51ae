"""Answers: questions from tokens and mask, overlap as defined, the copy of the nearest answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

pytest.importorskip("tokenizers")
pytest.importorskip("duckdb")

from gristmill.data.chat_tokens import encode_all
from gristmill.data.conversation import text_of
from gristmill.data.document import Document, write_documents
from gristmill.data.settings import ChatConfig
from gristmill.data.shards import write_shard
from gristmill.data.tokenizer import Tokenizer, train_tokenizer
from gristmill.evaluation.answers import (
    Answer,
    Nearest,
    Question,
    answer,
    measure,
    overlap,
    questions,
    samples,
    table,
)
from gristmill.evaluation.compression import bz2_best, per_file
from gristmill.evaluation.corpus import Corpus, byte_lengths, open_corpus
from gristmill.evaluation.hole_baselines import CacheNGram

TALKS = [
    ("What is a mill?", "A house that grinds.", "Who grinds?", "The miller grinds."),
    ("What is flour?", "What a mill makes."),
    ("What is bread?", "What a baker makes of flour."),
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    marks = ("<|im_start|>", "<|im_end|>")
    return train_tokenizer([" ".join(talk) for talk in TALKS] * 2, 330, marks=marks)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    documents = []
    for number, talk in enumerate(TALKS):
        turns = [
            {"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(talk)
        ]
        head = (f"{number:064x}", "s", f"a#{number}.messages", ".", "MIT", "t", 1, 1, 1, "utf-8")
        documents.append(Document(*head, text_of(turns)))
    done = encode_all(documents, "chatml", tokenizer, ChatConfig())
    ids, counts = [t.ids for t in done.tokens], [t.counts for t in done.tokens]
    write_shard(folder, ids, tokenizer.vocab_size, counts)
    write_documents(folder / "documents.parquet", done.documents)
    return open_corpus(folder)


def test_questions_are_what_stands_before_an_answer(corpus: Corpus, tokenizer: Tokenizer) -> None:
    found = questions(corpus, range(3), tokenizer)
    assert [q.truth for q in found] == [talk[i] for talk in TALKS for i in range(1, len(talk), 2)]
    assert found[1].asked == "\nuser\nWho grinds?\nassistant\n"
    assert tokenizer.decode(found[1].prompt).endswith(
        "Who grinds?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert "A house that grinds.<|im_end|>" in tokenizer.decode(found[1].prompt)
    few = questions(corpus, range(3), tokenizer, 2, seed=1)
    assert len(few) == 2 and few == questions(corpus, range(3), tokenizer, 2, seed=1)


def test_bytes_that_count_are_those_of_the_answers(corpus: Corpus, tokenizer: Tokenizer) -> None:
    counts = corpus.byte_counts(range(3), tokenizer)
    assert counts is not None
    texts = corpus.bytes()
    said = [bytes(np.frombuffer(t, np.uint8)[own]) for t, own in zip(texts, counts, strict=True)]
    assert said[0] == b"A house that grinds.The miller grinds."
    assert said[1] == b"What a mill makes."
    ids, own = corpus.ids(range(3)), corpus.counts(range(3))
    assert own is not None
    lengths = byte_lengths(tokenizer)
    sizes = [int(lengths[i[c]].sum()) for i, c in zip(ids, own, strict=True)]
    assert sizes == [len(s) for s in said]  # model and n-gram are measured on the same bytes


def test_compressors_are_given_the_question() -> None:
    text = b"What is a mill? A mill is a mill. And what is flour? Flour is flour."
    counts = np.zeros(len(text), np.bool_)
    counts[16:33] = counts[53:] = True
    found = per_file([text], [counts])
    size = [len(bz2_best(text[:n])) for n in (16, 33, 53, len(text))]
    assert found["bz2"].bits.tolist() == [8.0 * (size[1] - size[0] + size[3] - size[2])]
    assert found["xz"].bytes.tolist() == [int(counts.sum())]


@pytest.mark.parametrize(
    ("text", "truth", "value"),
    [
        ("the old mill", "The old mill!", 1.0),
        ("the mill", "the old mill", 0.8),
        ("mill mill", "mill", 2 / 3),
        ("no", "yes", 0.0),
        ("", "", 1.0),
        ("", "yes", 0.0),
    ],
)
def test_overlap(text: str, truth: str, value: float) -> None:
    assert overlap(text, truth) == pytest.approx(value)


def ask(asked: str, truth: str = "", document: str = "d") -> Question:
    return Question(document, "p", (0,), asked, truth)


def test_the_nearest_question_shares_the_rarest_words() -> None:
    known = [ask("what is a mill", "1"), ask("what is a river", "2"), ask("what is a mill", "3")]
    nearest = Nearest(known)
    found = nearest.answers([ask("is the river a river?"), ask("mill"), ask("nothing known")])
    assert [a.text for a in found] == ["2", "1", "1"]
    with pytest.raises(ValueError, match="no question"):
        Nearest([])


class Says:
    """Writes the ids it is given."""

    def __init__(self, ids: list[int]) -> None:
        self.ids = ids

    def after(self, ids: Sequence[int]) -> Iterator[int]:
        yield from self.ids


def test_an_answer_ends_at_a_special_token_or_at_the_most(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("A house")
    end = tokenizer.marks["<|im_end|>"]
    (done,) = answer(Says([*ids, end, *ids]), [ask("q", " A house\n")], tokenizer, 99)
    assert done.text == "A house" and done.exact
    (done,) = answer(Says(ids * 9), [ask("q")], tokenizer, len(ids))
    assert done.text == "A house" and not done.exact


def test_the_ngram_goes_on(corpus: Corpus, tokenizer: Tokenizer) -> None:
    known = questions(corpus, range(3), tokenizer)
    writer = CacheNGram(corpus.shard.tokens, tokenizer)
    told = {done.text for done in answer(writer, known, tokenizer, 40)}
    assert told < {q.truth for q in known}  # it sees the few ids that a prompt ends with


def test_figures() -> None:
    done = [
        Answer(ask("q", "the mill", str(i)), "the mill" if i < 4 else "a mill") for i in range(8)
    ]
    found = measure({"m": done, "none": []}, resamples=200, confidence=0.9, seed=1)
    assert found["m"]["answers"] == 8 and found["none"] == {"answers": 0}
    assert found["m"]["exact"]["value"] == 0.5
    assert found["m"]["overlap"]["value"] == pytest.approx(0.75)
    assert found["m"]["exact"]["low"] <= 0.5 <= found["m"]["exact"]["high"]
    shown = table(found)
    assert [row[:2] for row in shown["rows"]] == [["m", 8], ["none", 0]]
    first = samples(done, 3, "plain")
    assert [s["exact"] for s in first] == [True] * 3 and first[0]["prefix"] == "q "
