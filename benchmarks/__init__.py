"""One question per script; each asserts the answer before it times it. Run with `python -m benchmarks.NAME`."""
