"""The schema of a recipe: typed, frozen, unknown keys refused. Imports no torch.

A recipe says which model goes through which stages on which data, and what is measured after.
`trimpi.recipe_file.load_recipe` reads one from YAML and reports all problems at once;
`trimpi recipe schema` prints this schema as JSON for editors. Defaults are the paper's numbers
(arXiv 2510.09474, hyperparameter table) wherever it gives one.
"""

import shlex
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from trimpi.graders.config import Grading
from trimpi.prices import PriceConfig
from trimpi.recipe_distill import DistillConfig, OnPolicyDistillConfig
from trimpi.recipe_fields import (
    Count,
    Flag,
    PositiveInt,
    Section,
    Seed,
)
from trimpi.recipe_rules import KINDS, cross_problems
from trimpi.recipe_stages import (
    LORA_PARTS,
    CptConfig,
    InterpolateConfig,
    LoraConfig,
    RlConfig,
    RolloutConfig,
    SftConfig,
    StageConfig,
    SupervisedConfig,
    TrainingConfig,
)
from trimpi.resolve import MODULE_NAME

__all__ = [
    "KINDS",
    "LORA_PARTS",
    "MODULE_NAME",
    "AnyStage",
    "CptConfig",
    "DataConfig",
    "DistillConfig",
    "EfficiencyConfig",
    "EvaluationConfig",
    "InterpolateConfig",
    "LoraConfig",
    "ModelConfig",
    "OnPolicyDistillConfig",
    "Recipe",
    "ReferralConfig",
    "ReportConfig",
    "RetrievalConfig",
    "RlConfig",
    "RolloutConfig",
    "Setting",
    "SftConfig",
    "StageConfig",
    "SupervisedConfig",
    "TrainingConfig",
]
"""The classes of a recipe, those of its stages included."""

Setting = Literal[
    "no_policy",
    "in_context",
    "retrieved",
    "override",
    "recital",
    "efficiency",
    "skills",
    "referral",
]
AnyStage = Annotated[
    CptConfig | SftConfig | DistillConfig | OnPolicyDistillConfig | RlConfig | InterpolateConfig,
    Field(discriminator="kind"),
]
ModuleName = Annotated[str, Field(pattern=MODULE_NAME)]


_NF4_KEYS = ("compute_dtype", "double_quant")


class ModelConfig(Section):
    """Which model to start from and how to load it."""

    path: Annotated[str, Field(min_length=1)]
    """A hub id, a folder (relative to the recipe file), or `package://trimpi/models/tiny-vlm`."""
    revision: str | None = None
    """Hub only: branch, tag or commit."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2"] = "sdpa"
    quantization: Literal["none", "nf4", "int8"] = "none"
    """bitsandbytes quantization of the frozen base under LoRA."""
    compute_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """nf4 only: what its layers multiply in; `auto` is bfloat16, or float16 on a GPU without it."""
    double_quant: Flag = True
    """nf4 only: quantize the scales as well (QLoRA, arXiv 2305.14314, section 3)."""
    trust_remote_code: Literal[False] = False
    """Code from a model folder is never run; the key exists to say so."""
    max_pixels: PositiveInt | None = None
    """Upper bound of an image's area in pixels after resizing; None keeps the processor's own."""
    min_pixels: PositiveInt | None = None

    @model_validator(mode="after")
    def _nf4_keys(self) -> Self:
        given = [
            key for key in _NF4_KEYS if getattr(self, key) != type(self).model_fields[key].default
        ]
        if given and self.quantization != "nf4":
            names = " and ".join(given)
            raise ValueError(f"{names}: only for quantization nf4, which is {self.quantization!r}")
        return self

    @property
    def loading(self) -> dict[str, Any]:
        """How a model is loaded, whichever it is; younger keys only where they are not at their
        defaults, so that older runs go on."""
        settings = self.model_dump(mode="json", exclude={"path", "revision"})
        younger = {key: type(self).model_fields[key].default for key in _NF4_KEYS}
        return {k: v for k, v in settings.items() if k not in younger or v != younger[k]}


class DataConfig(Section):
    """A data set: either built (`builder`, `args`, `seed`) or read from a `folder`."""

    builder: ModuleName | None = None
    """`package.module:function`, called as `build(out, seed=seed, **args)`."""
    args: Mapping[str, Any] = Field(default_factory=dict)
    seed: Seed = 0
    """Seed of the data, kept apart from the training seeds."""
    folder: str | None = None
    """A data folder, relative to the recipe file."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.builder is None) == (self.folder is None):
            raise ValueError("give either 'builder' (with 'args') or 'folder'")
        if self.folder is not None and self.args:
            raise ValueError("'args' belong to a 'builder'; a 'folder' takes none")
        return self


class EfficiencyConfig(Section):
    """How the setting `efficiency` times requests: with the policy, its prefix cached, without."""

    batch_sizes: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 4)
    """Requests answered together."""
    new_tokens: PositiveInt = 16
    """Tokens that each request is answered with, whatever the model would stop at."""
    repeats: PositiveInt = 5

    @field_validator("batch_sizes")
    @classmethod
    def _once_each(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a size appears twice; name each once")
        return value


class RetrievalConfig(Section):
    """What the setting `retrieved` shows of a policy: the sections that share words with the query
    (BM25)."""

    sections: PositiveInt = 3
    """How many sections."""
    keep_head: Flag = True
    """Always show what comes before the first section: title and general instruction."""


class ReferralConfig(Section):
    """Who judges, 0 to 10, how faithfully the reasoning of `no_policy` cites the policy."""

    judge: Annotated[str, Field(pattern=rf"^(exact|endpoint|transformers)$|{MODULE_NAME}")] = (
        "exact"
    )
    """`exact` (rules by id), `endpoint`, `transformers`, or `package.module:function` that makes a
    generator to be asked, or a judge."""
    args: Mapping[str, Any] = Field(default_factory=dict)
    """Arguments of what makes the generator, such as `{model: gpt-4.1-mini}`; no secrets."""
    limit: PositiveInt | None = None
    """Only the first `limit` completions."""
    max_new_tokens: PositiveInt = 512
    """Limit of a model's answer."""
    pictures: Flag = True
    """Show a model the pictures of the policy; false for models that take none."""

    @model_validator(mode="after")
    def _exact_takes_none(self) -> Self:
        if self.judge == "exact" and self.args:
            raise ValueError("the exact judge takes no 'args'; drop them, or name another judge")
        return self


class EvaluationConfig(Section):
    """What is measured on the base model and on the model of every arm."""

    settings: tuple[Setting, ...] = ("no_policy", "in_context", "override", "recital", "efficiency")
    split: str = "test"
    override_split: str = "override"
    limit: PositiveInt | None = None
    """Only the first `limit` rows of a split."""
    max_new_tokens: PositiveInt = 512
    batch_size: PositiveInt = 16
    target: Literal["cot", "answer"] = "cot"
    """The response format that is asked for."""
    targets: Mapping[str, Literal["cot", "answer"]] = Field(default_factory=dict)
    """Exceptions by arm, e.g. `{direct_sft: answer}`: ask each model what it was trained for."""
    skills: DataConfig | None = None
    """Policy-free tasks for the forgetting number; needed by the setting `skills`."""
    retrieval: RetrievalConfig = RetrievalConfig()
    efficiency: EfficiencyConfig = EfficiencyConfig()
    referral: ReferralConfig = ReferralConfig()
    diagnose: ModuleName | None = None
    """`package.module:function` that finds the first error of a chain of thought."""

    @model_validator(mode="after")
    def _skills_given(self) -> Self:
        if "skills" in self.settings and self.skills is None:
            raise ValueError("the setting 'skills' needs the key 'skills' (builder or folder)")
        return self

    @model_validator(mode="after")
    def _completions_to_judge(self) -> Self:
        if "referral" in self.settings and "no_policy" not in self.settings:
            raise ValueError(
                "the setting 'referral' judges the completions of 'no_policy'; add that to"
                " 'settings'"
            )
        return self


class ReportConfig(Section):
    """What the report shows beside the numbers."""

    title: str | None = None
    examples: Count = 6
    """Example cards (picture, reasoning, policy path) of the leading arm's test rows."""
    prices: PriceConfig = PriceConfig()


class Recipe(Section):
    """One experiment: a model folder through stages on a data folder, measured and reported."""

    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
    description: str = ""
    seed: Seed = 0
    seeds: tuple[Seed, ...] | None = None
    """Several training seeds, in place of `seed`."""
    output: str | None = None
    """The run folder, relative to the working directory; None is `runs/<name>`."""
    devices: PositiveInt = 1
    """Accelerators that a stage trains on, one process each; batch sizes stay global."""
    launcher: str | None = None
    """Command prefix that starts a stage's processes; None with several devices is torchrun."""
    model: ModelConfig
    data: DataConfig
    grader: Grading = "trimpi.grading:exact_answer"
    """Reward and metric alike: `package.module:name` of a grader (sample, completion) -> Score or
    of a reward function in TRL's form, or `{type: exact|choice|number|regex|json, ...}`."""
    stages: Mapping[str, AnyStage] = Field(default_factory=dict)
    """Stages by name, in order; `kind` may be left out where the name is a kind."""
    arms: Mapping[str, tuple[str, ...]] | None = None
    """Chains of stages to compare; None is one arm `main` of all stages. `[]` is the base model."""
    replay: DataConfig | None = None
    """General examples that stages with a `replay_ratio` mix in, against forgetting."""
    evaluation: EvaluationConfig = EvaluationConfig()
    report: ReportConfig = ReportConfig()

    @field_validator("launcher")
    @classmethod
    def _launcher(cls, value: str | None) -> str | None:
        try:
            if value is not None and not shlex.split(value):
                raise ValueError("it is empty")
        except ValueError as error:
            raise ValueError(f"{value!r} is no command ({error}); correct or drop it") from None
        return value

    @model_validator(mode="before")
    @classmethod
    def _kind_from_name(cls, data: Any) -> Any:
        stages = data.get("stages") if isinstance(data, Mapping) else None
        if not isinstance(stages, Mapping):
            return data
        named = {
            name: {"kind": name, **stage} if name in KINDS and isinstance(stage, Mapping) else stage
            for name, stage in stages.items()
        }
        return {**data, "stages": named}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if problems := cross_problems(self.model_dump()):
            raise ValueError("\n".join(f"{key}: {fault}" for key, fault in problems))
        return self

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The training seeds."""
        return self.seeds or (self.seed,)

    @property
    def chains(self) -> dict[str, tuple[str, ...]]:
        """Arm -> chain of stage names."""
        if self.arms is None:
            return {"main": tuple(self.stages)}
        return dict(self.arms)

    @property
    def trained(self) -> dict[str, TrainingConfig]:
        """The stages that train, by name."""
        return {n: s for n, s in self.stages.items() if isinstance(s, TrainingConfig)}

    def target_of(self, arm: str) -> Literal["cot", "answer"]:
        """The response format asked of an arm in evaluation."""
        return self.evaluation.targets.get(arm, self.evaluation.target)
