"""Slow, readable twins of the compiled kernels, written from the definitions and not from the C++."""
