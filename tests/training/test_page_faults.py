"""Training takes no memory from the system after its first steps: the allocator keeps blocks."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("gristmill._C")

# 512 tokens, so the smallest activation (512 x 128 float32) is 64 pages of 4 KiB and the largest,
# gate and up together, below the 2 MiB from which on pages are huge and faults few.
SCRIPT = """
import resource, sys
import numpy as np
import gristmill as gm
from gristmill.backend import _C

model = gm.models.Llama(gm.models.LlamaConfig(
    vocab_size=256, hidden_size=128, intermediate_size=320, num_hidden_layers=2,
    num_attention_heads=2, num_key_value_heads=2, head_dim=64, max_position_embeddings=128,
))
ids = np.random.default_rng(0).integers(0, 256, (4, 129), dtype=np.int32)

class Same:
    def batch(self, step):
        return ids[:, :-1], ids[:, 1:]

faults = []

def count(row):
    if sys.argv[1] == "empty":
        _C.memory_empty_cache()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)

config = gm.TrainerConfig(steps=10, progress=False)
gm.Trainer(model, Same(), None, config, on_step=count).fit()
print(faults[9] - faults[4])
"""
STEPS = 5


def faults(cache):
    """Page faults of steps 6 to 10 in a process of its own."""
    command = [sys.executable, "-c", SCRIPT, cache]
    # glibc then gives back at once what is freed from 64 kB on; by itself it learns to keep it.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=120, env=environment
    )
    return int(done.stdout)


def test_no_page_faults_after_the_first_steps():
    """Bound: less than one activation of 64 pages in five steps; what is left is the interpreter's.

    The same steps with the cache emptied after each take every activation anew: the count works.
    """
    assert faults("keep") < 64
    assert faults("empty") > 64 * STEPS
