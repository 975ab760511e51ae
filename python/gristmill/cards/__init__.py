"""MODEL_CARD.md and DATASHEET.md of a run: a field is measured, derived, or says why not."""

from gristmill.cards.facts import Facts
from gristmill.cards.writing import datasheet, model_card, write_cards

__all__ = ["Facts", "datasheet", "model_card", "write_cards"]
