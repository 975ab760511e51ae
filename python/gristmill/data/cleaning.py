"""Clean: ordered steps over all documents, and a ledger that must close after each of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any

from gristmill.data import (
    code_rules,
    contaminated,
    conversation,
    dedup,
    private,
    prose_rules,
    repetition,
    unicode_repair,
)
from gristmill.data.clean_settings import (
    CleanStep,
    CodeStep,
    ExactStep,
    NearStep,
    PrivateStep,
    QuantileStep,
    UnicodeStep,
)
from gristmill.data.code_rules import Broken
from gristmill.data.document import Document, Removal
from gristmill.data.evaluation_sets import read_set
from gristmill.data.prose_settings import (
    ContaminationStep,
    LanguageStep,
    PairsStep,
    ProseStep,
    RepetitionStep,
    WebStep,
)
from gristmill.errors import ArtifactError, DataError

REPAIR_SCHEMA = {
    "id": "VARCHAR",
    "source": "VARCHAR",
    "path": "VARCHAR",
    "step": "VARCHAR",
    "repair": "VARCHAR",
    "places": "BIGINT",
}
CONTAMINATION_SCHEMA = dict.fromkeys(
    ("step", "set", "example", "text", "source", "path", "shared", "action"), "VARCHAR"
)
SHOWN = 200  # characters of an example
Progress = Callable[[str], None]


@dataclass
class StepCount:
    """What one step did: rows in, rows out, rows whose text it changed."""

    step: str
    rows_in: int
    removed: int
    changed: int


@dataclass
class Cleaned:
    """The result: kept rows in their order, and a record of everything that was done."""

    documents: list[Document]
    removed: list[Removal] = field(default_factory=list)
    audit: list[tuple[Any, ...]] = field(default_factory=list)  # rows of private.AUDIT_SCHEMA
    repairs: list[tuple[Any, ...]] = field(default_factory=list)  # rows of REPAIR_SCHEMA
    transforms: list[dict[str, Any]] = field(default_factory=list)
    steps: list[StepCount] = field(default_factory=list)
    similarities: list[float] = field(default_factory=list)  # of all near-duplicate pairs
    contamination: list[tuple[Any, ...]] = field(default_factory=list)  # of CONTAMINATION_SCHEMA
    sets: list[dict[str, Any]] = field(default_factory=list)  # what was looked for, per set


def clean(
    documents: Sequence[Document],
    steps: Sequence[CleanStep],
    seed: int,
    progress: Progress = lambda message: None,
) -> Cleaned:
    """Run the steps in order and return what is kept, removed, changed and declared.

    Every kept document has a cluster: near-duplicates share one, any other has its own. Raises
    ArtifactError if a row is lost or doubled, DataError if a step leaves nothing.
    """
    done = Cleaned(list(documents))
    for number, step in enumerate(steps, 1):
        progress(f"step {number} of {len(steps)}: {step.use}")
        before, removed = done.documents, len(done.removed)
        label = f"{number}-{step.use}"
        _STEPS[type(step)](done, step, label, seed)
        changed = _changed(before, done.documents)
        count = StepCount(label, len(before), len(done.removed) - removed, changed)
        done.steps.append(count)
        check_ledger(before, done.documents, done.removed[removed:])
        if before and not done.documents:
            raise DataError(_nothing_left(label, done.removed[removed:]))
    done.documents = _with_clusters(done.documents)
    check_ledger(documents, done.documents, done.removed)
    return done


def check_ledger(
    given: Iterable[Document], kept: Iterable[Document], removed: Iterable[Removal]
) -> None:
    """Raise ArtifactError unless every given row is either kept or removed, once."""
    rows = Counter((row.source, row.path, row.id) for row in given)
    rows.subtract((row.source, row.path, row.id) for row in kept)
    rows.subtract((row.source, row.path, row.id) for row in removed)
    wrong = sorted(key for key, count in rows.items() if count)
    if wrong:
        lost = sum(rows[key] > 0 for key in wrong)
        source, path, _ = wrong[0]
        raise ArtifactError(
            f"the ledger does not close: {lost} rows neither kept nor removed, "
            f"{len(wrong) - lost} rows twice or from nowhere, such as {source}/{path}; "
            "this is a fault of a clean step: leave the step out, and report it"
        )


def _nothing_left(label: str, removed: Sequence[Removal]) -> str:
    rules = Counter(f"{row.rule} {row.threshold}" for row in removed).most_common(3)
    shown = "; ".join(f"{count} by {rule}" for rule, count in rules)
    return f"clean step {label} removed every file ({shown}); loosen it in [[clean.step]]"


def _changed(before: Sequence[Document], after: Sequence[Document]) -> int:
    texts = {(row.source, row.path): row.text for row in before}
    return sum(texts[row.source, row.path] is not row.text for row in after)


def _removal(row: Document, step: str, rule: str, value: str, threshold: str) -> Removal:
    return Removal(row.id, row.path, row.source, step, rule, value, threshold)


def _place(row: Document) -> str:
    return f"{row.source}/{row.path}"


# ------------------------------------------------------------------------------------ steps


def _unicode(done: Cleaned, step: UnicodeStep, label: str, seed: int) -> None:
    kept = []
    for row in done.documents:
        share = unicode_repair.lost_share(row.text)
        if share > step.max_bad:
            threshold = f"<= {step.max_bad:g}"
            done.removed.append(_removal(row, label, "max_bad", f"{share:.4f}", threshold))
            continue
        text, found = conversation.rewrite(
            row, lambda text: unicode_repair.repair(text, step.form, step.mojibake)
        )
        counts = sum(map(Counter, found), Counter[str]())
        if not text:
            done.removed.append(_removal(row, label, "text", "0 characters", "not empty"))
            continue
        for repair, places in counts.items():
            done.repairs.append((row.id, row.source, row.path, label, repair, places))
        kept.append(replace(row, text=text) if counts else row)
    done.documents = kept


_Check = Callable[[Document, Any], Broken | None]


def _by_rules(check: _Check) -> Callable[[Cleaned, Any, str, int], None]:
    """Return the step that takes out every document that breaks a rule."""

    def run(done: Cleaned, step: Any, label: str, seed: int) -> None:
        kept = []
        for row in done.documents:
            broken = check(row, step)
            if broken is None:
                kept.append(row)
            else:
                done.removed.append(_removal(row, label, *broken))
        done.documents = kept

    return run


def _pairs(done: Cleaned, step: PairsStep, label: str, seed: int) -> None:
    kept = []
    broken = conversation.check_pairs(done.documents, step)
    for row, found in zip(done.documents, broken, strict=True):
        if found is None:
            kept.append(row)
        else:
            done.removed.append(_removal(row, label, *found))
    done.documents = kept


def _said(check: Callable[[str, Any], Broken | None]) -> Callable[[Cleaned, Any, str, int], None]:
    """Return the step for a check of text; of a conversation it is what is said in it."""
    return _by_rules(lambda row, step: check(conversation.flat(row), step))


_check_web = _said(prose_rules.check_web)


def _web(done: Cleaned, step: WebStep, label: str, seed: int) -> None:
    _check_web(done, step, label, seed)
    if not step.drop_lines:
        return
    kept = []
    for row in done.documents:
        text, found = conversation.rewrite(row, lambda text: _kept_lines(text, step))
        counts = sum(map(Counter, (lost for _, lost in found)), Counter[str]())
        if not all(kept for kept, _ in found):
            done.removed.append(_removal(row, label, "drop_lines", "0 lines left", "not empty"))
            continue
        for repair, places in counts.items():
            done.repairs.append((row.id, row.source, row.path, label, f"{repair} gone", places))
        kept.append(replace(row, text=text) if counts else row)
    done.documents = kept


def _kept_lines(text: str, step: WebStep) -> tuple[str, tuple[bool, dict[str, int]]]:
    kept, lost = prose_rules.keep_lines(text, step)
    return kept, (bool(kept), lost)


def _contamination(done: Cleaned, step: ContaminationStep, label: str, seed: int) -> None:
    examples = [example for given in step.set for example in read_set(given)]
    texts = [conversation.flat(row) for row in done.documents]
    hits, short = contaminated.find(texts, examples, step)
    first: dict[int, Removal] = {}
    bar = f"no {step.length} {step.unit} in common"
    for hit in hits:
        row, example = done.documents[hit.document], examples[hit.example]
        value = f"{example.set} {example.place}: {hit.shared}"
        first.setdefault(hit.document, _removal(row, label, "contamination", value, bar))
        shown = (example.set, example.place, example.text[:SHOWN])
        done.contamination.append((label, *shown, row.source, row.path, hit.shared, step.action))
    done.sets += contaminated.by_set(step, label, examples, hits, short)
    if step.action == "remove":
        done.removed += [first[index] for index in sorted(first)]
        done.documents = [d for index, d in enumerate(done.documents) if index not in first]


def _exact(done: Cleaned, step: ExactStep, label: str, seed: int) -> None:
    groups: dict[str, list[Document]] = defaultdict(list)
    for row in done.documents:
        groups[row.text].append(row)
    winners = {
        text: max(rows, key=lambda row: row.modified) if step.keep == "newest" else rows[0]
        for text, rows in groups.items()
    }
    kept = []
    for row in done.documents:
        winner = winners[row.text]
        if row is winner:
            kept.append(row)
        else:
            value = f"same text as {_place(winner)}"
            done.removed.append(_removal(row, label, "exact", value, "each text once"))
    done.documents = kept


def _near(done: Cleaned, step: NearStep, label: str, seed: int) -> None:
    rows = done.documents
    compared = conversation.asked if step.compare == "prompt" else conversation.flat
    texts = [compared(row) for row in rows]
    bar = min(step.group, step.threshold)
    pairs = dedup.similar_pairs(texts, bar, words=step.words, permutations=step.permutations)
    done.similarities += [pair.similarity for pair in pairs]
    roots = dedup.clusters(len(rows), [pair for pair in pairs if pair.similarity >= step.group])
    losers = {} if step.keep == "all" else _losers(rows, pairs, step)
    kept = []
    for index, row in enumerate(rows):
        if index in losers:
            similarity, winner = losers[index]
            value = f"{similarity:.3f} to {_place(rows[winner])}"
            done.removed.append(_removal(row, label, "near", value, f"< {step.threshold:g}"))
        else:
            kept.append(replace(row, cluster=roots[index]))
    done.documents = kept


def _losers(
    rows: Sequence[Document], pairs: Sequence[dedup.Pair], step: NearStep
) -> dict[int, tuple[float, int]]:
    """Return {row: (similarity, row that stays)} of those to remove.

    Best first, each row stays unless it is too similar to one that stays: so no two that stay are
    near-duplicates, and each that goes has a near-duplicate that stays.
    """
    similar: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for first, second, similarity in pairs:
        if similarity >= step.threshold:
            similar[first].append((similarity, second))
            similar[second].append((similarity, first))
    rank: dict[str, Callable[[int], tuple[int, int]]] = {
        "first": lambda index: (0, index),
        "longest": lambda index: (-len(rows[index].text), index),
        "newest": lambda index: (-rows[index].modified, index),
    }
    stays: set[int] = set()
    losers: dict[int, tuple[float, int]] = {}
    for index in sorted(similar, key=rank[step.keep]):
        closest = max((pair for pair in similar[index] if pair[1] in stays), default=None)
        if closest is None:
            stays.add(index)
        else:
            losers[index] = closest
    return losers


def _private(done: Cleaned, step: PrivateStep, label: str, seed: int) -> None:
    kept = []
    for row in done.documents:
        text, each = conversation.rewrite(
            row, partial(private.replace_private, path=row.path, rules=step.rules, seed=seed)
        )
        found = list(chain.from_iterable(each))
        for one in found:
            place = (row.id, row.source, row.path)
            done.audit.append((*place, one.rule, one.start, one.length, one.token))
        kept.append(replace(row, text=text) if found else row)
    done.documents = kept


def _quantile(done: Cleaned, step: QuantileStep, label: str, seed: int) -> None:
    done.transforms.append(
        {"name": step.name, "kind": "quantile", "column": step.column, "at": sorted(step.at)}
    )


_STEPS: dict[type, Callable[[Cleaned, Any, str, int], None]] = {
    UnicodeStep: _unicode,
    CodeStep: _by_rules(lambda row, step: code_rules.check(row.text, row.path, step)),
    ProseStep: _said(prose_rules.check_prose),
    RepetitionStep: _said(repetition.check_repetition),
    WebStep: _web,
    LanguageStep: _said(prose_rules.check_language),
    PairsStep: _pairs,
    ContaminationStep: _contamination,
    ExactStep: _exact,
    NearStep: _near,
    PrivateStep: _private,
    QuantileStep: _quantile,
}


def _with_clusters(documents: Sequence[Document]) -> list[Document]:
    """Number the clusters 0, 1, … by first appearance; a row without one gets its own."""
    numbers: dict[tuple[bool, int], int] = {}
    rows = []
    for index, row in enumerate(documents):
        key = (row.cluster >= 0, row.cluster if row.cluster >= 0 else index)
        rows.append(replace(row, cluster=numbers.setdefault(key, len(numbers))))
    return rows
