"""Builders of datasets: each writes a data folder that ``trimpi`` reads."""
