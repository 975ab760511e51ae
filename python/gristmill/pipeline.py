"""The process: eleven stages in order, each done once per content key, gates between them."""

from __future__ import annotations

import functools
import importlib
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from keyword import iskeyword
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from gristmill import keys, machine
from gristmill.artifacts import (
    Gate,
    Result,
    StageContext,
    describe_files,
    digest_of,
    read_json,
    sha256_json,
    storage_error,
    write_json,
)
from gristmill.checkpoint.source import digests
from gristmill.errors import ArtifactError, ConfigError, GateError, MissingExtraError
from gristmill.runs import Store, Work

if TYPE_CHECKING:
    from gristmill.config import Config

REPORT = "report.json"
AFTER = ("serve", "update")  # what is done with a finished run is no part of it
FORMAT = 1  # of run folders; part of every key


@dataclass(frozen=True)
class Stage:
    """One stage: where its code is, what of the configuration it may read."""

    number: int
    name: str
    folder: str
    module: str
    resumable: bool = False
    engine: bool = False  # uses _C: its build is part of the key
    same_table: bool = False  # in bf16 it goes on only with the kernels it was begun with
    reads: tuple[str, ...] = ()  # keys of later stages that this one needs too
    world: bool = False  # reads files of the user: its fingerprint() of them is part of the key
    given: str = ""  # of the model in initialize.from: what it reads, whose digest is in the key


def _stage(number: int, name: str, folder: str | None = None, **options: Any) -> Stage:
    label = f"{number:02d}_{folder or name}"
    return Stage(number, name, label, f"gristmill.stages.{name}", engine=number >= 5, **options)


STAGES: tuple[Stage, ...] = (
    _stage(1, "collect", world=True),
    _stage(2, "clean", world=True),
    _stage(3, "annotate", world=True),
    _stage(4, "split", reads=("initialize.from",), given="tokenizer"),
    # design measures the throughput of the step that train will make, and nothing else of it
    _stage(
        5,
        "design",
        reads=(
            "initialize.from",
            "train.dtype",
            "train.accumulate",
            "train.recompute",
            "train.shards",
            "train.dropout",
            "train.lora",
        ),
        given="shape",
    ),
    _stage(6, "initialize", given="weights"),
    _stage(7, "train", resumable=True, same_table=True),
    _stage(8, "validate"),
    _stage(9, "save"),
    # its folder outlives a kill: the count of openings is in it
    _stage(10, "evaluate", "test", resumable=True),
    _stage(11, "deploy", reads=("project.name",)),
)


@dataclass(frozen=True)
class Done:
    """A finished stage of this run."""

    stage: Stage
    path: Path
    manifest: Mapping[str, Any]
    skipped: bool
    seconds: float

    @property
    def gates(self) -> list[Gate]:
        return [Gate(**gate) for gate in self.manifest["gates"]]


@dataclass
class Options:
    """How to run: which stages, how careful, who is told."""

    only: str | None = None
    until: str | None = None
    verify: bool = False
    on_done: Callable[[Done], None] = field(default=lambda done: None)
    on_progress: Callable[[Stage, str], None] = field(default=lambda stage, message: None)
    on_report: Callable[[Path], None] = field(default=lambda run: None)


@dataclass(frozen=True)
class Run:
    """A run and its finished stages, in order."""

    folder: Path
    done: list[Done]


def find_stage(name: str, stages: tuple[Stage, ...] = STAGES) -> Stage:
    """Return a stage by its name or its verb; raises ConfigError with the names."""
    for stage in stages:
        if name in (stage.name, stage.folder, stage.folder[3:]):
            return stage
    raise ConfigError(f"no stage {name!r}; stages: {', '.join(s.folder[3:] for s in stages)}")


class Pipeline:
    """Runs the stages of one configuration in one folder."""

    def __init__(
        self,
        config: Config,
        root: Path,
        options: Options | None = None,
        stages: tuple[Stage, ...] = STAGES,
    ) -> None:
        self.config = config
        self.store = Store(root)
        self.options = options or Options()
        self.stages = stages
        self.sections: dict[str, Any] = config.model_dump(mode="json", by_alias=True)
        self.done: list[Done] = []

    def run(self) -> Run:
        """Run what is asked for and not done yet; raises GateError, StorageError, ..."""
        self.store.create()
        only = find_stage(self.options.only, self.stages) if self.options.only else None
        last = find_stage(self.options.until, self.stages) if self.options.until else None
        last = only or last or self.stages[-1]
        if given := given_model(self.config):  # what is wrong with it is said before anything runs
            from gristmill.training.given import check

            check(given, self.config.design)
        with self.store.lock():
            folder = self.store.root
            for stage in self.stages[: self.stages.index(last) + 1]:
                done = self.finished(stage)
                if done is None and only is not None and stage is not only:
                    raise ConfigError(
                        f"stage {only.folder[3:]} needs stage {stage.folder[3:]}, which is not "
                        f"done for this configuration; `gristmill run --until "
                        f"{only.folder[3:]}` does all that is missing"
                    )
                self.done.append(done or self._execute(stage))
                folder, changed = self._link()
                if only is None or stage is only:
                    self.options.on_done(self.done[-1])
                if changed or not self.done[-1].skipped:
                    self.options.on_report(folder)
                self._gate(self.done[-1])
        return Run(folder, self.done)

    # ------------------------------------------------------------------------------ keys

    def _key(self, stage: Stage) -> tuple[str, dict[str, Any]]:
        """Return the key of a stage and what it is made of, for the manifest."""
        parts = {
            "format": FORMAT,
            "inputs": {done.stage.name: done.manifest["digest"] for done in self.done},
            "config": self._config_part(stage),
            "seed": self.config.project.seed,
            "sources": sha256_json(keys.source_digests(stage.module)),
            "engine": {**keys.engine_digest(), **keys.swapped_kernels()} if stage.engine else {},
            "world": self._fingerprint(stage),
        }
        return sha256_json([stage.name, parts])[:16], parts

    def _config_part(self, stage: Stage) -> dict[str, Any]:
        """Return the sections a stage may read: its own, earlier ones, and `reads`."""
        names = [s.name for s in self.stages[: self.stages.index(stage) + 1]]
        part = {name: self.sections[name] for name in names if name in self.sections}
        for dotted in stage.reads:
            section, _, key = dotted.partition(".")
            part[dotted] = self.sections[section][key] if key else self.sections[section]
        return part

    def _fingerprint(self, stage: Stage) -> Any:
        """Return what a stage says of the world outside the run (the files it would read)."""
        if stage.world:
            return _load(stage).fingerprint(self.config)
        given = given_model(self.config) if stage.given else None
        return digests(given, stage.given) if given else None

    # ------------------------------------------------------------------------- execution

    def finished(self, stage: Stage) -> Done | None:
        """Return a stage that is done already, given those before it; else None."""
        started = time.monotonic()
        key, _ = self._key(stage)
        manifest = self.store.finished(stage.name, key, self.options.verify)
        if manifest is None:
            return None
        path = self.store.folder(stage.name, key)
        return Done(stage, path, manifest, True, time.monotonic() - started)

    def _execute(self, stage: Stage) -> Done:
        key, parts = self._key(stage)
        out = self.store.begin(stage.name, key, stage.resumable)
        table = {"table": _table()} if stage.engine else {}
        work = Work(out, machine.describe() | table)
        if stage.same_table:
            self._check_table(out, work)
        result = self._call(stage, out, work)
        spent = work.facts()
        self._check_gates(stage, out, result)
        body = {"summary": result.summary, "gates": [asdict(g) for g in result.gates]}
        write_json(out / REPORT, {**body, **result.report})
        outputs = describe_files(out)
        manifest = {
            "stage": stage.name,
            "key": key,
            "depends": parts,
            "sources": keys.source_digests(stage.module),
            "outputs": outputs,
            "digest": digest_of(outputs),
            **body,
            "code": _version(),
            **spent,
        }
        path = self.store.finish(out, stage.name, key, manifest)
        return Done(stage, path, manifest, False, spent["seconds"])

    def _check_table(self, out: Path, work: Work) -> None:
        """Raise ArtifactError where going on would mix the bits of two tables of kernels."""
        then, now = work.before.get("machine", {}).get("table"), work.here["table"]
        design = next(done.path for done in self.done if done.stage.name == "design")
        dtype = read_json(design / "design.json")["train"]["dtype"]
        if dtype == "bf16" and then not in (None, now):
            raise ArtifactError(
                f"{out} was begun with the kernels of table {then}, now it is {now}; a training "
                f"in bf16 goes on only under the same table: set GRISTMILL_ISA={then}, or delete "
                "that folder to train from the start"
            )

    def _call(self, stage: Stage, out: Path, work: Work) -> Result:
        """Call the stage's one function; what the system refuses becomes a StorageError."""

        def progress(message: str) -> None:
            self.options.on_progress(stage, message)
            if stage.resumable:
                work.save_at_times()

        context = StageContext(
            name=stage.name,
            out=out,
            inputs={done.stage.name: done.path for done in self.done},
            config=cast("Config", _View(self, stage)),
            seed=self.config.project.seed,
            on_progress=progress,
        )
        try:
            with work.saved() if stage.resumable else nullcontext():
                return cast(Result, _load(stage).run(context))
        except OSError as error:
            raise storage_error(Path(error.filename or out), error) from error

    def _check_gates(self, stage: Stage, out: Path, result: Result) -> None:
        for gate in result.gates:
            if not (out / gate.file).exists():
                raise ArtifactError(
                    f"stage {stage.name}: gate {gate.name} names {gate.file}, which is not there"
                )

    def _gate(self, done: Done) -> None:
        failed = [gate for gate in done.gates if not gate.passed]
        if not failed or self.config.project.gates == "record":
            return
        lines = [
            f"gate {gate.name}: {_show(gate.value)}, bar {_show(gate.bar)}; "
            f"see {done.path / gate.file}"
            for gate in failed
        ]
        advice = "`--set project.gates=record` goes on and says so in the report"
        raise GateError(
            f"stage {done.stage.folder[3:]} did not pass\n  " + "\n  ".join([*lines, advice])
        )

    # ------------------------------------------------------------------------ run folder

    @functools.cached_property
    def digest(self) -> str:
        """Identity of this run: everything known before it starts."""
        sources = {stage.name: keys.source_digests(stage.module) for stage in self.stages}
        first = self.done[0].manifest["key"]
        config = {name: part for name, part in self.sections.items() if name not in AFTER}
        return sha256_json([config, first, sources, keys.engine_digest(), keys.swapped_kernels()])

    def _link(self) -> tuple[Path, bool]:
        """Link what is done into the run folder; returns it and whether its record changed."""
        links = {done.stage.folder: done.path for done in self.done}
        folder = self.store.run_folder(self.config.project.name, self.digest, links)
        record = {
            "name": self.config.project.name,
            "digest": self.digest,
            "config": self.sections,
        }
        stages = {
            done.stage.folder: {
                "key": done.manifest["key"],
                "digest": done.manifest["digest"],
                "passed": all(gate.passed for gate in done.gates),
            }
            for done in self.done
        }
        path = folder / "run.json"
        old = _read_stages(path)
        merged = {**old, **stages}
        if merged != old:
            write_json(path, {**record, "stages": merged})
        return folder, merged != old


def given_model(config: Config) -> Path | None:
    """Return the model that the run begins from, if it begins from one."""
    given = config.initialize.from_ if hasattr(config, "initialize") else None
    return Path(given) if given else None


def _table() -> str:
    """Return the name of the table of kernels in use."""
    from gristmill.backend import _C

    return str(_C.table())


def _load(stage: Stage) -> Any:
    """Return the module of a stage; a package it lacks is a message."""
    try:
        return importlib.import_module(stage.module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == keys.NAME:
            raise
        raise MissingExtraError(
            f"stage {stage.name} needs the package {error.name}; "
            "install it with: pip install 'gristmill[run]'"
        ) from error


class _View:
    """The configuration as one stage may read it: what is not in its key is not there."""

    def __init__(self, pipeline: Pipeline, stage: Stage) -> None:
        self._config = pipeline.config
        self._later = [s.name for s in pipeline.stages[pipeline.stages.index(stage) + 1 :]]
        self._stage = stage

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._config, name)
        if name not in self._later or name in self._stage.reads:
            return value
        allowed = [key.split(".")[1] for key in self._stage.reads if key.startswith(f"{name}.")]
        allowed = [f"{key}_" if iskeyword(key) else key for key in allowed]  # initialize.from
        if not allowed:
            raise AttributeError(
                f"stage {self._stage.name} reads config.{name}, which is not part of its key; "
                "add it to `reads` in pipeline.STAGES"
            )
        return SimpleNamespace(**{key: getattr(value, key) for key in allowed})


def _read_stages(path: Path) -> dict[str, Any]:
    return dict(read_json(path)["stages"]) if path.is_file() else {}


def _show(value: float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _version() -> str:
    package = sys.modules.get("gristmill")
    return str(getattr(package, "__version__", "unknown"))
