"""Data: sources, cleaning, annotation, splitting, tokens. Needs no compiler and no engine."""

from __future__ import annotations
