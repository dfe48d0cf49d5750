"""Changed rules and several policies in a report: hand-computed numbers on runs made by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from trimpi.evaluate.scoring import rule_name, summarize
from trimpi.report import groups
from trimpi.report.load import Arm, Evaluation, Run
from trimpi.report.policies import changes, interference
from trimpi.sample import Completion, Sample

ROWS = [("a0", "a"), ("a1", "a"), ("b0", "b"), ("b1", "b")]


def evaluation(values: list[float], changed: list[bool | None] | None = None) -> Evaluation:
    """An evaluation of four rows, two under each policy; scores are `values`."""
    flags = changed or [None] * len(values)
    samples = [
        Sample(
            id, (), "q", policy, "x", None, {"rules": ["1"]} | ({} if c is None else {"changed": c})
        )
        for (id, policy), c in zip(ROWS, flags, strict=True)
    ]
    rows = [
        {"id": s.id, "value": v, "parts": {}, "note": "", "well_formed": True}
        for s, v in zip(samples, values, strict=True)
    ]
    said = [Completion(s.id, "x") for s in samples]
    found = Evaluation(0, Path("nowhere"), summarize(samples, said, rows))
    found.__dict__["scores"], found.__dict__["samples"] = rows, samples
    return found


def run_of(root: Path, arms: dict[str, tuple[list[str], Evaluation]]) -> Run:
    """A run with splits `a`, `b` and `both`, on each of which a stage of that name is trained."""
    for name in ("a", "b"):
        record = {
            "name": name.upper(),
            "parts": [{"text": "t"}],
            "metadata": {"conditions": {"1": f"rule of {name}"}},
        }
        (root / "policies").mkdir(parents=True, exist_ok=True)
        (root / "policies" / f"{name}.json").write_text(json.dumps(record))
    for split, policies in {"a": "a", "b": "b", "both": "ab", "more": "a"}.items():
        rows = [{"id": p, "query": "q", "answer": "x", "policy": p} for p in policies]
        (root / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    stages = {name: {"kind": "sft", "split": name} for name in ("a", "b", "both", "more")}
    recipe = {"data": {"folder": str(root)}, "stages": stages}
    found = [Arm(n, tuple(chain), {"no_policy": [e]}) for n, (chain, e) in arms.items()]
    return Run(root, recipe, "", {}, Arm("base", (), {}), found, [])


def training(**seconds: float) -> dict[str, Any]:
    return {name.replace("_", "+"): {"steps": 10, "seconds": s} for name, s in seconds.items()}


def test_changed_rows_are_counted_apart_and_cost_adds_up(tmp_path: Path) -> None:
    flags = [True, True, False, False]
    run = run_of(
        tmp_path,
        {
            "internalized": (["a"], evaluation([0, 0, 1, 1], flags)),
            "retrained": (["both"], evaluation([1, 1, 1, 1], flags)),
            "updated": (["a", "more"], evaluation([1, 0, 1, 0], flags)),
        },
    )
    found = {e["name"]: e for e in changes(run, training(a=100.0, both=120.0, a_more=30.0))}
    assert found["internalized"]["changed"]["mean"] == 0.0
    assert found["internalized"]["unchanged"]["mean"] == 1.0
    assert (found["updated"]["changed"]["mean"], found["updated"]["unchanged"]["mean"]) == (
        0.5,
        0.5,
    )
    assert (found["updated"]["steps"], found["updated"]["seconds"]) == (20, 130.0)
    assert found["updated"]["beyond"] == {"name": "internalized", "steps": 10, "seconds": 30.0}
    assert found["retrained"]["beyond"] is None and found["retrained"]["seconds"] == 120.0


def test_cost_that_is_not_known_is_not_made_up(tmp_path: Path) -> None:
    run = run_of(tmp_path, {"updated": (["a", "more"], evaluation([1, 0, 1, 0], [True] * 4))})
    (entry,) = changes(run, training(a=100.0))
    assert entry["steps"] is None and entry["seconds"] is None and entry["unchanged"] is None


def test_without_changed_rows_there_is_no_table(tmp_path: Path) -> None:
    assert changes(run_of(tmp_path, {"x": (["a"], evaluation([1, 0, 1, 0]))}), {}) == []


def test_interference_sets_together_against_alone(tmp_path: Path) -> None:
    run = run_of(
        tmp_path,
        {
            "only_a": (["a"], evaluation([1, 1, 0, 0])),
            "only_b": (["b"], evaluation([0, 0, 1, 1])),
            "one_model": (["both"], evaluation([1, 0, 1, 1])),
        },
    )
    table = interference(run)
    kinds = {p: {arm: e["trained"] for arm, e in of.items()} for p, of in table.items()}
    assert kinds == {
        "a": {"only_a": "alone", "only_b": "not", "one_model": "together"},
        "b": {"only_a": "not", "only_b": "alone", "one_model": "together"},
    }
    entry = table["a"]["one_model"]
    assert entry["cell"]["mean"] == 0.5 and entry["against"] == "only_a"
    assert entry["difference"]["value"] == pytest.approx(-0.5)
    assert table["b"]["one_model"]["difference"]["value"] == 0.0
    assert table["a"]["only_b"]["cell"]["mean"] == 0.0


def test_there_is_no_matrix_without_an_arm_for_one_policy(tmp_path: Path) -> None:
    both = {"x": (["both"], evaluation([1, 1, 1, 1])), "y": (["both"], evaluation([1, 1, 1, 0]))}
    assert interference(run_of(tmp_path, both)) == {}
    one = {"x": (["a"], evaluation([1, 1, 1, 1]))}
    assert interference(run_of(tmp_path / "1", one)) == {}


def test_there_is_no_matrix_where_one_policy_is_tested(tmp_path: Path) -> None:
    def of_a(values: list[float]) -> Evaluation:
        found = evaluation(values)
        samples = [s for s in found.samples if s.policy == "a"]
        found.__dict__["samples"] = samples
        return found

    arms = {"x": (["a"], of_a([1, 1, 1, 1])), "y": (["both"], of_a([1, 1, 1, 0]))}
    assert interference(run_of(tmp_path, arms)) == {}


def test_there_is_no_matrix_without_the_data(tmp_path: Path) -> None:
    run = run_of(tmp_path, {"only_a": (["a"], evaluation([1, 1, 0, 0])),
                            "one": (["both"], evaluation([1, 1, 0, 0]))})  # fmt: skip
    (tmp_path / "both.jsonl").unlink()
    assert interference(run) == {}


def test_rules_of_two_policies_are_not_counted_together(tmp_path: Path) -> None:
    found = evaluation([1, 1, 0, 1])
    assert {name: cell["value"] for name, cell in found.summary["by_rule"].items()} == {
        "a 1": 1.0,
        "b 1": 0.5,
    }
    run = run_of(tmp_path, {"x": (["both"], found)})
    model = {"settings": {"no_policy": groups.by_call([found])}}
    assert model["settings"]["no_policy"]["by_rule"]["b 1"]["rows"] == 2
    assert groups.rule_texts(run, [model]) == {"a 1": "rule of a", "b 1": "rule of b"}


def test_names_of_rules() -> None:
    assert rule_name(None, "R1") == "R1"
    assert rule_name("override/ostrel", "R1") == rule_name("ostrel", "R1") == "ostrel R1"
