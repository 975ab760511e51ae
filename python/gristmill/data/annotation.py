"""Annotation: labels with annotator, time and source, and what is known of their worth.

Labelling functions vote on the quality of a file and their votes are counted (Ratner et al. 2017,
"Snorkel", without its generative model). Coverage, overlap and conflict are theirs; accuracy is
measured only against labels by people on a seeded sample, else the answer is "unaudited".
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gristmill.data.counter import string_uniform
from gristmill.data.document import Document
from gristmill.data.holes import candidates
from gristmill.data.label_functions import FUNCTIONS, GOOD, POOR, Facts, Vote

QUALITY, HOLES = "quality", "holes"
FAIR, UNLABELLED = "fair", "unlabelled"
LABELS = (GOOD, FAIR, POOR)
UNAUDITED = "unaudited"
LABEL_SCHEMA = {
    **dict.fromkeys(("id", "path", "task", "label", "annotator"), "VARCHAR"),
    **{"time": "BIGINT", "source": "VARCHAR", "guideline": "VARCHAR"},
}


@dataclass(frozen=True, slots=True)
class Label:
    """One row of labels.parquet. time: unix seconds; guideline: its sha256."""

    id: str  # of the document
    path: str
    task: str  # "quality", "holes.line", ...
    label: str
    annotator: str
    time: int  # of the source's state where a program labels: labels are a function of the data
    source: str  # rule (one function), vote (of all of them), human
    guideline: str


@dataclass(frozen=True)
class Audit:
    """What people said: by document the majority of their labels, and what could not be used."""

    truth: Mapping[str, str]
    rows: Sequence[Label] = ()
    unused: Mapping[str, int] = field(default_factory=dict)  # reason -> rows


@dataclass(frozen=True)
class Annotated:
    """Labels in the order of documents, and the figures of the labelling functions."""

    labels: list[Label]
    votes: list[list[Vote]]  # by document, by function
    quality: list[str]  # by document, the verdict
    functions: list[dict[str, Any]]
    agreement: float | None  # share of agreeing pairs of votes; None: no file has two votes


def annotate(
    documents: Sequence[Document], kinds: Sequence[str], annotator: str, guideline: str,
    audit: Audit | None = None,
) -> Annotated:  # fmt: skip
    """Label quality and count holes of every document.

    kinds: of holes to count. guideline: its sha256. audit: labels by people, if there are any.
    """
    labels: list[Label] = []
    votes, quality = [], []
    for document in documents:
        facts = Facts(document)
        own = [function(facts) for function in FUNCTIONS]
        votes.append(own)
        quality.append(verdict(own))
        head = (document.id, document.path)
        tail = (document.retrieved_at, guideline)
        for function, vote in zip(FUNCTIONS, own, strict=True):
            if vote is not None:
                name = f"{annotator}.{function.__name__}"
                labels.append(Label(*head, QUALITY, vote, name, tail[0], "rule", tail[1]))
        labels.append(Label(*head, QUALITY, quality[-1], annotator, tail[0], "vote", tail[1]))
        for kind, spans in candidates(document, kinds).items():
            task = f"{HOLES}.{kind}"
            labels.append(Label(*head, task, str(len(spans)), annotator, tail[0], "rule", tail[1]))
    labels += audit.rows if audit else ()
    return Annotated(labels, votes, quality, describe(documents, votes, audit), agreement(votes))


def verdict(votes: Iterable[Vote]) -> str:
    """Return good from four fifths of good votes on, poor below a half, else fair.

    More than a majority, because most functions look for what most files have. Without a vote:
    unlabelled.
    """
    counts = Counter(vote for vote in votes if vote is not None)
    if not counts:
        return UNLABELLED
    share = counts[GOOD] / counts.total()
    return GOOD if share >= 0.8 else FAIR if share >= 0.5 else POOR


def agreement(votes: Sequence[Sequence[Vote]]) -> float | None:
    """Return the mean over documents with two votes or more of the share of pairs that agree."""
    shares = []
    for own in votes:
        good, poor = own.count(GOOD), own.count(POOR)
        if good + poor > 1:
            agreeing = math.comb(good, 2) + math.comb(poor, 2)
            shares.append(agreeing / math.comb(good + poor, 2))
    return sum(shares) / len(shares) if shares else None


def describe(
    documents: Sequence[Document], votes: Sequence[Sequence[Vote]], audit: Audit | None
) -> list[dict[str, Any]]:
    """Return coverage, overlap, conflict (shares of all documents) and accuracy of each function.

    overlap: it and another one vote; conflict: it and another one vote differently.
    """
    described, n = [], max(1, len(votes))
    for number, function in enumerate(FUNCTIONS):
        mine = [(own[number], [*own[:number], *own[number + 1 :]]) for own in votes]
        voted = [(vote, others) for vote, others in mine if vote is not None]
        pairs = [(d.id, own[number]) for d, own in zip(documents, votes, strict=True)]
        described.append(
            {
                "name": function.__name__,
                "says": (function.__doc__ or "").strip(),
                "coverage": len(voted) / n,
                "overlap": sum(any(others) for _, others in voted) / n,
                "conflict": sum(any(o not in (None, v) for o in others) for v, others in voted) / n,
                "good": sum(vote == GOOD for vote, _ in voted),
                "poor": sum(vote == POOR for vote, _ in voted),
                "accuracy": accuracy(pairs, audit),
            }
        )
    return described


# ------------------------------------------------------------------------------- the audit


def audit_sample(documents: Sequence[Document], size: int, seed: int) -> list[Document]:
    """Return the documents that a person should label, a seeded sample in a fixed order.

    It depends on (seed, path) only, so most of it stays when documents are added.
    """
    drawn = [(string_uniform(seed, f"audit {d.source}/{d.path}"), d) for d in documents]
    drawn.sort(key=lambda pair: (pair[0], pair[1].source, pair[1].path))
    return [document for _, document in drawn[:size]]


def use_audit(rows: Sequence[Label], sample: Sequence[Document]) -> Audit:
    """Take the human labels that are on the sample; the rest is counted, not used."""
    wanted = {document.id for document in sample}
    unused: Counter[str] = Counter()
    given: dict[str, Counter[str]] = defaultdict(Counter)
    used = []
    for row in rows:
        if not row.label:
            unused["not labelled yet"] += 1
        elif row.id not in wanted:
            unused["not in the audit sample"] += 1
        else:
            given[row.id][row.label] += 1
            used.append(row)
    truth = {}
    for id, counts in given.items():
        label, most = counts.most_common(1)[0]
        if list(counts.values()).count(most) > 1:
            unused["people are divided"] += counts.total()
        else:
            truth[id] = label
    return Audit(truth, used, dict(unused))


def accuracy(
    labelled: Iterable[tuple[str, str | None]], audit: Audit | None
) -> dict[str, Any] | str:
    """Return how often labels (id, label) are what people said, with Wilson's 95 % interval.

    "unaudited" where there is no audit or none of its documents was labelled.
    """
    truth = audit.truth if audit else {}
    right = [truth[id] == label for id, label in labelled if label is not None and id in truth]
    if not right:
        return UNAUDITED
    low, high = wilson(sum(right), len(right))
    return {"value": sum(right) / len(right), "low": low, "high": high, "n": len(right)}


def wilson(right: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the score interval of a share (Wilson 1927, JASA 22, p. 209); n >= 1."""
    p, z2 = right / n, z * z
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)
