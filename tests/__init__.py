"""Tests. Each worker of pytest-xdist has a core of its own, and so do the processes it starts."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch counts the cores of the machine
    os.environ.setdefault("OMP_NUM_THREADS", "1")
