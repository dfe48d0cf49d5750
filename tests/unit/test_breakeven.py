"""Break-even: numbers reckoned by hand, words that never show a price that is not known."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.fake_run import fake_run
from trimpi.breakeven import of_run
from trimpi.cli import app
from trimpi.errors import UserError
from trimpi.prices import PriceConfig
from trimpi.report import write_report
from trimpi.report.breakeven import break_even
from trimpi.report.breakeven_words import dollars, section, span
from trimpi.report.serving import memory, table

TOKENS = {"with_policy": 2000.0, "without_policy": 500.0, "saved": 0.75}


def ways(whole: float, cached: float | None, bare: float) -> dict[str, Any]:
    found = {"with_policy": whole, "cached_prefix": cached, "without_policy": bare}
    return {
        way: None if s is None else {"request_seconds": s, "requests_per_second": 1 / s}
        for way, s in found.items()
    }


SERVING = {
    "sizes": [
        {"batch_size": 1, "ways": ways(2.0, 1.0, 0.75), "missing": {}},
        {"batch_size": 4, "ways": ways(6.0, None, 2.0), "missing": {"cached_prefix": "no room"}},
    ]
}
EFFICIENCY = {"prompt_tokens": TOKENS, "serving": SERVING}
COST = {"seconds": 7200.0, "resumed": False}


def even(prices: dict[str, Any], cost: dict[str, Any] = COST, devices: int = 1) -> dict[str, Any]:
    found = break_even(EFFICIENCY, cost, PriceConfig.model_validate(prices), "main", devices)
    assert found is not None
    return found


def test_money_against_both_rivals() -> None:
    prices = {"price": 2.0, "cached_price": 0.2, "gpu_hour": 3.0, "requests_per_day": [100, 1000]}
    found = even(prices, devices=4)
    # 2 h on 4 devices at 3 USD an hour.
    assert found["training"]["device_hours"] == 8 and found["training"]["cost"] == 24
    whole, cached = found["money"]
    # 2,000 tokens at 2 USD a million; 500 after. Cached: 1,500 at 0.2 and 500 at 2.
    assert (whole["before"], whole["after"]) == pytest.approx((0.004, 0.001))
    assert whole["requests"] == 8000  # 24 / 0.003
    assert whole["days"] == {"100": 80, "1000": 8}
    assert (cached["before"], cached["after"]) == pytest.approx((0.0013, 0.001))
    assert cached["requests"] == pytest.approx(80_000, abs=1)


def test_a_given_cost_wins_over_the_time_of_the_stages() -> None:
    found = even({"price": 2.0, "gpu_hour": 3.0, "training_cost": 30.0})
    assert found["training"]["cost"] == 30 and found["money"][0]["requests"] == 10_000
    assert section(found)["training_line"] == "Training main cost 30.00 USD, as given."  # type: ignore[index]


def test_device_time_needs_no_price() -> None:
    found = even({})
    assert found["money"] == [] and found["training"]["cost"] is None
    one, cached, four = found["device"]
    assert (one["batch_size"], one["rival"], one["requests"]) == (1, "with_policy", 5760)
    assert (cached["rival"], cached["requests"]) == ("cached_prefix", 28_800)  # 7200 / 0.25
    # At batch size 4 a request saves a second; the cached way was not measured.
    assert (four["batch_size"], four["rival"], four["requests"]) == (4, "with_policy", 7200)


def test_where_the_cost_is_not_known_there_is_no_currency() -> None:
    shown = section(even({}))
    assert shown is not None
    assert "USD" not in json.dumps({k: v for k, v in shown.items() if k in ("money", "device")})
    assert "its cost is not known: give gpu_hour or training_cost" in shown["training_line"]
    priced = section(even({"price": 2.0}))
    assert priced is not None
    assert priced["money"][0]["requests"] == "–" and set(priced["money"][0]["days"]) == {"–"}
    assert [chart["title"] for chart in priced["charts"]] == ["Device time"]
    unknown = even({"price": 2.0, "gpu_hour": 3.0}, {"seconds": None, "resumed": False})
    assert unknown["training"]["cost"] is None and unknown["device"][0]["requests"] is None
    assert "not recorded in all of its stages" in section(unknown)["training_line"]  # type: ignore[index]
    assert section(unknown)["charts"] == []  # type: ignore[index]


def test_never() -> None:
    found = even({"price": 2.0, "cached_price": 0.0, "tuned_price": 8.0, "training_cost": 1.0})
    whole, cached = found["money"]
    assert whole["never"] and whole["requests"] is None  # 0.004 before and after
    assert cached["never"]
    shown = section(found)
    assert shown is not None and shown["money"][0]["days"] == ["never"] * 3
    assert shown["never"][0] == (
        "Never breaks even against the policy in the prompt: a request costs 0.004 USD of input "
        "there and 0.004 USD after training."
    )
    assert len(shown["charts"]) == 2  # lines that do not cross, and device time


def test_an_interrupted_stage_makes_a_lower_bound() -> None:
    found = even({}, {"seconds": 7200.0, "resumed": True})
    assert "2.0 h of device time on 1 device at least" in section(found)["training_line"]  # type: ignore[index]


def test_amounts_and_times() -> None:
    assert [dollars(v) for v in (None, 0.0, 0.00012, 2.5, 12345.6)] == [
        "–", "0.00 USD", "0.00012 USD", "2.50 USD", "12,345.60 USD",
    ]  # fmt: skip
    assert [span(d) for d in (None, 0.0001, 0.05, 1.5, 12.34, 400.0, 3650.0, 1e9)] == [
        "–", "1 min", "72 min", "36 h", "12.3 days", "400 days", "10 years", "over 1,000 years",
    ]  # fmt: skip
    assert [memory(b) for b in (12, 2048, 3 << 20, 5 << 30)] == [
        "12 bytes", "2 KiB", "3 MiB", "5 GiB",
    ]  # fmt: skip


def test_the_table_of_ways_tells_ratios_and_what_is_missing() -> None:
    rows = table(EFFICIENCY)
    assert [row["ratio"] for row in rows[:3]] == pytest.approx([1, 2, 2 / 0.75])
    assert rows[4]["way"] is None and rows[4]["missing"] == "no room"
    assert table({"prompt_tokens": TOKENS}) == table(None) == []


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    return fake_run(folder, seeds=(0,), rows=8, arms=("cot_sft",))


def test_report_shows_ways_and_break_even(run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    recipe = (copied / "recipe.yaml").read_text(encoding="utf-8")
    prices = "\n  prices: {price: 2.5, cached_price: 0.25, gpu_hour: 2, requests_per_day: [5000]}\n"
    recipe = recipe.split("\nreport:")[0] + "\nreport:" + prices
    (copied / "recipe.yaml").write_text(recipe, encoding="utf-8")
    page = write_report(copied).read_text(encoding="utf-8")
    text = (copied / "report" / "report.md").read_text(encoding="utf-8")
    summary = json.loads((copied / "report" / "summary.json").read_text(encoding="utf-8"))
    assert [size["batch_size"] for size in summary["efficiency"]["serving"]["sizes"]] == [1, 4]
    assert len(summary["break_even"]["money"]) == 2
    for shown in (page, text):
        assert "in the prompt, cached" in shown and "Break-even" in shown
        assert "at 5,000" in shown and "cached at 0.25 USD" in shown
    assert page.count("<svg") >= 2 and "Cost" in page


def test_the_command(run: Path) -> None:
    arguments = ["breakeven", str(run), "--price", "2.5", "--cached-price", "0.25"]
    arguments += ["--requests-per-day", "10000", "--training-cost", "100"]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0, found.output
    assert "as given" in found.output and "10,000" in found.output
    assert "input cost" in found.output and "device time" in found.output


@pytest.mark.parametrize(
    ("given", "arm", "fault"),
    [
        ({"price": -1.0}, None, "--price: Input should be greater than or equal to 0"),
        ({"price": float("nan")}, None, "--price: Input should be"),
        ({"requests_per_day": [0]}, None, "--requests-per-day: Input should be greater"),
        ({"cached_price": 1.0}, None, "cached_price is compared with 'price', which is missing"),
        ({"price": 1.0}, "cot_stf", "--arm cot_stf: no such trained arm .* did you mean 'cot_sft'"),
    ],
)
def test_bad_input(run: Path, given: dict[str, Any], arm: str | None, fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        of_run(run, given, arm)


def test_runs_that_lack_something(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no run\.json"):
        of_run(tmp_path, {})
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    for file in copied.glob("seed-*/eval/*/efficiency/summary.json"):
        summary = json.loads(file.read_text(encoding="utf-8"))
        del summary["serving"]  # as older versions wrote it
        file.write_text(json.dumps(summary), encoding="utf-8")
    with pytest.raises(UserError, match=r"requests are not timed .* give --price"):
        of_run(copied, {})
    assert of_run(copied, {"price": 1.0})["device"] == []
    assert "Answering requests" not in write_report(copied).read_text(encoding="utf-8")
    for folder in copied.glob("seed-*/eval/*/efficiency"):
        shutil.rmtree(folder)
    with pytest.raises(UserError, match="prompts are not measured; add 'efficiency'"):
        of_run(copied, {"price": 1.0})
