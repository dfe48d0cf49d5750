"""Silence of libraries while a run prints its own lines: their loading bars and deprecations."""

import warnings


def quiet() -> None:
    """Turn off transformers' loading bars and warnings about its own future versions."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl|peft)\.")
