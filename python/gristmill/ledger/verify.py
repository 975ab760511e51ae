"""Whether a run, a deployed file or a saved model is what was written: every digest, once more.

A run: every file of every stage against its manifest, the chain of digests from stage to stage, the
saved model in a fresh process, the deployed file with its tensors, self-test and lineage.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gristmill import registry
from gristmill.artifacts import (
    MANIFEST,
    check_files,
    digest_of,
    read_json,
    sha256_file,
    sha256_json,
)
from gristmill.checkpoint import reload, selftest
from gristmill.errors import ArtifactError, GristmillError
from gristmill.runs import Store

SAVED, DEPLOYED = "09_save", "11_deploy"
ROWS = 4  # of validation text on which the saved model and the checkpoint compute
LINEAGE, DIGESTS = "gristmill.lineage", "gristmill.digest.names"
_NAME = re.compile(r" (?:is missing|has \d+ bytes|has other bytes|was added)")  # of check_files
AGAIN = "restore it from a copy, or delete {} and give `gristmill run` again: it makes the rest new"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; `file` is the damaged file and `advice` what to do."""

    part: str
    what: str
    passed: bool
    said: str
    file: str = ""
    advice: str = ""


def verify(target: Path, root: Path) -> Iterator[Check]:
    """Check a run folder, a stage folder, a Hugging Face folder or a GGUF file.

    root: where runs lie that a lone file may come from. Raises ArtifactError for anything else.
    """
    if target.is_file() and target.suffix == ".gguf":
        yield from _file(target, root)
    elif (target / "run.json").is_file():
        yield from _run(target)
        yield from _promoted(root)
    elif (target / MANIFEST).is_file():
        yield from _stage(target, target.resolve().name, None, {})
    elif (target / "config.json").is_file():
        yield from _folder(target)
    else:
        raise ArtifactError(
            f"{target} is no run (run.json), stage (manifest.json), Hugging Face folder "
            "(config.json) or .gguf file; give one of these"
        )


# ----------------------------------------------------------------------------------- a run


def _run(run: Path) -> Iterator[Check]:
    stages: Mapping[str, Any] = read_json(run / "run.json")["stages"]
    digests: dict[str, str] = {}
    damaged: set[str] = set()
    for label in sorted(stages):
        checks = list(_stage(run / label, label, stages[label], digests))
        damaged |= {label for check in checks if not check.passed}
        yield from checks
    if {SAVED, "07_train", "04_split"} <= set(stages):
        yield _attempt(SAVED, "reloaded in a fresh process", lambda: _reload(run))
    if DEPLOYED in stages:
        path = run / DEPLOYED / "model.gguf"
        yield from _content(path)
        yield _attempt(DEPLOYED, "lineage is this run's", lambda: _lineage_of(path, digests))


def _promoted(root: Path) -> Iterator[Check]:
    """Check the registry's own chain and the file that is promoted now."""
    if any((root / name).is_file() for name in (registry.REGISTRY, registry.HEAD)):
        yield _attempt(registry.REGISTRY, "chain, promoted file", lambda: _promoted_now(root))


def _promoted_now(root: Path) -> str:
    entries = registry.entries(root)
    if not entries:
        return "no whole line yet"
    registry.checked_model(root, entries[-1])
    return f"{len(entries)} promotions; now {entries[-1].run}, sha256 {entries[-1].sha256[:12]}"


def _stage(
    folder: Path, label: str, recorded: Mapping[str, Any] | None, digests: dict[str, str]
) -> Iterator[Check]:
    """Check one finished stage; its digest is added to `digests` under its name."""
    place = folder.resolve()
    advice = AGAIN.format(place)
    try:
        manifest = read_json(folder / MANIFEST)
        outputs, depends = manifest["outputs"], manifest["depends"]
        name, key, digest = (str(manifest[part]) for part in ("stage", "key", "digest"))
    except (ArtifactError, KeyError) as error:
        said = str(error) if isinstance(error, ArtifactError) else f"it lacks {error}"
        yield Check(label, "manifest", False, said, str(place / MANIFEST), advice)
        return
    problems = check_files(folder, manifest, full=True)
    size = sum(entry["bytes"] for entry in outputs.values())
    said = f"{len(outputs)} files, {size / 1e6:.1f} MB"
    damaged = str(place / _NAME.split(problems[0])[0]) if problems else ""
    yield Check(label, "files", not problems, "; ".join(problems) or said, damaged, advice)
    wrong = _identity(manifest, name, key, digest, recorded)
    wrong += [
        f"it read output {theirs[:12]} of {other}, which is {digests[other][:12]} here"
        for other, theirs in depends["inputs"].items()
        if other in digests and digests[other] != theirs
    ]
    digests[name] = digest
    earlier = len(depends["inputs"])
    said = (
        f"{digest[:12]} from {earlier} earlier outputs" if earlier else f"{digest[:12]}, the first"
    )
    yield Check(label, "chain", not wrong, "; ".join(wrong) or said, str(place / MANIFEST), advice)


def _identity(
    manifest: Mapping[str, Any],
    name: str,
    key: str,
    digest: str,
    recorded: Mapping[str, Any] | None,
) -> list[str]:
    """Return how the manifest disagrees with itself or with the run's record."""
    wrong = []
    if digest_of(manifest["outputs"]) != digest:
        wrong.append("its digest is not that of its files")
    if sha256_json([name, manifest["depends"]])[:16] != key:
        wrong.append("its key is not that of what it depends on")
    if recorded is not None and (recorded["key"], recorded["digest"]) != (key, digest):
        wrong.append(f"run.json names {recorded['key']}, {recorded['digest'][:12]}")
    return wrong


def _reload(run: Path) -> str:
    """Compute the same rows from the saved model, elsewhere, and from the checkpoint it is of."""
    from gristmill.data.loader import Loader
    from gristmill.data.shards import Shard

    folder, facts = run / SAVED / "model", read_json(run / SAVED / "reload.json")
    digest = sha256_file(folder / "model.safetensors")
    if digest != facts["sha256"]:
        raise ArtifactError(f"{folder / 'model.safetensors'}: sha256 is not that of reload.json")
    seed = read_json(run / SAVED / MANIFEST)["depends"]["seed"]
    context = read_json(folder / "config.json")
    length = context.get("max_position_embeddings") or context["n_positions"]
    ids, _ = Loader(Shard.open(run / "04_split" / "val"), ROWS, int(length), seed).batch(0)
    got = reload.logits_in_fresh_process(folder, ids).astype(np.float64)
    trained = reload.logits(run / "07_train" / facts["checkpoint"], ids)
    difference = float(np.abs(got - trained).max())
    if not difference <= facts["largest_difference"]:
        raise ArtifactError(
            f"{folder}: logits differ by {difference:g} from checkpoint {facts['checkpoint']}, "
            f"by {facts['largest_difference']:g} when it was saved"
        )
    return f"difference to checkpoint {facts['checkpoint']} {difference:g}"


# ---------------------------------------------------------------------------------- a file


def _file(path: Path, root: Path) -> Iterator[Check]:
    """Check a GGUF on its own; with its manifest or its run where they are at hand."""
    recorded = _recorded(path)
    if recorded is not None:
        yield recorded
    yield from _content(path)
    yield _attempt(path.name, "lineage", lambda: _lineage_alone(path, root))


def _content(path: Path) -> Iterator[Check]:
    """Yield the checks a GGUF carries in itself: tensors, metadata, self-test."""
    yield _attempt(path.name, "tensors and metadata", lambda: _tensors(path))
    yield _attempt(path.name, "self-test in a fresh process", lambda: _selftest(path))


def _model(path: Path) -> Any:
    from gristmill import _C

    try:
        return _C.Model(str(path), True)
    except (ValueError, OSError, RuntimeError) as error:
        raise ArtifactError(f"{path}: {error}") from None


def _tensors(path: Path) -> str:
    names = _model(path).metadata.get(DIGESTS, [])
    if not names:
        return "loads; it carries no digests: not written by gristmill"
    return f"{len(names)} tensors have their sha256"


def _selftest(path: Path) -> str:
    stored = len(_model(path).metadata.get(selftest.PROMPTS_KEY, []))
    if not stored:
        return "none in the file"
    compared, reason = selftest.check_in_fresh_process(path)
    if reason or not compared:
        raise ArtifactError(reason or f"{path}: none of {stored} prompts fits the context")
    return f"{compared} of {stored} prompts give the stored tokens"


def lineage_of(path: Path) -> dict[str, Any]:
    """Return the lineage a GGUF carries, {} where it has none."""
    return dict(json.loads(_model(path).metadata.get(LINEAGE, "{}")))


def _lineage_of(path: Path, digests: Mapping[str, str]) -> str:
    lineage = lineage_of(path)
    for name, facts in lineage.items():
        if digests.get(name) != facts["digest"]:
            raise ArtifactError(
                f"{path} comes from output {str(facts['digest'])[:12]} of {name}; this run has "
                f"{str(digests.get(name))[:12]}"
            )
    if not lineage:
        raise ArtifactError(f"{path} carries no lineage, though a stage wrote it")
    return f"{len(lineage)} stages"


def _lineage_alone(path: Path, root: Path) -> str:
    """Check that the lineage closes in itself, and name the runs that have it."""
    lineage = lineage_of(path)
    if not lineage:
        return "none in the file: not deployed by gristmill"
    for name, facts in lineage.items():
        for other, digest in facts["inputs"].items():
            if other in lineage and lineage[other]["digest"] != digest:
                raise ArtifactError(f"{path}: {name} read another output of {other} than it names")
    digests = {name: facts["digest"] for name, facts in lineage.items()}
    runs = [run.name for run in Store(root).runs() if _has(run, digests)]
    return f"{len(lineage)} stages; runs with it in {root}: " + (", ".join(runs) or "none")


def _has(run: Path, digests: Mapping[str, str]) -> bool:
    stages = read_json(run / "run.json")["stages"]
    return set(digests.values()) <= {stage["digest"] for stage in stages.values()}


# -------------------------------------------------------------------------------- a folder


def _folder(folder: Path) -> Iterator[Check]:
    """Check a Hugging Face folder: against the stage it lies in, and that it loads elsewhere."""
    for name in sorted(path.name for path in folder.glob("*.safetensors")):
        recorded = _recorded(folder / name)
        if recorded is not None:
            yield recorded
    yield _attempt(folder.name, "loads in a fresh process", lambda: _loads(folder))


def _loads(folder: Path) -> str:
    config = read_json(folder / "config.json")
    ids = np.arange(16, dtype=np.int32)[None] % int(config["vocab_size"])
    logits = reload.logits_in_fresh_process(folder, ids)
    if not np.isfinite(logits).all():
        raise ArtifactError(f"{folder}: its logits are not finite")
    return f"{config.get('model_type', 'model')}, logits of {ids.size} ids are finite"


def _recorded(path: Path) -> Check | None:
    """Compare a file with the manifest of the stage it lies in; None where it lies in none."""
    place = path.resolve()
    for parent in place.parents[:3]:
        if (parent / MANIFEST).is_file():
            name = place.relative_to(parent).as_posix()
            entry = read_json(parent / MANIFEST)["outputs"].get(name)
            if entry is None:
                return None
            same = sha256_file(place) == entry["sha256"]
            said = f"sha256 {entry['sha256'][:12]}" + (
                "" if same else " recorded, the file differs"
            )
            return Check(path.name, "manifest", same, said, str(place), AGAIN.format(parent))
    return None


def _attempt(part: str, what: str, check: Any) -> Check:
    """Return what `check` says, or the message it raises as what is damaged."""
    try:
        return Check(part, what, True, check())
    except (GristmillError, OSError, ValueError, KeyError) as error:
        said = (
            str(error) if isinstance(error, GristmillError) else f"{type(error).__name__} {error}"
        )
        return Check(part, what, False, said, part, "deploy or save it again from an intact run")
