"""Compiling, caching and running: the only package that imports numba and llvmlite."""
