"""BERTScore: likeness of two texts by the contextual embeddings of a local model.

Zhang et al. 2020: each token is matched with the most similar token of the other text (cosine);
recall and precision are the means over either text, the score is their F1. As in the authors'
implementation without idf weights, embeddings are those of one inner layer, and the tokens that the
tokenizer adds can be matched but do not count. Written here on transformers: the published package
does not promise to work with its current major version and loads pickled weights.
"""

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from trimpi.errors import UserError

MODEL, LAYER = "TRIMPI_BERTSCORE_MODEL", "TRIMPI_BERTSCORE_LAYER"
BASELINE = "TRIMPI_BERTSCORE_BASELINE"

LAYERS = {
    ("bert", 12): 9,
    ("bert", 24): 18,
    ("roberta", 12): 10,
    ("roberta", 24): 17,
    ("xlm-roberta", 12): 9,
    ("xlm-roberta", 24): 17,
    ("distilbert", 6): 5,
}
"""The layer that agrees best with people, by model type and layers (the authors' table)."""


@dataclass(frozen=True)
class Bertscore:
    """The score by one model. `baseline` b, if not 0, spreads scores: (F1 - b) / (1 - b), at least
    0; it is what unrelated texts score, about 0.83 for RoBERTa large.
    """

    folder: Path
    layer: int
    baseline: float = 0.0

    @property
    def about(self) -> str:
        """For a report, in a few words."""
        spread = f", baseline {self.baseline:g}" if self.baseline else ""
        return f"BERTScore F1 ({self.folder.name}, layer {self.layer}{spread})"

    def __call__(self, first: str, second: str) -> float:
        """Likeness in [0, 1]; 1 for equal texts, 0 where one alone is blank.

        Of a text beyond the model's limit (at most 512 tokens) the beginning counts.
        """
        one, other = (" ".join(text.split()) for text in (first, second))
        if one == other:
            return 1.0
        if not one or not other:
            return 0.0
        score = _f1(str(self.folder), self.layer, *sorted((one, other)))
        return min(max((score - self.baseline) / (1 - self.baseline), 0.0), 1.0)


def from_environment() -> Bertscore:
    """The score by the model that the environment names; nothing is loaded.

    `TRIMPI_BERTSCORE_MODEL` is a folder with config.json, tokenizer and safetensors weights,
    `TRIMPI_BERTSCORE_LAYER` the layer (by default the authors' choice for BERT, RoBERTa,
    XLM-RoBERTa and DistilBERT), `TRIMPI_BERTSCORE_BASELINE` the score of unrelated texts.

    Raises:
        UserError: a variable is missing or wrong, or the folder is no model of this kind.
    """
    named = os.environ.get(MODEL)
    if not named:
        raise UserError(
            f"grader: BERTScore needs a model; set {MODEL} to the folder of an encoder such as"
            " RoBERTa, or take datasets_builders.gta.grader:grade"
        )
    folder = Path(named).expanduser().resolve()
    kind, layers = _config(folder)
    return Bertscore(folder, _layer(kind, layers), _baseline())


def _config(folder: Path) -> tuple[str, int]:
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        raise UserError(f"{MODEL}: {folder} holds no config.json; give the folder of a model")
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"{MODEL}: {folder} holds no .safetensors file; convert the weights")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        return str(config.model_type), int(config.num_hidden_layers)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        line = " ".join(str(error).split())[:200]
        raise UserError(f"{MODEL}: {folder} is no text encoder ({line}); give another") from None


def _layer(kind: str, layers: int) -> int:
    named = os.environ.get(LAYER)
    if named is None:
        if (kind, layers) in LAYERS:
            return LAYERS[kind, layers]
        raise UserError(
            f"{LAYER}: no layer is known to be best for {kind} with {layers} layers; set it, from"
            f" 1 to {layers}"
        )
    if not named.isdecimal() or not 1 <= int(named) <= layers:
        raise UserError(f"{LAYER}: must be a whole number from 1 to {layers}, found {named!r}")
    return int(named)


def _baseline() -> float:
    named = os.environ.get(BASELINE, "0")
    try:
        value = float(named)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise UserError(f"{BASELINE}: must be a number from 0 to below 1, found {named!r}")
    return value


@lru_cache(maxsize=1)
def _load(folder: str) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model = AutoModel.from_pretrained(folder, trust_remote_code=False, use_safetensors=True)
    except Exception as error:  # a faulty file shows as any kind of error
        line = " ".join(str(error).split())[:200]
        raise UserError(f"{MODEL}: {folder} cannot be loaded ({line}); give another") from None
    return tokenizer, model.float().eval()


@lru_cache(maxsize=65536)
def _f1(folder: str, layer: int, first: str, second: str) -> float:
    """F1 of two texts before rescaling; it is symmetric, so one order is enough."""
    import torch

    tokenizer, model = _load(folder)
    limit = min(tokenizer.model_max_length, 512)
    vectors, counting = [], []
    with torch.inference_mode():
        for text in (first, second):
            found = tokenizer(
                text,
                truncation=True,
                max_length=limit,
                return_special_tokens_mask=True,
                return_tensors="pt",
            )
            special = found.pop("special_tokens_mask")[0].bool()
            states = model(**found, output_hidden_states=True).hidden_states[layer][0]
            vectors.append(torch.nn.functional.normalize(states, dim=-1))  # [tokens, width]
            counting.append(~special)
        likeness = vectors[0] @ vectors[1].T
        if not all(counted.any() for counted in counting):
            return 0.0
        one = likeness.max(1).values[counting[0]].mean().item()
        other = likeness.max(0).values[counting[1]].mean().item()
    return 2 * one * other / (one + other) if one + other > 0 else 0.0
