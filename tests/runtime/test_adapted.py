"""A GGUF opened with an adapter: the bits of the merged model; what does not fit is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_gpt2
from safetensors.numpy import load_file, save_file

_C = pytest.importorskip("gristmill._C")
pytest.importorskip("gguf")
gm = pytest.importorskip("gristmill")

from gristmill.checkpoint.adapted import open_adapted  # noqa: E402
from gristmill.errors import ArtifactError  # noqa: E402
from gristmill.models.adapters import WEIGHTS, add_adapter  # noqa: E402
from gristmill.models.saving import write_adapter  # noqa: E402

IDS = list(range(40))


def trained(folder: Path, kind: str, **options: Any) -> tuple[Path, Path, Any]:
    """A GGUF, an adapter's folder for it, and the model with the adapter put in."""
    path = (tiny if kind == "llama" else tiny_gpt2).write_model(folder)
    model = gm.models.from_pretrained(folder)
    add_adapter(model, rank=4, alpha=8.0, **options)
    rng = np.random.default_rng(1)
    for name, p in model.named_parameters():
        if p.requires_grad:  # an adapter begins with B = 0
            p.copy_(p.numpy() + rng.normal(0, 0.1, p.shape).astype(np.float32))
            assert "lora" in name or "norm" in name or "ln_f" in name
    adapter = folder / "adapter"
    write_adapter(model, adapter)
    return path, adapter, model


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("llama", {"targets": ["all-linear"]}),
        ("llama", {"saved": ["norm"]}),
        ("gpt2", {"targets": ["all-linear"], "saved": ["ln_f"]}),
        ("gpt2", {}),
    ],
)
def test_the_bits_of_the_merged_model(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    path, adapter, model = trained(tmp_path, kind, **options)
    live = _C.Model.from_tensors(model.config.to_dict(), dict(model.tensors()))
    adapted, plain = open_adapted(path, adapter), _C.Model(str(path), True)
    got = _C.Session(adapted, 64).eval_all(IDS)
    assert got.tobytes() == _C.Session(live, 64).eval_all(IDS).tobytes()
    assert got.tobytes() != _C.Session(plain, 64).eval_all(IDS).tobytes()
    assert adapted.digest == plain.digest
    assert adapted.tokenize(b"def f", False) == plain.tokenize(b"def f", False)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    path, adapter, _ = trained(tmp_path / "a", "llama")
    other = tiny_gpt2.write_model(tmp_path / "b")
    with pytest.raises(ArtifactError, match="does not fit"):
        open_adapted(other, adapter)
    state = load_file(adapter / WEIGHTS)
    key = next(name for name in state if "lora_A" in name)
    changes = {
        "lora_A.*does not fit.*B None": {
            k: v for k, v in state.items() if k != key.replace("lora_A", "lora_B")
        },
        "lora_B.*does not fit": {k: v for k, v in state.items() if k != key},
        "does not fit": state | {key: np.ascontiguousarray(state[key][:, :-1])},
        "extra.*does not fit": state | {"extra": state[key]},
    }
    for reason, changed in changes.items():
        save_file(changed, adapter / WEIGHTS)
        with pytest.raises(ArtifactError, match=reason):
            open_adapted(path, adapter)
    shutil.rmtree(adapter)
    with pytest.raises(ArtifactError, match="no adapter"):
        open_adapted(path, adapter)


def test_replaced_tensors_are_checked(tmp_path: Path) -> None:
    path = str(tiny.write_model(tmp_path))
    array = _C.from_numpy(np.zeros((3, 3), np.float32))
    with pytest.raises(ValueError, match=r"no tensor blk\.9\.attn_q\.weight to replace"):
        _C.Model(path, True, {"blk.9.attn_q.weight": array})
    with pytest.raises(ValueError, match=r"attn_q\.weight has .*expected"):
        _C.Model(path, True, {"blk.0.attn_q.weight": array})
