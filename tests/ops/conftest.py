"""Makes cases.py and oracle.py importable, and gives each test the table it found back."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
