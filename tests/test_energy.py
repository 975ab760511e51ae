"""Energy: RAPL's counters where they are, else busy core-seconds, and the method beside it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from gristmill import energy
from gristmill.errors import ConfigError


@pytest.fixture
def zone(tmp_path: Path) -> Path:
    """One processor package, and a part of it that must not be counted twice."""
    for name in ("intel-rapl:0", "intel-rapl:0:0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "max_energy_range_uj").write_text("1000000\n")
        (tmp_path / name / "energy_uj").write_text("900000\n")
    return tmp_path / "intel-rapl:0"


def test_rapl_also_where_the_counter_wraps(zone: Path) -> None:
    meter = energy.Meter(zone.parent)
    (zone / "energy_uj").write_text("950000\n")
    spent = meter.stop()
    assert spent["joules"] == pytest.approx(0.05)
    assert (spent["estimated"], spent["method"]) == (False, "RAPL")
    (zone / "energy_uj").write_text("100000\n")
    assert meter.stop()["joules"] == pytest.approx(0.2)


def test_counters_that_go_away_are_estimated(zone: Path) -> None:
    meter = energy.Meter(zone.parent)
    (zone / "energy_uj").unlink()
    spent = meter.stop()
    assert spent["estimated"] and "cannot be read" in spent["why"]


def test_an_estimate_is_busy_seconds_times_watts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work counts, waiting does not; a child's work counts too."""
    monkeypatch.setenv(energy.VARIABLE, "20")
    meter = energy.Meter(tmp_path)
    busy = energy.busy_seconds()
    time.sleep(0.2)
    waited = meter.stop()["joules"]
    subprocess.run([sys.executable, "-c", "sum(range(10**7))"], check=True)
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    spent = meter.stop()
    worked = energy.busy_seconds() - busy
    assert worked > 0.2
    assert waited < 0.1 * 20  # reading counters takes some milliseconds
    assert spent["joules"] == pytest.approx(20 * worked, abs=20 * 0.05)  # os.times has 10 ms
    assert spent["method"] == "estimate" and energy.VARIABLE in spent["why"]


@pytest.mark.parametrize("given", ["0", "-1", "many", "nan", "1e9"])
def test_watts_that_are_none(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(energy.VARIABLE, given)
    with pytest.raises(ConfigError, match="allowed: watts"):
        energy.Meter(tmp_path)


def test_graphics_processors_count_only_while_cuda_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counters = iter([[100.0, 10.0], [130.0, 15.0]])
    monkeypatch.setattr(energy, "gpu_joules", lambda: next(counters))
    monkeypatch.setattr(energy, "busy_seconds", lambda: 0.0)
    meter = energy.Meter(tmp_path)
    monkeypatch.setattr(energy, "uses_cuda", lambda: False)
    assert meter.stop()["joules"] == 0.0
    monkeypatch.setattr(energy, "uses_cuda", lambda: True)
    spent = meter.stop()
    assert spent["joules"] == 35.0 and spent["method"] == "estimate + NVML"


def test_no_nvidia_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "_nvml", lambda: None)
    assert energy.gpu_joules() == []


def test_sums_and_words() -> None:
    one = {"joules": 3600.0, "estimated": False, "method": "RAPL", "why": "measured"}
    two = {"joules": 1800.0, "estimated": True, "method": "estimate", "why": "guessed"}
    assert energy.total(one, two) == energy.total(two, one) == {**two, "joules": 5400.0}
    assert energy.total(one, one)["estimated"] is False
    assert energy.shown(energy.total(one, two)) == "1.5 Wh, guessed"
    old = {"joules": None, "why": "no counters"}  # written before there were estimates
    assert energy.total(old, two)["joules"] is None
    assert energy.shown(old) == "not known: no counters"
