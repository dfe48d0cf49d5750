"""Prompts beyond the data loader: the same order as its own, and after a restore."""

import json

import pytest

from trimpi.errors import UserError
from trimpi.recipe import RlConfig
from trimpi.recipe_rl import Curriculum
from trimpi.sample import Sample
from trimpi.stages.prompt_source import BanditSource, PromptStream, prompt_source
from trimpi.stages.sampling import EpochSampler


def test_the_stream_is_the_samplers_order_epoch_after_epoch() -> None:
    stream = PromptStream(6, 5)
    sampler = EpochSampler(range(6), 1, batch_size=3, shuffle=True, seed=5)
    expected = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        expected += list(sampler)
    assert stream.take(4) + stream.take(9) + stream.take(5) == expected
    assert stream.state() == {"taken": 18}
    other = PromptStream(6, 5)
    other.restore({"taken": 7})
    assert other.take(5) == expected[7:12]


def bandit(categories: str = "aabbcc", seed: int = 0, **more: object) -> BanditSource:
    return BanditSource(list(categories), Curriculum(by=["x"], **more), seed)


def test_values_and_probabilities_of_arms() -> None:
    """Worked vector: rewards .2 and .9, one arm unseen, alpha 1/2, temperature 0.4."""
    source = bandit()
    assert source.probabilities() == pytest.approx([1 / 3] * 3)
    log = source.learn([0, 1, 2], [0.1, 0.3, 0.9])
    assert [source.q[arm] for arm in "abc"] == pytest.approx([0.1, 0.45, 0.0])
    assert source.probabilities() == pytest.approx([0.2394, 0.5742, 0.1864], abs=1e-4)
    assert log["rollout/curriculum/a/share"] == pytest.approx(2 / 3)
    assert log["rollout/curriculum/b/q"] == pytest.approx(0.45)
    source.learn([0], [0.2])
    assert [source.q[arm] for arm in "abc"] == pytest.approx([0.15, 0.225, 0.0])


def test_an_unseen_arm_may_keep_its_value() -> None:
    source = bandit(decay_unseen=False)
    source.learn([2], [0.8])
    source.learn([0], [0.4])
    assert [source.q[arm] for arm in "abc"] == pytest.approx([0.2, 0.4, 0.0])


def test_draws_follow_the_values_and_use_every_row_of_an_arm() -> None:
    source = bandit(temperature=0.05)
    source.learn([4, 5], [1.0, 1.0])
    drawn = source.take(200)
    assert sum(row in (4, 5) for row in drawn) == 200  # softmax(0, 0, 10)
    assert abs(drawn.count(4) - drawn.count(5)) <= 1


def test_a_restored_bandit_goes_on_as_the_first_would() -> None:
    first, second = bandit(seed=3), bandit(seed=3)
    first.learn(first.take(9), [0.5] * 9)
    state = json.loads(json.dumps(first.state()))
    expected = first.take(20)
    second.restore(state)
    assert second.take(20) == expected and len(set(expected)) > 3


def samples(facts: list[dict[str, object]]) -> list[Sample]:
    return [Sample(f"row-{i}", (), "?", None, "a", None, f) for i, f in enumerate(facts)]


def test_categories_are_values_of_facts_and_lengths_of_lists() -> None:
    rows = samples([{"depth": 2, "rules": [1, 2]}, {"depth": 2, "rules": [3]}] * 2)
    source = prompt_source(rows, RlConfig(curriculum={"by": ["depth", "rules"]}), 0)
    assert isinstance(source, BanditSource)
    assert source.arms == ["depth=2, rules=1", "depth=2, rules=2"]
    assert isinstance(prompt_source(rows, RlConfig(), 0), PromptStream)


def test_rows_without_the_facts_are_named() -> None:
    rows = samples([{"depth": 2}, {"rules": []}, {}])
    message = (
        r"rl.curriculum.by: the facts of 2 rows of train lack one of depth, the first is 'row-1'; "
        r"there are depth, rules"
    )
    with pytest.raises(UserError, match=message):
        prompt_source(rows, RlConfig(curriculum={"by": ["depth"]}), 0)
