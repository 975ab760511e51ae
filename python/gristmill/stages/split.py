"""Stage 4: three splits in whole groups, a tokenizer from train only, tokens on disk, a leak check.

Gates: no leak between any two splits; every file comes back from its tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

from gristmill.artifacts import Gate, Result, StageContext, read_json, write_json
from gristmill.data import chat_tokens, conversation
from gristmill.data.annotation import QUALITY
from gristmill.data.chat import special_of
from gristmill.data.document import DOCUMENT_SCHEMA, Document, read_documents
from gristmill.data.leaks import KINDS, Leak, find_leaks
from gristmill.data.repeats import repeats_in
from gristmill.data.shards import write_shard
from gristmill.data.splitting import LEFT_OUT, SPLITS, TRAIN, Assignment, assign
from gristmill.data.table import read_table, write_table
from gristmill.data.tokenizer import Tokenizer, train_tokenizer
from gristmill.data.transforms import fit_transforms
from gristmill.errors import DataError

SPLIT_SCHEMA = dict.fromkeys(("id", "source", "path", "split", "reason", "group"), "VARCHAR")
SHARD_SCHEMA = {**DOCUMENT_SCHEMA, "label_quality": "VARCHAR"}


@dataclass(frozen=True)
class _Written:
    """One split as it lies on disk."""

    files: int  # each once, however often it is repeated
    bytes: int
    lengths: list[int]  # tokens of each file, `<|endoftext|>` included
    changed: int  # files that did not come back from their tokens
    counted: int = 0  # of conversations: tokens that count in the loss
    left_out: list[dict[str, Any]] = field(default_factory=list)  # conversations too long
    shortened: int = 0  # and those that lost turns


def run(ctx: StageContext) -> Result:
    """Write train/, val/, test/, the tokenizer, split.parquet, transform.json and leaks.json; of
    conversations chat.json too.
    """
    config = ctx.config.split
    documents = read_documents(ctx.input("clean") / "documents.parquet")
    template = _template(ctx, documents)
    quality = _quality(ctx, documents)
    ctx.progress("assigning files")
    assigned = assign(documents, config, ctx.seed, _strata(config.stratify, documents, quality))
    rows = [
        (d.id, d.source, d.path, a.split, a.reason, a.group)
        for d, a in zip(documents, assigned, strict=True)
    ]
    write_table(ctx.out / "split.parquet", SPLIT_SCHEMA, rows)
    train = [d for d, a in zip(documents, assigned, strict=True) if a.split == TRAIN]
    declared = read_json(ctx.input("clean") / "transforms.json")
    write_json(ctx.out / "transform.json", fit_transforms(declared, train))
    tokenizer = _tokenizer(ctx, train, template)
    tokenizer.save(ctx.out)
    repeats = repeats_in(ctx.inputs.get("collect"))
    written = {}
    for split in SPLITS:
        ctx.progress(f"writing tokens of {split}")
        mine = [i for i, a in enumerate(assigned) if a.split == split]
        times = repeats if split == TRAIN else lambda document: 1
        labelled = [(documents[i], quality[i]) for i in mine for _ in range(times(documents[i]))]
        if template:
            written[split] = _write_chats(ctx, split, labelled, tokenizer, template)
        else:
            written[split] = _write(ctx, split, labelled, tokenizer)
    ctx.progress("looking for leaks")
    asked = [replace(d, text=conversation.asked(d)) for d in documents]  # or the text itself
    leaks = find_leaks(asked, assigned, config.leak_similarity)
    _write_leaks(ctx, leaks)
    gates = _gates(written, len(leaks), config.max_leak)
    report = _report(documents, assigned, written, leaks, tokenizer)
    if (ctx.out / "adopted.json").is_file():
        added = read_json(ctx.out / "adopted.json")["appended"]
        report["numbers"]["tokens appended to the given tokenizer"] = ", ".join(added) or "none"
    if template:
        _report_chats(ctx, template, written, report)
    undated = _undated(ctx)
    if undated:
        report["numbers"]["sources whose files' times are the disk's, not git's"] = undated
    return Result(_summary(written), gates, report)


def _template(ctx: StageContext, documents: Sequence[Document]) -> str:
    """Return the chat template of conversations, "" where the documents are none."""
    if not chat_tokens.are_chats(documents):
        return ""
    given = ctx.config.initialize.from_
    return chat_tokens.choose_template(ctx.config.split.chat, Path(given) if given else None)


def _tokenizer(ctx: StageContext, train: Sequence[Document], template: str) -> Tokenizer:
    """Return the tokenizer of the model the run begins from, else one learned on train."""
    given, config = ctx.config.initialize.from_, ctx.config.split
    marks = special_of(template, "")[:-1] if template else ()
    if given is None:
        ctx.progress("training the tokenizer")
        texts = (conversation.flat(document) for document in train)
        return train_tokenizer(texts, config.vocab_size, config.min_frequency, marks)
    from gristmill.data.adopting import adopt

    ctx.progress("taking the given tokenizer")
    adopted = adopt(Path(given), marks)
    facts = {"given": adopted.given, "appended": adopted.appended}
    write_json(ctx.out / "adopted.json", facts | {"names": adopted.tokenizer.names})
    return adopted.tokenizer


def _undated(ctx: StageContext) -> str:
    """Return the sources that are split by times that copying a file may change."""
    if ctx.config.split.by != "time":
        return ""
    sources = read_json(ctx.input("collect") / "sources.json")
    return ", ".join(source["name"] for source in sources if source["times"] != "git")


def _quality(ctx: StageContext, documents: Sequence[Document]) -> list[str]:
    """Return the verdict on each file, empty where nothing was labelled."""
    table = read_table(ctx.input("annotate") / "labels.parquet", ["id", "task", "label", "source"])
    verdicts = {id: label for id, task, label, by in table if (task, by) == (QUALITY, "vote")}
    return [verdicts.get(document.id, "") for document in documents]


def _strata(by: str, documents: Sequence[Document], quality: Sequence[str]) -> Sequence[str]:
    if by == "quality" and not any(quality):
        raise DataError('split.stratify = "quality" needs labels: set annotate.task = "code"')
    return quality if by == "quality" else [document.area for document in documents]


def _write(
    ctx: StageContext, split: str, labelled: list[tuple[Document, str]], tokenizer: Tokenizer
) -> _Written:
    """Write one shard with its documents and read every text back from its tokens."""
    texts = [document.text for document, _ in labelled]
    ids = [[*found, tokenizer.eos] for found in tokenizer.encode_batch(texts)]
    write_shard(ctx.out / split, ids, tokenizer.vocab_size)
    rows = ((*astuple(document), label) for document, label in labelled)
    write_table(ctx.out / split / "documents.parquet", SHARD_SCHEMA, rows)
    raw = [text.encode("utf-8") for text in texts]
    pairs = zip(ids, raw, strict=True)
    changed = sum(tokenizer.decode_bytes(own[:-1]) != text for own, text in pairs)
    files = _files(document for document, _ in labelled)
    return _Written(files, sum(map(len, raw)), [len(own) for own in ids], changed)


def _files(documents: Iterable[Document]) -> int:
    return len({(document.source, document.path) for document in documents})


def _write_chats(
    ctx: StageContext,
    split: str,
    labelled: list[tuple[Document, str]],
    tokenizer: Tokenizer,
    template: str,
) -> _Written:
    """Write one shard of conversations with its mask, and read every text back."""
    given = [document for document, _ in labelled]
    done = chat_tokens.encode_all(given, template, tokenizer, ctx.config.split.chat)
    ids, counts = [one.ids for one in done.tokens], [one.counts for one in done.tokens]
    if not ids:
        raise DataError(
            f"no conversation of {split} has {ctx.config.split.chat.max_tokens} tokens or fewer "
            "(split.chat.max_tokens); raise it and design.context"
        )
    write_shard(ctx.out / split, ids, tokenizer.vocab_size, counts)
    pairs = zip(done.documents, done.kept, strict=True)
    rows = ((*astuple(document), labelled[at][1]) for document, at in pairs)
    write_table(ctx.out / split / "documents.parquet", SHARD_SCHEMA, rows)
    raw = [one.text.encode("utf-8") for one in done.tokens]
    changed = sum(
        tokenizer.decode_bytes(own[:-1]) != text for own, text in zip(ids, raw, strict=True)
    )
    lengths = [len(own) for own in ids]
    size, counted = sum(map(len, raw)), sum(map(sum, counts))
    files = _files(done.documents)
    left_out = list({(row["path"], row["id"]): row for row in done.left_out}.values())
    return _Written(files, size, lengths, changed, counted, left_out, done.shortened)


def _report_chats(
    ctx: StageContext, template: str, written: dict[str, _Written], report: dict[str, Any]
) -> None:
    """Write chat.json, and say in the report what counts and what was too long."""
    config = ctx.config.split.chat
    left = [{"split": s, **row} for s, part in written.items() for row in part.left_out]
    shortened = {s: part.shortened for s, part in written.items()}
    facts = {
        "template": template,
        "jinja": chat_tokens.jinja_of(template),
        "loss": config.loss,
        "max_tokens": config.max_tokens,
        "too_long": config.too_long,
        "left_out": left,
        "shortened": shortened,
    }
    write_json(ctx.out / chat_tokens.FACTS, facts)
    tokens, counted = sum(written[TRAIN].lengths), written[TRAIN].counted
    report["numbers"] |= {
        "chat template": template,
        "tokens of train that count in the loss": f"{counted:,} of {tokens:,}",
        f"conversations of more than {config.max_tokens} tokens, left out": len(left),
        "conversations that lost their oldest turns": sum(shortened.values()),
    }
    rows = [[row["split"], row["path"], row["tokens"]] for row in left[:50]]
    columns = ["split", "conversation", "tokens"]
    report["tables"].append(
        {"title": "Too long (all in chat.json)", "columns": columns, "rows": rows}
    )


def _write_leaks(ctx: StageContext, leaks: list[Leak]) -> None:
    counts = Counter(leak.kind for leak in leaks)
    facts = {
        "compared": [[a, b] for i, a in enumerate(SPLITS) for b in SPLITS[i + 1 :]],
        "similarity": ctx.config.split.leak_similarity,
        "counts": {kind: counts[kind] for kind in KINDS},
        "leaks": [asdict(leak) for leak in leaks],
    }
    write_json(ctx.out / "leaks.json", facts)


def _gates(written: dict[str, _Written], leaks: int, most: int) -> list[Gate]:
    changed = sum(part.changed for part in written.values())
    name = "files that their tokens do not give back"
    return [
        Gate("leaks between splits", leaks, most, leaks <= most, "leaks.json"),
        Gate(name, changed, 0, changed == 0, "tokenizer.json"),
    ]


def _summary(written: dict[str, _Written]) -> str:
    sizes = " / ".join(f"{part.files:,}" for part in written.values())
    return f"{sizes} files, {sum(written[TRAIN].lengths):,} tokens to train on"


def _report(
    documents: Sequence[Document],
    assigned: Sequence[Assignment],
    written: dict[str, _Written],
    leaks: list[Leak],
    tokenizer: Tokenizer,
) -> dict[str, Any]:
    left_out = sum(a.split == LEFT_OUT for a in assigned)
    return {
        "what": "Whole groups of files go to train, val or test by a keyed hash, by strata or by "
        "time. Tokenizer and declared transforms are learned on train only. Then every pair of "
        "splits is searched for common groups, equal texts and near-duplicates.",
        "why": "A figure on test means something only if nothing of test was seen before: neither "
        "by the model, nor by the tokenizer, nor as a copy.",
        "numbers": {
            "files": len(documents),
            "left out": left_out,
            "groups": len({a.group for a in assigned}),
            "tokens in the vocabulary": tokenizer.vocab_size,
            "leaks": len(leaks),
        },
        "plots": [_bars(written), _lengths(written)],
        "tables": [_sizes(written), _areas(assigned, documents)],
    }


def _sizes(written: dict[str, _Written]) -> dict[str, Any]:
    files = sum(part.files for part in written.values())
    rows = []
    for split, part in written.items():
        tokens = sum(part.lengths)
        share, per_token = part.files / files, part.bytes / max(1, tokens - len(part.lengths))
        rows.append([split, part.files, round(share, 3), part.bytes, tokens, round(per_token, 3)])
    columns = ["split", "files", "share of files", "bytes", "tokens", "bytes per token"]
    return {"title": "Splits", "columns": columns, "rows": rows}


def _areas(assigned: Sequence[Assignment], documents: Sequence[Document]) -> dict[str, Any]:
    counts: Counter[tuple[str, str]] = Counter()
    for a, document in zip(assigned, documents, strict=True):
        counts[document.area, a.split] += 1
    areas = sorted({area for area, _ in counts})
    rows = [[area, *(counts[area, split] for split in SPLITS)] for area in areas]
    return {"title": "Files by area", "columns": ["area", *SPLITS], "rows": rows}


def _bars(written: dict[str, _Written]) -> dict[str, Any]:
    y = [round(part.bytes / 1e6, 3) for part in written.values()]
    series = [{"name": "MB", "x": list(written), "y": y}]
    axes = {"x_label": "split", "y_label": "MB of text"}
    return {"title": "Size of the splits", "kind": "bar", **axes, "series": series}


def _lengths(written: dict[str, _Written]) -> dict[str, Any]:
    """Count files by the power of two below their number of tokens."""
    powers = {split: Counter(n.bit_length() - 1 for n in p.lengths) for split, p in written.items()}
    found = [power for counts in powers.values() for power in counts]
    bins = range(min(found), max(found) + 1)
    x = [str(2**power) for power in bins]
    series = [
        {"name": split, "x": x, "y": [counts[power] for power in bins]}
        for split, counts in powers.items()
    ]
    axes = {"x_label": "tokens, from", "y_label": "files"}
    return {"title": "Length of files", "kind": "bar", **axes, "series": series}
