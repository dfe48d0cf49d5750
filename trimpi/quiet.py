"""Silence of libraries while a run prints its own lines: their loading bars and deprecations."""

import logging
import warnings


def quiet() -> None:
    """Turn off transformers' loading bars and warnings about its own future versions.

    Also what bitsandbytes says when peft imports it, which it does whether a run quantizes or not:
    that a faster kernel for CPUs could be downloaded from the hub.
    """
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl|peft)\.")
    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_not_about_kernels)


def _not_about_kernels(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Failed to load CPU gemm_4bit_forward")
