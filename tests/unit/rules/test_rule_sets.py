"""Sets of rules: what decides, what is wrong; proven against trying every combination."""

import itertools
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimpi.errors import UserError
from trimpi.rules import Interval, Rule, RuleSet, Words, outcome_changes
from trimpi.rules.extents import Extent, count, overlap, without

ATTRIBUTES: dict[str, Extent] = {
    "item": Words(("knife", "bottle", "none")),
    "place": Words(("kitchen", "street")),
    "age": Interval(0, 5),
}


def extents(whole: Extent) -> st.SearchStrategy:
    """Parts of an attribute, empty ones too."""
    if isinstance(whole, Words):
        return st.sets(st.sampled_from(whole.values)).map(
            lambda chosen: Words(tuple(v for v in whole.values if v in chosen))
        )
    bounds = st.integers(whole.low, whole.high)
    return st.builds(Interval, bounds, bounds)


conditions = st.fixed_dictionaries({}, optional={n: extents(e) for n, e in ATTRIBUTES.items()})
whens = st.none() | conditions


@st.composite
def rule_sets(draw: st.DrawFn) -> RuleSet:
    rows = draw(st.lists(st.tuples(whens, st.sampled_from("XYZ")), max_size=5))
    rules = tuple(Rule(f"R{n}", "", "", when, out) for n, (when, out) in enumerate(rows, 1))
    return RuleSet(ATTRIBUTES, rules, draw(st.sampled_from(["first", "any"])))


def every_fact() -> list[dict[str, str | int]]:
    values = [
        e.values if isinstance(e, Words) else range(e.low, e.high + 1) for e in ATTRIBUTES.values()
    ]
    return [dict(zip(ATTRIBUTES, row, strict=True)) for row in itertools.product(*values)]


FACTS = every_fact()


def inside(box: Mapping[str, Extent], facts: Mapping[str, str | int]) -> bool:
    return all(extent.holds(facts[name]) for name, extent in box.items())


def brute(rules: RuleSet, facts: Mapping[str, str | int]) -> str | None:
    """The id of the rule that decides, by the definition in words."""
    holding = [r for r in rules.rules if r.when is not None and inside(r.when, facts)]
    if rules.order == "any":
        holding = [r for r in holding if r.when] + [r for r in holding if not r.when]
    return holding[0].id if holding else None


@given(rule_sets())
def test_decisions_regions_and_cells_agree_with_trying_everything(rules: RuleSet) -> None:
    regions = rules.regions()
    assert sum(count(box) for box, _ in regions) == len(FACTS)
    for facts in FACTS:
        decided = rules.decide(facts)
        assert (decided.id if decided else None) == brute(rules, facts)
        assert [rule for box, rule in regions if inside(box, facts)] == [decided]
    seen = {brute(rules, cell) for cell in rules.cells()}
    assert seen == {brute(rules, facts) for facts in FACTS}


@given(rule_sets())
def test_faults_are_complete(rules: RuleSet) -> None:
    checkable = [rule for rule in rules.rules if rule.when is not None]
    faults = rules.faults()
    by_kind = {
        kind: [f for f in faults if f.kind == kind]
        for kind in ("gap", "contradictory", "unreachable")
    }
    decided = {brute(rules, facts) for facts in FACTS}
    if checkable:
        assert bool(by_kind["gap"]) == (None in decided)
    else:
        assert faults == []
    never = {r.id for r in checkable if not any(inside(r.when or {}, f) for f in FACTS)}
    assert {f.rules[0] for f in by_kind["contradictory"] if len(f.rules) == 1} == never
    told = {f.rules[-1] for f in by_kind["contradictory"]} | {
        f.rules[0] for f in by_kind["unreachable"]
    }
    if rules.order == "first":
        assert told == {rule.id for rule in checkable} - decided
    else:
        clashes = {
            (left.id, right.id)
            for left, right in itertools.combinations([r for r in checkable if r.when], 2)
            if left.outcome != right.outcome
            and any(inside(left.when or {}, f) and inside(right.when or {}, f) for f in FACTS)
        }
        assert {f.rules for f in by_kind["contradictory"] if len(f.rules) == 2} == clashes
        idle = {r.id for r in checkable if not r.when and r.id not in decided}
        assert {f.rules[0] for f in by_kind["unreachable"]} == idle


@given(rule_sets(), rule_sets())
def test_changed_outcomes_agree_with_trying_everything(old: RuleSet, new: RuleSet) -> None:
    changes = outcome_changes(old, new)
    for facts in FACTS:
        before, after = old.decide(facts), new.decide(facts)
        differs = (before and before.outcome) != (after and after.outcome)
        found = [change for change in changes if inside(change.box, facts)]
        assert [(c.before, c.after) for c in found] == ([(before, after)] if differs else [])


@given(conditions, conditions)
def test_a_box_without_conditions(box: dict, when: dict) -> None:
    whole = {**ATTRIBUTES, **box}
    if any(count({"x": extent}) == 0 for extent in whole.values()):
        return
    pieces = without(whole, when)
    shared = overlap(whole, when)
    assert sum(map(count, pieces)) + (count(shared) if shared else 0) == count(whole)


def rule(id: str, outcome: str, **when: Extent) -> Rule:
    return Rule(id, "", "", when, outcome)


KNIFE, KITCHEN = Words(("knife",)), Words(("kitchen",))


@pytest.mark.parametrize(
    ("order", "rules", "faults"),
    [
        (
            "first",
            [
                rule("R1", "x", item=KNIFE),
                rule("R2", "y", item=KNIFE, place=KITCHEN),
                rule("R3", "z"),
            ],
            [("unreachable", ("R2", "R1"), "R2 is never reached: R1 decides wherever it holds")],
        ),
        (
            "first",
            [rule("R1", "x", item=KNIFE), rule("R2", "y", item=KNIFE), rule("R3", "z")],
            [
                (
                    "contradictory",
                    ("R1", "R2"),
                    "R2 has the conditions of R1 and another outcome (y, not x)",
                )
            ],
        ),
        (
            "first",
            [rule("R1", "x", age=Interval(0, 3)), rule("R2", "y", age=Interval(5, 5))],
            [("gap", (), "no rule decides for age 4")],
        ),
        (
            "first",
            [rule("R1", "x", age=Interval(4, 2)), rule("R2", "z")],
            [("contradictory", ("R1",), "R1 can never hold: no age meets its condition")],
        ),
        (
            "any",
            [rule("R0", "z"), rule("R1", "x", item=KNIFE), rule("R2", "y", age=Interval(2, 3))],
            [
                (
                    "contradictory",
                    ("R1", "R2"),
                    "R1 (x) and R2 (y) both hold for item knife, age 2 to 3",
                )
            ],
        ),
        (
            "any",
            [
                rule("R0", "z"),
                rule("R1", "x", place=KITCHEN),
                rule("R2", "y", place=Words(("street",))),
            ],
            [
                (
                    "unreachable",
                    ("R0", "R1", "R2"),
                    "R0 is never reached: R1 and R2 decide everything",
                )
            ],
        ),
        ("any", [rule("R0", "z"), rule("R1", "x", place=KITCHEN)], []),
    ],
)
def test_faults_in_words(order: str, rules: list, faults: list) -> None:
    found = RuleSet(ATTRIBUTES, tuple(rules), order).faults()  # type: ignore[arg-type]
    assert [tuple(fault) for fault in found] == faults


def test_rules_that_are_not_checkable_never_decide() -> None:
    rules = RuleSet(ATTRIBUTES, (Rule("R1", "Be kind."), rule("R2", "x", item=KNIFE)))
    assert rules.decide({"item": "knife", "place": "street", "age": 1}) == rules.rules[1]
    assert rules.decide({"item": "none", "place": "street", "age": 1}) is None
    assert RuleSet({}, (Rule("R1", "Be kind."),)).faults() == []


def test_large_sets_are_proven_without_trying_combinations() -> None:
    names = [f"a{n}" for n in range(12)]
    attributes: dict[str, Extent] = {n: Words(tuple("abcdefgh")) for n in names}
    rules = [Rule(f"R{n}", "", "", {name: Words(("a",))}, str(n)) for n, name in enumerate(names)]
    found = RuleSet(attributes, tuple(rules)).faults()
    assert [fault.kind for fault in found] == ["gap"]
    with pytest.raises(UserError, match="more than 250000 combinations"):
        RuleSet(attributes, tuple(rules)).cells()


def test_sets_that_cannot_be_proven_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimpi.rules.rule_set.MOST_BOXES", 3)
    two_cuts = rule("R1", "x", item=KNIFE, place=KITCHEN, age=Interval(2, 3))
    (fault,) = RuleSet(ATTRIBUTES, (two_cuts, rule("R2", "y"))).faults()
    assert fault.kind == "unproven" and "too many parts to be proven" in fault.words


@given(rule_sets())
def test_metadata_round_trip(rules: RuleSet) -> None:
    assert RuleSet.from_metadata(rules.to_metadata()) == rules


@pytest.mark.parametrize(
    ("metadata", "line"),
    [
        ({"rules": 3}, "m: rules: must be a list of objects"),
        ({"order": "last"}, "m: order: must be first or any, found 'last'"),
        ({"rules": [{"id": "R1"}]}, "m: rules.0: must be {id, text"),
        (
            {"attributes": {"a": ["x"]}, "rules": [{"id": "R", "text": "", "when": {"b": ["x"]}}]},
            "unknown attribute 'b'",
        ),
        (
            {"attributes": {"a": ["x"]}, "rules": [{"id": "R", "text": "", "when": {"a": ["y"]}}]},
            "'y' is no value of a",
        ),
    ],
)
def test_faults_of_metadata(metadata: dict, line: str) -> None:
    with pytest.raises(UserError) as caught:
        RuleSet.from_metadata(metadata, "m")
    assert line in str(caught.value)


def test_metadata_without_rules() -> None:
    assert RuleSet.from_metadata({"conditions": {"1": "is it red?"}}) == RuleSet({}, ())
