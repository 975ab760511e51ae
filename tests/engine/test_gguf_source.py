"""What the GGUF export reads: the same folders, through the same reader, as from_pretrained."""

import json

import pytest

pytest.importorskip("gguf")

from safetensors.numpy import load_file, save_file
from tiny_llama import small

from gristmill.checkpoint.gguf import write_gguf
from gristmill.data.tokenizer import train_tokenizer
from gristmill.errors import DataError


@pytest.fixture
def folder(tmp_path):
    """A tiny model with its tokenizer."""
    tokenizer = train_tokenizer(["def get_one(self):\n    return self.one\n" * 9], 280)
    small(vocab_size=tokenizer.vocab_size, eos_token_id=0).save_pretrained(tmp_path / "m")
    tokenizer.save(tmp_path / "m")
    return tmp_path / "m"


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_sharded_weights_give_the_same_file(folder, tmp_path):
    write_gguf(folder, tmp_path / "one.gguf")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    where = {n: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, n in enumerate(names)}
    for shard in set(where.values()):
        save_file({n: weights[n] for n in names if where[n] == shard}, folder / shard)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    write_gguf(folder, tmp_path / "two.gguf")
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rope_parameters": {"type": "linear", "factor": 4.0}}, "rope_parameters"),
        ({"eos_token_id": [0, 5]}, r"eos_token_id is \[0, 5\].*allows one"),
        ({"rms_norm_eps": None}, "rms_norm_eps missing"),
        ({"eos_token_id": 50256}, r"eos_token_id is 50256.*0 to 279"),
        ({"bos_token_id": -1}, r"bos_token_id is -1.*0 to 279"),
    ],
)
def test_what_gguf_would_not_say_is_refused(folder, tmp_path, changes, reason):
    edit(folder, **changes)
    with pytest.raises(DataError, match=reason):
        write_gguf(folder, tmp_path / "m.gguf")
    assert not (tmp_path / "m.gguf").exists()
