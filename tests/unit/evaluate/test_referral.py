"""Models as judges and the setting: prompt, strict reading, faults, resuming, regrading."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from datasets_builders.chat import requests
from datasets_builders.clevr.grader import grade
from tests.chat_server import ChatServer, Reply, completion
from tests.evaluation_fakes import Scripted, Skill, pretend, prompt_text
from trimpi.errors import UserError
from trimpi.evaluate import evaluate_model
from trimpi.evaluate.referral.agreement import agreement, pearson, weighted_kappa
from trimpi.evaluate.referral.exact import UNCHECKABLE
from trimpi.evaluate.referral.judgement import Judgement
from trimpi.evaluate.referral.make import judged_by, make_judge
from trimpi.evaluate.referral.model_judge import ModelJudge
from trimpi.evaluate.referral.prompt import judge_messages, read_score
from trimpi.evaluate.referral.setting import refer, referral_notes, referral_problems, regrade
from trimpi.evaluate.store import read_rows
from trimpi.policy import ImagePart, Policy, TextPart
from trimpi.recipe import Recipe, ReferralConfig
from trimpi.runs import read_json
from trimpi.sample import Completion, DataFolder, Sample

Serve = Callable[[Callable[[int, dict[str, Any]], Reply]], ChatServer]


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMPI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-0123456789")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(requests, "FIRST_PAUSE", 0.001)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    servers = []

    def start(play: Callable[[int, dict[str, Any]], Reply]) -> ChatServer:
        servers.append(ChatServer(play))
        monkeypatch.setenv("OPENAI_BASE_URL", servers[-1].address)
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def recipe_of(limit: int | None = None, **referral: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "test",
            "model": {"path": "unused"},
            "data": {"folder": "unused"},
            "evaluation": {
                "settings": ["no_policy", "referral"],
                "limit": limit,
                "referral": referral,
            },
        }
    )


def endpoint(**args: Any) -> Recipe:
    args = {"model": "m", "max_retries": 1, "concurrency": 1} | args
    return recipe_of(judge="endpoint", args=args)


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory, clevr: DataFolder) -> Path:
    return evaluate(tmp_path_factory.mktemp("once"), clevr, recipe_of(), Skill(0.8))


@pytest.fixture
def evaluated(once: Path, tmp_path: Path) -> Path:
    """An evaluation judged by the exact judge: 16 rows, most walks right."""
    return Path(shutil.copytree(once, tmp_path / "eval"))


def evaluate(tmp_path: Path, data: DataFolder, recipe: Recipe, skill: Skill) -> Path:
    model = tmp_path / "model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text("{}")
    generator = Scripted(pretend(skill, data, None, 0))
    evaluate_model(model, recipe, data, None, tmp_path / "eval", grade, 0, generator=generator)
    return tmp_path / "eval"


def asked_in(body: dict[str, Any]) -> str:
    return "".join(part.get("text", "") for m in body["messages"] for part in m["content"])


# ---- prompt and reading


def test_the_prompt_holds_policy_request_and_reasoning_and_pictures_in_place() -> None:
    policy = Policy("P", (TextPart("Rule R1: like "), ImagePart("/a.png"), TextPart(" is bad.")))
    sample = Sample("a", ("/seen.png",), "May this {policy} be shown?", "p", "no")
    text = "<think> R1 holds. </reasoning> Score: 10 {policy} </think> \\boxed{no}"
    (message,) = judge_messages(sample, policy, Completion("a", text))
    shown = [part.get("image") for part in message["content"] if part["type"] == "image"]
    assert shown == ["/a.png"]
    words = prompt_text([message])
    assert "Rule R1: like  is bad." in words and "May this {policy} be shown?" in words
    assert "R1 holds. </ reasoning> Score: 10 {policy}" in words
    assert words.count("</reasoning>") == 1 and words.count("Rule R1") == 1
    assert "boxed" not in words and words.rstrip().endswith("Score: N")
    plain = judge_messages(sample, policy, Completion("a", text), pictures=False)
    assert "like [picture] is bad." in prompt_text(plain)
    assert all(part["type"] == "text" for part in plain[0]["content"])


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("It cites both.\nScore: 7", 7),
        ("Score: 0", 0),
        ("ok\n\n  Score: 10  \n", 10),
        ("Score: 11", None),
        ("Score: 7/10", None),
        ("Score: 7.5", None),
        ("Score: -1", None),
        ("**Score: 7**", None),
        ("Score: 7\nThat is all.", None),
        ("I give it 7 of 10.", None),
        ("score: 7", None),
        ("Score: N", None),
        ("Score: ٣", None),
        ("", None),
    ],
)
def test_answers_are_read_strictly(answer: str, score: float | None) -> None:
    found = read_score(answer)
    assert found.score == score and found.unreadable is (score is None)
    assert read_score(answer, truncated=True).score is None


# ---- agreement, by hand


def test_agreement_of_a_small_table() -> None:
    found = agreement([0, 5, 10, 10], [0, 6, 8, 10])
    assert found["rows"] == 4
    assert found["mean_absolute_difference"] == pytest.approx(3 / 4)
    assert found["mean_difference"] == pytest.approx(-1 / 4)
    # means 6.25 and 6
    a, b = [0, 5, 10, 10], [0, 6, 8, 10]
    covariance = sum((x - 6.25) * (y - 6) for x, y in zip(a, b, strict=True))
    spread = sum((x - 6.25) ** 2 for x in a) * sum((y - 6) ** 2 for y in b)
    assert found["pearson"] == pytest.approx(covariance / spread**0.5)
    # ranks 1, 2, 3.5, 3.5 against 1, 2, 3, 4: 4.5 / sqrt(4.5 x 5)
    assert found["spearman"] == pytest.approx(4.5 / (4.5 * 5) ** 0.5)
    # seen (0 + 1 + 4 + 0) / 4 = 1.25; chance: all 16 pairs
    chance = sum((x - y) ** 2 for x in a for y in b) / 16
    assert found["weighted_kappa"] == pytest.approx(1 - 1.25 / chance)
    assert found["bands"] == [[1, 0, 0], [0, 1, 0], [0, 0, 2]]
    assert pearson([1, 1], [0, 5]) is None and weighted_kappa([3, 3], [3, 3]) is None
    assert weighted_kappa([0, 10], [10, 0]) == pytest.approx(-1)
    with pytest.raises(ValueError, match="no rows"):
        agreement([], [])


# ---- the setting with the exact judge


def test_the_exact_judge_of_a_perfect_model(tmp_path: Path, clevr: DataFolder) -> None:
    folder = evaluate(tmp_path, clevr, recipe_of(), Skill(1.0))
    summary = json.loads((folder / "referral" / "summary.json").read_text())
    assert summary["score"]["value"] == 10 and summary["score"]["scored"] == 16
    assert summary["histogram"] == [0] * 10 + [16] and summary["unscored"] == 0
    assert summary["parts"] == {"ids": 1, "content": 1, "coverage": 1}
    assert set(summary["by_policy"]) == set(clevr.policies) - {
        name for name in clevr.policies if "/" in name
    }
    assert summary["judge"] == "exact" and summary["complete"]


def test_a_model_without_reasoning_cites_nothing(tmp_path: Path, clevr: DataFolder) -> None:
    folder = evaluate(tmp_path, clevr, recipe_of(), Skill(1.0, reasons=False))
    summary = json.loads((folder / "referral" / "summary.json").read_text())
    assert summary["score"]["value"] == 0 and summary["no_reasoning"] == 16


def test_regrading_needs_no_data_folder(evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = json.loads((evaluated / "referral" / "summary.json").read_text())
    assert 0 < before["score"]["value"] < 10
    monkeypatch.setattr(DataFolder, "policies", property(lambda _: pytest.fail("data are read")))
    (evaluated / "referral" / "scores.jsonl").unlink()
    after = regrade(evaluated)
    assert after == before
    assert len(read_rows(evaluated / "referral" / "scores.jsonl")) == 16
    monkeypatch.setattr(
        "trimpi.evaluate.referral.exact.WEIGHTS", {"ids": 1.0, "content": 0.0, "coverage": 0.0}
    )
    moved = regrade(evaluated)
    assert moved is not None and moved["score"]["value"] > before["score"]["value"]


def test_a_finished_referral_is_taken_as_it_is(evaluated: Path, clevr: DataFolder) -> None:
    file = evaluated / "referral" / "scores.jsonl"
    file.unlink()
    refer(evaluated, recipe_of(), clevr)
    assert not file.exists()
    assert refer(evaluated, recipe_of(limit=5), clevr)["rows"] == 16  # completions are there
    few = Recipe.model_validate(
        recipe_of().model_dump() | {"evaluation": {
            "settings": ["no_policy", "referral"], "referral": {"limit": 3}}}
    )  # fmt: skip
    assert refer(evaluated, few, clevr)["rows"] == 3


# ---- a model behind an endpoint


def test_answers_are_kept_and_asked_once(evaluated: Path, clevr: DataFolder, serve: Serve) -> None:
    server = serve(lambda n, _: completion(f"Fine.\nScore: {n % 11}"))
    first = refer(evaluated, endpoint(), clevr)
    distinct = len({asked_in(body) for body in server.bodies})
    assert server.asked == distinct  # equal prompts once
    assert first["score"]["scored"] == 16 and first["judge"] == "endpoint"
    assert first["agreement"]["rows"] == 16
    assert all(body["temperature"] == 0 for body in server.bodies)
    (evaluated / "referral" / "summary.json").unlink()
    assert refer(evaluated, endpoint(), clevr) == first and server.asked == distinct
    # another model, another limit: asked again; back again: taken from the file
    refer(evaluated, endpoint(model="other"), clevr)
    assert server.asked == 2 * distinct
    again = refer(evaluated, endpoint(), clevr)
    assert server.asked == 2 * distinct and again["score"] == first["score"]
    (evaluated / "referral" / "summary.json").unlink()
    refer(evaluated, endpoint(model="other"), clevr)
    assert server.asked == 2 * distinct
    rows = read_rows(evaluated / "referral" / "judgements.jsonl")
    assert len(rows) == 64 and len({row["key"] for row in rows}) == 2 * distinct


def test_prose_is_counted_and_never_guessed(
    evaluated: Path, clevr: DataFolder, serve: Serve
) -> None:
    serve(lambda n, _: completion("I would say 9 of 10." if n % 2 else "Right.\nScore: 9"))
    summary = refer(evaluated, endpoint(), clevr)
    assert 0 < summary["unreadable"] == summary["unscored"] < 16
    assert summary["score"]["value"] == 9
    assert "'I would say 9 of 10.'" in next(iter(summary["notes"]))


def test_a_limited_answer_is_unreadable(evaluated: Path, clevr: DataFolder, serve: Serve) -> None:
    serve(lambda n, _: completion("Score: 9", "length"))
    summary = refer(evaluated, endpoint(), clevr)
    assert summary["unreadable"] == 16 and summary["score"]["value"] is None


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ((429, {"error": {"message": "slow down"}}), "turns requests away (429: slow down)"),
        ((500, {"error": {"message": "broken"}}), "fails, tried 2 times (500: broken)"),
        ((200, "<html>hello</html>"), "answers nonsense, tried 2 times"),
    ],
)
def test_a_server_that_fails_in_the_middle(
    reply: Reply, words: str, evaluated: Path, clevr: DataFolder, serve: Serve
) -> None:
    healthy = [False]
    server = serve(lambda n, _: completion("Score: 5") if healthy[0] or n <= 4 else reply)
    with pytest.raises(UserError) as caught:
        refer(evaluated, endpoint(), clevr)
    line = str(caught.value)
    assert line.startswith("evaluation.referral: model 'm' at 127.0.0.1") and words in line
    assert "of 16 answers are kept in" in line and line.endswith("the same command goes on")
    assert "\n" not in line
    summary = json.loads((evaluated / "referral" / "summary.json").read_text())
    kept = read_rows(evaluated / "referral" / "judgements.jsonl")
    assert not summary["complete"] and summary["rows"] == len(kept) >= 4
    with pytest.raises(UserError, match="not judged to its end"):
        regrade(evaluated)
    answered, healthy[0] = {asked_in(body) for body in server.bodies[:4]}, True
    before = server.asked
    whole = refer(evaluated, endpoint(), clevr)
    assert whole["complete"] and whole["rows"] == 16 and whole["score"]["value"] == 5
    assert not answered & {asked_in(body) for body in server.bodies[before:]}
    ids = [row["id"] for row in read_rows(evaluated / "referral" / "judgements.jsonl")]
    assert sorted(ids) == sorted(set(ids)) and len(ids) == 16


def test_a_server_that_is_not_there(
    evaluated: Path, clevr: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    with pytest.raises(UserError) as caught:
        refer(evaluated, endpoint(max_retries=0), clevr)
    assert "cannot be reached" in str(caught.value) and "0 of 16 answers" in str(caught.value)


def test_an_interrupted_run_goes_on(
    evaluated: Path, clevr: DataFolder, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(lambda n, _: completion("Score: 6"))
    real = ModelJudge._answers

    def cut(self: ModelJudge, prompts: Any, missing: Any) -> Any:
        for number, answer in enumerate(real(self, prompts, missing)):
            if number == 3:
                raise KeyboardInterrupt
            yield answer

    monkeypatch.setattr(ModelJudge, "_answers", cut)
    with pytest.raises(KeyboardInterrupt):
        refer(evaluated, endpoint(), clevr)
    monkeypatch.setattr(ModelJudge, "_answers", real)
    file = evaluated / "referral" / "judgements.jsonl"
    kept = len(read_rows(file))
    assert 3 <= kept < 16
    assert json.loads((evaluated / "referral" / "summary.json").read_text())["rows"] == kept
    with file.open("a") as stream:
        stream.write('{"id": "half a li')  # what a kill leaves
    done = server.asked
    whole = refer(evaluated, endpoint(), clevr)
    assert whole["complete"] and whole["rows"] == 16 == len(read_rows(file))
    assert server.asked > done


# ---- other generators and judges, faults of the recipe


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module `own_judges` of the user's."""
    module = ModuleType("own_judges")

    class Strict:
        def __init__(self, score: Any = 3) -> None:
            self.score = score

        def identity(self) -> dict[str, Any]:
            return {"judge": "own", "score": self.score}

        def judge(self, sample: Sample, policy: Policy, completion: Completion) -> Any:
            assert sample.policy and policy.text
            return Judgement(self.score) if self.score != "nothing" else None

    def generator(fail: bool = False) -> Any:
        def answer(prompts: Any, **options: Any) -> list[str]:
            if fail:
                raise UserError("the machine is off; switch it on")
            return ["Score: 8" for _ in prompts]

        return answer

    vars(module).update(Strict=Strict, generator=generator, nothing=lambda: 3)
    monkeypatch.setitem(__import__("sys").modules, "own_judges", module)
    return module


def test_generators_and_judges_by_name(own: ModuleType, evaluated: Path, clevr: DataFolder) -> None:
    judged = refer(evaluated, recipe_of(judge="own_judges:Strict"), clevr)
    assert judged["score"]["value"] == 3 and judged["judge"] == "own"
    assert regrade(evaluated) is None
    judged = refer(evaluated, recipe_of(judge="own_judges:generator"), clevr)
    assert judged["score"]["value"] == 8 and judged["agreement"]["rows"] == 16
    again = regrade(evaluated)
    assert again is not None and again["score"] == judged["score"]
    with pytest.raises(UserError, match=r"the machine is off.*0 of 16 answers"):
        refer(evaluated, recipe_of(judge="own_judges:generator", args={"fail": True}), clevr)
    for score in (11, -1, "nothing", True):
        with pytest.raises(UserError, match="must give a Judgement with a score from 0 to 10"):
            recipe = recipe_of(judge="own_judges:Strict", args={"score": score})
            refer(evaluated, recipe, clevr)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"judge": "endpoint"}, "evaluation.referral.args.model: required argument is missing"),
        (
            {"judge": "endpoint", "args": {"model": "m", "timeot": 3}},
            "evaluation.referral.args.timeot: unknown argument; did you mean 'timeout'?",
        ),
        ({"judge": "endpoint", "args": {"model": ""}}, "evaluation.referral.args: model: must be"),
        ({"judge": "no_such_module:x"}, "evaluation.referral.judge: no module 'no_such_module'"),
        ({"judge": "own_judges:nothing"}, "made int, neither a generator nor a judge"),
        (
            {"judge": "transformers", "args": {"path": "/no/such/model"}},
            "/no/such/model",
        ),
    ],
)
def test_faults_of_a_judge_are_told_before_a_model_is_loaded(
    config: dict[str, Any], words: str, own: ModuleType, clevr: DataFolder
) -> None:
    with pytest.raises(UserError) as caught:
        make_judge(ReferralConfig.model_validate(config))
    assert words in str(caught.value)
    assert any(words in line for line in referral_problems(recipe_of(**config), clevr))


@pytest.mark.parametrize(
    ("evaluation", "words"),
    [
        ({"settings": ["referral"]}, "judges the completions of 'no_policy'; add that"),
        ({"referral": {"args": {"model": "m"}}}, "the exact judge takes no 'args'"),
        ({"referral": {"judge": "exactly"}}, "referral.judge"),
        ({"referral": {"limit": 0}}, "referral.limit"),
    ],
)
def test_faults_of_the_section(evaluation: dict[str, Any], words: str) -> None:
    raw = {"name": "r", "model": {"path": "m"}, "data": {"folder": "d"}}
    with pytest.raises(ValueError, match=words):
        Recipe.model_validate(raw | {"evaluation": evaluation})


def test_policies_without_ids_need_a_model(
    clevr: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert referral_problems(recipe_of(), clevr) == []
    bare = {name: Policy(p.name, p.parts) for name, p in clevr.policies.items()}
    monkeypatch.setattr(DataFolder, "policies", property(lambda _: bare))
    (line,) = referral_problems(recipe_of(), DataFolder(clevr.root))
    assert "no metadata.conditions" in line
    assert "set evaluation.referral.judge to a model" in line
    without = recipe_of().model_copy(
        update={"evaluation": recipe_of().evaluation.model_copy(update={"settings": ()})}
    )
    assert referral_problems(without, DataFolder(clevr.root)) == []


def test_rows_that_the_exact_judge_leaves_out_are_told_before(
    tmp_path: Path, clevr: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert referral_notes(recipe_of(), clevr) == []
    first, *others = sorted({row.policy for row in clevr.read("test") if row.policy})
    rows = sum(row.policy == first for row in clevr.read("test"))
    mixed = {**clevr.policies, first: Policy("bare", (TextPart("Be kind."),))}
    monkeypatch.setattr(DataFolder, "policies", property(lambda _: mixed))
    data = DataFolder(clevr.root)
    assert referral_problems(recipe_of(), data) == []
    (line,) = referral_notes(recipe_of(), data)
    assert line == (
        f"evaluation.referral: {rows} of 16 rows are under policies without rules by id ({first}); "
        "the exact judge gives them no score"
    )
    assert referral_notes(endpoint(), data) == []
    found = evaluate(tmp_path, data, recipe_of(), Skill(1.0))
    summary = read_json(found / "referral" / "summary.json")
    assert summary["unscored"] == rows and summary["notes"] == {UNCHECKABLE: rows}
    assert summary["score"]["scored"] == 16 - rows
    assert summary["by_policy"][first]["value"] is None
    assert all(summary["by_policy"][name]["value"] is not None for name in others)


def test_prompts_beyond_a_local_judge_are_told_before_it_is_loaded(
    evaluated: Path, clevr: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimpi.model.load_model", lambda *_: pytest.fail("loaded"))
    args = {"path": "package://trimpi/models/tiny-vlm"}
    recipe = recipe_of(judge="transformers", args=args, max_new_tokens=10**6)
    with pytest.raises(UserError) as told:
        refer(evaluated, recipe, clevr)
    lines = str(told.value).splitlines()
    asked = {row["id"] for row in read_rows(evaluated / "no_policy" / "samples.jsonl")}
    assert lines and all(line.split("'")[1] in asked for line in lines)
    assert all("and 1000000 new ones exceed the context of package://" in line for line in lines)


def test_a_judge_of_the_command_line() -> None:
    recipe = recipe_of(limit=2)
    found = judged_by(recipe, "gpt-x", "endpoint").evaluation
    assert found.referral.judge == "endpoint" and found.referral.args == {"model": "gpt-x"}
    assert found.settings == ("no_policy", "referral") and found.limit == 2
    kept = judged_by(endpoint(timeout=3.0), "gpt-x", "endpoint").evaluation.referral.args
    assert kept["timeout"] == 3.0 and kept["model"] == "gpt-x"
    local = judged_by(recipe, "Qwen/X", "transformers").evaluation.referral
    assert local.args == {"path": "Qwen/X"}
    assert judged_by(endpoint(), "exact", "transformers").evaluation.referral == ReferralConfig()
    with pytest.raises(UserError, match="--judge-backend endpiont: unknown; did you mean"):
        judged_by(recipe, "m", "endpiont")
    bare = recipe.model_copy(
        update={"evaluation": recipe.evaluation.model_copy(update={"settings": ("override",)})}
    )
    with pytest.raises(UserError, match=r"add that to evaluation\.settings"):
        judged_by(bare, "m", "endpoint")
