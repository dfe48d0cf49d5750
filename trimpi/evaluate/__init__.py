"""Evaluation of a model on a policy's data: settings, statistics, regrading without a model."""

from trimpi.evaluate.runner import evaluate_model, regrade, run_setting

__all__ = ["evaluate_model", "regrade", "run_setting"]
