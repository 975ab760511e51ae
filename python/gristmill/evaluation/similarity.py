"""How close a completion comes to the truth: exact, edited a little, worth accepting."""

from __future__ import annotations


def edit_distance(a: str, b: str) -> int:
    """Return the Levenshtein distance, by bit-parallel columns (Myers 1999; Hyyrö 2003, fig. 3).

    One step on |a|-bit integers per character of b: some 100 times faster than the table.
    """
    if not a or not b:
        return len(a) + len(b)
    where: dict[str, int] = {}
    for i, char in enumerate(a):
        where[char] = where.get(char, 0) | 1 << i
    full, top = (1 << len(a)) - 1, 1 << (len(a) - 1)
    up, down, distance = full, 0, len(a)  # vertical differences +1 and -1 of the last column
    for char in b:
        match = where.get(char, 0)
        diagonal = (((match & up) + up) ^ up) | match | down
        right, left = down | ~(diagonal | up), up & diagonal
        distance += bool(right & top) - bool(left & top)
        right, left = right << 1 | 1, left << 1
        up, down = (left | ~(diagonal | right)) & full, right & diagonal & full
    return distance


def edit_similarity(a: str, b: str) -> float:
    """Return 1 - edit distance / length of the longer text; 1 for two empty texts."""
    longer = max(len(a), len(b))
    return 1.0 - edit_distance(a, b) / longer if longer else 1.0


def common_prefix(a: str, b: str) -> int:
    """Return how many characters both begin with."""
    n = min(len(a), len(b))
    return next((i for i in range(n) if a[i] != b[i]), n)


def keystrokes(truth: str, completion: str) -> int:
    """Return the keys pressed to write `truth` when `completion` is offered once, at its beginning.

    Either the offer is ignored and len(truth) characters are typed, or it is accepted by one key,
    what is wrong at its end is taken back character by character, and the rest is typed; the user
    does what is less. Keystrokes saved, over many holes: 1 - sum of this / sum of len(truth).
    """
    right = common_prefix(truth, completion)
    return min(len(truth), 1 + (len(completion) - right) + (len(truth) - right))


def exact(truth: str, completion: str) -> bool:
    """Return whether both are the same but for white space at the end."""
    return truth.rstrip() == completion.rstrip()
