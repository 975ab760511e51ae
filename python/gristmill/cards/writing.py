"""The two cards as Markdown."""

from __future__ import annotations

from pathlib import Path

from gristmill.artifacts import atomic_write
from gristmill.cards import model, sheet
from gristmill.cards.facts import UNREADABLE, Facts, Unknown, told

MODEL_CARD, DATASHEET = "MODEL_CARD.md", "DATASHEET.md"


def model_card(facts: Facts) -> str:
    """Return the model card; its header is left out, and why is said, where a stage is missing."""
    try:
        head, note = model.yaml(model.header(facts)) + "\n\n", ""
    except (Unknown, *UNREADABLE) as error:
        head, note = "", f"There is no header for the hub, because {error}.\n\n"
    language = told(lambda f: f"{', '.join(f.languages[0])}: {f.languages[1]}.", facts)
    parts = [f"{head}# {facts.name}\n\n{note}Language {language}"]
    for title, fields in model.SECTIONS:
        parts.append(f"## {title}")
        parts += [f"### {name}\n\n{told(say, facts)}" for name, say in fields]
    return "\n\n".join(parts) + "\n"


def datasheet(facts: Facts) -> str:
    """Return the datasheet: the questions of Gebru et al. 2021, each with its answer."""
    parts = [
        f"# Datasheet of the training data of {facts.name}",
        'Questions of Gebru et al., "Datasheets for datasets", Communications of the ACM 64(12), '
        "2021; answers from the artefacts of the run.",
    ]
    for title, questions in sheet.SECTIONS:
        parts.append(f"## {title}")
        parts += [f"**{question}**\n\n{told(say, facts)}" for question, say in questions]
    return "\n\n".join(parts) + "\n"


def write_cards(facts: Facts, folder: Path) -> list[Path]:
    """Write both into a folder and return their paths; raises StorageError."""
    written = []
    for name, text in ((MODEL_CARD, model_card(facts)), (DATASHEET, datasheet(facts))):
        atomic_write(folder / name, text.encode("utf-8", "replace"))
        written.append(folder / name)
    return written
