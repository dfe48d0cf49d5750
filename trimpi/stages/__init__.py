"""The training stages: each takes a model folder and leaves a complete one."""
