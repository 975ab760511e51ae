"""The cards: no empty field and no placeholder, also where stages are missing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from gristmill.artifacts import MANIFEST, read_json
from gristmill.cards import Facts, datasheet, model_card
from gristmill.cards.model import HUB, yaml
from gristmill.cli import main

PLACEHOLDER = re.compile(
    r"\b(?:TBD|TODO|FIXME|None|nan|null|N/A|\[?more information needed\]?|lorem|xxx)\b", re.I
)
# said as what it is: git's word, of a source that has none
ALLOWED = re.compile(r"\| none \||no revision|: none found|Left out: nothing", re.I)


def facts_of(run: Path, *without: str) -> Facts:
    labels = sorted(read_json(run / "run.json")["stages"])
    folders = {read_json(run / x / MANIFEST)["stage"]: run / x for x in labels}
    return Facts("tiny", {name: path for name, path in folders.items() if name not in without})


def fields(card: str) -> dict[str, str]:
    """The headings, or bold questions, with the text below each."""
    body = card.split("---\n", 2)[-1] if card.startswith("---") else card
    parts = re.split(r"^(?:### (.+)|\*\*(.+)\*\*)$", body, flags=re.M)[1:]
    found = {}
    for heading, question, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        found[heading or question] = re.split(r"^## ", text, flags=re.M)[0].strip()
    return found


def problems(card: str) -> list[str]:
    """What is wrong with the fields of a card."""
    wrong = []
    for name, text in fields(card).items():
        if len(text) < 10:
            wrong.append(f"{name}: empty: {text!r}")
        if PLACEHOLDER.search(ALLOWED.sub("", text)):
            wrong.append(f"{name}: placeholder: {text[:200]!r}")
        unknown = re.match(r"(?:not known|unknown)\b:?(.*)", text, re.I | re.S)
        if unknown and len(unknown[1]) < 20:
            wrong.append(f"{name}: unknown without a reason: {text!r}")
        if re.search(r"\bunknown\b", text, re.I):
            wrong.append(f"{name}: says unknown, not why: {text[:200]!r}")
    return wrong


def test_no_empty_field_and_no_placeholder(finished: Path) -> None:
    facts = facts_of(finished)
    model, sheet = fields(model_card(facts)), fields(datasheet(facts))
    assert len(model) == 19 and len(sheet) == 50
    assert problems(model_card(facts)) == problems(datasheet(facts)) == []
    missing = {name for name, text in model.items() if text.startswith("Not known")}
    assert missing == {"Developed by"}  # deploy.contact is not set
    assert "cannot be read" not in model_card(facts) + datasheet(facts)


@pytest.mark.parametrize("gone", ["collect", "split", "design", "train", "evaluate", "save"])
def test_a_missing_stage_is_a_reason_and_no_hole(gone: str, finished: Path) -> None:
    facts = facts_of(finished, gone)
    assert problems(model_card(facts)) == problems(datasheet(facts)) == []
    assert f"stage {gone} " in model_card(facts)


def test_of_nothing_at_all(tmp_path: Path) -> None:
    facts = Facts("nothing", {})
    assert problems(model_card(facts)) == problems(datasheet(facts)) == []


@pytest.mark.parametrize(
    "text", ["", "TBD", "None", "unknown", "Not known.", "[More Information Needed]"]
)
def test_the_check_can_fail(text: str) -> None:
    assert problems(f"# x\n\n### Field\n\n{text}\n\n## Next\n")


def test_figures_are_those_of_the_artefacts(finished: Path) -> None:
    card, sheet = fields(model_card(facts_of(finished))), fields(datasheet(facts_of(finished)))
    measured = read_json(finished / "10_test/metrics.json")["bits_per_byte"]
    assert f"{measured['value']:.3f}" in card["Results"]
    assert read_json(finished / "09_save/reload.json")["sha256"] in card["Files"]
    assert read_json(finished / "05_design/design.json")["parameters"] == int(
        re.search(r"with ([\d,]+) parameters", card["What it is"])[1].replace(",", "")  # type: ignore[index]
    )
    commit = read_json(finished / "01_collect/sources.json")[0]["revision"]
    assert commit in card["Data"] and "MIT" in card["Data"]
    assert re.search(r"Training: [\d.e-]+ Wh, (?:measured|estimated)", card["Energy"])
    assert "61 collected" in sheet["How many instances are there in total, of each type?"]


def test_the_header_is_what_the_hub_reads(finished: Path) -> None:
    card = model_card(facts_of(finished))
    yaml_module: Any = pytest.importorskip("yaml")
    header = yaml_module.safe_load(card.split("---\n")[1])
    assert header["license"] == "mit" in HUB
    assert header["language"] == ["code"] and header["datasets"] == ["woods"]
    assert header["pipeline_tag"] == "text-generation" and "llama" in header["tags"]
    (result,) = header["model-index"][0]["results"]
    assert result["metrics"][0]["value"] > 0
    hub: Any = pytest.importorskip("huggingface_hub")
    data = hub.ModelCard(card).data
    assert data.license == "mit" and data.eval_results[0].metric_type == "bits_per_byte"


def test_a_licence_that_the_hub_has_no_name_for() -> None:
    text = yaml({"license": "other", "license_name": 'a "quoted": name'})
    assert text.splitlines()[2] == 'license_name: "a \\"quoted\\": name"'


def test_deploy_writes_them_and_the_verb_writes_them_anew(finished: Path, tmp_path: Path) -> None:
    deployed = (finished / "11_deploy/MODEL_CARD.md").read_text()
    assert problems(deployed) == []
    assert fields(deployed)["Results"] == fields(model_card(facts_of(finished)))["Results"]
    assert main(["card", "--runs", str(finished.parent), "--to", str(tmp_path)]) == 0
    assert (tmp_path / "DATASHEET.md").read_text() == datasheet(facts_of(finished))
    assert main(["card", "--runs", str(finished.parent), "--to", str(tmp_path / "no")]) == 5


def test_given_licence_and_contact(finished: Path) -> None:
    facts = facts_of(finished)
    facts.config["deploy"] = {"licence": "Apache-2.0", "contact": "owner@example.org"}
    card = fields(model_card(facts))
    assert card["Developed by"] == "owner@example.org"
    assert "Apache-2.0, as the configuration says" in card["Licence"]
    assert 'license: "apache-2.0"' in model_card(facts)
