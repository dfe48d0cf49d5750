"""Wording: a policy says what its tree does, out of reading order; the rationale quotes it."""

import itertools
import random
import re
from types import SimpleNamespace

from datasets_builders.clevr import wording
from datasets_builders.clevr.tree import Node, grow
from trimpi.policy import ImagePart


def test_policy_text_alone_leads_to_the_oracles_answer() -> None:
    """Follow the *text* with a reader that knows nothing of trees."""
    rng = random.Random(5)
    tree = grow(rng, 4)
    text = wording.write_policy(rng, "Vlomar", tree).text
    rules = {
        number: (asked, yes, no)
        for number, asked, yes, no in re.findall(
            r"^Condition ([\d.]+): is there an? (.+?)\? Yes: (.+?)\. No: (.+?)\.$", text, re.M
        )
    }
    assert len(rules) == len(list(tree.decisions()))
    for case, path in tree.leaves():
        outcome = {step.condition: step.outcome for step in path}
        at = "1"
        while True:
            _asked, yes, no = rules[at]
            branch = yes if outcome[at] else no
            if branch.startswith("the response is "):
                assert branch == f"the response is {wording.answer(case)}"
                break
            at = branch.removeprefix("go to Condition ")


def test_sections_are_out_of_reading_order() -> None:
    for seed in range(30):
        rng = random.Random(seed)
        tree = grow(rng, 3)
        text = wording.write_policy(rng, "X", tree).text
        order = re.findall(r"^Condition ([\d.]+):", text, re.M)
        assert order != [node.condition for node in tree.decisions()]
        assert text.count("Section ") == 2


def test_rationale_quotes_the_conditions_and_branches_of_the_policy() -> None:
    rng = random.Random(2)
    tree = grow(rng, 3)
    policy = wording.write_policy(rng, "X", tree)
    for case, path in tree.leaves():
        for line in wording.rationale(path, case).splitlines():
            head, verdict, branch = re.fullmatch(r"(.*\?) (Yes|No)(: .*\.)", line).groups()
            assert head in policy.text
            assert f"{verdict}{branch}" in policy.metadata["conditions"][head.split(":")[0][10:]]


def test_image_parts_stand_where_the_value_would(tmp_path) -> None:
    rng = random.Random(1)
    tree = grow(rng, 2)
    crop = tmp_path / "crop.png"

    def first_only(node: Node) -> str:
        return str(crop) if node.condition == "1" else ""

    policy = wording.write_policy(rng, "X", tree, crop=first_only)
    assert policy.images == (str(crop),)
    index = next(i for i, part in enumerate(policy.parts) if isinstance(part, ImagePart))
    assert re.search(
        r"Condition 1: is there an object with the \w+ shown here: $", policy.parts[index - 1].text
    )
    assert policy.parts[index + 1].text.startswith("? Yes: ")
    assert wording.question(tree.root.attribute, tree.root.value) not in policy.text


def test_names_are_pronounceable_and_varied() -> None:
    rng = random.Random(0)
    names = {wording.made_up_name(rng) for _ in range(200)}
    assert len(names) > 150 and all(re.fullmatch(r"[A-Z][a-z]{3,}", name) for name in names)


def test_names_are_no_common_words() -> None:
    parts = (wording._ONSETS, wording._VOWELS, wording._ONSETS, wording._VOWELS, wording._CODAS)
    made = {"".join(pieces) for pieces in itertools.product(*parts)}
    assert made >= wording._WORDS and "metal" in wording._WORDS
    draws = iter(["m", "e", "t", "a", "l", "vl", "o", "m", "a", "r"])
    assert wording.made_up_name(SimpleNamespace(choice=lambda _: next(draws))) == "Vlomar"
