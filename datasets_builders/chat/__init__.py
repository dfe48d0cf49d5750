"""The chat completions API: requests over threads, what goes over the wire, what goes wrong."""
