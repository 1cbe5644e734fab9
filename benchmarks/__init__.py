"""One question per script; each asserts the answer before it times it. Run with `python -m benchmarks.NAME`."""

import sys
from pathlib import Path

# The slow definitions that answers are compared with belong to the tests.
sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
