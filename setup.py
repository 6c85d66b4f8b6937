"""Puts the shipped configurations into the package, where an installed `sdit` finds them; all else is in setup.cfg."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["sdit_jax*"]), "sdit_jax.configs"], package_dir={"sdit_jax.configs": "configs"})
