"""TriMPI: move a multimodal policy from the prompt into the weights of a vision-language model."""

__version__ = "0.1.0"
