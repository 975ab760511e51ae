"""Answers to held-out questions: what a model writes, beside methods without a network.

Exact: the same but for white space around. Overlap: F1 of the words in common (Rajpurkar et al.
2016, SQuAD), which gives a part where an answer is half right.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gristmill.data.chat import question_in
from gristmill.data.counter import string_hash
from gristmill.data.table import write_table
from gristmill.data.tokenizer import Tokenizer
from gristmill.evaluation.bootstrap import interval
from gristmill.evaluation.corpus import Corpus
from gristmill.evaluation.scores import between

NEAREST = "answer of the nearest question"
COLUMNS = dict.fromkeys(("method", "document", "path", "asked", "truth", "answer"), "VARCHAR")
COLUMNS |= {"exact": "BOOLEAN", "overlap": "DOUBLE"}
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Question:
    """An answer to give: the ids up to it, what is asked there as text, and the true answer."""

    document: str
    path: str
    prompt: tuple[int, ...]
    asked: str
    truth: str


@dataclass(frozen=True)
class Answer:
    """What was written to a question."""

    question: Question
    text: str

    @property
    def exact(self) -> bool:
        """Whether it is the true answer."""
        return self.text.strip() == self.question.truth.strip()

    @property
    def overlap(self) -> float:
        """F1 of its words and those of the true answer."""
        return overlap(self.text, self.question.truth)


class Writer(Protocol):
    """Whatever goes on after ids."""

    def after(self, ids: Sequence[int], /) -> Iterator[int]: ...


def overlap(text: str, truth: str) -> float:
    """Return the F1 of the words of two texts, case aside; 1 where both have none."""
    ours, theirs = (Counter(_WORD.findall(t.lower())) for t in (text, truth))
    if not ours or not theirs:
        return float(ours == theirs)
    common = (ours & theirs).total()
    return 2 * common / (ours.total() + theirs.total())


def questions(
    corpus: Corpus, positions: Sequence[int], tokenizer: Tokenizer, n: int = 0, seed: int = 0
) -> list[Question]:
    """Return the questions of conversations, in order; of more than `n` a seeded sample by file.

    n = 0: all.
    """
    if n:
        ids = [corpus.documents[i].id for i in positions]
        ranked = sorted(range(len(ids)), key=lambda i: (string_hash(seed, ids[i]), i))
        positions = sorted(positions[i] for i in ranked[:n])
    found = [q for i in positions for q in _of_document(corpus, i, tokenizer)]
    return found[:n] if n else found


def _of_document(corpus: Corpus, i: int, tokenizer: Tokenizer) -> Iterator[Question]:
    """Yield a question per run of ids that count: the run is its answer."""
    ids, counts = corpus.shard.doc(i).tolist(), corpus.shard.counts(i)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], counts, [False]])))
    before = 0
    for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        asked, truth = plain(tokenizer, ids[before:begin]), plain(tokenizer, ids[begin:end])
        document = corpus.documents[i]
        yield Question(document.id, document.path, tuple(ids[:begin]), asked, truth)
        before = end


def plain(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Return the text of ids without special tokens."""
    special = {*tokenizer.marks.values(), *tokenizer.special.values()}
    return tokenizer.decode(i for i in ids if i not in special)


def answer(
    writer: Writer,
    asked: Sequence[Question],
    tokenizer: Tokenizer,
    max_tokens: int,
    progress: Callable[[float], None] | None = None,
) -> list[Answer]:
    """Let a model or n-gram answer greedily, up to a special token or `max_tokens` ids."""
    ends = {*tokenizer.marks.values(), *tokenizer.special.values()}
    done = []
    for number, question in enumerate(asked, 1):
        written = []
        for id in islice(writer.after(question.prompt), max_tokens):
            if id in ends:
                break
            written.append(id)
        done.append(Answer(question, tokenizer.decode(written)))
        if progress is not None:
            progress(number / len(asked))
    return done


class Nearest:
    """Copies the answer of the training question with the most words in common.

    Words weigh by their rarity (inverse document frequency), questions by the cosine between them
    (Salton and Buckley 1988); of equally near questions the first.
    """

    def __init__(self, known: Sequence[Question]) -> None:
        """Index training questions; raises ValueError without any."""
        if not known:
            raise ValueError("no question to copy the answer of")
        self.known = known
        words = [Counter(_WORD.findall(q.asked.lower())) for q in known]
        seen = Counter(word for counts in words for word in counts)
        self.rarity = {word: float(np.log1p(len(known) / n)) for word, n in seen.items()}
        self.where: dict[str, tuple[list[int], list[float]]] = {w: ([], []) for w in seen}
        for number, counts in enumerate(words):
            weights = self._weights(counts)
            for word, weight in weights.items():
                self.where[word][0].append(number)
                self.where[word][1].append(weight)

    def _weights(self, counts: Mapping[str, int]) -> dict[str, float]:
        """Return the weights of known words, of length 1 together."""
        raw = {word: n * self.rarity[word] for word, n in counts.items() if word in self.rarity}
        length = float(np.sqrt(sum(weight**2 for weight in raw.values()))) or 1.0
        return {word: weight / length for word, weight in raw.items()}

    def answers(self, asked: Sequence[Question]) -> list[Answer]:
        """Return the answer to each question."""
        return [Answer(question, self._nearest(question).truth) for question in asked]

    def _nearest(self, question: Question) -> Question:
        score = np.zeros(len(self.known))
        weights = self._weights(Counter(_WORD.findall(question.asked.lower())))
        for word, weight in weights.items():
            numbers, theirs = self.where[word]
            score[numbers] += weight * np.array(theirs)
        return self.known[int(score.argmax())]


def measure(
    done: Mapping[str, Sequence[Answer]], *, resamples: int, confidence: float, seed: int
) -> dict[str, dict[str, Any]]:
    """Return {method: {"answers": n, "exact": {value, low, high}, "overlap": ...}}.

    Means over answers, intervals over conversations.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, answers in done.items():
        found[name] = {"answers": len(answers)}
        if not answers:
            continue
        place = {d: i for i, d in enumerate(dict.fromkeys(a.question.document for a in answers))}
        counts = np.zeros(len(place))
        figures = {"exact": np.zeros(len(place)), "overlap": np.zeros(len(place))}
        for one in answers:
            at = place[one.question.document]
            counts[at] += 1
            figures["exact"][at] += one.exact
            figures["overlap"][at] += one.overlap
        for figure, sums in figures.items():
            found[name][figure] = interval(
                sums, counts, resamples=resamples, confidence=confidence, seed=seed
            ).plain()
    return found


def table(measured: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures as a table of the report: value (low to high)."""
    rows = [
        [name, figures["answers"], *(_cell(figures.get(f)) for f in ("exact", "overlap"))]
        for name, figures in measured.items()
    ]
    columns = ["method", "answers", "exact", "overlap of words, F1"]
    return {"title": "Answers, with intervals", "columns": columns, "rows": rows}


def _cell(figure: Mapping[str, float | None] | None) -> str:
    return "–" if figure is None else f"{figure['value']:.3f} ({between(figure)})"


def write(path: Path, done: Mapping[str, Sequence[Answer]]) -> None:
    """Write every answer beside the true one; raises StorageError."""
    rows = [
        (name, a.question.document, a.question.path, a.question.asked, a.question.truth, a.text,
         a.exact, a.overlap)
        for name, some in done.items()
        for a in some
    ]  # fmt: skip
    write_table(path, COLUMNS, rows)


def samples(done: Sequence[Answer], n: int, template: str) -> list[dict[str, Any]]:
    """Return the first answers for people to read; not chosen by quality."""
    return [
        {
            "kind": "answer",
            "path": one.question.path,
            "prefix": question_in(one.question.asked, template) + " ",
            "suffix": "",
            "completion": one.text,
            "truth": one.question.truth,
            "exact": one.exact,
        }
        for one in done[:n]
    ]
