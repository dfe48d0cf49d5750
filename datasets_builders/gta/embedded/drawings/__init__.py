"""Documents and scenes that are drawn, each with its annotation."""

from datasets_builders.gta.embedded.drawings import charts, papers

DRAWINGS = {**papers.DRAWINGS, **charts.DRAWINGS}
"""What draws each picture, by name."""
