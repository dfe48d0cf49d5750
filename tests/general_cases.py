"""A folder of general examples for tests: two formats, one row with a policy of its own."""

import json
from pathlib import Path

from tests.conftest import picture
from trimpi.sample import DataFolder


def general_folder(root: Path, rows: int = 4, color: str = "cyan") -> DataFolder:
    """Write `rows` questions about a picture each, the last one reasoned and under a policy."""
    (root / "policies").mkdir(parents=True)
    (root / "images").mkdir()
    policy = {"name": "Orchid Code", "parts": [{"text": "Orchid Code. All: Case 9."}]}
    (root / "policies" / "orchid.json").write_text(json.dumps(policy))
    lines = []
    for index in range(rows):
        last = index == rows - 1
        picture(root / "images" / f"{index}.png", color, (64 + index, 64))
        lines.append(
            {
                "id": f"general-{index}",
                "images": [f"images/{index}.png"],
                "query": "Which response applies?" if last else f"What color is disc {index}?",
                "policy": "orchid" if last else None,
                "answer": "Case 9" if last else color,
                "rationale": "All get it." if last else None,
                "facts": {"task": "policy" if last else "color"},
            }
        )
    write_rows(root, lines)
    (root / "card.json").write_text(json.dumps({"builder": "tests:general", "seed": 0}))
    return DataFolder(root)


def write_rows(root: Path, rows: list[dict[str, object]], split: str = "test") -> None:
    """Write a split."""
    (root / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")


def read_rows(root: Path, split: str = "test") -> list[dict[str, object]]:
    """Read a split as it stands."""
    return [json.loads(line) for line in (root / f"{split}.jsonl").read_text().splitlines()]
