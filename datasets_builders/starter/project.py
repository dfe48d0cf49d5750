"""Writing a project folder: policy, examples, recipe, grader, README."""

import json
import math
import re
import shlex
import shutil
import tempfile
from pathlib import Path
from typing import Any

from datasets_builders.starter.cases import write_cases
from datasets_builders.starter.toys import write_demo, write_toys
from datasets_builders.starter.traffic import write_demos, write_traffic
from trimpi.errors import UserError
from trimpi.policy import Policy
from trimpi.policy_file import read_policy_file

TEMPLATES = Path(__file__).with_name("templates")
ROWS = 480
NAME = re.compile(r"\w[\w.-]*")
HEADER = "id,images,query,answer,rules\n"
MODELS = {"guardrail": "tiny-vlm-guard", "toys": "tiny-vlm"}
"""Templates with drawn examples, and the model of the package that sees what they show."""


def write_project(
    folder: Path,
    policy_file: Path | None = None,
    python: bool = False,
    template: str | None = None,
) -> list[str]:
    """Write a project that `trimpi run recipe.yaml` runs in it.

    Args:
        folder: absent or empty; its name names the recipe.
        policy_file: a policy to start from, copied with its pictures; None writes a small one
            with drawn examples.
        template: which small one, of `MODELS`; None: the first of them.
        python: write the grader as `grader.py` in place of a declared one.

    Returns:
        What to know and do next, a line each.

    Raises:
        UserError: the folder is not empty or has no proper name, or the policy does not read.
    """
    given, folder = Path(folder), Path(folder).absolute()
    problems = []
    if not NAME.fullmatch(folder.name):
        problems.append(
            f"{folder.name!r}: must begin with a letter or digit and hold letters, digits, '.', "
            "'_' and '-'; choose another name"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        problems.append(f"{folder}: is there already and not empty; choose another name")
    policy = None
    if template is not None and template not in MODELS:
        problems.append(f"--template: no template {template!r}; choose {' or '.join(MODELS)}")
    if policy_file is not None and template is not None:
        problems.append("--template: cannot be given together with --from; leave one out")
    if policy_file is not None:
        try:
            policy = read_policy_file(Path(policy_file))
        except UserError as error:
            problems += str(error).splitlines()
    if problems:
        raise UserError.join(problems)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as aside:
            root = Path(aside) / "project"
            root.mkdir()
            notes, commands = _fill(root, folder.name, policy_file, policy, python, template)
            root.replace(folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot write there ({error}); choose another place") from None
    return [*notes, f"cd {shlex.quote(str(given))}", *commands]


def _fill(
    root: Path,
    name: str,
    policy_file: Path | None,
    policy: Policy | None,
    python: bool,
    template: str | None,
) -> tuple[list[str], list[str]]:
    """The files; what to know of them, and the commands to run there."""
    template = template or next(iter(MODELS))
    if policy is None or policy_file is None:
        policy, rows = _drawn(root, template)
        about = f"{len(rows)} drawn pictures with their labels"
    else:
        _copy_policy(Path(policy_file), policy, root)
        rows = write_cases(policy, ROWS)
        about = f"{len(rows)} cases in words, labelled by the rules; put your pictures in"
    notes = []
    examples = "examples.jsonl"
    if rows:
        lines = (json.dumps(row, ensure_ascii=False) for row in rows)
        (root / examples).write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        examples = "examples.csv"
        (root / examples).write_text(HEADER, encoding="utf-8")
        about = "labelled examples, yours to fill in"
        notes.append(
            f"{examples}: has no rows yet, since the rules of {policy.name} are not checkable; "
            "fill it in before `trimpi run`"
        )
    grader = _grader(policy, rows, python)
    fill = f"Fill `{examples}` in first: one row a case, pictures by their paths.\n\n"
    values = {
        "name": name,
        "model": MODELS[template],
        "policy": policy.name,
        "examples": examples,
        "about": about,
        "grader": grader,
        "grader_row": "| `grader.py` | whether an answer is right |\n" if python else "",
        "prefix": "PYTHONPATH=. " if python else "",
        "pad": "" if python else " " * 13,
        "tokens": _tokens(policy, rows),
        "more": "" if rows else fill,
    }
    for file in ("recipe.yaml", "README.md"):
        _write(root / file, (TEMPLATES / file).read_text(encoding="utf-8"), values)
    if python:
        shutil.copyfile(TEMPLATES / "grader.py", root / "grader.py")
    run = f"{values['prefix']}trimpi run recipe.yaml"
    return notes, [f"{run} --dry-run", run]


def _drawn(root: Path, template: str) -> tuple[Policy, list[dict[str, Any]]]:
    """The policy of a template, and its rows."""
    shutil.copyfile(TEMPLATES / template / "policy.md", root / "policy.md")
    if template == "toys":
        write_demo(root / "images" / "toy.png")
    else:
        write_demos(root / "images")
    policy = read_policy_file(root / "policy.md")
    write_rows = write_toys if template == "toys" else write_traffic
    return policy, write_rows(root, policy, ROWS)


def _write(file: Path, template: str, values: dict[str, Any]) -> None:
    """Fill `{key}` in; other braces stay."""
    text = re.sub(r"\{(\w+)\}", lambda m: str(values.get(m[1], m[0])), template)
    file.write_text(text, encoding="utf-8")


def _copy_policy(file: Path, policy: Policy, root: Path) -> None:
    shutil.copyfile(file, root / "policy.md")
    base = file.resolve().parent
    for image in policy.images:
        target = root / Path(image).relative_to(base)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(image, target)


def _grader(policy: Policy, rows: list[dict[str, Any]], python: bool) -> str:
    """The recipe's grader, as YAML in one line."""
    if python:
        return "grader:grade"
    cases = policy.metadata.get("cases") if rows else None
    if not cases:
        return "{type: exact}"
    return f"{{type: choice, options: {json.dumps(cases, ensure_ascii=False)}}}"


def _tokens(policy: Policy, rows: list[dict[str, Any]]) -> int:
    """New tokens that reasons need, counted roughly: three a word, four where rules are quoted."""
    given = [len(row["rationale"].split()) for row in rows if row.get("rationale")]
    quoted = sum(len(str(text).split()) for text in policy.metadata.get("conditions", {}).values())
    need = 3 * max(given) if len(given) == len(rows) > 0 else 4 * quoted
    return max(128, 64 * math.ceil((need + 64) / 64))
