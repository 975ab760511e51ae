"""Update: a successor of the promoted model, from its weights, on what has changed since.

A new run whose collect reads changed files, a sample of old ones and feedback; its test split is
the newest changed files. Promoted only if not worse there: the upper end of the paired interval of
candidate - deployed is at most update.margin, and on the validation files that the deployed model
began with at most update.forgetting. Otherwise the registry stays as it was.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gristmill import registry
from gristmill.artifacts import read_json, sha256_json, write_json
from gristmill.config import Config, changed, check
from gristmill.data.document import Document, is_chat, read_documents
from gristmill.data.shards import Shard
from gristmill.errors import ArtifactError, GateError
from gristmill.evaluation.bits import Bits, bits_per_byte
from gristmill.evaluation.bootstrap import Interval, paired_difference
from gristmill.evaluation.chosen import choose_documents
from gristmill.evaluation.corpus import byte_lengths, open_corpus
from gristmill.pipeline import Options, Pipeline, Run
from gristmill.registry import Entry
from gristmill.runs import STAGES, Store, share_stages
from gristmill.selection import changes
from gristmill.selection.changes import Changes, Tables
from gristmill.selection.voted import Votes, read_votes

UPDATES = ".update"
FLOOR = 8  # batches to train on at least, filled up with old files
BYTES_PER_TOKEN = 4
RunIt = Callable[[Config], Run]


@dataclass(frozen=True)
class Deployed:
    """The promoted model, and where the files come from that it was made of."""

    entry: Entry
    run: Path
    base: Path  # the run whose configuration names the sources of people
    collected: Path  # what those sources held when this model was made
    voted_until: float
    runs: list[Path]  # the base, and every update on the way from it to `run`

    @property
    def tables(self) -> dict[str, Any]:
        """Configuration of the base."""
        config: dict[str, Any] = read_json(self.base / "run.json")["config"]
        return config


@dataclass(frozen=True)
class Outcome:
    """What became of an update."""

    promoted: Entry | None
    text: str
    facts: dict[str, Any] = field(default_factory=dict)


def deployed(root: Path) -> Deployed:
    """Return the promoted model, its file hashed; raises ArtifactError where there is none."""
    entry = registry.current(root)
    if entry is None:
        raise ArtifactError(
            f"nothing is promoted in {root}, so there is nothing to update; first: gristmill "
            "promote RUN"
        )
    registry.checked_model(root, entry)
    facts = entry.facts.get("update", {})
    run, base = root / entry.run, root / facts.get("base", entry.run)
    for folder in (run, base):
        if not (folder / "run.json").is_file():
            raise ArtifactError(
                f"the run {folder} of the promoted model is gone, and with it what it was trained "
                "on; run it again, or promote another"
            )
    known = facts.get("collected")
    collected = root / STAGES / known if known else base / "01_collect"
    runs = [root / name for name in facts.get("runs", [base.name, run.name])]
    there = [path for path in dict.fromkeys(runs) if (path / "run.json").is_file()]
    return Deployed(entry, run, base, collected, float(facts.get("voted_until", 0.0)), there)


def update(
    root: Path, overrides: Sequence[str], feedback: Path, run: RunIt, said: Callable[[str], None]
) -> Outcome:
    """Make, test and maybe promote a successor; `run` runs a configuration to its end.

    Raises GateError where the candidate stays out, with the reason and by how much.
    """
    before = deployed(root)
    config = check(changed(before.tables, overrides), str(before.base))
    u = config.update
    collected = _collect(root, config)
    seed = config.project.seed
    then = _documents(before.collected)
    found = changes.compare(then, _documents(collected), seed)
    chat = any(is_chat(document.path) for document in then)
    votes = read_votes(feedback, before.voted_until, u.accepted, u.characters, chat)
    usable = len(votes.texts) + len(votes.chats)
    if not found.new and not usable:
        gone = f" ({len(found.gone)} files are gone)" if found.gone else ""
        return Outcome(
            None, f"nothing has changed since {before.entry.run}{gone}: no file, no vote"
        )
    if len(found.new) < u.min_files:
        return Outcome(
            None,
            f"{len(found.new)} files have changed since {before.entry.run}, and {usable} votes "
            f"wait; update.min_files = {u.min_files}: with fewer a successor cannot be tested. "
            "Nothing was done",
        )
    said(_sources(before, collected, found, votes))
    tables, folder = _prepare(root, before, config, found, votes)
    candidate = run(_candidate(root, before, config, tables, folder, overrides)).folder
    return _decide(root, before, config, candidate, collected, votes, folder)


def _collect(root: Path, config: Config) -> Path:
    """Return what the sources hold now; the run folder of it is not one of the user's."""
    folder, store = root / UPDATES, Store(root)
    store.create()
    with store.lock():
        share_stages(folder, root)
        done = Pipeline(config, folder, Options(until="collect")).run().done[-1]
    return root / STAGES / done.path.name


def _documents(collected: Path) -> list[Document]:
    return read_documents(collected / "documents.parquet", cluster=False)


def _sources(before: Deployed, collected: Path, found: Changes, votes: Votes) -> str:
    """Return lines that say what the candidate is made of."""
    lines = [
        f"deployed  {before.entry.run}, promoted {before.entry.time}",
        f"changed   {len(found.new)} files: {found.named()}",
    ]
    old = {s["name"]: s for s in read_json(before.collected / "sources.json")}
    for source in read_json(collected / "sources.json"):
        was = old.get(source["name"], {}).get("revision", "")
        if source["kind"] == "git" and was != source["revision"]:
            lines.append(f"commits   {source['name']}: {was[:12]}..{source['revision'][:12]}")
    if votes.counts:
        told = ", ".join(f"{count} {what}" for what, count in sorted(votes.counts.items()))
        lines.append(f"feedback  {told}")
    return "\n".join(lines)


def _prepare(
    root: Path, before: Deployed, config: Config, found: Changes, votes: Votes
) -> tuple[Tables, Path]:
    known = changes.known_documents(before.runs, found.kept)
    design = config.design
    floor = FLOOR * design.batch * design.context * BYTES_PER_TOKEN
    tables = changes.plan_tables(found, known, votes, config.update, floor, config.project.seed)
    name = sha256_json([before.entry.sha256, tables.rows])[:16]
    return tables, root / UPDATES / name


def _candidate(
    root: Path,
    before: Deployed,
    config: Config,
    tables: Tables,
    folder: Path,
    overrides: Sequence[str],
) -> Config:
    """Return the configuration of the successor: the base's, but for data, length and rate."""
    made = copy.deepcopy(before.tables)
    u, design = config.update, read_json(before.run / "05_design" / "design.json")
    steps = _steps(before, tables, design, config)
    every = max(1, steps // 4)
    made["project"]["gates"] = "record"  # it is measured in any case, and not promoted
    made["collect"] = {"source": changes.write_tables(tables, folder)}
    made["annotate"]["audit"] = ""
    made["split"] |= {
        "by": "time", "gap": 0.0, "stratify": "none", "min_bytes": 1, "min_documents": 1,
        "test": min(0.49, tables.test / tables.total), "val": min(0.4, tables.val / tables.total),
    }  # fmt: skip
    made["design"] = {"batch": design["batch"], "context": design["context"], "steps": steps}
    made["initialize"] = {"from": str(before.entry.path(root))}
    made["train"] |= {
        "lr": config.train.lr * u.lr, "eval_every": every, "checkpoint_every": every, "patience": 0,
    }  # fmt: skip
    made["evaluate"] |= {"documents": 0, "max_bits_per_byte": None}
    mine = [given for given in overrides if not given.startswith("collect.")]
    return check(changed(made, mine), "update")


def _steps(before: Deployed, tables: Tables, design: dict[str, Any], config: Config) -> int:
    """Return the steps that pass update.epochs times over the rows that are trained on."""
    shard = Shard.open(before.run / "04_split" / "train")
    texts = read_documents(before.run / "04_split" / "train" / "documents.parquet")
    per_byte = len(shard.tokens) / max(1, sum(len(d.text.encode()) for d in texts))
    new = tables.rows[changes.NEW]
    rows = [*new[: len(new) - tables.test - tables.val]]
    rows += [row for name, some in tables.rows.items() if name != changes.NEW for row in some]
    size = sum(len(str(row.get("text", row.get("messages"))).encode()) for row in rows)
    step: int = design["batch"] * design["context"] * config.train.accumulate
    return max(1, math.ceil(config.update.epochs * size * per_byte / step))


# ------------------------------------------------------------------------------- the verdict


def _decide(
    root: Path,
    before: Deployed,
    config: Config,
    candidate: Path,
    collected: Path,
    votes: Votes,
    folder: Path,
) -> Outcome:
    """Promote the candidate, or raise GateError saying by how much it is worse."""
    u = config.update
    metrics = read_json(candidate / "10_test" / "metrics.json")
    newest = Interval(**metrics["given"]["difference"])
    old = _forgetting(before, candidate, config)
    failed = _worse("the newest changed files", newest, u.margin, "update.margin")
    failed += _worse("the old validation files", old, u.forgetting, "update.forgetting")
    # a bar of few new files says little: what is served already is the bar of quality
    failed += registry.failed_gates(candidate, quality=False)
    facts = {
        "candidate": candidate.name,
        "deployed": before.entry.run,
        "newest": newest.plain() | {"files": metrics["documents"], "margin": u.margin},
        "old": old.plain() | {"margin": u.forgetting},
        "feedback": dict(votes.counts),
        "promoted": False,
    }
    write_json(folder / "update.json", facts)
    said = f"newest files {_shown(newest)}, old validation files {_shown(old)}"
    if failed:
        raise GateError(
            f"the candidate {candidate.name} stays out, {root} serves {before.entry.run} as "
            f"before ({said}):\n  " + "\n  ".join(failed)
        )
    runs = [run.name for run in before.runs] + [candidate.name]
    state = {
        "base": before.base.name, "collected": collected.name, "voted_until": votes.until,
        "runs": runs,
    }  # fmt: skip
    entry = registry.promote(
        root, candidate, f"update of {before.entry.run}: {said}", facts={"update": state},
        instead_of=before.entry, compared=True,
    )  # fmt: skip
    facts["promoted"] = True  # not before it is
    write_json(folder / "update.json", facts)
    return Outcome(
        entry, f"promoted {candidate.name} in place of {before.entry.run}: {said}", facts
    )


def _worse(where: str, difference: Interval, margin: float, key: str) -> list[str]:
    """Return why a difference does not pass, if it does not."""
    if difference.high is None:
        return [f"on {where}: too few files for an interval, {difference.value:+.4f} b/B"]
    if difference.high <= margin:
        return []
    worse = "worse" if (difference.low or 0.0) > 0 else "not shown to be as good"
    return [f"on {where} {worse}: {_shown(difference)}; allowed: {key} = {margin:g} at the end"]


def _shown(difference: Interval) -> str:
    if difference.low is None:
        return f"{difference.value:+.4f} b/B (too few files for an interval)"
    return f"{difference.value:+.4f} b/B [{difference.low:+.4f}, {difference.high:+.4f}]"


def _forgetting(before: Deployed, candidate: Path, config: Config) -> Interval:
    """Return candidate - deployed on the validation files of the base; test stays closed."""
    corpus = open_corpus(before.base / "04_split" / "val")
    c = config.validate
    chosen = choose_documents([d.id for d in corpus.documents], c.documents, config.project.seed)
    folders = [candidate / "06_initialize" / "model", candidate / "09_save" / "model"]
    was, now = (_bits(folder, corpus, chosen, c.stride) for folder in folders)
    return paired_difference(
        now.bits, was.bits, now.bytes, resamples=c.bootstrap, confidence=c.confidence,
        seed=config.project.seed,
    )  # fmt: skip


def _bits(folder: Path, corpus: Any, chosen: Sequence[int], stride: int) -> Bits:
    from gristmill.data.tokenizer import Tokenizer
    from gristmill.models import from_pretrained

    model = from_pretrained(folder)
    context = model.config.max_position_embeddings
    return bits_per_byte(
        model, corpus.ids(chosen), byte_lengths(Tokenizer.load(folder)), context=context,
        stride=min(stride, context), counts=corpus.counts(chosen),
    )  # fmt: skip
