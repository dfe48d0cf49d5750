"""A policy document and a table of labelled examples -> a data folder."""
