"""Steps of `[[clean.step]]` for prose, each with the thresholds of the paper it is from.

A bar of 0 (a lower one) or 1.0 (an upper one) switches a rule off.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gristmill.settings import Section

Share = Annotated[float, Field(ge=0.0, le=1.0)]
STOP_WORDS = ["the", "be", "to", "of", "and", "that", "have", "with"]


class ProseStep(Section):
    """Text that reads like none: Gopher's quality rules (Rae et al. 2021, appendix A.1.1)."""

    use: Literal["prose"] = Field(description="kind of step")
    min_words: int = Field(default=50, ge=0, description="shorter texts go")
    max_words: int = Field(default=100_000, ge=0, description="longer texts go; 0: no bar")
    min_word: float = Field(default=3.0, ge=0.0, description="mean word, characters")
    max_word: float = Field(default=10.0, ge=0.0, description="mean word, characters; 0: no bar")
    max_symbols: Share = Field(default=0.1, description="# per word, and ellipses per word")
    max_bullets: Share = Field(default=0.9, description="share of lines that begin with a bullet")
    max_ellipses: Share = Field(default=0.3, description="share of lines that end with an ellipsis")
    min_alphabetic: Share = Field(default=0.8, description="share of words with a letter")
    min_stop_words: int = Field(default=2, ge=0, description="different stop words in the text")
    stop_words: list[str] = Field(
        default=STOP_WORDS, min_length=1, description="of the language; these are English"
    )


class RepetitionStep(Section):
    """Text that repeats itself (Rae et al. 2021, table A1); shares of characters or of pieces.

    Of what occurs several times, all but the first counts as repeated.
    """

    use: Literal["repetition"] = Field(description="kind of step")
    max_lines: Share = Field(default=0.30, description="share of lines that are repeated")
    max_line_characters: Share = Field(default=0.20, description="and their characters")
    max_paragraphs: Share = Field(default=0.30, description="share of paragraphs repeated")
    max_paragraph_characters: Share = Field(default=0.20, description="and their characters")
    max_top: tuple[Share, Share, Share] = Field(
        default=(0.20, 0.18, 0.16), strict=False,
        description="characters in the commonest run of 2, 3, 4 words",
    )  # fmt: skip
    max_runs: tuple[Share, Share, Share, Share, Share, Share] = Field(
        default=(0.15, 0.14, 0.13, 0.12, 0.11, 0.10), strict=False,
        description="characters in repeated runs of 5, 6, 7, 8, 9, 10 words",
    )  # fmt: skip


class WebStep(Section):
    """Pages that are no article: C4 (Raffel et al. 2020, 2.2), FineWeb (Penedo et al. 2024, 3.6).

    Both look at lines: they are for text whose lines are paragraphs, not for lines of 80 columns.
    """

    use: Literal["web"] = Field(description="kind of step")
    min_sentences: int = Field(default=5, ge=0, description="C4: fewer, and the text goes")
    lorem_ipsum: bool = Field(default=True, description="C4: no text with lorem ipsum")
    braces: bool = Field(default=True, description="C4: no text with a {: it is code")
    drop_lines: bool = Field(
        default=True,
        description="C4: lines without an end, of few words, about cookies or JavaScript go",
    )
    min_line_words: int = Field(default=3, ge=0, description="C4: words of a line that stays")
    min_ended: Share = Field(default=0.12, description="FineWeb: share of lines with an end")
    max_short: Share = Field(default=0.67, description="FineWeb: share of lines below short_line")
    short_line: int = Field(default=30, ge=0, description="FineWeb: characters of a short line")
    max_line_characters: Share = Field(
        default=0.1, description="FineWeb: characters in repeated lines"
    )


class LanguageStep(Section):
    """Text in other languages: naive Bayes on byte n-grams (langid.py, Lui and Baldwin 2012)."""

    use: Literal["language"] = Field(description="kind of step")
    languages: list[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]] = Field(
        default=["en"], min_length=1, description="that stay, by ISO 639-1 code"
    )
    min_probability: Share = Field(
        default=0.65, description="of one of them together (FineWeb's bar for English)"
    )
    characters: int = Field(
        default=4000, ge=50, description="of the text that are looked at, from its middle"
    )


class PairsStep(Section):
    """Conversations that teach nothing: no answer, the same question again, too long."""

    use: Literal["pairs"] = Field(description="kind of step")
    min_prompt: int = Field(default=1, ge=0, description="characters of a question")
    min_answer: int = Field(default=1, ge=0, description="characters of an answer")
    max_answer: int = Field(default=0, ge=0, description="characters of an answer; 0: no bar")
    max_characters: int = Field(default=0, ge=0, description="of all messages; 0: no bar")
    max_turns: int = Field(default=0, ge=0, description="questions and answers; 0: no bar")
    prompts: Literal["once", "all"] = Field(
        default="once", description="once: of equal questions (but for space and case) one stays"
    )
    copies: bool = Field(default=False, description="keep answers that repeat the question")


class EvaluationSet(Section):
    """Examples that no training text may hold."""

    name: str = Field(pattern=r"^[\w.-]{1,40}$", description="in ledger and report")
    path: str = Field(min_length=1, description="file or glob: .jsonl, .parquet or .txt; also .gz")
    fields: list[Annotated[str, Field(min_length=1)]] = Field(
        default=[], description="whose text makes an example, such as question, answer; empty: all"
    )


class ContaminationStep(Section):
    """Documents that share a long run with an example of a named evaluation set.

    Words as for GPT-3 (Brown et al. 2020, appendix C: 13, without case and punctuation), or
    characters as for GPT-4 (OpenAI 2023, appendix C: 50, letters and digits alone).
    """

    use: Literal["contamination"] = Field(description="kind of step")
    unit: Literal["words", "characters"] = Field(default="words", description="runs of these")
    run: int = Field(
        default=0, ge=0, le=1000, description="length of a run; 0: 13 words or 50 characters"
    )
    shortest: int = Field(
        default=0, ge=0, le=1000,
        description="shorter examples than a run are looked for whole, from here on; 0: 8 or 30",
    )  # fmt: skip
    action: Literal["remove", "list"] = Field(
        default="remove", description="list: the documents stay, the report names them"
    )
    set: list[EvaluationSet] = Field(min_length=1, description="named evaluation sets")

    @model_validator(mode="after")
    def _consistent(self) -> ContaminationStep:
        names = [given.name for given in self.set]
        if len({*names}) < len(names):
            raise ValueError(f"evaluation sets {', '.join(names)}; give each its own name")
        return self

    @property
    def length(self) -> int:
        """Words or characters of a run."""
        return self.run or {"words": 13, "characters": 50}[self.unit]

    @property
    def least(self) -> int:
        """Words or characters of an example that can be looked for."""
        return min(self.length, self.shortest or {"words": 8, "characters": 30}[self.unit])
