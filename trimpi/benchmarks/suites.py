"""Suites by name, and what `--suite NAME[=SOURCE]` says."""

from pathlib import Path

from trimpi.benchmarks import mmlu_pro, mmmu_pro, wildguard
from trimpi.benchmarks.items import Suite
from trimpi.benchmarks.source import Source
from trimpi.errors import UserError, did_you_mean

SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        mmlu_pro.SUITE,
        mmmu_pro.STANDARD_10,
        mmmu_pro.STANDARD_4,
        mmmu_pro.VISION,
        wildguard.HARM,
        wildguard.REFUSAL,
        wildguard.ANSWERS,
    )
}


def parse_suites(given: list[str]) -> list[tuple[Suite, Source]]:
    """Suites with their sources; without a source, the official data set of the hub.

    Raises:
        UserError: an unknown suite, one given twice, or an empty source.
    """
    found: list[tuple[Suite, Source]] = []
    problems = []
    for text in given:
        name, sign, source = text.partition("=")
        suite = SUITES.get(name)
        if suite is None:
            problems.append(f"--suite {name}: unknown suite; {did_you_mean(name, SUITES)}")
        elif any(suite is other for other, _ in found):
            problems.append(f"--suite {name}: given twice; give it once")
        elif sign and not source.strip():
            problems.append(f"--suite {name}=: no source; give a hub id, file or folder")
        else:
            local = source and Path(source).expanduser().exists()
            where = str(Path(source).expanduser().absolute()) if local else source
            found.append((suite, Source(where or suite.hub, suite.config)))
    if problems:
        raise UserError.join(problems)
    return found
