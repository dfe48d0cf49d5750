"""Charts of the report: places of names, logarithmic axes, crossings, bars for all readers."""

import random
import re
from xml.etree import ElementTree

import pytest

from trimpi.evaluate.statistics import Interval
from trimpi.report import bars, breakeven_words, scatter, svg


def test_names_of_a_dozen_arms_stay_apart() -> None:
    rng = random.Random(0)
    centres = [(rng.uniform(380, 560), rng.uniform(40, 160)) for _ in range(12)]
    names = [f"arm_number_{n}" for n in range(12)]
    boxes = scatter.place_names(names, centres)
    for i, a in enumerate(boxes):
        assert a[0] >= scatter.LEFT and a[2] <= scatter.WIDTH and a[3] <= scatter.HEIGHT
        assert all(scatter._shared(a, b) < 0.05 for b in boxes[i + 1 :])


def test_a_scatter_tells_all_its_numbers() -> None:
    dots = [
        scatter.Dot("a<b", Interval(0.5, 0.4, 0.6), Interval(0.9, 0.8, 1.0), "leading"),
        scatter.Dot("base", Interval(0.7, 0.7, 0.7), Interval(0.1, 0.0, 0.2), "base"),
    ]
    path = scatter.Path([(0.5, 0.9), (0.7, 0.1)], "front")
    chart = scatter.scatter(dots, [path], title="T", x_name="x", y_name="y")
    root = ElementTree.fromstring(chart)
    assert "a<b: 50.0% (40.0 to 60.0) x, 90.0% (80.0 to 100.0) y" in root.attrib["aria-label"]
    assert root[0].text == "T" and "nan" not in chart
    alone = scatter.scatter(
        [scatter.Dot("one", Interval(1, 1, 1), Interval(1, 1, 1))],
        [], title="T", x_name="x", y_name="y",
    )  # fmt: skip
    assert ElementTree.fromstring(alone) is not None and "nan" not in alone


def test_bars_are_as_long_as_their_shares() -> None:
    row = bars.Row("law & order of the land", Interval(0.5, 0.4, 0.6), Interval(0.25, 0.2, 0.3),
                   "-25.0", "worse")  # fmt: skip
    chart = bars.bar_chart([row], title="T", names=("base", "arm"))
    widths = [float(w) for w in re.findall(r'class="bar \w+"[^>]* width="([\d.]+)"', chart)]
    assert widths[0] == pytest.approx(2 * widths[1], abs=0.11)
    assert "−25.0*" in chart and "law &amp; order of t…" in chart
    assert (
        "law &amp; order of the land: base 50.0%, arm 25.0%, -25.0 points (significantly" in chart
    )


def test_crossings_far_apart_are_on_logarithmic_axes() -> None:
    def even(cached: float) -> dict[str, object]:
        rows = [
            {"rival": rival, "before": before, "after": 0.001, "never": False,
             "requests": round(10 / (before - 0.001))}
            for rival, before in (("with_policy", 0.011), ("cached_prefix", cached))
        ]  # fmt: skip
        training = {"cost": 10.0, "device_hours": None}
        return {"money": rows, "device": [], "training": training}

    (far,) = breakeven_words.charts(even(0.00101))
    assert "logarithmic" in far["quantity"] and far["chart"].count('class="mark"') == 2
    assert ">1K<" in far["chart"] and ">1M<" in far["chart"]  # 10 / 0.01 and 10 / 0.00001 requests
    (near,) = breakeven_words.charts(even(0.006))
    assert "logarithmic" not in near["quantity"] and near["chart"].count('class="mark"') == 2
    for chart in (far["chart"], near["chart"]):
        ElementTree.fromstring(chart)
        for name in ("in the prompt", "cached", "internalized"):
            assert f">{name}</text>" in chart


def test_a_mark_lies_on_the_lines_that_cross() -> None:
    lines = [svg.Line("a", [(1, 1), (100, 100)]), svg.Line("b", [(1, 10), (100, 10)])]
    chart = svg.line_chart(
        lines, label="x", x_name="n", log=True, marks=[svg.Mark("10", (10.0, 10.0))]
    )
    x, y = (float(v) for v in re.findall(r'class="mark" cx="([\d.]+)" cy="([\d.]+)"', chart)[0])
    ends = [tuple(map(float, p.split(","))) for p in re.findall(r'points="(\S+) (\S+)"', chart)[0]]
    assert (x, y) == pytest.approx(
        ((ends[0][0] + ends[1][0]) / 2, (ends[0][1] + ends[1][1]) / 2), abs=0.11
    )


@pytest.mark.parametrize(
    ("value", "text"), [(0.01, "0.01"), (800, "800"), (999.9, "1K"), (7999, "8K"), (2.4e6, "2.4M")]
)
def test_numbers_in_few_letters(value: float, text: str) -> None:
    assert svg.compact(value) == text
