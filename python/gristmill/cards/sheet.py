"""The questions of "Datasheets for datasets" (Gebru et al. 2021) and what a run can say to each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from gristmill.cards.facts import Facts, Unknown, date, table
from gristmill.cards.model import developer

Answer = Callable[[Facts], str]


def because(reason: str) -> Answer:
    """An answer that no run can know, with the reason."""

    def say(facts: Facts) -> str:
        raise Unknown(reason)

    return say


def fixed(text: str) -> Answer:
    """An answer that holds for every run of this process."""
    return lambda facts: text


# ------------------------------------------------------------------------------ motivation


def purpose(facts: Facts) -> str:
    reasons = "; ".join(f"{s['name']}: {s['why']}" for s in facts.sources)
    return f"To train the language model {facts.name}. Why each source was taken: {reasons}."


# ----------------------------------------------------------------------------- composition


def instances(facts: Facts) -> str:
    suffixes = facts.json("collect", "quality.json")["by"]["suffix"]
    few = ", ".join(f"{n:,} {name or 'without suffix'}" for name, n in list(suffixes.items())[:8])
    return f"Whole text files, or rows of tables with a text ({few})."


def count(facts: Facts) -> str:
    q = facts.json("collect", "quality.json")
    splits = ", ".join(
        f"{name} {facts.documents(name):,} ({facts.tokens(name):,} tokens)"
        for name in ("train", "val", "test")
    )
    return (
        f"{q['documents']:,} collected ({q['bytes']:,} bytes, {q['lines']:,} lines). "
        f"After cleaning, by split: {splits}."
    )


def sample(facts: Facts) -> str:
    q, limit = facts.json("collect", "quality.json"), facts.setting("collect", "limit")
    reasons = ", ".join(f"{why}: {n:,}" for why, n in q["skipped"]["by_reason"].items())
    how = f"a seeded sample of {limit:,}" if limit else "all files of the sources that are text"
    return f"It is {how}. Left out: {reasons or 'nothing'} (each in quality.json)."


def content(facts: Facts) -> str:
    encodings = facts.json("collect", "quality.json")["by"]["encoding"]
    return (
        "The text as it lies in the source, with source, path, licence, reason, time and sha256 of "
        f"its bytes. Encodings: {', '.join(f'{name} {n:,}' for name, n in encodings.items())}."
    )


def labels(facts: Facts) -> str:
    found = facts.json("annotate", "functions.json")
    if found["skip"]:
        return f"No: {found['skip']}."
    rows = facts.table("annotate", "labels.parquet", ["task", "label", "source"])
    votes = Counter(label for task, label, by in rows if (task, by) == ("quality", "vote"))
    agreed = found["agreement"]
    said = "no file has two votes" if agreed is None else f"agreement of the functions {agreed:.2f}"
    return (
        "A quality label by labelling functions that vote ("
        + ", ".join(f"{n:,} {name}" for name, n in sorted(votes.items()))
        + f"; {said}; against people: {_accuracy(found['accuracy'])}). The model's target is the "
        "text itself."
    )


def _accuracy(found: Any) -> str:
    if isinstance(found, dict):
        return "{value:.2f} [{low:.2f}, {high:.2f}], n = {n}".format(**found)
    return str(found)


def missing(facts: Facts) -> str:
    steps = facts.json("clean", "steps.json")
    rows = [[s["step"], s["rows_in"], s["removed"], s["changed"]] for s in steps]
    audit = facts.table("clean", "audit.parquet", ["rule"])
    return (
        f"{len(audit):,} values that looked like personal data or secrets are replaced by tokens; "
        "nothing else is taken out of a text that is kept.\n\n"
        + table(["cleaning step", "files in", "removed", "changed"], rows)
    )


def relations(facts: Facts) -> str:
    groups = facts.table("split", "split.parquet", ["group"])
    return (
        f"Near-duplicates share a group: {len({g for (g,) in groups}):,} groups. Nothing else that "
        "relates files (imports, authors) is recorded."
    )


def splits(facts: Facts) -> str:
    by, val, test = (facts.setting("split", key) for key in ("by", "val", "test"))
    leaks = facts.json("split", "leaks.json")
    return (
        f"Train, validation ({val:g}) and test ({test:g}), by {by}: whole groups go to one side, "
        f"so that no copy stands in two. Leaks found afterwards: {sum(leaks['counts'].values())}. "
        "The test split is opened by the test stage only, and every opening is counted."
    )


def noise(facts: Facts) -> str:
    q = facts.json("collect", "quality.json")
    return (
        f"{q['skipped']['faulty']:,} files could not be read or decoded; "
        f"{q['duplicates']['files']:,} had an exact copy when collected. Errors inside the texts "
        "were not looked for beyond the cleaning steps above."
    )


def external(facts: Facts) -> str:
    revisions = "; ".join(f"{s['name']} at {s['revision'] or 'no revision'}" for s in facts.sources)
    return (
        "Self-contained: the raw bytes lie in the collect stage under their sha256. They came "
        f"from: {revisions}."
    )


def confidential(facts: Facts) -> str:
    rules = [
        rule
        for step in facts.setting("clean", "step")
        if step["use"] == "private"
        for rule in step["rules"]
    ]
    if not rules:
        raise Unknown("no cleaning step `private` was configured, so nothing looked for it")
    found = Counter(rule for (rule,) in facts.table("clean", "audit.parquet", ["rule"]))
    counts = ", ".join(f"{n:,} {name}" for name, n in sorted(found.items())) or "none"
    return (
        f"Searched by the rules {', '.join(rules)}: {counts} found and replaced by tokens. What no "
        "rule describes is not found."
    )


def identities(facts: Facts) -> str:
    return (
        "Names of authors may stand in comments and licence headers; they are not searched for. "
        + confidential(facts)
    )


# ------------------------------------------------------------------- collection, cleaning


def acquired(facts: Facts) -> str:
    rows = [
        [s["name"], s["kind"], s["path"] or "none", s["licence"], s["licence_from"], s["files"]]
        for s in facts.sources
    ]
    columns = ["source", "kind", "place", "licence", "licence from", "files"]
    return f"Read as files, as they are.\n\n{table(columns, rows)}"


def when(facts: Facts) -> str:
    spans = "; ".join(
        f"{s['name']}: files of {date(s['oldest'])} to {date(s['newest'])}" for s in facts.sources
    )
    return f"Collected {facts.begun}. Times of the files: {spans}."


def steps(facts: Facts) -> str:
    uses = ", ".join(step["use"] for step in facts.setting("clean", "step")) or "no step"
    removed = len(facts.table("clean", "removed.parquet", ["id"]))
    vocab = facts.setting("split", "vocab_size")
    return (
        f"Cleaning in order: {uses}. {removed:,} files removed, each with rule, value and "
        "threshold in removed.parquet. Then tokenised by byte-level BPE with at most "
        f"{vocab:,} tokens, learned on the training split only."
    )


# --------------------------------------------------------------------- use, distribution


def composition_risks(facts: Facts) -> str:
    counts = Counter(source for source, _, _ in facts.trained)
    name, n = counts.most_common(1)[0]
    share = n / len(facts.trained)
    return (
        f"{share:.0%} of the training files are from {name}: the model writes in its manner. "
        "Generated, broken and repeated files were removed, so frequencies are not those of the "
        "sources."
    )


def licences(facts: Facts) -> str:
    counts = Counter(row[2] for row in facts.trained)
    listed = ", ".join(f"{name} ({n:,} files)" for name, n in counts.most_common())
    return f"The files stay under their own licences: {listed}. Each row carries its licence."


NO_DISTRIBUTION = "gristmill distributes nothing; whoever passes the run folder on decides that"
NO_PEOPLE = "the sources are files, not people; who stands behind a file is not recorded"

SECTIONS: tuple[tuple[str, tuple[tuple[str, Answer], ...]], ...] = (
    ("Motivation", (
        ("For what purpose was the dataset created?", purpose),
        ("Who created the dataset and on behalf of which entity?", developer),
        ("Who funded the creation of the dataset?",
         because("the configuration has no field for it")),
    )),
    ("Composition", (
        ("What do the instances that comprise the dataset represent?", instances),
        ("How many instances are there in total, of each type?", count),
        ("Does the dataset contain all possible instances or is it a sample?", sample),
        ("What data does each instance consist of?", content),
        ("Is there a label or target associated with each instance?", labels),
        ("Is any information missing from individual instances?", missing),
        ("Are relationships between individual instances made explicit?", relations),
        ("Are there recommended data splits?", splits),
        ("Are there any errors, sources of noise, or redundancies in the dataset?", noise),
        ("Is the dataset self-contained, or does it rely on external resources?", external),
        ("Does the dataset contain data that might be considered confidential?", confidential),
        ("Does the dataset contain data that might be offensive, insulting, threatening, or "
         "might otherwise cause anxiety?",
         because("no step of this process looks for it")),
        ("Does the dataset identify any subpopulations?",
         because("no step of this process looks for groups of people")),
        ("Is it possible to identify individuals, directly or indirectly?", identities),
        ("Does the dataset contain data that might be considered sensitive in any way?",
         confidential),
    )),
    ("Collection process", (
        ("How was the data associated with each instance acquired?", acquired),
        ("What mechanisms or procedures were used to collect the data?",
         fixed("The collect stage of gristmill: files of a folder, a git tree, installed packages "
               "or tables; every file that was left out is listed with the reason.")),
        ("If the dataset is a sample from a larger set, what was the sampling strategy?", sample),
        ("Who was involved in the data collection process and how were they compensated?",
         fixed("A program alone; nobody was asked to write anything for it.")),
        ("Over what timeframe was the data collected?", when),
        ("Were any ethical review processes conducted?",
         because("the configuration has no field for it")),
        ("Did you collect the data from the individuals directly, or via third parties?",
         fixed("Via third parties: the sources above.")),
        ("Were the individuals in question notified about the data collection?",
         because(NO_PEOPLE)),
        ("Did the individuals in question consent to the collection and use of their data?",
         because(f"{NO_PEOPLE}; the licence of each file stands in its row")),
        ("If consent was obtained, were the individuals provided with a mechanism to revoke it?",
         fixed("`gristmill forget --source NAME|PATH` finds every row, run and model that holds a "
               "source and starts a run without it.")),
        ("Has an analysis of the potential impact on data subjects been conducted?",
         because("the configuration has no field for it")),
    )),
    ("Preprocessing, cleaning, labeling", (
        ("Was any preprocessing, cleaning or labeling of the data done?", steps),
        ("Was the raw data saved in addition to the preprocessed data?",
         fixed("Yes: every file under the sha256 of its bytes, in the folder `raw` of the collect "
               "stage; rows of tables as their text.")),
        ("Is the software that was used available?",
         fixed("Yes, gristmill: the manifest of every stage holds the sha256 of each source file "
               "that took part.")),
    )),
    ("Uses", (
        ("Has the dataset been used for any tasks already?",
         lambda facts: f"To train {facts.name}; results are in MODEL_CARD.md."),
        ("Is there a repository that links to any or all papers or systems that use the dataset?",
         because("nothing is published by this process")),
        ("What other tasks could the dataset be used for?",
         fixed("Training a tokenizer, retrieval, counting n-grams: whatever the licences below "
               "allow.")),
        ("Is there anything about its composition or collection that might impact future uses?",
         composition_risks),
        ("Are there tasks for which the dataset should not be used?",
         fixed("Conclusions about the people who wrote the files: nothing was collected for it.")),
    )),
    ("Distribution", (
        ("Will the dataset be distributed to third parties?", because(NO_DISTRIBUTION)),
        ("How will the dataset be distributed, and does it have a DOI?",
         because(NO_DISTRIBUTION)),
        ("When will the dataset be distributed?", because(NO_DISTRIBUTION)),
        ("Under which licence or terms of use will the dataset be distributed?", licences),
        ("Have any third parties imposed IP-based or other restrictions on the data?", licences),
        ("Do any export controls or other regulatory restrictions apply?",
         because("gristmill does not judge the law of a country")),
    )),
    ("Maintenance", (
        ("Who will be supporting, hosting and maintaining the dataset?", developer),
        ("How can the owner, curator or manager of the dataset be contacted?", developer),
        ("Is there an erratum?",
         fixed("No: a run is never changed. A correction is another run, with its own digests.")),
        ("Will the dataset be updated?",
         fixed("By `gristmill update`, which collects the sources anew in another run.")),
        ("If the dataset relates to people, are there limits on the retention of the data?",
         because("the configuration has no field for it; `gristmill forget --delete-old` deletes")),
        ("Will older versions of the dataset continue to be supported?",
         fixed("Older runs stay where they are until somebody deletes them.")),
        ("Is there a mechanism for others to extend, augment or contribute to the dataset?",
         fixed("A further `[[collect.source]]` in the configuration, and a new run.")),
    )),
)  # fmt: skip
