"""Graders that a recipe names or declares: `make_grader` turns either into the one object that
builds, rewards and evaluations call. Loads no torch.
"""

from trimpi.graders.config import GraderConfig, Grading
from trimpi.graders.labels import check_labels
from trimpi.graders.make import make_grader

__all__ = ["GraderConfig", "Grading", "check_labels", "make_grader"]
