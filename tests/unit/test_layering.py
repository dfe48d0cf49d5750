"""Who may import whom: the seams of the package, checked from the sources and at run time."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

BUILDERS_MAY = {"errors", "lock", "picture_file", "policy", "policy_file", "rules", "sample",
                "prompt", "grading", "graders", "yaml_text"}  # fmt: skip
"""Modules of trimpi that a builder may import (and `trimpi` itself, for its version)."""

LAYERS = {
    0: {"errors"},
    1: {"disk", "lock", "picture_file", "policy", "policy_file", "rules", "sample",
        "sections", "terminal_text", "yaml_text"},
    2: {"config_errors", "graders", "group_layout", "prompt", "grading", "prices",
        "recipe_fields", "recipe_rules", "recipe_stages", "recipe_rl", "recipe_distill",
        "recipe", "recipe_file", "resolve", "retrieval", "runs"},
    3: {"model_source", "model_folder", "processor", "pictures", "picture_features",
        "fingerprints", "batch", "budget", "generate",
        "control_tokens",
        "adapter", "interpolate", "quantization", "shard_merge", "model", "replay", "schedule",
        "trainer_fields", "token_estimate", "memory", "bertscore", "row_draws",
        "shared_attention", "prefix", "group_decoding", "vllm_server", "trackers"},
    4: {"stages", "evaluate", "benchmarks"},
    5: {"ask", "breakeven", "compare", "export", "report", "show", "data_step", "launch",
        "local_generator", "policy_view", "quiet", "seeds", "identities", "pipeline", "eval_suites",
        "vllm_generator", "checks", "plan", "row_checks", "context",
        "findings", "machine_checks", "data_checks", "recipe_estimate",
        "doctor", "data_view", "console", "model_command", "parallel"},
    6: {"cli"},
}  # fmt: skip
"""A module may import from its own layer and those before it."""

LAYER = {name: layer for layer, names in LAYERS.items() for name in names}


def imports(file: Path) -> Iterator[str]:
    """All modules that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            here = file.relative_to(ROOT).parts[: -node.level] if node.level else ()
            base = ".".join([*here, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def sources(package: str) -> list[Path]:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files, f"no sources of {package}"
    return files


def inner(module: str) -> str:
    """`trimpi.stages.rl` -> `stages`."""
    return module.partition(".")[2].partition(".")[0]


@pytest.mark.parametrize("file", sources("datasets_builders"), ids=lambda f: f.name)
def test_builders_import_nouns_alone_and_no_torch(file: Path) -> None:
    for module in imports(file):
        head = module.split(".")[0]
        assert head not in ("torch", "transformers", "trl", "peft"), f"{file} imports {module}"
        if head == "trimpi" and inner(module) in LAYER:
            assert inner(module) in BUILDERS_MAY, f"{file} imports {module}"


SHARED = {"datasets_builders.base", "datasets_builders.base.hash_file",
          "datasets_builders.base.write_text"}  # fmt: skip
"""Of what writes data folders, builders use no more than this."""


def test_builders_make_data_folders_by_the_builder_api_alone() -> None:
    found = {
        f"{file.relative_to(ROOT)}: {module}"
        for file in sources("datasets_builders")
        if file.parent != ROOT / "datasets_builders"
        for module in imports(file)
        if module.startswith(("datasets_builders.base", "datasets_builders.rows"))
        and module not in SHARED
    }
    assert not found


@pytest.mark.parametrize("file", sources("trimpi"), ids=lambda f: f.name)
def test_trimpi_never_imports_builders(file: Path) -> None:
    assert not [module for module in imports(file) if module.startswith("datasets_builders")]


@pytest.mark.parametrize("file", sources("trimpi"), ids=lambda f: f.name)
def test_later_layers_import_earlier_ones(file: Path) -> None:
    parts = file.relative_to(ROOT / "trimpi").with_suffix("").parts
    name = parts[0]
    if name == "__init__":
        assert not [m for m in imports(file) if m.startswith("trimpi")]
        return
    assert name in LAYER, f"{file}: give the module a layer in this test"
    for module in imports(file):
        other = inner(module) if module.startswith("trimpi.") else ""
        if other in LAYER and other != name:
            assert LAYER[other] <= LAYER[name], f"{file} imports {module}, a later layer"
            if {name, other} == {"stages", "evaluate"}:
                raise AssertionError(f"{file}: stages and evaluate do not know each other")


@pytest.mark.parametrize(
    "module",
    [
        "datasets_builders.clevr.builder",
        "datasets_builders.clevr.skills_builder",
        "datasets_builders.document.builder",
        "datasets_builders.gta.builder",
        "datasets_builders.inspect",
        "datasets_builders.check",
        "datasets_builders.endpoint",
        "datasets_builders.gta.grader",
        "datasets_builders.starter.project",
        "trimpi.bertscore",
        "trimpi.local_generator",
        "trimpi.policy_file",
        "trimpi.recipe_file",
        "trimpi.graders",
        "trimpi.grading",
        "trimpi.pipeline",
        "trimpi.ask",
        "trimpi.cli",
        "trimpi.compare",
        "trimpi.eval_suites",
        "trimpi.report",
    ],
)
def test_light_modules_load_no_torch(module: str, run_python: Callable[[str], str]) -> None:
    heavy = "[m for m in ('torch', 'transformers', 'trl') if m in sys.modules]"
    assert run_python(f"import sys, {module}; print({heavy})") == "[]"


def test_every_layer_is_of_this_package() -> None:
    """A name left in the table after its module is gone would check nothing."""
    present = {path.stem for path in (ROOT / "trimpi").iterdir()}
    assert set(LAYER) <= present, f"no such module: {sorted(set(LAYER) - present)}"
