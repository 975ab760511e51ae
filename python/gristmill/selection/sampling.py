"""Which values a trial gets: grid, random or TPE, each a pure function of seed, number and history.

optuna's samplers carry a random state that is in no journal, so a search that was killed would go
on with other values. Here every draw has a sampler of its own, seeded by (seed, number of the
trial, key): a trial that is begun again gets what it had, and so do all after it.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import optuna

from gristmill.data.counter import string_hash, string_uniform
from gristmill.errors import ConfigError
from gristmill.selection.space import Range, grid
from gristmill.selection.toml import value_text

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

METHODS = ("grid", "random", "tpe")
STARTUP = 5  # trials at random before TPE has anything to go by; optuna's 10 leave 2 of 12


class Seeded(optuna.samplers.BaseSampler):
    """Random or TPE, with a fresh random state for every trial and key."""

    def __init__(self, method: str, seed: int) -> None:
        self.method, self.seed = method, seed

    def _sampler(self, trial: FrozenTrial, key: str) -> BaseSampler:
        # optuna wants 32 bits
        seed = int(string_hash(self.seed, f"{self.method} {trial.number} {key}")) & 0xFFFFFFFF
        if self.method == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        with warnings.catch_warnings():  # multivariate was called experimental before optuna 5
            warnings.simplefilter("ignore")
            return optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=STARTUP, multivariate=True, constant_liar=False
            )

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._sampler(trial, "").infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler(trial, "").sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        sampler = self._sampler(trial, param_name)
        return sampler.sample_independent(study, trial, param_name, param_distribution)


class Listed(optuna.samplers.BaseSampler):
    """The points of a grid, in an order hashed under the seed: the first few are spread over it."""

    def __init__(self, ranges: Sequence[Range], seed: int) -> None:
        points = grid(ranges)
        texts = [f"grid {sorted((k, value_text(v)) for k, v in p.items())}" for p in points]
        order = sorted(range(len(points)), key=lambda i: (string_uniform(seed, texts[i]), i))
        self.points = [points[i] for i in order]
        self.numbers = {one.key for one in ranges if not one.values}

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        value = self.points[trial.number][param_name]
        return value if param_name in self.numbers else json.dumps(value)


def sampler(method: str, ranges: Sequence[Range], seed: int) -> BaseSampler:
    """Return the sampler of a method; raises ConfigError for a range without points in a grid."""
    if method not in METHODS:
        raise ConfigError(f"--method {method} given; allowed: {', '.join(METHODS)}")
    return Listed(ranges, seed) if method == "grid" else Seeded(method, seed)


def suggest(trial: Trial, ranges: Sequence[Range]) -> dict[str, Any]:
    """Return the values of a trial in the order of the space; what was journaled for it stays.

    A choice travels as JSON, since it may be a list.
    """
    values: dict[str, Any] = {}
    for one in ranges:
        if one.values:
            texts = [json.dumps(value) for value in one.values]
            values[one.key] = json.loads(trial.suggest_categorical(one.key, texts))
        elif one.whole:
            low, high, step = int(one.low), int(one.high), int(one.step or 1)
            values[one.key] = trial.suggest_int(one.key, low, high, step=step, log=one.log)
        else:
            values[one.key] = trial.suggest_float(
                one.key, one.low, one.high, step=one.step, log=one.log
            )
    return values


def stored(params: Mapping[str, Any], ranges: Sequence[Range]) -> dict[str, Any]:
    """Return the values of a trial as the configuration wants them."""
    return {
        one.key: json.loads(params[one.key]) if one.values else params[one.key] for one in ranges
    }
