"""What a run left behind, read again: is it whole, does it repeat, where does a row come from."""
