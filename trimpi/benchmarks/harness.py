"""MMLU-Pro through lm-eval: its prompts, its loop, its filter, our generators and rows.

The same outputs are read by our strict level too, and both numbers are reported: lm-eval's task
takes "answer is (X)" alone, so that they must agree. lm-eval has MMMU but not MMMU-Pro, and no
WildGuardTest, so these are not run through it.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trimpi.benchmarks import mmlu_pro
from trimpi.benchmarks.items import Item, Options, user_turn
from trimpi.benchmarks.source import Source
from trimpi.errors import UserError

Answer = Callable[[Sequence[tuple[str, list[dict[str, Any]]]]], list[str]]
"""(id, messages) of all prompts -> texts, in order."""


def run_harness(source: Source, options: Options, answer: Answer) -> dict[str, Any]:
    """Run lm-eval's `mmlu_pro` tasks on our rows.

    Args:
        source, options: as of the suite `mmlu_pro`.
        answer: answers all prompts; lm-eval's own prompt is one user turn.

    Returns:
        `{"version", "task_version", "rows", "accuracy", "ours", "outputs"}`: accuracies by lm-eval
        and by our strict level over the same outputs, and these by id, with lm-eval's score.

    Raises:
        UserError: lm-eval is missing or of another interface, or the rows are bad.
    """
    lm_eval = _import("lm_eval")
    rows, examples = mmlu_pro.official_rows(source, options)
    tasks_of = _import("lm_eval.tasks")
    # The one folder: reading all of lm-eval's tasks takes long.
    folder = str(Path(tasks_of.__file__).parent / "mmlu_pro")
    manager = tasks_of.TaskManager(include_path=folder, include_defaults=False)
    of = {category: [r for r in rows if r["category"] == category] for category in examples}
    tasks = {
        _name(category): _task(manager, category, of[category], examples[category])
        for category in of
    }
    model = _adapter(answer)
    results = _import("lm_eval.evaluator").evaluate(
        lm=model, task_dict={"tasks": tasks}, bootstrap_iters=0, log_samples=True
    )
    outputs = []
    for samples in results["samples"].values():
        for sample in samples:
            doc, text = sample["doc"], sample["resps"][0][0]
            item = Item(doc["question_id"], doc["category"], [], doc["answer"])
            found = mmlu_pro.read(item, text, "strict").answer
            score = float(sample["exact_match"])
            ours = float(found == doc["answer"])
            outputs.append({"id": item.id, "text": text, "lm_eval": score, "ours": ours})
    return {
        "version": lm_eval.__version__,
        "task_version": str(next(iter(tasks.values())).VERSION),
        "rows": len(outputs),
        "accuracy": sum(o["lm_eval"] for o in outputs) / len(outputs),
        "ours": sum(o["ours"] for o in outputs) / len(outputs),
        "outputs": outputs,
    }


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"--harness: lm-eval is missing or does not import ({error}); pip install "
            "'trimpi[harness]'"
        ) from None


def _task(
    manager: Any,
    category: str,
    rows: Sequence[Mapping[str, Any]],
    examples: Sequence[Mapping[str, Any]],
) -> Any:
    """lm-eval's task of a category, with our rows in place of the hub's."""
    from datasets import Dataset, DatasetDict

    name = _name(category)
    if name not in manager.all_tasks:
        raise UserError(f"--harness: lm-eval has no task of category {category!r}; leave it out")

    wanted = ("question_id", "question", "options", "answer", "category")

    def rows_of(found: Sequence[Mapping[str, Any]], names: tuple[str, ...]) -> Any:
        return Dataset.from_list(
            [{n: list(r[n]) if n == "options" else r[n] for n in names} for r in found]
        )

    data = {"test": rows_of(rows, wanted)}
    if examples:
        data["validation"] = rows_of(examples, (*wanted, "cot_content"))
    ours = {"num_fewshot": len(examples), "custom_dataset": lambda **_: DatasetDict(data)}
    if not examples:
        ours |= {"fewshot_split": None, "fewshot_config": None}
    # As member of a group: a task alone, given as a mapping, does not inherit its own file.
    group = {"group": "trimpi", "task": [{"task": name, **ours}]}
    (task,) = manager.load([group])["tasks"].values()
    return task


def _name(category: str) -> str:
    return f"mmlu_pro_{category.replace(' ', '_')}"


def _adapter(answer: Answer) -> Any:
    base: Any = _import("lm_eval.api.model").LM

    class Adapter(base):  # type: ignore[misc]
        """Our generators as a model of lm-eval; generation alone."""

        def generate_until(self, requests: list[Any], *_: Any, **__: Any) -> list[str]:
            asked = [(f"{r.task_name}/{r.doc_id}", user_turn(r.args[0])) for r in requests]
            stops = [r.args[1].get("until") or [] for r in requests]
            return [_cut(text, until) for text, until in zip(answer(asked), stops, strict=True)]

        def loglikelihood(self, requests: Any) -> Any:
            raise NotImplementedError("mmlu_pro generates")

        def loglikelihood_rolling(self, requests: Any) -> Any:
            raise NotImplementedError("mmlu_pro generates")

    return Adapter()


def _cut(text: str, until: Sequence[str]) -> str:
    """The text before the first of the stops, as a model that stops there gives it."""
    ends = [place for stop in until if (place := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text
