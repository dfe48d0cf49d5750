"""`trimpi policy lint`, `show` and `diff`: what is wrong with a policy file, what the model sees
of it, and what a new version changes."""
