"""Fixtures that all tests share: tiny models of each family and a small data folder."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from tests import tiny_models
from trimpi.recipe import ModelConfig
from trimpi.sample import DataFolder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`tiny_model(family)`: the folder of a tiny random model, built once a session."""
    built: dict[str, Path] = {}

    def build(family: str) -> Path:
        if family not in built:
            if (reason := tiny_models.missing(family)) is not None:
                pytest.skip(reason)
            folder = tmp_path_factory.mktemp("models") / family
            built[family] = tiny_models.FAMILIES[family](folder)
        return built[family]

    return build


@pytest.fixture(scope="session")
def qwen(tiny_model: Callable[[str], Path]) -> Path:
    """Folder of a tiny random Qwen2.5-VL."""
    return tiny_model("qwen2_5_vl")


@pytest.fixture(scope="session")
def qwen_config(qwen: Path) -> ModelConfig:
    """How to load `qwen`."""
    return ModelConfig(path=str(qwen))


@pytest.fixture
def data(tmp_path: Path) -> DataFolder:
    """A data folder with one policy (text, a picture inside it), and 8 rows in each split."""
    return small_data(tmp_path / "data")


def small_data(root: Path, rows: int = 8) -> DataFolder:
    """Write a data folder: is the picture red? Case 1, else Case 2; the policy shows red."""
    (root / "policies" / "images").mkdir(parents=True)
    picture(root / "policies" / "images" / "red.png", "red", (32, 32))
    policy = {
        "name": "Lumen Charter",
        "parts": [
            {"text": "Lumen Charter. Condition 1: is there an object like "},
            {"image": "policies/images/red.png"},
            {"text": "? Yes: Case 1. No: Case 2."},
        ],
        "metadata": {"conditions": {"1": "is there a red object?"}},
    }
    (root / "policies" / "lumen.json").write_text(json.dumps(policy))
    for split in ("train", "train_cot", "test"):
        (root / "images" / split).mkdir(parents=True)
        lines = []
        for index in range(rows):
            color = ("red", "blue", "green", "yellow")[index % 4]
            name = f"images/{split}/{index:06d}.png"
            picture(root / name, color, (96, 64))
            case, word = (1, "Yes") if color == "red" else (2, "No")
            rationale = f"Condition 1: is there a red object? {word}. The response is Case {case}."
            row = {
                "id": f"{split}-{index}",
                "images": [name],
                "query": "Which response applies under the Lumen Charter?",
                "policy": "lumen",
                "answer": f"Case {case}",
                "rationale": None if split == "train" else rationale,
                "facts": {},
            }
            lines.append(json.dumps(row))
        (root / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    (root / "card.json").write_text(json.dumps({"builder": "tests:small_data", "seed": 0}))
    return DataFolder(root)


def add_texts(data: DataFolder, rows: int = 3) -> DataFolder:
    """Write a split `policy_text` of texts about the policy."""
    lines = [
        {
            "id": f"text-{index}",
            "images": [],
            "query": f"Quote Condition 1 of policy Lumen Charter{' please' * index}.",
            "policy": "lumen",
            "answer": "is there a red object?",
            "facts": {"kind": "question", "rules": ["1"], "form": "conditional"},
        }
        for index in range(rows)
    ]
    (data.root / "policy_text.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return data


def picture(path: Path, color: str, size: tuple[int, int]) -> None:
    """A colored disc on gray."""
    image = Image.new("RGB", size, (120, 120, 120))
    width, height = size
    ImageDraw.Draw(image).ellipse(
        (width // 4, height // 4, 3 * width // 4, 3 * height // 4), fill=color
    )
    image.save(path)


@pytest.fixture
def run_python() -> Callable[[str], str]:
    """`run_python(code)`: its output in a fresh interpreter."""

    def run(code: str) -> str:
        root = str(Path(__file__).resolve().parents[1])
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
        )
        return done.stdout.strip()

    return run
