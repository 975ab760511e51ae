"""The tokenizer of a given model: ids kept, special tokens found under their names or appended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gguf")

from foreign import STAR, TEXTS, edit_json, foreign_folder, foreign_tokenizer

from gristmill.checkpoint.gguf import write_gguf
from gristmill.data.adopting import adopt
from gristmill.data.specials import EOS, FIM_MIDDLE, FIM_PAD, FIM_PREFIX, SPECIALS
from gristmill.data.tokenizer import Tokenizer, train_tokenizer
from gristmill.errors import ArtifactError

TEXT = "def get_two(self):\n    return {'é': <eos>, 1: \"<fim_prefix>\"}\n"


def test_foreign_names_are_found(tmp_path: Path) -> None:
    adopted = adopt(foreign_folder(tmp_path / "m"))
    inner = foreign_tokenizer()
    assert adopted.appended == [] and adopted.given == inner.get_vocab_size()
    assert list(adopted.tokenizer.names.values()) == list(STAR)
    assert adopted.tokenizer.special == {
        role: inner.token_to_id(name) for role, name in zip(SPECIALS, STAR, strict=True)
    }
    assert adopted.tokenizer.eos == inner.token_to_id("<eos>")


def test_text_keeps_its_ids_and_comes_back(tmp_path: Path) -> None:
    tokenizer = adopt(foreign_folder(tmp_path / "m")).tokenizer
    assert tokenizer.encode(TEXTS[0]) == foreign_tokenizer().encode(TEXTS[0]).ids
    ids = tokenizer.encode(TEXT)
    assert tokenizer.decode(ids) == TEXT
    assert not set(ids) & set(tokenizer.special.values())  # text that spells one stays text


def test_missing_tokens_are_appended(tmp_path: Path) -> None:
    adopted = adopt(foreign_folder(tmp_path / "m", names=("<eos>",)))
    assert adopted.appended == list(SPECIALS[1:])
    assert [adopted.tokenizer.special[name] for name in adopted.appended] == list(
        range(adopted.given, adopted.given + 4)
    )
    assert adopted.tokenizer.encode(TEXTS[0]) == foreign_tokenizer().encode(TEXTS[0]).ids


def test_it_is_the_same_after_saving(tmp_path: Path) -> None:
    folder = foreign_folder(tmp_path / "m", names=("<the end>", "<fim_prefix>"))
    adopted = adopt(folder)
    (tmp_path / "saved").mkdir()
    adopted.tokenizer.save(tmp_path / "saved")
    again = Tokenizer.load(tmp_path / "saved")
    assert again.names == adopted.tokenizer.names and again.special == adopted.tokenizer.special
    assert again.names[EOS] == "<the end>" and again.names[FIM_PREFIX] == "<fim_prefix>"
    assert again.names[FIM_MIDDLE] == FIM_MIDDLE and adopt(tmp_path / "saved").appended == []


@pytest.mark.parametrize("where", ["tokenizer_config.json", "config.json"])
def test_the_end_is_what_the_files_say(tmp_path: Path, where: str) -> None:
    """Two candidates: the name that is known is not taken where a file names the other."""
    folder = foreign_folder(tmp_path / "m", names=("</s>", "<|im_end|>"))
    wanted = foreign_tokenizer(("</s>", "<|im_end|>")).token_to_id("<|im_end|>")
    given: dict[str, Any] = {"eos_token": {"content": "<|im_end|>"}}
    if where == "config.json":
        (folder / "tokenizer_config.json").unlink()
        given = {"eos_token_id": [wanted]}
    edit_json(folder / where, **given)
    assert adopt(folder).tokenizer.eos == wanted


def test_tokens_that_are_not_marked_special_become_so(tmp_path: Path) -> None:
    """Qwen lists <|fim_prefix|> with "special": false; text that spells it would become the id."""
    folder = foreign_folder(tmp_path / "m")
    data = json.loads((folder / "tokenizer.json").read_text())
    for token in data["added_tokens"]:
        token["special"] = False
    (folder / "tokenizer.json").write_text(json.dumps(data))
    tokenizer = adopt(folder).tokenizer
    assert tokenizer.special[FIM_PREFIX] not in tokenizer.encode("a<fim_prefix>b")


@pytest.mark.parametrize("kind", ["own", "foreign"])
def test_a_gguf_gives_the_same(tmp_path: Path, kind: str) -> None:
    folder = foreign_folder(tmp_path / "m", rows=300)
    if kind == "own":
        train_tokenizer(TEXTS, 280).save(folder)
    write_gguf(folder, tmp_path / "m.gguf")
    one, two = adopt(folder), adopt(tmp_path / "m.gguf")
    assert (one.given, one.appended) == (two.given, two.appended)
    assert one.tokenizer.special == two.tokenizer.special
    assert one.tokenizer.encode(TEXT) == two.tokenizer.encode(TEXT)


SPOILERS = {
    "wordpiece": (lambda d: d["model"].update(type="WordPiece"), "byte-level BPE"),
    "a hole in the ids": (lambda d: d["model"]["vocab"].update({"日": 285}), "no token has id"),
    "empty": (lambda d: d.clear(), "no tokenizer.json"),
}


@pytest.mark.parametrize("name", SPOILERS)
def test_another_kind_is_refused(tmp_path: Path, name: str) -> None:
    folder = foreign_folder(tmp_path / "m")
    data = json.loads((folder / "tokenizer.json").read_text())
    change, said = SPOILERS[name]
    change(data)
    (folder / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(ArtifactError, match=said) as caught:
        adopt(folder)
    assert "byte-level BPE" in str(caught.value) and str(folder) in str(caught.value)


def test_a_missing_tokenizer_and_a_missing_end(tmp_path: Path) -> None:
    folder = foreign_folder(tmp_path / "m", names=("<the end>",))
    (folder / "tokenizer_config.json").unlink()
    edit_json(folder / "config.json", eos_token_id=None)
    with pytest.raises(ArtifactError, match="which token ends a text"):
        adopt(folder)
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")
    with pytest.raises(ArtifactError, match=r"no tokenizer\.json, only tokenizer\.model"):
        adopt(folder)


def test_pad_is_appended_where_only_it_lacks(tmp_path: Path) -> None:
    assert adopt(foreign_folder(tmp_path / "m", names=STAR[:4])).appended == [FIM_PAD]
