"""Exports: rows as other trainers read them, models as vLLM and transformers load them."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors import safe_open
from typer.testing import CliRunner

from datasets_builders.guardrail.builder import build
from tests.fake_run import fake_run
from trimpi.cli import app
from trimpi.errors import UserError
from trimpi.export.data import export_data
from trimpi.export.model import export_model
from trimpi.model_source import locate
from trimpi.recipe import ModelConfig
from trimpi.runs import write_json
from trimpi.sample import DataFolder

TINY = "package://trimpi/models/tiny-vlm"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    root = tmp_path_factory.mktemp("data") / "guard"
    args = {"policies": ["ostrel"], "train_cot": 4, "train": 3, "test": 2, "override": None}
    return build(root, seed=0, **args)


def lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_trl_rows_load_with_their_pictures(data: DataFolder, tmp_path: Path) -> None:
    from datasets import load_dataset

    counts = export_data(data.root, tmp_path / "out", "trl", splits=["train_cot"])
    assert counts == {"train_cot": 4}
    rows = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))["train_cot"]
    sample = data.read("train_cot")[0]
    assert rows[0]["images"][0].size == (96, 64)
    assert rows[0]["answer"] == sample.answer
    assert [part["type"] for part in rows[0]["prompt"][0]["content"]] == ["image", "text"]
    said = rows[0]["completion"][0]["content"][0]["text"]
    assert said == f"<think> {sample.rationale} </think> \\boxed{{{sample.answer}}}"


def test_splits_of_other_columns_load_by_their_configuration(tmp_path: Path) -> None:
    from datasets import load_dataset

    sizes = {"train_cot": 4, "train": 3, "test": 3, "override": None}
    build(tmp_path / "data", seed=0, policies=["ostrel"], policy_text={"per_rule": 2}, **sizes)
    counts = export_data(tmp_path / "data", tmp_path / "out", "trl")
    found = {}
    for name in ("default", "prompts"):
        loaded = load_dataset(str(tmp_path / "out"), name, cache_dir=str(tmp_path / "cache"))
        found |= {split: len(rows) for split, rows in loaded.items()}
        assert all(("completion" in rows.column_names) == (name != "prompts")
                   for rows in loaded.values())  # fmt: skip
    texts = str(tmp_path / "out" / "policy_text" / "metadata.jsonl")
    rows = load_dataset("json", data_files=texts, cache_dir=str(tmp_path / "cache"))["train"]
    assert {**found, "policy_text": len(rows)} == counts
    said = (tmp_path / "out" / "README.md").read_text()
    assert "Further configurations: prompts." in said
    assert 'load_dataset("json", data_files="policy_text/metadata.jsonl")' in said


@pytest.mark.parametrize("bare", [["test"], ["train"], ["test", "train", "train_cot"]])
def test_splits_without_pictures_load_too(tmp_path: Path, bare: list[str]) -> None:
    """One row a split: fewer pictures than JSONL files."""
    from datasets import load_dataset

    folder, out, cache = tmp_path / "data", tmp_path / "out", str(tmp_path / "cache")
    build(folder, seed=0, policies=["ostrel"], train_cot=1, train=1, test=1, override=None)
    for split in bare:
        (row,) = lines(folder / f"{split}.jsonl")
        (folder / f"{split}.jsonl").write_text(json.dumps({**row, "images": []}) + "\n")
    export_data(folder, out, "trl")
    card = (out / "README.md").read_text()
    found = {}
    for name in re.findall(r"config_name: (\w+)", card):
        found |= load_dataset(str(out), name, cache_dir=cache)
    assert list(load_dataset(str(out), "default", cache_dir=cache))  # what needs no name loads
    for split in re.findall(r"Split (\w+), without pictures", card):
        file = str(out / split / "metadata.jsonl")
        assert f'load_dataset("json", data_files="{split}/metadata.jsonl")' in card
        found[split] = load_dataset("json", data_files=file, cache_dir=cache)["train"]
    assert set(found) == {"test", "train", "train_cot"}
    for split, rows in found.items():
        assert len(rows) == 1 and rows[0]["prompt"]
        assert ("images" in rows.column_names) == (split not in bare)


def test_trl_takes_the_rows_as_they_are(data: DataFolder, tmp_path: Path) -> None:
    """TRL's own collator for vision-language models makes a batch of them."""
    from datasets import load_dataset
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    from trimpi.processor import load_processor

    export_data(data.root, tmp_path / "out", "trl", splits=["train_cot"], policy="context")
    rows = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))["train_cot"]
    config = ModelConfig(path=TINY, max_pixels=6144)
    processor = load_processor(locate(config), config)
    batch = DataCollatorForVisionLanguageModeling(processor)([rows[0], rows[1]])
    visual = int((batch["input_ids"] == processor.tokenizer.vocab["<|image_pad|>"]).sum())
    assert visual == 2 * 3 * 24  # a picture of the request and two of the policy, in each row


def test_rows_without_reasoning_are_prompts_for_rl(data: DataFolder, tmp_path: Path) -> None:
    export_data(data.root, tmp_path / "out", "trl", splits=["train"])
    row = lines(tmp_path / "out" / "train" / "metadata.jsonl")[0]
    assert "completion" not in row and row["answer"] == data.read("train")[0].answer


def test_llama_factory_has_tags_paths_and_a_register(data: DataFolder, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_data(data.root, out, "llamafactory", policy="context", target="answer")
    row = lines(out / "train_cot.jsonl")[0]
    user, assistant = row["messages"]  # type: ignore[misc]
    assert user["content"].count("<image>") == len(row["images"]) == 3  # type: ignore[arg-type]
    assert assistant["content"] == f"\\boxed{{{data.read('train_cot')[0].answer}}}"
    assert all((out / name).is_file() for name in row["images"])  # type: ignore[union-attr]
    register = json.loads((out / "dataset_info.json").read_text())
    assert register["train_cot"]["file_name"] == "train_cot.jsonl"
    assert register["train_cot"]["columns"] == {"messages": "messages", "images": "images"}


def test_rows_for_rl_keep_their_answer_in_each_format(data: DataFolder, tmp_path: Path) -> None:
    export_data(data.root, tmp_path / "out", "llamafactory", splits=["train"])
    row = lines(tmp_path / "out" / "train.jsonl")[0]
    assert len(row["messages"]) == 1  # type: ignore[arg-type]
    assert row["answer"] == data.read("train")[0].answer
    # LLaMA-Factory skips rows that end with the user, so what it is told of has none.
    assert json.loads((tmp_path / "out" / "dataset_info.json").read_text()) == {}


@pytest.mark.parametrize("policy", ["none", "context"])
def test_texts_about_a_policy_stand_alone(data: DataFolder, tmp_path: Path, policy: Any) -> None:
    folder = tmp_path / "data"
    shutil.copytree(data.root, folder)
    rows = lines(folder / "train_cot.jsonl")
    text = {**rows[0], "id": "text-0", "images": [], "query": "What is R1?", "answer": "A rule."}
    (folder / "policy_text.jsonl").write_text(json.dumps({**text, "rationale": None}) + "\n")
    export_data(folder, tmp_path / "out", "llamafactory", splits=["policy_text"], policy=policy)
    assert lines(tmp_path / "out" / "policy_text.jsonl")[0]["messages"] == [
        {"role": "user", "content": "What is R1?"},
        {"role": "assistant", "content": "A rule."},
    ]


def test_ms_swift_has_the_solution(data: DataFolder, tmp_path: Path) -> None:
    export_data(data.root, tmp_path / "out", "ms-swift", splits=["test"])
    row = lines(tmp_path / "out" / "test.jsonl")[0]
    assert row["solution"] == data.read("test")[0].answer
    assert row["messages"][0]["content"].startswith("<image>Viewer: age")  # type: ignore[index]


def test_the_card_is_what_the_hub_reads(data: DataFolder, tmp_path: Path) -> None:
    export_data(data.root, tmp_path / "out", "ms-swift", splits=["test", "train"])
    _, head, body = (tmp_path / "out" / "README.md").read_text().split("---\n", 2)
    card = yaml.safe_load(head)
    assert card["configs"] == [
        {"config_name": "default", "data_files": [{"split": "test", "path": "test.jsonl"}]},
        {"config_name": "prompts", "data_files": [{"split": "train", "path": "train.jsonl"}]},
    ]
    assert "| train | 3 | prompt and gold answer (for RL) |" in body


def test_wrong_exports_leave_nothing(data: DataFolder, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        export_data(data.root, tmp_path / "out", "trl", splits=["tran", "tst"])
    told = str(caught.value).splitlines()
    assert told[0] == "--split tran: no such split; did you mean 'train'?" and len(told) == 2
    broken = tmp_path / "broken"
    shutil.copytree(data.root, broken)
    rows = lines(broken / "train_cot.jsonl")
    rows[0]["rationale"] = None
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (broken / "train_cot.jsonl").write_text(text)
    with pytest.raises(UserError, match="3 of 4 rows have a rationale"):
        export_data(broken, tmp_path / "out", "trl", splits=["train_cot"])
    rows[0]["rationale"], rows[0]["query"] = "x", "what is <image>?"
    (broken / "train_cot.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=r"holds '<image>', which this format puts for a picture"):
        export_data(broken, tmp_path / "out", "llamafactory", splits=["train_cot"])
    assert not (tmp_path / "out").exists() and not (tmp_path / ".out.part").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="something is there already"):
        export_data(data.root, tmp_path / "full", "trl")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A pretended run whose models are those of the package."""
    from trimpi.report import write_report

    folder = fake_run(tmp_path_factory.mktemp("run") / "r", seeds=(0,), rows=8, arms=("trimpi",))
    last = folder / "seed-0" / "cpt+sft+poro"
    shutil.copytree(locate(ModelConfig(path=TINY)), last / "model")
    write_json(last / "done.json", {"identity": {}})
    write_report(folder)
    yield folder


def test_a_model_is_whole_and_its_card_tells_what_was_measured(run: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText

    from trimpi.processor import load_processor

    out = export_model(run, tmp_path / "out", arm="trimpi", dtype="bfloat16")
    with safe_open(out / "model.safetensors", framework="pt") as weights:
        kinds = {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
    assert kinds == {"BF16"}
    model = AutoModelForImageTextToText.from_pretrained(out)
    assert str(model.dtype) == "torch.bfloat16"
    assert load_processor(out, ModelConfig(path=str(out))).chat_template
    _, head, card = (out / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(head)["pipeline_tag"] == "image-text-to-text"
    summary = json.loads((run / "report" / "summary.json").read_text())
    cell = summary["models"][1]["settings"]["no_policy"]
    assert f"{100 * cell['mean']:.1f} [{100 * cell['low']:.1f}" in card
    assert "| cpt | cpt | `train_cot` |" in card and "vllm serve" in card


def test_wrong_models_leave_nothing(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for options, line in (
        ({"arm": "trimp"}, "--arm trimp: no trained arm of that name; did you mean 'trimpi'?"),
        ({"arm": "trimpi", "seed": 7}, "--seed 7: arm trimpi is trained with 0"),
        ({"arm": "trimpi", "dtype": "int4"}, "--dtype int4: must be one of float32"),
    ):
        with pytest.raises(UserError) as caught:
            export_model(run, out, **options)  # type: ignore[arg-type]
        assert str(caught.value).startswith(line)
    with pytest.raises(UserError, match=r"no run\.json"):
        export_model(tmp_path, out, arm="trimpi")
    assert not out.exists()


def test_the_command_tells_all_faults_at_once(data: DataFolder, tmp_path: Path) -> None:
    words = ["export", "data", str(data.root), "--output", str(tmp_path / "out")]
    wrong = CliRunner().invoke(app, [*words, "--split", "nope", "--format", "csv", "--target", "x"])
    assert wrong.exit_code == 2 and not (tmp_path / "out").exists()
    starts = ["--format csv: must be", "--target x: must be", "--split nope: no such split"]
    lines = wrong.stderr.splitlines()
    assert [line.startswith(f"error: {s}") for line, s in zip(lines, starts, strict=True)] == [
        True
    ] * 3
