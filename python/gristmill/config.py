"""One TOML file per run, one table per stage: read, override, check, explain."""

from __future__ import annotations

import copy
import difflib
import tomllib
import types
import typing
import warnings
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from gristmill.data.settings import AnnotateConfig, CleanConfig, CollectConfig, SplitConfig
from gristmill.errors import ConfigError
from gristmill.evaluation.settings import EvaluateConfig
from gristmill.serving.settings import DeployConfig, ServeConfig, UpdateConfig
from gristmill.settings import Section
from gristmill.training.settings import DesignConfig, InitializeConfig, TrainConfig, ValidateConfig

OVERLAYS = ("quick", "scale")  # tables of a recipe that change others; gone once it is resolved
MINUTES_OF_OTHER_STAGES = 1.25  # --minutes N leaves this for stages 1-6 and 8-11 ...
SHARE_OF_OTHER_STAGES = 0.1  # ... and this share of N, since evaluation grows with the model


class ProjectConfig(Section):
    """The run as a whole."""

    name: str = Field(
        default="code", pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$", description="of run and model"
    )
    seed: int = Field(default=42, ge=0, lt=2**63, description="of every random choice")
    gates: Literal["stop", "record"] = Field(
        default="stop", description="what a gate does that fails"
    )


class SaveConfig(Section):
    """The saved model."""

    tolerance: float = Field(
        default=0.0, ge=0.0, description="gate: largest |logit| difference on reload"
    )


with warnings.catch_warnings():  # the stage is called validate; pydantic's old method of that name
    warnings.simplefilter("ignore", UserWarning)  # is not used here

    class Config(Section):
        """The whole configuration: one section per stage."""

        project: ProjectConfig = ProjectConfig()
        collect: CollectConfig = CollectConfig()
        clean: CleanConfig = CleanConfig()
        annotate: AnnotateConfig = AnnotateConfig()
        split: SplitConfig = SplitConfig()
        design: DesignConfig = DesignConfig()
        initialize: InitializeConfig = InitializeConfig()
        train: TrainConfig = TrainConfig()
        validate: ValidateConfig = ValidateConfig()  # type: ignore[assignment]
        save: SaveConfig = SaveConfig()
        evaluate: EvaluateConfig = EvaluateConfig()
        deploy: DeployConfig = DeployConfig()
        serve: ServeConfig = ServeConfig()

        @model_validator(mode="after")
        def _consistent(self) -> Config:
            if self.train.lora.rank and self.initialize.from_ is None:
                raise ValueError(
                    f"train.lora.rank = {self.train.lora.rank} given; adapters need the weights of "
                    "a model: give initialize.from, or rank 0"
                )
            return self

        update: UpdateConfig = UpdateConfig()


# ------------------------------------------------------------------------------- reading


def recipes() -> list[str]:
    """Return the names of the recipes that come with gristmill."""
    folder = resources.files("gristmill") / "recipes"
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name[-5:] == ".toml")


def recipe_text(name: str) -> str:
    """Return the commented TOML of a recipe; raises ConfigError for an unknown name."""
    if name not in recipes():
        raise ConfigError(
            f"no recipe and no file called {name!r}{_guess(name, recipes())}; "
            f"recipes: {', '.join(recipes())}; a file needs the ending .toml"
        )
    return (resources.files("gristmill") / "recipes" / f"{name}.toml").read_text("utf-8")


def read_toml(source: str) -> dict[str, Any]:
    """Return the tables of a recipe name or a TOML file; raises ConfigError."""
    path = Path(source)
    if path.suffix != ".toml" and not path.is_file():
        return tomllib.loads(recipe_text(source))
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no such file: {path}; `gristmill init code` writes one") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None


def load(
    source: str,
    *,
    overrides: Iterable[str] = (),
    path: str | None = None,
    quick: bool = False,
    minutes: float | None = None,
) -> Config:
    """Return the checked configuration of a recipe name or file.

    `overrides` are "a.b=value" and win over everything; `path` replaces the collected sources;
    `quick` and `minutes` apply the overlays of the file; where [quick] gives minutes, design.steps
    of the file is dropped. Raises ConfigError.
    """
    raw = read_toml(source)
    overlays = {name: raw.pop(name) for name in OVERLAYS if name in raw}
    if path is not None:
        _use_source(raw, path)
    if quick and minutes is not None:
        raise ConfigError("give either --quick or --minutes")
    if quick:
        if not isinstance(overlays.get("quick"), dict):
            raise ConfigError(f"{source} has no table [quick]; copy it from `gristmill init code`")
        _drop_steps(raw, overlays["quick"])
        _merge(raw, overlays["quick"])
    if minutes is not None:
        _scale(raw, overlays.get("scale", []), minutes)
    for override in overrides:
        _override(raw, override)
    if minutes is not None and _steps(raw) is not None:
        raise ConfigError(
            f"--minutes {minutes:g} and design.steps = {_steps(raw)} given; allowed: one of them, "
            "since steps say how long training takes; take design.steps out"
        )
    return check(raw, source)


def check(raw: Mapping[str, Any], source: str) -> Config:
    """Return the Config of plain tables; raises ConfigError naming key, given and allowed."""
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        lines = [_explain(raw, item) for item in error.errors(include_url=False)]
        raise ConfigError(f"{source}:\n" + "\n".join(f"  {line}" for line in lines)) from None


def resolved(config: Config) -> dict[str, Any]:
    """Return every key with its value, defaults written out."""
    return config.model_dump(mode="json", by_alias=True)


def changed(tables: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return plain tables with some "a.b=value" applied; raises ConfigError for a bad one."""
    raw = copy.deepcopy(dict(tables))
    for override in overrides:
        _override(raw, override)
    return raw


# ----------------------------------------------------------------------------- overriding


def _use_source(raw: dict[str, Any], path: str) -> None:
    if not Path(path).exists():
        raise ConfigError(f"--source {path}: no such file or folder")
    collect = raw.setdefault("collect", {})
    old: dict[str, Any] = next(
        (s for s in collect.get("source", []) if s.get("use") == "files"), {}
    )
    why = "given on the command line"
    kept = {key: value for key, value in old.items() if key not in ("path", "licence", "why")}
    collect["source"] = [
        {**kept, "use": "files", "path": str(Path(path)), "licence": "as in the source", "why": why}
    ]


def _merge(target: dict[str, Any], overlay: Mapping[str, Any]) -> None:
    for key, value in overlay.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value


def _steps(raw: Mapping[str, Any]) -> Any:
    design = raw.get("design")
    return design.get("steps") if isinstance(design, dict) else None


def _drop_steps(raw: dict[str, Any], quick: Mapping[str, Any]) -> None:
    """Drop the steps of the file, which would keep the minutes of [quick] from having effect."""
    given = quick.get("design")
    if _steps(raw) is not None and isinstance(given, dict) and "minutes" in given:
        del raw["design"]["steps"]


def _scale(raw: dict[str, Any], rules: list[dict[str, Any]], minutes: float) -> None:
    """Give training what `minutes` leaves; the last rule [[scale]] that fits sets the model."""
    training = minutes * (1.0 - SHARE_OF_OTHER_STAGES) - MINUTES_OF_OTHER_STAGES
    if training < 0.25:
        raise ConfigError(f"--minutes {minutes:g} given; allowed: 2 or more; --quick takes less")
    fitting = [rule for rule in rules if rule.get("minutes", 0) <= minutes]
    for rule in sorted(fitting, key=lambda rule: float(rule.get("minutes", 0)))[-1:]:
        _merge(raw, {key: value for key, value in rule.items() if key != "minutes"})
    _merge(raw, {"design": {"minutes": round(training, 3)}})


def _override(raw: dict[str, Any], text: str) -> None:
    """Apply one "a.b=value"; the value is TOML, or a plain string where it is not."""
    name, equals, given = text.partition("=")
    keys = [key.strip() for key in name.split(".")]
    if not equals or not all(keys):
        raise ConfigError(f"--set {text}: allowed is key=value, for example train.lr=3e-4")
    try:
        value = tomllib.loads(f"value = {given}")["value"]
    except tomllib.TOMLDecodeError:
        value = given.strip()
    node: Any = raw
    for depth, key in enumerate(keys[:-1]):
        try:
            node = node[int(key)] if isinstance(node, list) else node.setdefault(key, {})
        except (ValueError, IndexError):
            where = ".".join(keys[:depth])
            raise ConfigError(
                f"--set {text}: {where} is a list of {len(node)}; give a number below that"
            ) from None
        if not isinstance(node, dict | list):
            where = ".".join(keys[: depth + 1])
            raise ConfigError(f"--set {text}: {where} is a value, not a table")
    if isinstance(node, list):
        if not keys[-1].isdigit() or int(keys[-1]) >= len(node):
            raise ConfigError(f"--set {text}: {'.'.join(keys[:-1])} is a list of {len(node)}")
        node[int(keys[-1])] = value
    else:
        node[keys[-1]] = value


# ----------------------------------------------------------------------------- explaining


# pydantic's words for types, and TOML's
_TYPES = {
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid string": "text",
    "a valid boolean": "true or false",
    "a valid dictionary": "a table",
    "a valid list": "a list",
    "a valid tuple": "a list",
}


def _explain(raw: Mapping[str, Any], item: Mapping[str, Any]) -> str:
    """Return one line for one error of pydantic: key, what was given, what is allowed."""
    location = [part for part in item["loc"]]
    model = _model_at(location[:-1], raw)
    shown = _shown(location, raw)
    kind = str(item["type"])
    if kind == "extra_forbidden":
        allowed = sorted(_keys(model)) if model else []
        guess = _guess(str(location[-1]), allowed)
        return f"{shown}: unknown key{guess}" + (f"; allowed: {', '.join(allowed)}" * bool(allowed))
    if kind == "missing":
        return f"{shown}: missing{_describe(model, location)}"
    message = str(item["msg"]).removeprefix("Value error, ")
    message = message.removeprefix("Input should be ")
    for theirs, ours in _TYPES.items():
        message = message.replace(theirs, ours)
    given = item.get("input")
    if kind == "value_error" and isinstance(given, Mapping | BaseModel):
        return f"{shown}: {message}"
    guess = ""
    if kind == "literal_error" and isinstance(given, str):
        choices = [part.strip("'") for part in message.replace(" or ", ", ").split(", ")]
        guess = _guess(given, choices)
    name = {"str": "text", "dict": "table", "float": "number", "int": "whole number"}
    type_name = name.get(type(given).__name__, type(given).__name__)
    text = repr(given) if len(repr(given)) <= 60 else repr(given)[:57] + "..."
    described = _describe(model, location)
    return f"{shown}: given {text} ({type_name}); allowed: {message}{guess}{described}"


def _guess(given: str, allowed: Iterable[str]) -> str:
    close = difflib.get_close_matches(given, list(allowed), n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else ""


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _describe(model: type[BaseModel] | None, location: list[Any]) -> str:
    if model is None:
        return ""
    for name, field in model.model_fields.items():
        if (field.alias or name) == location[-1] and field.description:
            return f" ({field.description})"
    return ""


def _shown(location: list[Any], raw: Any) -> str:
    """Return the key as the user writes it: union tags that pydantic adds are left out."""
    parts = []
    for index, part in enumerate(location):
        last = index == len(location) - 1
        known = (isinstance(raw, Mapping) and part in raw) or (
            isinstance(raw, list) and isinstance(part, int) and part < len(raw)
        )
        if known or last:
            parts.append(str(part))
        raw = raw[part] if known else raw
    return ".".join(parts) or "configuration"


def _model_at(location: list[Any], raw: Any) -> type[BaseModel] | None:
    """Return the section class that holds the key after `location`."""
    models: list[type[BaseModel]] = [Config]
    for part in location:
        in_raw = isinstance(raw, Mapping) and part in raw
        if isinstance(part, int) or not in_raw:
            raw = raw[part] if isinstance(raw, list) and isinstance(part, int) else raw
            models = _tagged(models, str(part)) if isinstance(part, str) else models
            continue
        raw = raw[part]
        found: list[type[BaseModel]] = []
        for model in models:
            for name, field in model.model_fields.items():
                if name == part:
                    found += _models_in(field.annotation)
        models = found
    return models[0] if len(models) == 1 else None


def _tagged(models: list[type[BaseModel]], tag: str) -> list[type[BaseModel]]:
    """Return those of a union whose Literal field has the tag that pydantic reports."""
    fitting = [
        model
        for model in models
        if model.__name__ == tag
        or any(tag in typing.get_args(field.annotation) for field in model.model_fields.values())
    ]
    return fitting or models


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for part in typing.get_args(annotation) for model in _models_in(part)]
