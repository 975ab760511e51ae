"""Stage 11: one GGUF file with weights, tokenizer, self-test, lineage, report and references.

Reads the saved model, the validation split (prompts: the test split stays sealed) and the test
report. Gates: the file's own self-test passes in a fresh process; an f32 file gives the saved
model's logits.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.artifacts import Gate, Result, StageContext, read_json, sha256_file, write_json
from gristmill.cards import Facts, write_cards
from gristmill.checkpoint import reference, selftest
from gristmill.checkpoint.gguf import write_gguf
from gristmill.data.chat_tokens import FACTS
from gristmill.errors import ArtifactError
from gristmill.serving.chat_format import JINJA_KEY, NAME_KEY
from gristmill.serving.fim import ORDER, fim_tokens

PROMPT, SUFFIX = 32, 16  # tokens
DOCUMENTS = 200  # that requests of the reference distributions are cut from
REQUESTS, ANSWERS = 200, 128  # of each kind; of all kinds together
COMPARED = 64  # tokens on which file and saved model are compared


def run(ctx: StageContext) -> Result:
    """Write model.gguf, selftest.json, reference.json, MODEL_CARD.md and DATASHEET.md."""
    from gristmill import _C

    config = ctx.config.deploy
    folder, path = ctx.input("save") / "model", ctx.out / "model.gguf"
    facts: dict[str, str | Sequence[str]] = {
        "general.name": config.name or ctx.config.project.name,
        "gristmill.lineage": json.dumps(_lineage(ctx), sort_keys=True),
        "gristmill.report": json.dumps(_test_report(ctx), sort_keys=True),
    }
    facts |= _chat(ctx)
    holes = ctx.config.train.fim_rate > 0
    if holes:
        facts[ORDER] = "spm" if ctx.config.train.suffix_first else "psm"
    ctx.progress("writing the weights")
    write_gguf(folder, path, dtype=config.dtype, extra=facts, fim=holes)
    model = _C.Model(str(path), True)
    documents = _documents(ctx)
    ctx.progress("self-test vectors")
    prompts = _prompts(model, documents, 2 * config.selftest)
    close = selftest.CLOSE[config.dtype]
    vectors = selftest.make_vectors(model, prompts, config.selftest_tokens, close)[
        : config.selftest
    ]
    ctx.progress("reference distributions")
    asked = reference.requests(documents, fim_tokens(model.metadata), REQUESTS, ctx.seed)
    distributions = reference.measure(model, asked, ANSWERS, ctx.seed, len(documents))
    difference = _difference_from_saved(folder, model, documents)
    facts["gristmill.reference"] = json.dumps(distributions, sort_keys=True)
    facts |= selftest.metadata(vectors)
    write_gguf(folder, path, dtype=config.dtype, extra=facts, fim=holes)
    ctx.progress("self-test in a fresh process")
    compared, reason = selftest.check_in_fresh_process(path)
    digest = sha256_file(path)
    _write_records(ctx, digest, vectors, distributions, (compared, reason), difference)
    write_cards(Facts(str(facts["general.name"]), {**ctx.inputs, "deploy": ctx.out}), ctx.out)
    gates = _gates(config.dtype, len(vectors), compared, reason, difference)
    size = path.stat().st_size
    summary = f"{size / 1e6:.1f} MB {config.dtype}, {compared} of {len(vectors)} self-tests pass"
    report = _report(config.dtype, size, digest, vectors, distributions, difference)
    report["numbers"]["fills in the middle"] = holes
    return Result(summary, gates, report)


def _chat(ctx: StageContext) -> dict[str, str]:
    """Name and Jinja text of the chat template; nothing where no conversations were learned."""
    file = ctx.input("split") / FACTS
    if not file.is_file():
        return {}
    chat = read_json(file)
    return {NAME_KEY: chat["template"], JINJA_KEY: chat["jinja"]}


def _lineage(ctx: StageContext) -> dict[str, Any]:
    """Key and digest of every stage this file comes from, with the digests each of them read."""
    lineage = {}
    for name, folder in ctx.inputs.items():
        manifest = folder / "manifest.json"
        if manifest.is_file():
            facts = read_json(manifest)
            inputs = facts.get("depends", {}).get("inputs", {})
            lineage[name] = {
                "key": facts.get("key"),
                "digest": facts.get("digest"),
                "inputs": inputs,
            }
    return lineage


def _test_report(ctx: StageContext) -> dict[str, Any]:
    """What the test stage measured, as it stands in its files."""
    names = ("metrics.json", "slices.json")
    folder = ctx.input("evaluate")
    return {n.removesuffix(".json"): read_json(folder / n) for n in names if (folder / n).is_file()}


def _documents(ctx: StageContext) -> list[list[int]]:
    """Token ids of validation documents in a seeded order, without the closing special token."""
    from gristmill.data.shards import Shard

    shard = Shard.open(ctx.input("split") / "val")
    order = np.random.default_rng(ctx.seed).permutation(len(shard.offsets) - 1)
    documents = ([int(i) for i in shard.doc(int(d))[:-1]] for d in order)
    return list(islice((ids for ids in documents if len(ids) >= 2), DOCUMENTS))


def _prompts(model: Any, documents: list[list[int]], n: int) -> list[str]:
    """Beginnings of documents, every second one as a hole where the model has the tokens."""
    tokens = fim_tokens(model.metadata)
    room = max(1, min(PROMPT, model.n_ctx // 4))
    prompts = []
    for number, ids in enumerate(documents[:n]):
        prompt = ids[:room]
        if number % 2 and tokens is not None:
            prompt = tokens.prompt(prompt, ids[room + SUFFIX : room + 2 * SUFFIX])
        prompts.append(_text(model, prompt))
    return prompts


def _text(model: Any, ids: Sequence[int]) -> str:
    """Text of ids; a character cut in two is left out."""
    return str(model.detokenize(ids).decode("utf-8", "ignore"))


def _difference_from_saved(folder: Path, model: Any, documents: list[list[int]]) -> float:
    """Largest |logit difference| of the file in the runtime to the saved model in the engine."""
    import gristmill as gm
    from gristmill import _C

    ids = [i for document in documents for i in document][: min(COMPARED, model.n_ctx)]
    if not ids:
        raise ArtifactError("the validation split holds no tokens to compare with; run split again")
    saved = gm.models.from_pretrained(folder)
    with gm.no_grad():
        expected = saved(np.array([ids], np.int32)).numpy()[0]
    got = _C.Session(model, len(ids)).eval_all(ids)
    return float(np.abs(got.astype(np.float64) - expected).max())


def _gates(dtype: str, vectors: int, compared: int, reason: str, difference: float) -> list[Gate]:
    value = reason or f"{compared} of {vectors} prompts"
    passed = not reason and 0 < vectors == compared
    gates = [
        Gate("self-test in a fresh process", value, "all, at least 1", passed, "selftest.json")
    ]
    if dtype == "f32":
        name = "largest |logit difference| to the saved model"
        gates.append(Gate(name, difference, 0.0, difference == 0.0, "selftest.json"))
    return gates


def _write_records(
    ctx: StageContext,
    digest: str,
    vectors: list[selftest.Vector],
    distributions: dict[str, Any],
    fresh: tuple[int, str],
    difference: float,
) -> None:
    prompts = [{"prompt": v.prompt, "ids": v.ids, "smallest_gap": v.gap} for v in vectors]
    record = {"digest": digest, "prompts": prompts, "compared": fresh[0], "reason": fresh[1]}
    write_json(ctx.out / "selftest.json", record | {"difference_to_saved": difference})
    write_json(ctx.out / "reference.json", distributions)


def _report(
    dtype: str,
    size: int,
    digest: str,
    vectors: list[selftest.Vector],
    distributions: dict[str, Any],
    difference: float,
) -> dict[str, Any]:
    rows = [[v.prompt[-40:], len(v.ids), round(v.gap, 4)] for v in vectors]
    drift = [[name, d["n"], d["mean"], d["std"]] for name, d in distributions.items()]
    return {
        "what": "One GGUF file holds weights, tokenizer, self-test, lineage, test report and "
        "reference distributions; gristmill, llama.cpp and Ollama run it.",
        "why": "A file that carries its own test is refused by the server when a byte of it has "
        "changed or when this machine computes something else.",
        "numbers": {
            "file": f"{size / 1e6:.2f} MB",
            "weights": dtype,
            "sha256": digest[:16],
            "self-test prompts": len(vectors),
            "largest |logit difference| to the saved model": difference,
        },
        "tables": [
            {
                "title": "Self-test",
                "columns": ["prompt ends with", "tokens", "smallest gap"],
                "rows": rows,
            },
            {
                "title": "Reference",
                "columns": ["feature", "n", "mean", "standard deviation"],
                "rows": drift,
            },
        ],
        "plots": [],
    }
