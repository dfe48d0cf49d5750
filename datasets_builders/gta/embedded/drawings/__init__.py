"""Documents and scenes that are drawn, each with its annotation."""

from datasets_builders.gta.embedded.drawings import charts, formulas, papers, places, scenes

DRAWINGS = {
    name: draw
    for module in (papers, charts, scenes, places, formulas)
    for name, draw in module.DRAWINGS.items()
}
"""What draws each picture, by name."""
