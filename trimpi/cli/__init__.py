"""The command line: parse, call, print. Heavy imports stay inside the commands.

A command registers itself in its group when its module is imported, in the order of `--help`.
"""

# ruff: noqa: I001  the order is that of --help
from trimpi.cli.app import app, main
from trimpi.cli import run, evaluate, ask, data, policy, export, model, environment

__all__ = [
    "app",
    "ask",
    "data",
    "environment",
    "evaluate",
    "export",
    "main",
    "model",
    "policy",
    "run",
]
