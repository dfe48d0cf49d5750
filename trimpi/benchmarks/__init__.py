"""Public benchmarks, before and after: prompts, answers read from completions, scores.

items.py       what a benchmark asks, and what was read from a completion
source.py      rows from a hub id, Parquet or JSONL; rows.py  columns and their faults
mmlu_pro.py  mmmu_pro.py  wildguard.py    one benchmark each; suites.py  by name
run.py         completions -> scores -> summary, resumable; scores.py  the numbers
harness.py     the same model through lm-eval; table.py  the terminal
"""
