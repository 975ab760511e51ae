"""The fields of a model card (Mitchell et al. 2019, in the layout of Hugging Face's template)."""

from __future__ import annotations

import json
from typing import Any

from gristmill.cards.facts import Facts, Unknown, between, date, table

# the hub's names of licences, where they are not SPDX's in small letters
HUB = {
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "isc", "mpl-2.0", "unlicense",
    "gpl-2.0", "gpl-3.0", "lgpl-2.1", "lgpl-3.0", "agpl-3.0", "postgresql", "zlib", "cc-by-4.0",
    "cc-by-sa-4.0", "bsl-1.0", "ncsa", "odc-by",
}  # fmt: skip


def header(facts: Facts) -> dict[str, Any]:
    """Return the metadata the hub reads; raises Unknown where a stage is missing."""
    fields: dict[str, Any] = {
        "language": facts.languages[0],
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["gristmill", "gguf", facts.shape["model_type"]],
    }
    known = licence(facts)
    hub = known.lower().removesuffix("-only")
    fields |= {"license": hub} if hub in HUB else {"license": "other", "license_name": known}
    fields["datasets"] = [source["name"] for source in facts.sources]
    fields["metrics"] = ["bits_per_byte", "exact_match"]
    given = facts.config.get("initialize", {}).get("from")
    if given:
        fields["base_model"] = given
    fields["model-index"] = [{"name": facts.name, "results": [_result(facts)]}]
    return fields


def yaml(fields: dict[str, Any]) -> str:
    """Return the header as YAML: JSON is YAML, one key a line."""
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items()]
    return "\n".join(["---", *lines, "---"])


def _result(facts: Facts) -> dict[str, Any]:
    measured = facts.json("evaluate", "metrics.json")
    value = round(measured["bits_per_byte"]["value"], 4)
    return {
        "task": {"type": "text-generation"},
        "dataset": {"name": "held-out files of the same sources", "type": "test-split"},
        "metrics": [{"type": "bits_per_byte", "value": value, "name": "bits per byte"}],
    }


def licence(facts: Facts) -> str:
    """Return the licence of the weights: given, or that of all training files."""
    given = facts.config.get("deploy", {}).get("licence")
    if given:
        return str(given)
    found = facts.licences
    return found[0] if len(found) == 1 else "see-training-data"


def licence_text(facts: Facts) -> str:
    if facts.config.get("deploy", {}).get("licence"):
        return f"{licence(facts)}, as the configuration says (`deploy.licence`)."
    found = ", ".join(facts.licences)
    return (
        f"Derived: the training files are under {found}; `deploy.licence` in the configuration "
        "says otherwise. Whether weights are bound by the licences of their training data is a "
        "question of law that this card cannot answer."
    )


def what(facts: Facts) -> str:
    shape = facts.shape
    context = shape.get("max_position_embeddings") or shape.get("n_positions")
    parameters = facts.json("design", "design.json")["parameters"]
    return (
        f"A decoder-only transformer (`{shape['model_type']}`) with {parameters:,} parameters, a "
        f"context of {context:,} tokens and a vocabulary of {shape['vocab_size']:,} tokens."
    )


def base(facts: Facts) -> str:
    given = facts.setting("initialize", "from")
    if given:
        rank = facts.config.get("train", {}).get("lora", {}).get("rank")
        how = f"adapters of rank {rank}, merged" if rank else "all weights trained on"
        return f"Continued from `{given}` ({how}); what that model saw before is not known here."
    return "Trained from random weights: no other model is in it."


def developer(facts: Facts) -> str:
    contact = facts.config.get("deploy", {}).get("contact")
    if contact:
        return str(contact)
    raise Unknown("`deploy.contact` is not set in the configuration")


def made(facts: Facts) -> str:
    code = facts.json("save", "manifest.json")["code"]
    return f"Begun {facts.begun} by gristmill {code}."


def use(facts: Facts) -> str:
    fim = facts.setting("train", "fim_rate")
    holes = (
        f"It was trained to fill holes in the middle of a text (share of stretches: {fim:g}), so "
        "an editor can ask for what stands between two texts."
        if fim
        else "It was not trained to fill holes: it continues a text at its end."
    )
    kind = "code like that" if facts.code_share >= 0.5 else "text like that"
    return f"Completing {kind} of its sources: {_names(facts)}. {holes}"


def misuse(facts: Facts) -> str:
    size = facts.json("design", "design.json")["parameters"]
    return (
        "Anything that needs true statements, advice to people, or decisions about them. With "
        f"{size:,} parameters and the data below it knows no facts beyond its sources, and it was "
        "not trained to refuse anything. Its completions must be read before they are run."
    )


def start(facts: Facts) -> str:
    return (
        "```bash\ngristmill generate model.gguf -p 'def main(' --max-tokens 40\n"
        "gristmill serve model.gguf\n```\n\n"
        "The same file runs in llama.cpp and Ollama; the folder `model/` of the save stage loads "
        'by `transformers.AutoModelForCausalLM.from_pretrained("model")`.'
    )


def data(facts: Facts) -> str:
    counts = {name: 0 for name in dict.fromkeys(row[0] for row in facts.trained)}
    for name, _, _ in facts.trained:
        counts[name] += 1
    rows = [
        [s["name"], s["kind"], s["revision"] or "none", s["licence"], counts.get(s["name"], 0),
         date(s["retrieved_at"]), s["why"]]
        for s in facts.sources
    ]  # fmt: skip
    columns = ["source", "kind", "revision", "licence", "training files", "state of", "why"]
    return (
        f"{facts.documents('train'):,} files, {facts.tokens('train'):,} tokens. All about it: "
        f"DATASHEET.md.\n\n{table(columns, rows)}"
    )


def procedure(facts: Facts) -> str:
    design, took = facts.json("design", "design.json"), facts.json("train", "time.json")
    t = facts.config["train"]
    names = ("lr", "schedule", "warmup", "decay", "weight_decay", "betas", "grad_clip", "fim_rate")
    rows = [[f"train.{name}", json.dumps(t[name])] for name in names if name in t]
    rows += [["batch", str(design["batch"])], ["context", str(design["context"])]]
    rows += [["products in", design["train"]["dtype"]], ["seed", str(_seed(facts))]]
    stopped = ", stopped early" if took["stopped_early"] else ""
    return (
        f"{took['steps']:,} steps, {took['tokens']:,} tokens{stopped}, AdamW; the checkpoint of "
        f"step {took['best_step']:,} was the best on validation files.\n\n"
        + table(["setting", "value"], rows)
    )


def _seed(facts: Facts) -> int:
    return int(facts.json("train", "manifest.json")["depends"]["seed"])


def hardware(facts: Facts) -> str:
    machine, took = facts.machine, facts.json("train", "time.json")
    return (
        f"{machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_bytes'] / 2**30:.0f} GiB, {machine['system']}. Training took "
        f"{took['seconds']:.0f} s in steps, all stages {facts.seconds:.0f} s; training needed "
        f"{took['peak_bytes'] / 1e6:.0f} MB of memory."
    )


def spent(facts: Facts) -> str:
    return (
        f"Training: {facts.energy(['train'])}.\n\nAll stages up to this card: {facts.energy()}.\n\n"
        "Carbon: not known, because the carbon intensity of this machine's electricity is not "
        "known to gristmill; multiply the kWh by that of your grid."
    )


def results(facts: Facts) -> str:
    m = facts.json("evaluate", "metrics.json")
    rows = [["this model", between(m["bits_per_byte"])]]
    rows += [[name, f"{value:.3f}"] for name, value in m["baselines"].items() if value is not None]
    text = (
        f"Bits per byte on {m['documents']} test files ({m['bytes']:,} bytes), lower is better; "
        f"intervals by resampling files.\n\n{table(['method', 'bits per byte'], rows)}"
    )
    if not m.get("holes", {}).get("model"):
        return f"{text}\n\nHoles to fill: not measured, no file of the test split has one."
    rows = [
        [name, kind, found["holes"], between(found["exact"], ".1%"),
         between(found["keystrokes_saved"], ".1%")]
        for name, kinds in m["holes"].items()
        for kind, found in kinds.items()
    ]  # fmt: skip
    columns = ["method", "holes", "number", "exact", "keystrokes saved"]
    return f"{text}\n\nHoles to fill:\n\n{table(columns, rows)}"


def gates(facts: Facts) -> str:
    rows = []
    for name, folder in facts.folders.items():
        if (folder / "manifest.json").is_file():
            for gate in facts.json(name, "manifest.json").get("gates", []):
                verdict = "passed" if gate["passed"] else "DID NOT PASS"
                rows.append([name, gate["name"], _number(gate["value"]), _number(gate["bar"]),
                             verdict])  # fmt: skip
    return table(["stage", "gate", "value", "bar", "verdict"], rows) if rows else ""


def sealed(facts: Facts) -> str:
    m = facts.json("evaluate", "metrics.json")
    c = m["contamination"]
    without = c["bits_per_byte_without"]
    rest = f"{without:.3f} bits per byte without them" if without is not None else "none is left"
    return (
        f"The test split was opened {m['opened']} times, this one included; each further opening "
        f"makes its figures worth a little less. {c['flagged']} of its files stand in the training "
        f"split by {c['share']:.0%} or more in runs of {c['run']} tokens ({rest})."
    )


def limits(facts: Facts) -> str:
    verdict = facts.json("validate", "verdict.json")["overfitting"]["text"]
    slices = facts.json("evaluate", "slices.json")
    worst: tuple[float, str] | None = None
    for name, labels in slices.items():
        for label, found in labels.items():
            value = found["bits_per_byte"]["value"]
            if worst is None or value > worst[0]:
                worst = (value, f"{name} {label}: {value:.3f} bits per byte")
    text = f"Overfitting: {verdict}.\n\n"
    if worst is not None:
        text += f"Worst measured slice of the test files: {worst[1]}.\n\n"
    return text + (
        "A completion may repeat a training file word for word: `gristmill trace ANSWER` names the "
        "nearest ones with their licences."
    )


def bias(facts: Facts) -> str:
    del facts
    return (
        "Not measured: no stage of this process tests for social bias. The slices of the test "
        "report show where the model is worse, by area, length and difficulty of the files, and "
        "say nothing about people."
    )


def files(facts: Facts) -> str:
    rows = [["weights (`model.safetensors`)", facts.weights]]
    rows.append(["deployed file (`model.gguf`)", facts.json("deploy", "selftest.json")["digest"]])
    return table(["file", "sha256"], rows)


def again(facts: Facts) -> str:
    manifests = {
        name: facts.json(name, "manifest.json")
        for name, folder in facts.folders.items()
        if (folder / "manifest.json").is_file()
    }
    rows = [[name, one["key"], one["digest"]] for name, one in manifests.items()]
    return (
        "`gristmill repro RUN` runs the same configuration again and compares every bit; "
        "`gristmill verify model.gguf` checks the file's digests and self-test.\n\n"
        + table(["stage", "key", "sha256 over its files"], rows)
    )


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _names(facts: Facts) -> str:
    return ", ".join(source["name"] for source in facts.sources)


SECTIONS = (
    ("Model details", (("What it is", what), ("Made from", base), ("Made when and by what", made),
                       ("Developed by", developer), ("Licence", licence_text), ("Files", files))),
    ("Uses", (("Intended use", use), ("Out of scope", misuse), ("How to start", start))),
    ("Training", (("Data", data), ("Procedure", procedure), ("Machine and time", hardware),
                  ("Energy", spent))),
    ("Evaluation", (("Results", results), ("The sealed test split", sealed), ("Gates", gates))),
    ("Risks and limits", (("What is known", limits), ("Bias", bias))),
    ("Provenance", (("Repeat and check", again),)),
)  # fmt: skip
