"""Adapters of a whole model: put in, taken out, and on disk as the library peft has them.

A folder holds `adapter_model.safetensors` (A and B of every adapted layer) and
`adapter_config.json`; real peft loads what is written here, and the other way round.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.errors import ArtifactError, ConfigError
from gristmill.models.causal import CausalLM
from gristmill.nn import init
from gristmill.nn.lora import LoraLinear, freeze
from gristmill.nn.module import Conv1D, Linear, Module

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
TARGETS = {"llama": ("q_proj", "v_proj"), "gpt2": ("c_attn",)}  # peft's, by model_type
ALL = "all-linear"
PREFIX, HEAD = "base_model.model.", "lm_head"
# what peft can do besides, and the value at which it does not
PLAIN = {
    "bias": ("none",), "use_dora": (False,), "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None), "lora_bias": (False,), "layer_replication": (None,),
    "target_parameters": (None, []), "trainable_token_indices": (None,),
    "init_lora_weights": (True, "gaussian", False), "layers_to_transform": (None,),
}  # fmt: skip


@dataclass(frozen=True)
class Adapter:
    """What was put into a model; `saved`: modules that learn as a whole beside the adapters."""

    rank: int
    alpha: float
    dropout: float = 0.0
    targets: tuple[str, ...] = ()  # as in peft: last names of modules, or "all-linear"
    saved: tuple[str, ...] = ()
    base: str | None = None  # where the frozen weights are
    fan_in_fan_out: bool = False  # weights are (in, out): GPT-2's

    def config(self) -> dict[str, Any]:
        """Return the content of adapter_config.json."""
        return {
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": self.rank,
            "lora_alpha": self.alpha, "lora_dropout": self.dropout, "bias": "none",
            "target_modules": ALL if ALL in self.targets else list(self.targets),
            "modules_to_save": list(self.saved) or None,
            "base_model_name_or_path": self.base, "fan_in_fan_out": self.fan_in_fan_out,
            "inference_mode": True, "use_rslora": False, "use_dora": False,
            "init_lora_weights": True,
        }  # fmt: skip


def add_adapter(
    model: CausalLM, rank: int, alpha: float, dropout: float = 0.0,
    targets: Sequence[str] = (), saved: Sequence[str] = (), seed: int = 0, base: str | None = None,
) -> Adapter:  # fmt: skip
    """Freeze `model` but for an adapter in every layer that `targets` names, and `saved` modules.

    targets: as in peft, a module's last name, or several ending in it; () for those peft takes of
    this architecture. Values are a pure function of (seed, shapes). Raises ConfigError where a name
    fits nothing, or the model has an adapter already.
    """
    if model.adapter is not None:
        raise ConfigError("the model has an adapter already; merge it first: gristmill merge")
    kind = str(model.config.to_dict()["model_type"])
    wanted = tuple(targets) or TARGETS[kind]
    layers = list(_layers(model))
    chosen = [entry for entry in layers if _fits(entry[2], wanted, model)]
    idle = [t for t in wanted if t != ALL and not any(_named(n, t) for _, _, n, _ in chosen)]
    if idle or not chosen:
        names = sorted({name.split(".")[-1] for _, _, name, _ in layers})
        raise ConfigError(
            f"train.lora.targets: no layer is called {(idle or list(wanted))[0]!r}; allowed: "
            f"{', '.join(names)}, {ALL}"
        )
    tied = model.config.tie_word_embeddings
    if tied and HEAD not in saved and any(model.ROLES.get(name) == "embedding" for name in saved):
        saved = (*saved, HEAD)  # peft knows nothing of tied copies: it gets both
    parameters = list(model.named_parameters())
    modules = [name.rpartition(".")[0] for name, _ in parameters] + ([HEAD] if tied else [])
    missing = [one for one in saved if not any(_named(name, one) for name in modules)]
    if missing:
        raise ConfigError(f"no module is called {missing[0]!r}, which shall learn as a whole")
    for name, p in parameters:
        if not any(_named(name.rpartition(".")[0], one) for one in saved):
            freeze(p)
    init.manual_seed(seed)
    for parent, attribute, _, layer in chosen:
        setattr(parent, attribute, LoraLinear(layer, rank, alpha, dropout, model.drop))
    model.flatten()
    transposed = any(isinstance(layer, Conv1D) for *_, layer in chosen)
    made = Adapter(
        rank, float(alpha), dropout, tuple(sorted(wanted)), tuple(saved), base, transposed
    )
    model.adapter = made
    return made


def adapter_tensors(model: CausalLM) -> dict[str, npt.NDArray[np.float32]]:
    """Return what adapter_model.safetensors holds: all that learns, by peft's names."""
    found = {
        PREFIX + name: np.ascontiguousarray(p.numpy())
        for name, p in model.named_parameters()
        if p.requires_grad
    }
    if HEAD in model.adapter.saved:
        found[f"{PREFIX}{HEAD}.weight"] = np.ascontiguousarray(model.head.numpy())
    return found


def load_adapter(model: CausalLM, folder: Path | str) -> Adapter:
    """Put the adapter in `folder` into `model`, or its values into the same one already there.

    Raises ArtifactError where files are missing, damaged, of another kind, or of another model.
    """
    from gristmill.models.loading import read_tensors

    folder = Path(folder)
    adapter = read_adapter(folder)
    if model.adapter is None:
        try:
            add_adapter(
                model, adapter.rank, adapter.alpha, adapter.dropout, adapter.targets, adapter.saved,
                base=adapter.base,
            )  # fmt: skip
        except ConfigError as error:
            raise ArtifactError(f"{folder} does not fit the model: {error}") from None
    state = read_tensors(folder / WEIGHTS)
    if model.config.tie_word_embeddings:
        state.pop(f"{PREFIX}{HEAD}.weight", None)
    mine = {PREFIX + n: p for n, p in model.named_parameters() if p.requires_grad}
    missing, unknown = sorted(mine.keys() - state.keys()), sorted(state.keys() - mine.keys())
    if missing or unknown:
        raise ArtifactError(
            f"{folder / WEIGHTS} does not fit the model: missing {missing[:3]}, unknown "
            f"{unknown[:3]}; give the model it was trained on"
        )
    for name, p in mine.items():
        try:
            p.copy_(state[name])
        except ValueError as error:
            raise ArtifactError(
                f"{folder / WEIGHTS}: {name}: {error}; give the model it was trained on"
            ) from None
    return adapter


def read_adapter(folder: Path) -> Adapter:
    """Return what adapter_config.json says; raises ArtifactError for what cannot be done here."""
    path = folder / CONFIG
    try:
        given = json.loads(path.read_bytes())
    except OSError as error:
        raise ArtifactError(
            f"{folder} is no adapter ({CONFIG}: {error.strerror or error}); allowed: a folder as "
            f"peft writes it, with {CONFIG} and {WEIGHTS}"
        ) from error
    except ValueError as error:
        raise ArtifactError(f"{path} is not JSON ({error})") from None
    if not isinstance(given, dict) or given.get("peft_type") != "LORA":
        kind = given.get("peft_type") if isinstance(given, dict) else given
        raise ArtifactError(f"{path}: peft_type {kind!r} given, allowed: 'LORA'")
    for key, allowed in PLAIN.items():
        if key in given and given[key] not in allowed:
            raise ArtifactError(f"{path}: {key} = {given[key]!r} given, allowed: {allowed[0]!r}")
    if not (folder / WEIGHTS).is_file() and (folder / "adapter_model.bin").is_file():
        raise ArtifactError(
            f"{folder} has only adapter_model.bin, a pickle; allowed: {WEIGHTS}; load and save it "
            "with a newer peft"
        )
    _check_values(path, given)
    rank, targets = given["r"], given.get("target_modules") or ()
    alpha = float(given.get("lora_alpha", 8))
    if given.get("use_rslora"):
        alpha *= rank**0.5  # its scale is alpha / sqrt(r)
    return Adapter(
        rank, alpha, float(given.get("lora_dropout", 0.0)),
        (targets,) if isinstance(targets, str) else tuple(sorted(targets)),
        tuple(given.get("modules_to_save") or ()), given.get("base_model_name_or_path"),
        bool(given.get("fan_in_fan_out")),
    )  # fmt: skip


def _check_values(path: Path, given: dict[str, Any]) -> None:
    rank, alpha = given.get("r"), given.get("lora_alpha", 8)
    dropout, targets = given.get("lora_dropout", 0.0), given.get("target_modules")
    saved = given.get("modules_to_save")
    for key, value, good, allowed in (
        ("r", rank, type(rank) is int and rank > 0, "whole numbers from 1"),
        ("lora_alpha", alpha, _number(alpha), "numbers"),
        ("lora_dropout", dropout, _number(dropout) and 0 <= dropout < 1, "0 to below 1"),
        ("target_modules", targets, isinstance(targets, str) or _names(targets), "names"),
        ("modules_to_save", saved, _names(saved), "names"),
    ):
        if not good:
            raise ArtifactError(f"{path}: {key} = {value!r} given, allowed: {allowed}")


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _names(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(v, str) for v in value))


def _layers(module: Module, prefix: str = "") -> Iterator[tuple[Module, str, str, Any]]:
    """Yield (parent, attribute, dotted name, layer) of every layer that can be adapted."""
    for name, child in module.children():
        if isinstance(child, Linear | Conv1D):
            yield module, name, prefix + name, child
        else:
            yield from _layers(child, f"{prefix}{name}.")


def _fits(name: str, targets: Sequence[str], model: CausalLM) -> bool:
    role = model.ROLES.get(name.split(".")[-1])
    if ALL in targets and role != "head":  # peft leaves the head out too
        return True
    return any(_named(name, target) for target in targets)


def _named(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
