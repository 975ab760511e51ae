"""The built-in guideline of the recipe `code`: what is asked, and what a label means."""

from __future__ import annotations

GUIDELINE = """\
# Guideline: quality of a source file, and its holes

## Task "quality": is this a file that a completer should learn from?

Read the file as a colleague who has to change it tomorrow. One label per file.

- good: says what it is for, does it in functions of a readable size, with names that tell; nothing
  repeats that could be written once.
- fair: usable, but one of these is missing; or a mix of good and poor parts.
- poor: tables of numbers, generated or copied text, functions of hundreds of lines, names of one
  letter, code that is commented out or announces that it is unfinished.

Edge cases
- A short file is not poor because it is short: an `__init__` of three imports is good.
- A table that a person wrote and commented (names of errors, of characters) is fair.
- Tests are judged like other code; long literal inputs alone do not make them poor.
- Text that is not Python (documentation, configuration): judge text, line width and repetition.
- Do not judge age, style of quotes, or whether you like the library.

## Task "holes": what could a completer be asked for here?

Counted by the program, not judged: lines of code, arguments of calls, bodies of functions that are
of a size worth completing (see gristmill/data/holes.py).
"""
