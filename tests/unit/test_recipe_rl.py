"""Rules between the options of RL and its other keys: one clear line each."""

from typing import Any

import pytest
from pydantic import ValidationError

from trimpi.errors import UserError
from trimpi.identities import stage_identity
from trimpi.recipe import RlConfig
from trimpi.recipe_rl import RlOptions
from trimpi.schedule import plan_schedule

SMALL: dict[str, Any] = {"prompts_per_step": 2, "group_size": 4, "max_new_tokens": 64}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"overlong": {"cache": 64}}, "overlong.cache 64 must be below max_new_tokens 64"),
        ({"downsample": {"keep": 8}}, "downsample.keep 8 must be below the 8 completions"),
        ({"downsample": {"keep": 2, "min_free": 3}}, "min_free 3 is more than keep 2"),
        ({"downsample": {"keep": 6, "min_free": 5}}, "min_free 5 is more than the 4 policy-free"),
        (
            {"policy_fraction": 0, "aware_when": "all_failed"},
            "aware_when is about policy-aware completions, and policy_fraction 0 leaves none",
        ),
        ({"policy_fraction": 0, "policy_share": "annealed"}, "policy_share is about policy-aware"),
        ({"policy_fraction": 0, "aware_positives_only": True}, "aware_positives_only is about"),
        ({"policy_fraction": 0, "aware_weighting": "importance"}, "aware_weighting is about"),
        ({"policy_fraction": 0, "reliance_every": 1}, "reliance_every is about"),
        ({"policy_share_end": 0.25}, "policy_share_end belongs to policy_share annealed or"),
        (
            {"policy_share": "annealed", "policy_share_end": 0.75},
            "policy_share_end 0.75 is above policy_fraction 0.5, where the share starts",
        ),
        ({"adaptive": {"gap": 0.1}}, "adaptive belongs to policy_share adaptive and teacher"),
        (
            {"teacher": {"weight": 0.1, "while_ahead": True}, "aware_when": "all_failed"},
            "teacher.while_ahead compares both halves of the same prompts",
        ),
        (
            {"teacher": {"weight": 0.1, "while_ahead": True}, "policy_fraction": 0},
            "teacher.while_ahead is about policy-aware completions",
        ),
        (
            {"policy_share": "adaptive", "aware_when": "all_failed"},
            "all_failed gives the hard prompts alone to one half; drop either",
        ),
        ({"importance": {"cap": 2.0}}, "importance belongs to aware_weighting importance"),
        (
            {"advantage": "beta_norm", "trainer": {"scale_rewards": "none"}},
            "trainer.scale_rewards is what advantage beta_norm decides; drop it",
        ),
        (
            {"trainer": {"multi_objective_aggregation": "normalize_then_sum"}},
            "there is one reward here; for advantages by part of it set advantage to beta_norm",
        ),
        ({"dynamic_sampling": {"max_tries": 0}}, "greater than or equal to 1"),
        ({"dynamic_sampling": {"tries": 3}}, "Extra inputs are not permitted"),
        ({"curriculum": {"by": []}}, "at least 1 item"),
        ({"teacher": {}}, "Field required"),
    ],
)
def test_what_does_not_go_together_is_told(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RlConfig(**SMALL, **keys)


def test_all_options_can_be_on() -> None:
    config = RlConfig(
        **SMALL,
        advantage="beta_norm",
        dynamic_sampling={"metric": "accuracy"},
        overlong={"cache": 16},
        downsample={"keep": 6, "min_free": 3},
        curriculum={"by": ["depth"]},
        policy_share="annealed",
        policy_share_end=0.25,
        aware_positives_only=True,
        aware_weighting="importance",
        importance={"shaping": "luffy"},
        teacher={"weight": 0.1},
        reliance_every=4,
    )
    assert RlConfig(**config.model_dump(mode="json")) == config


def test_options_that_are_off_leave_a_stages_identity_as_it_was() -> None:
    plain = stage_identity(RlConfig())
    assert not set(plain) & set(RlOptions.model_fields)
    assert stage_identity(RlConfig(teacher={"weight": 0.1}))["teacher"]["kl_clip"] == 1.0
    assert stage_identity(RlConfig(reliance_every=2)) == plain  # it changes no result


@pytest.mark.parametrize("keys", [{"policy_share": "annealed"}, {"aware_when": "all_failed"}])
def test_a_share_that_changes_needs_whole_groups_on_each_device(keys: dict[str, Any]) -> None:
    config = RlConfig(prompts_per_step=1, group_size=8, **keys)
    assert plan_schedule(config, 8, 1).updates == 16
    message = "4 each, not a multiple of group_size 8, which a share of the policy that changes"
    with pytest.raises(UserError, match=message):
        plan_schedule(config, 8, 2)


def test_a_teacher_needs_the_policy_without_aware_rows_too() -> None:
    assert RlConfig(policy_fraction=0.0, teacher={"weight": 1.0}).shows_policy
    assert not RlConfig(policy_fraction=0.0).shows_policy
