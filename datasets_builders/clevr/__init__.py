"""CLEVR-style scenes, decision-tree policies over them, and the datasets made of both."""
