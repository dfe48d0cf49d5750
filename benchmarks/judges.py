"""Agreement of judges of Policy Referral: prompts out, recorded answers in.

    python benchmarks/judges.py prompts RUN/seed-0/eval/CHAIN/no_policy --data RUN/data > FILE
    python benchmarks/judges.py draw RUN > benchmarks/data/referral_rows.jsonl
    python benchmarks/judges.py prompts benchmarks/data/referral_rows.jsonl > prompts.jsonl
    python benchmarks/judges.py agree benchmarks/data/referral_rows.jsonl \
        benchmarks/data/referral_answers.jsonl

`prompts` writes {"id", "prompt"}, what a model that judges is asked, so that any model can answer
elsewhere; pictures of a policy stand as [picture]. `draw` takes 60 completions of a run on
ClevrPolicy and damages half of them (see `CHAINS` and `damage`). Answers are rows of {"id",
"judge", "answer"}, read as in an evaluation: a last line `Score: N`, or the answer is unreadable.
"""

import argparse
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trimpi.evaluate.referral.agreement import BANDS, agreement
from trimpi.evaluate.referral.exact import ExactJudge
from trimpi.evaluate.referral.judgement import TOP
from trimpi.evaluate.referral.prompt import judge_messages, read_score
from trimpi.evaluate.store import SettingFolder, read_rows
from trimpi.policy import Policy, TextPart
from trimpi.prompt import parse_response
from trimpi.sample import Completion, DataFolder, Sample

VALUES = (
    ("large", "small"),
    ("cube", "sphere", "cylinder"),
    ("metal", "rubber"),
    ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow"),
)
CHAINS = {"base": 12, "cpt": 10, "cpt+sft": 8}
"""Completions as they are, by the chain of stages that the model has been through."""
DAMAGES = (
    "wrong value", "swapped ids", "dropped step", "invented id", "wrong branch", "reworded",
)  # fmt: skip
"""What `damage` makes of right completions of the last of these chains, five of each."""

Judged = tuple[Sample, Policy, Completion]


def damage(kind: str, text: str, rng: random.Random) -> str:
    """A right completion made wrong in one way; "reworded" is right, in other words.

    wrong value    another value of the same attribute in one question
    swapped ids    the first two conditions exchange their numbers, where they begin a line
    dropped step   one line is left out
    invented id    a condition gets a number that no policy of this depth has
    wrong branch   one branch leads elsewhere
    reworded       no sentence as the policy has it; the content is the same
    """
    reasoning = parse_response(text).rationale or ""
    lines = reasoning.split("\n")
    at = rng.randrange(len(lines))
    if kind == "wrong value":
        group, value = next(
            (group, v) for group in VALUES for v in group if re.search(rf"\b{v}\b", lines[at])
        )
        other = rng.choice([v for v in group if v != value])
        lines[at] = re.sub(rf"\b{value}\b", other, lines[at])
    elif kind == "swapped ids":
        heads = [line.split(":", 1) for line in lines]
        heads[0][0], heads[1][0] = heads[1][0], heads[0][0]
        lines = [":".join(head) for head in heads]
    elif kind == "dropped step":
        del lines[at]
    elif kind == "invented id":
        lines[at] = re.sub(r"^Condition \S+:", f"Condition {rng.choice(['2', '3.1', '1.7'])}:",
                           lines[at])  # fmt: skip
    elif kind == "wrong branch":
        lines[at] = re.sub(r"(go to|the response is) .*", "the response is Case 9.", lines[at])
    else:
        form = re.compile(r"Condition (\S+): is there an? (.*)\? (Yes|No): (.*)\.")
        found = [m.groups() for line in lines if (m := form.fullmatch(line))]
        assert len(found) == len(lines), text
        lines = [
            f"{'At first' if n == 0 else 'After that'} Condition {id} makes me look for a {thing}."
            f" {'I find one' if verdict == 'Yes' else 'None can be seen'}, which brings me"
            f" {there.replace('go to', 'on to').replace('the response is', 'the answer')}."
            for n, (id, thing, verdict, there) in enumerate(found)
        ]
    return text.replace(reasoning, "\n".join(lines))


def draw(run: Path, seed: int) -> Iterator[dict[str, Any]]:
    """Rows for judging: completions of three chains, some of the last one damaged, shuffled."""
    data, rng = DataFolder(run / "data"), random.Random(seed)
    judge = ExactJudge()
    rows: list[tuple[str, Sample, Policy, str]] = []
    rest: list[Judged] = []
    for chain, count in CHAINS.items():
        folder = SettingFolder(run / "seed-0" / "eval" / chain / "no_policy")
        pairs = zip(folder.samples(), folder.completions(), strict=True)
        found = [(s, p, c) for (s, _), c in pairs if (p := data.policy_of(s)) is not None]
        rng.shuffle(found)
        rows += [(chain, s, p, c.text) for s, p, c in found[:count]]
        rest = found[count:]
    right = [row for row in rest if judge.judge(*row).score == TOP]
    for kind in DAMAGES:
        for sample, policy, completion in right[:5]:
            rows.append((kind, sample, policy, damage(kind, completion.text, rng)))
        right = right[5:]
    rng.shuffle(rows)
    for number, (kind, sample, policy, text) in enumerate(rows, 1):
        yield {
            "id": f"r{number:02d}",
            "kind": kind,
            "row": sample.id,
            "query": sample.query,
            "policy": {
                "name": policy.name,
                "text": policy.text,
                "conditions": policy.metadata["conditions"],
            },
            "rules": sample.facts["rules"],
            "completion": text,
        }


def unseen(rows: Iterator[dict[str, Any]], file: Path | None) -> Iterator[dict[str, Any]]:
    """Rows whose policy and completion are in no row of `file`, each once; all without a file."""
    if file is None:
        yield from rows
        return
    seen = {(row["policy"]["name"], row["completion"]) for row in read_rows(file)}
    for row in rows:
        if (what := (row["policy"]["name"], row["completion"])) not in seen:
            seen.add(what)
            yield row


def read(file: Path, data: Path | None) -> list[tuple[str, str, Judged]]:
    """Id, kind and what is judged: of a file of `draw`, or of the folder of a setting."""
    if file.is_dir():
        if data is None:
            raise SystemExit(f"{file}: is the folder of a setting; give its --data")
        folder, found = SettingFolder(file), DataFolder(data)
        pairs = zip(folder.samples(), folder.completions(), strict=True)
        rows = [(s, found.policy_of(s), c) for (s, _), c in pairs]
        return [(s.id, "", (s, p, c)) for s, p, c in rows if p is not None]
    result = []
    for row in read_rows(file):
        about = row["policy"]
        metadata = {"conditions": about["conditions"], "unit": about.get("unit", "Condition")}
        policy = Policy(about["name"], (TextPart(about["text"]),), metadata)
        sample = Sample(row["id"], (), row["query"], about["name"], "", None,
                        {"rules": row["rules"]})  # fmt: skip
        result.append((row["id"], row["kind"], (sample, policy, Completion("", row["completion"]))))
    return result


def prompts(rows: list[tuple[str, str, Judged]]) -> Iterator[dict[str, Any]]:
    """What a model that judges is asked."""
    for name, _, row in rows:
        (message,) = judge_messages(*row, pictures=False)
        yield {"id": name, "prompt": "".join(part["text"] for part in message["content"])}


def agree(rows: list[tuple[str, str, Judged]], answers: Path, show: Callable[[str], Any]) -> None:
    """Tables of the exact judge against each judge whose answers are recorded."""
    exact = {name: ExactJudge().judge(*row).score for name, _, row in rows}
    kinds = {name: kind for name, kind, _ in rows}
    recorded: dict[str, dict[str, str]] = {}
    for number, row in enumerate(read_rows(answers), 1):
        where = f"{answers}:{number}"
        mine = recorded.setdefault(row["judge"], {})
        if row["id"] not in exact:
            raise SystemExit(f"{where}: no row {row['id']!r}; give the rows that were judged")
        if row["id"] in mine:
            raise SystemExit(f"{where}: {row['id']!r} is answered twice; drop one")
        mine[row["id"]] = row["answer"]
    for judge, given in recorded.items():
        read_ = {name: read_score(text) for name, text in given.items()}
        both = [
            (name, float(e), float(j.score))
            for name, j in read_.items()
            if j.score is not None and (e := exact[name]) is not None
        ]
        show(f"\n## {judge}\n")
        show(f"{len(rows)} rows, {len(given)} answered, "
             f"{sum(j.unreadable for j in read_.values())} unreadable, "
             f"{sum(exact[name] is None for name in given)} without an exact score\n")  # fmt: skip
        if not both:
            continue
        found = agreement([e for _, e, _ in both], [j for _, _, j in both])
        show("| rows | Pearson | Spearman | mean difference | mean absolute difference | "
             "weighted kappa |\n|---|---|---|---|---|---|")  # fmt: skip
        names = ("pearson", "spearman", "mean_difference", "mean_absolute_difference",
                 "weighted_kappa")  # fmt: skip
        numbers = (found[name] for name in names)
        show(f"| {found['rows']} | {' | '.join(_number(value) for value in numbers)} |\n")
        show(f"| exact \\ judge |{''.join(f' {band} |' for band in BANDS)}\n|---|---|---|---|")
        for band, line in zip(BANDS, found["bands"], strict=True):
            show(f"| {band} | {' | '.join(map(str, line))} |")
        show("\n| kind | rows | exact, mean | judge, mean | mean absolute difference |\n"
             "|---|---|---|---|---|")  # fmt: skip
        for kind, count in Counter(kinds[name] for name, _, _ in both).items():
            mine_ = [(e, j) for name, e, j in both if kinds[name] == kind]
            means = (sum(e for e, _ in mine_), sum(j for _, j in mine_),
                     sum(abs(e - j) for e, j in mine_))  # fmt: skip
            show(f"| {kind} | {count} | {' | '.join(f'{m / count:.2f}' for m in means)} |")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def main(arguments: list[str] | None = None) -> None:
    """The three commands."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("prompts")
    one.add_argument("rows", type=Path)
    one.add_argument("--data", type=Path)
    two = commands.add_parser("draw")
    two.add_argument("run", type=Path)
    two.add_argument("--seed", type=int, default=0)
    two.add_argument("--new-to", type=Path, help="leave out what these rows hold, and repetitions")
    three = commands.add_parser("agree")
    three.add_argument("rows", type=Path)
    three.add_argument("answers", type=Path)
    args = parser.parse_args(arguments)
    if args.command == "agree":
        agree(read(args.rows, None), args.answers, print)
        return
    made = (
        prompts(read(args.rows, args.data))
        if args.command == "prompts"
        else unseen(draw(args.run, args.seed), args.new_to)
    )
    for row in made:
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
