"""BERTScore by a tiny encoder of random weights: the formula, and what can be wrong."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizer,
    T5Config,
)

from datasets_builders.gta.grader import GradeByBertscore
from trimpi import bertscore
from trimpi.bertscore import Bertscore, from_environment
from trimpi.errors import UserError
from trimpi.sample import Completion, Sample

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "count", "the", "red", "coins", "eggs", "please"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", model_max_length=32,
    ).save_pretrained(folder)  # fmt: skip
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, intermediate_size=32, num_hidden_layers=3,
        num_attention_heads=2, max_position_embeddings=32, initializer_range=0.5,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


def by_hand(folder: Path, layer: int, first: str, second: str) -> float:
    """Recall, precision and F1 written out with numpy."""
    model = BertModel.from_pretrained(folder).eval()
    states = []
    for text in (first, second):
        ids = [2, *(WORDS.index(word) for word in text.split()), 3]
        with torch.no_grad():
            hidden = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0]
        rows = hidden.numpy()
        states.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    cosine = states[0] @ states[1].T
    precision = cosine.max(1)[1:-1].mean()  # [CLS] and [SEP] may be matched, but do not count
    recall = cosine.max(0)[1:-1].mean()
    return float(2 * precision * recall / (precision + recall))


def test_it_is_the_f1_of_greedy_matches(encoder: Path) -> None:
    score = Bertscore(encoder, 2)
    for first, second in (("count the coins", "count red eggs please"), ("coins", "the red coins")):
        expected = by_hand(encoder, 2, first, second)
        assert 0 < expected < 1
        assert score(first, second) == pytest.approx(expected, abs=1e-5)
        assert score(second, first) == score(first, second)
    assert score("count coins", "count eggs") != Bertscore(encoder, 1)("count coins", "count eggs")


def test_equal_and_blank_texts(encoder: Path) -> None:
    score = Bertscore(encoder, 2)
    assert score("the  coins ", "the coins") == 1.0 and score("", " ") == 1.0
    assert score("", "coins") == 0.0
    assert 0 <= score("coins " * 100, "eggs " * 100) <= 1  # beyond the model's limit


def test_a_baseline_spreads_scores_and_keeps_them_in_range(encoder: Path) -> None:
    pair = ("count the coins", "red eggs please")
    plain = Bertscore(encoder, 2)(*pair)
    assert Bertscore(encoder, 2, 0.1)(*pair) == pytest.approx(max(0, (plain - 0.1) / 0.9))
    assert Bertscore(encoder, 2, 0.999)(*pair) == 0.0
    assert Bertscore(encoder, 2, 0.999)("coins", "coins") == 1.0


def test_the_environment_names_model_layer_and_baseline(
    encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(bertscore.MODEL, str(encoder))
    monkeypatch.setenv(bertscore.LAYER, "2")
    monkeypatch.setenv(bertscore.BASELINE, "0.5")
    found = from_environment()
    assert found == Bertscore(encoder.resolve(), 2, 0.5)
    assert found.about == f"BERTScore F1 ({encoder.name}, layer 2, baseline 0.5)"
    assert Bertscore(Path("/x/roberta"), 17).about == "BERTScore F1 (roberta, layer 17)"


def test_known_encoders_have_their_layer(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "big"
    shutil.copytree(encoder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 24}))
    monkeypatch.setenv(bertscore.MODEL, str(folder))
    assert from_environment().layer == 18


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({}, "grader: BERTScore needs a model; set TRIMPI_BERTSCORE_MODEL to the folder"),
        ({bertscore.MODEL: "/nowhere"}, "TRIMPI_BERTSCORE_MODEL: /nowhere holds no config.json"),
        ({bertscore.LAYER: ""}, "TRIMPI_BERTSCORE_LAYER: must be a whole number from 1 to 3"),
        ({bertscore.LAYER: "4"}, "TRIMPI_BERTSCORE_LAYER: must be a whole number from 1 to 3"),
        ({bertscore.LAYER: None}, "TRIMPI_BERTSCORE_LAYER: no layer is known to be best for bert"),
        ({bertscore.BASELINE: "1"}, "TRIMPI_BERTSCORE_BASELINE: must be a number from 0 to below"),
        ({bertscore.BASELINE: "x"}, "TRIMPI_BERTSCORE_BASELINE: must be a number from 0 to below"),
    ],
)
def test_wrong_variables(
    variables: dict[str, str | None], line: str, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = {bertscore.MODEL: str(encoder), bertscore.LAYER: "2"} if variables else {}
    for name in (bertscore.MODEL, bertscore.LAYER, bertscore.BASELINE):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**defaults, **variables}.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as caught:
        from_environment()
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)


def test_the_grader_compares_texts_by_the_model_and_names_it(
    encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(bertscore.MODEL, str(encoder))
    monkeypatch.setenv(bertscore.LAYER, "2")
    by_model = GradeByBertscore()
    by_model.check()
    gold = {"name": "CountGivenObject_v1", "arguments": {"image": "a.png", "text": "red coins"}}
    said = {**gold, "arguments": {"image": "a.png", "text": "the coins"}}
    row = Sample("r", (), "q", None, json.dumps(gold))
    likeness = by_hand(encoder, 2, "red coins", "the coins")
    found = by_model(row, Completion("r", f"\\boxed{{{json.dumps(said)}}}"))
    assert dict(found.parts)["field/text"] == pytest.approx(likeness, abs=1e-5)
    assert found.value == pytest.approx((1 + (1 + likeness) / 2) / 2, abs=1e-5)
    assert by_model(row, Completion("r", f"\\boxed{{{row.answer}}}")).value == 1.0
    assert by_model.identity == (
        f"datasets_builders.gta.grader:bertscore, BERTScore F1 ({encoder.name}, layer 2), "
        f"sha256 {Bertscore(encoder, 2).weights[:16]}"
    )
    assert by_model.about == (
        f"texts of arguments are compared by BERTScore F1 ({encoder.name}, layer 2)"
    )
    monkeypatch.delenv(bertscore.MODEL)
    with pytest.raises(UserError, match="BERTScore needs a model"):
        GradeByBertscore().check()


def test_a_folder_that_is_no_encoder(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(bertscore.MODEL, str(tmp_path))
    monkeypatch.setenv(bertscore.LAYER, "1")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"holds no \.safetensors file; convert the weights"):
        from_environment()
    (tmp_path / "model.safetensors").write_bytes(b"junk")
    with pytest.raises(UserError, match=r"is no text encoder"):
        from_environment()
    shutil.copy(encoder / "config.json", tmp_path / "config.json")
    with pytest.raises(UserError, match=r"holds no tokenizer\.json; give the folder of a model"):
        from_environment()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(encoder / name, tmp_path / name)
    with pytest.raises(UserError, match=r"cannot be loaded \(.*header.*\); give another"):
        from_environment()
    whole = (encoder / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(UserError, match=r"cannot be loaded \(.*\); give another"):
        from_environment()
    (tmp_path / "model.safetensors").write_bytes(whole)
    assert from_environment()("a coin", "an egg") > 0
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "vocab_size": 9}))
    with pytest.raises(UserError, match=r"its tokenizer has 10 tokens, the model 9"):
        from_environment()


def copied(encoder: Path, folder: Path, **config: object) -> Path:
    """A copy of the encoder with other keys in its config.json."""
    shutil.copytree(encoder, folder)
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
    return folder


def test_weights_that_are_missing_are_not_drawn_at_random(encoder: Path, tmp_path: Path) -> None:
    folder = copied(encoder, tmp_path / "deeper", num_hidden_layers=4)
    with pytest.raises(UserError, match=r"lacks 16 weights, such as encoder\.layer\.3"):
        Bertscore(folder, 4)("a coin", "an egg")
    folder = copied(encoder, tmp_path / "broken")
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][:] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="gives numbers that are not finite; give another model"):
        Bertscore(folder, 2)("red coins", "red eggs")


def test_loading_leaves_random_numbers_and_messages_alone(
    encoder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "headless"
    shutil.copytree(encoder, folder)
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: w for name, w in weights.items() if "pooler" not in name},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    assert Bertscore(folder, 1)("red coins", "red eggs") == Bertscore(encoder, 1)(
        "red coins", "red eggs"
    )
    assert torch.rand(1) == expected and capfd.readouterr() == ("", "")


def test_a_tokenizer_without_a_limit_takes_that_of_the_model(encoder: Path, tmp_path: Path) -> None:
    folder = copied(encoder, tmp_path / "unlimited")
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text())
    del config["model_max_length"]
    file.write_text(json.dumps(config))
    long = ("coins " * 100, "eggs " * 100)
    assert Bertscore(folder, 2)(*long) == Bertscore(encoder, 2)(*long)


def test_roberta_reads_the_first_word_as_one_behind_a_space(tmp_path: Path) -> None:
    letters = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {letter: index for index, letter in enumerate(letters)}
    RobertaTokenizer(vocab=vocabulary, merges=[]).save_pretrained(tmp_path)
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(letters), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=18,
    )  # fmt: skip
    RobertaModel(config).save_pretrained(tmp_path)
    bertscore._embed.cache_clear()
    vectors, counting = bertscore._embed(str(tmp_path), 2, "red")
    assert counting.tolist() == [False, True, True, True, True, False]  # <s> Ġ r e d </s>
    ids = torch.tensor([[vocabulary[letter] for letter in ("<s>", "Ġ", "r", "e", "d", "</s>")]])
    with torch.no_grad():
        states = RobertaModel.from_pretrained(tmp_path).eval()(ids).last_hidden_state[0]
    assert torch.allclose(vectors, states / states.norm(dim=-1, keepdim=True), atol=1e-6)
    # 18 places less the two that RoBERTa leaves unused
    assert len(bertscore._embed(str(tmp_path), 2, "red " * 20)[0]) == 16


def test_an_encoder_with_a_decoder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    T5Config(num_layers=2).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    monkeypatch.setenv(bertscore.MODEL, str(tmp_path))
    with pytest.raises(UserError, match=r"no text encoder \(t5 is an encoder with a decoder\)"):
        from_environment()


def test_other_weights_are_noticed(encoder: Path, tmp_path: Path) -> None:
    same, other = copied(encoder, tmp_path / "same"), copied(encoder, tmp_path / "other", seed=1)
    (same / "README.md").write_text("says nothing of scores")
    config = (encoder / "config.json").read_text()
    (same / "config.json").write_text(config)
    assert Bertscore(same, 2).weights == Bertscore(encoder, 2).weights
    assert Bertscore(other, 2).weights != Bertscore(encoder, 2).weights
