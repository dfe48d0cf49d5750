"""What `trimpi doctor` looks at: the version matrix and the devices."""

import importlib.metadata
import shutil
from collections.abc import Iterator


def requirement_faults(package: str = "trimpi") -> list[str]:
    """Requirements of the installed package that are missing or of another version, in words."""
    from packaging.requirements import Requirement

    faults = []
    try:
        needs = importlib.metadata.requires(package) or []
    except importlib.metadata.PackageNotFoundError:
        return [
            f"{package} runs from a checkout and is not installed, so the versions that it needs "
            "could not be checked; pip install -e ."
        ]
    for text in needs:
        requirement = Requirement(text)
        extra = requirement.marker is not None and "extra" in str(requirement.marker)
        if requirement.marker is not None and not extra and not requirement.marker.evaluate():
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            if not extra:
                faults.append(
                    f"{requirement.name} is not installed; pip install '{_bare(requirement)}'"
                )
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            faults.append(
                f"{requirement.name} {version} is installed, {requirement.specifier} is needed; "
                f"pip install '{_bare(requirement)}'"
            )
    return faults


def _bare(requirement: object) -> str:
    return str(requirement).partition(";")[0].strip()


def device_lines() -> Iterator[str]:
    """Processors, accelerators with their memory, free disk."""
    import os

    import torch

    yield f"processors: {os.cpu_count()}, torch threads {torch.get_num_threads()}"
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            name = torch.cuda.get_device_name(index)
            yield f"GPU {index}: {name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    else:
        yield "GPU: none; stages run on the processors"
    yield f"disk here: {shutil.disk_usage('.').free / 2**30:.0f} GiB free"
