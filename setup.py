"""Lists the packages: pyproject.toml cannot find packages in a folder that ships under another name."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["staticgrad", "staticgrad.*"]),
        "staticgrad.kernels",
        *(f"staticgrad.kernels.{name}" for name in find_packages("kernels")),
    ]
)
