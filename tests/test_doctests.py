"""Every example in a docstring runs."""

import doctest
import importlib
import pkgutil

import pytest

import staticgrad
import staticgrad.kernels

MODULES = sorted(
    name
    for folder, prefix in ((staticgrad.__path__, "staticgrad."), (staticgrad.kernels.__path__, "staticgrad.kernels."))
    for _, name, _ in pkgutil.walk_packages(folder, prefix)
    if not name.endswith(("__main__", "cuda_vocabulary"))
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert result.failed == 0, f"{result.failed} of {result.attempted} examples fail"
