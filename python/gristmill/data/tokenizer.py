"""Byte-level BPE: GPT-2's pieces, merges by the library `tokenizers`, Qwen's special tokens.

Ids of a tokenizer trained here: the special tokens first, then the 256 bytes, then the merges in
the order learned. One that came with a model keeps its ids and may spell the special tokens in its
own way (`specials.KNOWN`). Plain text is never read as a special token, whatever it spells, so
encoding then decoding gives it back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from gristmill.artifacts import atomic_write, read_json, write_json
from gristmill.data.specials import (
    EOS,
    FIM_MIDDLE,
    FIM_PAD,
    FIM_PREFIX,
    FIM_SUFFIX,
    KNOWN,
    SPECIALS,
    find,
)
from gristmill.errors import ArtifactError, DataError

SMALLEST = len(SPECIALS) + 256  # ids that no corpus can do without
FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


class Tokenizer:
    """Text to ids and back; the file is Hugging Face's `tokenizer.json`."""

    def __init__(self, inner: tokenizers.Tokenizer, eos: str | None = None) -> None:
        """Wrap a library tokenizer; `eos` names the end of a text where it is none of KNOWN.

        Raises ArtifactError if it is not byte-level, or has none of the names of a special token.
        """
        self._inner = inner
        self._inner.encode_special_tokens = True  # text that spells one stays text
        self.names = _names(inner, eos)  # how it spells each of SPECIALS
        ids = inner.get_vocab(with_added_tokens=True)
        self.special = {role: ids[name] for role, name in self.names.items()}
        added = inner.get_added_tokens_decoder().items()
        self.marks = {token.content: id for id, token in added if token.special}  # as they spell
        self.vocab_size: int = inner.get_vocab_size(with_added_tokens=True)
        self.eos: int = self.special[EOS]
        self._bytes = dict(enumerate(self._table()))

    @classmethod
    def load(cls, path: Path | str) -> Tokenizer:
        """Read a `tokenizer.json` or the folder that holds it; raises ArtifactError.

        Only a folder says (in tokenizer_config.json) which token ends a text.
        """
        file = Path(path)
        eos = eos_name(file) if file.is_dir() else None
        file = file / FILES[0] if file.is_dir() else file
        try:
            text = file.read_bytes().decode("utf-8")
        except OSError as error:
            raise ArtifactError(f"cannot read {file}: {error.strerror or error}") from error
        except UnicodeDecodeError:
            raise ArtifactError(f"{file} is not UTF-8, so it is no tokenizer.json") from None
        try:
            inner = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises nothing narrower
            raise ArtifactError(f"{file} is no tokenizer.json: {error}") from None
        try:
            return cls(inner, eos)
        except ArtifactError as error:
            raise ArtifactError(f"{file}: {error}") from None

    def save(self, folder: Path) -> None:
        """Write tokenizer.json and the two files transformers wants; raises StorageError."""
        data = json.loads(self._inner.to_str())
        text = json.dumps(data, ensure_ascii=False, indent=1) + "\n"
        atomic_write(folder / FILES[0], text.encode("utf-8"))
        named = {"eos_token": self.names[EOS], "pad_token": self.names[FIM_PAD]}
        holes = [self.names[role] for role in (FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX)]
        known = {*named.values(), *holes}
        more = {"additional_special_tokens": [*holes, *(m for m in self.marks if m not in known)]}
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "model_max_length": 1 << 30,
        }
        write_json(folder / FILES[1], {**settings, **named, **more})
        write_json(folder / FILES[2], {**named, **more})

    def encode(self, text: str) -> list[int]:
        """Return the ids of plain text, no special token added; raises DataError (surrogates)."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, on all cores; the same as `encode` one by one."""
        try:
            found = self._inner.encode_batch_fast(list(texts), add_special_tokens=False)
        except (TypeError, UnicodeEncodeError) as error:
            raise DataError(
                "a text holds half a surrogate pair, which has no UTF-8; repair it in clean"
            ) from error
        return [encoding.ids for encoding in found]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of ids, special tokens spelled out; raises IndexError."""
        try:
            return b"".join([self._bytes[i] for i in ids])
        except KeyError as error:
            raise self._foreign(error.args[0]) from None

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids; bytes that are no UTF-8 (a cut character) become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def token_bytes(self, id: int) -> bytes:
        """Return the bytes one id stands for; raises IndexError for a foreign id."""
        if id not in self._bytes:
            raise self._foreign(id)
        return self._bytes[id]

    def _foreign(self, id: int) -> IndexError:
        return IndexError(f"token id {id} given, allowed: 0 to {self.vocab_size - 1}")

    def _table(self) -> list[bytes]:
        """Return the bytes of every id; raises ArtifactError where ids are missing or not bytes."""
        byte_of = {char: byte for byte, char in enumerate(_alphabet())}
        added = self._inner.get_added_tokens_decoder()
        plain = {*self.special.values(), *added}  # they stand for what they spell
        table = []
        for id in range(self.vocab_size):
            token = self._inner.id_to_token(id)
            if token is None:
                raise ArtifactError(f"no token has id {id}; ids must be 0 to vocab_size - 1")
            if id in plain:
                table.append(token.encode("utf-8"))
                continue
            try:
                table.append(bytes(byte_of[char] for char in token))
            except KeyError:
                raise ArtifactError(f"token {token!r} is not in the byte alphabet") from None
        if missing := {bytes([b]) for b in range(256)} - set(table):
            raise ArtifactError(f"{len(missing)} of 256 bytes have no token")
        return table


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, min_frequency: int = 2, marks: Sequence[str] = ()
) -> Tokenizer:
    """Learn a tokenizer of at most `vocab_size` ids, fewer where the texts hold fewer pairs.

    min_frequency: times a pair must occur in the texts to become a token. marks: special tokens
    beside SPECIALS, such as those of a chat template.
    The same texts in any order and on any number of threads give the same tokenizer. Raises
    DataError when vocab_size is below the 256 bytes and 5 special tokens.
    """
    least = SMALLEST + len(marks)
    if vocab_size < least:
        raise DataError(f"vocab_size {vocab_size} given, allowed: {least} or more")
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[*SPECIALS, *marks],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    return Tokenizer(inner)


def eos_name(folder: Path) -> str | None:
    """Return what tokenizer_config.json of a folder calls the end of a text, if it says so."""
    file = folder / FILES[1]
    given = read_json(file).get("eos_token") if file.is_file() else None
    given = given.get("content") if isinstance(given, dict) else given
    return given if isinstance(given, str) else None


def _names(inner: Any, eos: str | None) -> dict[str, str]:
    found = find(inner.get_vocab(with_added_tokens=True), eos)
    for role in SPECIALS:
        if role not in found:
            raise ArtifactError(
                f"the tokenizer has no token {role} (nor {', '.join(KNOWN[role][1:])}); "
                f"gristmill needs {', '.join(SPECIALS)}"
            )
    return found


def _alphabet() -> list[str]:
    """Return GPT-2's printable character of every byte (Radford et al. 2019, bytes_to_unicode)."""
    plain = {*range(33, 127), *range(161, 173), *range(174, 256)}
    rest = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(rest)) for byte in range(256)]
