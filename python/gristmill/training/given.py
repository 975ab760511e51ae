"""Going on from a model somebody has: its shape, its weights, rows for tokens it does not know.

A row that is added is the mean of the rows that were given, with noise of 1e-9 of their variance,
as transformers' resize_token_embeddings does it (mean_resizing): a token the model has never seen
then begins as an average one and takes no probability from the others (Hewitt 2021, "Initializing
new word embeddings for pretrained language models").
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.checkpoint.gguf import check_config
from gristmill.checkpoint.source import Source, open_source
from gristmill.checkpoint.vocabulary import read_vocabulary
from gristmill.data.adopting import adopt
from gristmill.errors import ArtifactError, ConfigError, DataError
from gristmill.models import CausalLM, config_from_dict
from gristmill.training.settings import DesignConfig

NOISE = 1e-9  # of the given rows' variance
UNUSED, SHARE = 1024, 0.05  # rows without a token that are padding, not another tokenizer
SHAPE = {
    "preset": "model_type",
    "depth": "num_hidden_layers",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "rope_theta": "rope_theta",
    "tie_word_embeddings": "tie_word_embeddings",
}  # keys of [design] and what they are of a model
Floats = npt.NDArray[np.float32]


@dataclass
class Matched:
    """What became of a given model's tensors; names are those of our parameters."""

    matched: list[str] = field(default_factory=list)
    resized: list[dict[str, Any]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)  # in the source, of no use here
    rules: dict[str, str] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Return what matched.json holds."""
        facts = asdict(self)
        del facts["rules"]
        return facts


def check(path: Path, design: DesignConfig) -> dict[str, Any]:
    """Return the config of the model that a run from `path` trains, before anything is done.

    Raises ArtifactError or ConfigError where that run could not be finished.
    """
    source = open_source(path)
    adopted = adopt(source.tokenizer)
    tokenizer = adopted.tokenizer
    check_tokenizer(source, adopted.given)
    model = config_of(source, design, tokenizer.vocab_size, tokenizer.eos)
    where = source.path if source.path.is_file() else source.path / "config.json"
    try:
        check_config(config_from_dict(model), where)
    except DataError as error:
        raise ArtifactError(f"initialize.from: {error}") from None
    with tempfile.TemporaryDirectory(prefix="gristmill-tokenizer-") as place:
        tokenizer.save(Path(place))
        try:
            read_vocabulary(Path(place) / "tokenizer.json", model["vocab_size"])
        except DataError as error:
            said = str(error).replace(f"{place}/", f"{source.path}: ")
            raise ArtifactError(f"{said}; give a model with such a tokenizer") from None
    return model


def check_tokenizer(source: Source, tokens: int) -> None:
    """Raise ArtifactError where a tokenizer of `tokens` ids cannot be this model's."""
    rows = int(source.config["vocab_size"])
    if tokens > rows or rows - tokens > max(UNUSED, SHARE * rows):
        raise ArtifactError(
            f"{source.path}: the tokenizer has {tokens:,} tokens and the model {rows:,} rows for "
            "them; allowed: as many, or some rows of padding; give the model's own tokenizer"
        )


def config_of(source: Source, design: DesignConfig, tokens: int, eos: int) -> dict[str, Any]:
    """Return the config of the model to train: the given one's, with our tokens and context.

    Raises ConfigError where a key of [design] says another shape, or the context is longer.
    """
    given = config_from_dict(source.config)
    shape = {**given.to_dict(), **{name: getattr(given, name, None) for name in SHAPE.values()}}
    shape["model_type"] = given.to_dict()["model_type"]
    for key, name in SHAPE.items():
        ours, theirs = getattr(design, key), shape[name]
        if ours is not None and ours != theirs:
            raise ConfigError(
                f"design.{key} = {ours!r} given beside initialize.from = {source.path}, whose "
                f"{name} is {theirs!r}; take design.{key} out"
            )
    if design.context > given.max_position_embeddings:
        raise ConfigError(
            f"design.context = {design.context} given; {source.path} knows "
            f"{given.max_position_embeddings} positions; allowed: that many or fewer"
        )
    made = given.to_dict()
    positions = "n_positions" if "n_positions" in made else "max_position_embeddings"
    rows = max(given.vocab_size, tokens)
    return made | {"vocab_size": rows, positions: design.context, "eos_token_id": eos}


def fill(model: CausalLM, source: Source, new: range, seed: int) -> Matched:
    """Overwrite every parameter with the given one; `new`: ids of tokens the source has not.

    Raises ArtifactError where a tensor is missing, unknown, or of another shape.
    """
    state, left = source.tensors()
    mine = model.state_dict()
    missing, unknown = sorted(mine.keys() - state.keys()), sorted(state.keys() - mine.keys())
    useless = [name for name in unknown if name.endswith("rotary_emb.inv_freq")]
    if missing or len(useless) < len(unknown):
        wrong = [name for name in unknown if name not in useless]
        raise ArtifactError(
            f"{source.path}: its weights do not fit its config: missing {missing[:3]}, "
            f"unknown {wrong[:3]}; take weights and config from one model"
        )
    done = Matched(left=sorted({*left, *useless}))
    for name, p in mine.items():
        given = state.pop(name)
        role = model.role(name, p)
        values, rule = given, "given"
        if role in ("embedding", "head") and given.shape[1:] == p.shape[1:]:
            values, rule = _rows(given, p.shape[0], new, seed)
        elif role == "position" and given.shape[1:] == p.shape[1:]:
            values = given[: p.shape[0]]
            rule = "given" if len(values) == len(given) else "given, first positions"
        try:
            p.copy_(values)
        except ValueError:
            raise ArtifactError(
                f"{source.path}: {name} has shape {given.shape}, its config asks for {p.shape}; "
                "take weights and config from one model"
            ) from None
        done.rules[name] = rule
        if rule == "given":
            done.matched.append(name)
        else:
            sizes = {"from": list(given.shape), "to": list(p.shape)}
            done.resized.append({"name": name, **sizes, "rule": rule})
    return done


def _rows(given: Floats, rows: int, new: range, seed: int) -> tuple[Floats, str]:
    """Return the matrix with `rows` rows, those of `new` ids made from the given ones."""
    if rows == len(given) and not len(new):
        return given, "given"
    known = given[: new.start] if len(new) else given
    mean = known.mean(0, dtype=np.float64)
    spread = known.std(0, dtype=np.float64) * math.sqrt(NOISE)
    added = [i for i in range(rows) if i in new or i >= len(given)]
    noise = np.random.Generator(np.random.Philox(seed)).standard_normal((len(added), len(mean)))
    out = np.empty((rows, given.shape[1]), np.float32)
    out[: len(given)] = given
    out[added] = mean + spread * noise
    return out, f"{len(added)} rows: the mean of the others"
