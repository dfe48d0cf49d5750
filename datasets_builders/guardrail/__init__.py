"""Guardrail: whether a picture may be shown, by policies that disagree about the same picture."""
