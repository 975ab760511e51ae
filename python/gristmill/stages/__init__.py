"""The process: one short file per stage, in the order of the run."""
