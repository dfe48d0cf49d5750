"""BERTScore: likeness of two texts by the contextual embeddings of a local model.

Zhang et al. 2020: each token is matched with the most similar token of the other text (cosine);
recall and precision are the means over either text, the score is their F1. As in the authors'
implementation without idf weights, embeddings are those of one inner layer, and the tokens that the
tokenizer adds can be matched but do not count.

Written here on transformers 5, under which the published package (bert-score 0.3.13) fails on blank
texts and drops the space that RoBERTa's first word is to have, and which takes pickled weights.
"""

import hashlib
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
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
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
"""Files of which a tokenizer has at least one."""
SPACED = ("roberta", "gpt2")
"""Model types whose tokenizer takes a first word without a space before it for another one."""
LONGEST = 512
"""Tokens of a text that are looked at, where the model does not take fewer."""


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

    @property
    def weights(self) -> str:
        """SHA-256 over weights, configuration and tokenizer, so that a change is noticed."""
        return _digest(self.folder)

    def __call__(self, first: str, second: str) -> float:
        """Likeness in [0, 1]; 1 for equal texts, 0 where one alone is blank.

        Of a text beyond the model's limit (at most 512 tokens) the beginning counts.

        Raises:
            UserError: the model cannot be loaded, is not whole, or gives no finite numbers.
        """
        one, other = (" ".join(text.split()) for text in (first, second))
        if one == other:
            return 1.0
        if not one or not other:
            return 0.0
        score = _f1(str(self.folder), self.layer, *sorted((one, other)))
        return min(max((score - self.baseline) / (1 - self.baseline), 0.0), 1.0)


def from_environment() -> Bertscore:
    """The score by the model that the environment names; its weights are not loaded.

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
    """Model type and number of layers, after a look at all files of the model."""
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        raise UserError(f"{MODEL}: {folder} holds no config.json; give the folder of a model")
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"{MODEL}: {folder} holds no .safetensors file; convert the weights")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        if config.is_encoder_decoder:
            raise ValueError(f"{config.model_type} is an encoder with a decoder")
        kind, layers, words = config.model_type, config.num_hidden_layers, config.vocab_size
    except (OSError, ValueError, KeyError, AttributeError) as error:
        line = " ".join(str(error).split())[:200]
        raise UserError(f"{MODEL}: {folder} is no text encoder ({line}); give another") from None
    _check_files(folder, int(words))
    return str(kind), int(layers)


def _check_files(folder: Path, words: int) -> None:
    from safetensors import safe_open
    from transformers import AutoTokenizer

    # Without them transformers makes a tokenizer to which every word is unknown.
    if not any(file.is_file() for name in VOCABULARIES for file in folder.glob(name)):
        raise UserError(f"{MODEL}: {folder} holds no tokenizer.json; give the folder of a model")
    try:
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(file, "numpy"):  # reads the header and compares the length
                pass
        with _silent():
            known = len(AutoTokenizer.from_pretrained(folder, trust_remote_code=False))
        if known > words:
            raise ValueError(f"its tokenizer has {known} tokens, the model {words}")
    except Exception as error:  # a faulty file shows as any kind of error
        line = " ".join(str(error).split())[:200]
        raise UserError(f"{MODEL}: {folder} cannot be loaded ({line}); give another") from None


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
def _load(folder: str, layer: int) -> tuple[Any, Any, int]:
    """Tokenizer, model up to `layer`, and how many tokens it takes."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        config.num_hidden_layers = layer  # those above are not needed
        # A lack of pooler weights draws random ones: the caller's numbers are to stay as they are.
        with _silent(), torch.random.fork_rng(devices=[]):
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            model, report = AutoModel.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
    except Exception as error:  # a faulty file shows as any kind of error
        line = " ".join(str(error).split())[:200]
        raise UserError(f"{MODEL}: {folder} cannot be loaded ({line}); give another") from None
    if missing := sorted(name for name in report["missing_keys"] if "pooler" not in name):
        raise UserError(
            f"{MODEL}: {folder} lacks {len(missing)} weights, such as {missing[0]}; give a whole"
            " model"
        )
    # RoBERTa and its kin count positions from behind the padding token.
    unused = config.pad_token_id + 1 if "roberta" in config.model_type else 0
    places = getattr(config, "max_position_embeddings", LONGEST) - unused
    return tokenizer, model.eval(), min(tokenizer.model_max_length, places, LONGEST)


@contextmanager
def _silent() -> Iterator[None]:
    """No loading bar, and no list of the upper layers' weights that are left out."""
    from transformers.utils import logging

    before, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bar:
            logging.enable_progress_bar()


@lru_cache(maxsize=256)
def _embed(folder: str, layer: int, text: str) -> tuple[Any, Any]:
    """Unit vectors [tokens, width] of a text, and which of its tokens count [tokens]."""
    import torch

    tokenizer, model, limit = _load(folder, layer)
    if model.config.model_type in SPACED:
        text = f" {text}"
    found = tokenizer(
        text,
        truncation=True,
        max_length=limit,
        return_special_tokens_mask=True,
        return_tensors="pt",
    )
    counting = ~found.pop("special_tokens_mask")[0].bool()
    with torch.inference_mode():
        states = model(**found).last_hidden_state[0]
        return torch.nn.functional.normalize(states, dim=-1), counting


@lru_cache(maxsize=65536)
def _f1(folder: str, layer: int, first: str, second: str) -> float:
    """F1 of two texts before rescaling; it is symmetric, so one order is enough.

    Texts go through the model one by one: a value does not depend on what else is scored.
    """
    one, of_one = _embed(folder, layer, first)
    other, of_other = _embed(folder, layer, second)
    if not of_one.any() or not of_other.any():
        return 0.0
    likeness = one @ other.T
    forth = likeness.max(1).values[of_one].mean().item()
    back = likeness.max(0).values[of_other].mean().item()
    if not math.isfinite(forth + back):
        raise UserError(f"{MODEL}: {folder} gives numbers that are not finite; give another model")
    return 2 * forth * back / (forth + back) if forth + back > 0 else 0.0


@lru_cache(maxsize=8)
def _digest(folder: Path) -> str:
    """SHA-256 over the files that a score depends on."""
    sha = hashlib.sha256()
    files = [f for f in folder.iterdir() if f.suffix in (".safetensors", ".json", ".txt", ".model")]
    for file in sorted(files):
        with file.open("rb") as stream:
            sha.update(
                f"{file.name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode()
            )
    return sha.hexdigest()
