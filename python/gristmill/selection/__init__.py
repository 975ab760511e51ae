"""Which model: `compare` runs, `search` a space of settings, `update` the one that serves.

Everything here is above the process: it reads finished runs and starts new ones, and computes no
figure of its own (evaluation does).
"""
