"""Several data sets as one: each part is built by its own builder, or read from a folder.

    parts:
      clevr: {builder: "datasets_builders.clevr.builder:build", args: {...}}
      desk: {folder: data/desk}

A split of the mixture holds the rows of all parts; beside it `<split>_<part>` holds those of one,
so that stages can be trained on a part alone. Ids of rows and policies begin with the part's name.
"""

import importlib
import inspect
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets_builders.base import code_digest, seal, staged, write_policies, write_split
from datasets_builders.coverage import coverage
from datasets_builders.hints import hint
from trimpi.errors import UserError
from trimpi.policy import ImagePart, Part, Policy
from trimpi.sample import DataFolder, Sample

BUILDER = "datasets_builders.mixture:build"
_KEYS = ("builder", "args", "seed", "folder")


def plan(**args: Any) -> dict[str, Any]:
    """Check the parts without building; returns what would be built.

    Raises:
        UserError: every wrong part, one line a fault.
    """
    seed = args.pop("seed", 0)
    parts, problems = _parse(args)
    splits: dict[str, int] = {}
    plans: dict[str, Any] = {}
    for name, part in parts.items():
        try:
            if "folder" in part:
                rows = DataFolder(Path(part["folder"])).card.get("splits", {})
            else:
                planner = getattr(_module(part["builder"]), "plan", None)
                plans[name] = planner(**part["args"], seed=part["seed"]) if planner else {}
                rows = plans[name].get("splits", {})
        except UserError as error:
            problems += [f"parts.{name}: {line}" for line in str(error).splitlines()]
            continue
        for split, count in rows.items():
            splits[split] = splits.get(split, 0) + count
            splits[f"{split}_{name}"] = count
    if problems:
        raise UserError.join(problems)
    return {"builder": BUILDER, "args": args, "seed": seed, "splits": splits}


def build(out: Path, *, seed: int, **args: Any) -> DataFolder:
    """Build the parts and put them together at `out`; `seed` orders the rows of all together.

    Args:
        out: a folder that does not exist yet, or is empty.
        seed: of the order; each part has a seed of its own (`seed` of the part, default 0).
        args: `parts`, see the head of this module.

    Raises:
        UserError: wrong parts, or what a part's builder refuses.
    """
    plan(**args, seed=seed)
    parts, _ = _parse(args)
    identity = {"card": args, "seed": seed, "code": code_digest(__file__)}
    with staged(Path(out), identity) as root:
        policies: dict[str, Policy] = {}
        rows: dict[str, list[Sample]] = {}
        sources: dict[str, Any] = {}
        for name, part in parts.items():
            data = _part(root / ".work" / name, part)
            sources[name] = {"builder": data.card.get("builder"), "digest": data.card["digest"]}
            policies |= {
                _joined(name, id): _moved_policy(root, name, data, policy)
                for id, policy in data.policies.items()
            }
            for split in data.splits:
                own = [_moved(root, name, data, sample) for sample in data.read(split)]
                rows[f"{split}_{name}"] = own
                rows.setdefault(split, []).extend(own)
        for split, samples in rows.items():
            if not _is_view(split, parts):
                random.Random(f"{seed}/{split}").shuffle(samples)
            write_split(root, split, samples)
        write_policies(root, policies)
        shutil.rmtree(root / ".work", ignore_errors=True)
        about = f"A mixture of {', '.join(parts)}; `<split>_<part>` holds the rows of one part."
        views = {split: _whole(split, parts) for split in rows if _is_view(split, parts)}
        extra: dict[str, Any] = {"parts": sources, "views": views}
        if covered := coverage(policies, rows):
            extra["coverage"] = covered
        seal(root, builder=BUILDER, args=args, seed=seed, about=about, extra=extra)
    return DataFolder(Path(out))


def _is_view(split: str, parts: Mapping[str, Any]) -> bool:
    return any(split.endswith(f"_{part}") for part in parts)


def _whole(split: str, parts: Mapping[str, Any]) -> str:
    return next(split.removesuffix(f"_{p}") for p in parts if split.endswith(f"_{p}"))


def _parse(args: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    problems = [f"{k}: unknown argument; {hint(k, ['parts'])}" for k in args if k != "parts"]
    given, parts = args.get("parts"), {}
    if not isinstance(given, Mapping) or not given:
        raise UserError.join([*problems, "parts: must map names to {builder, args} or {folder}"])
    for name, part in given.items():
        key = f"parts.{name}"
        if not isinstance(name, str) or not name.isidentifier():
            problems.append(f"{key}: a name is letters, digits and _, and begins with a letter")
        elif not isinstance(part, Mapping) or ("builder" in part) == ("folder" in part):
            problems.append(f"{key}: give either 'builder' (with 'args') or 'folder'")
        elif unknown := [k for k in part if k not in _KEYS]:
            problems.append(f"{key}.{unknown[0]}: unknown key; {hint(unknown[0], _KEYS)}")
        elif "folder" in part:
            parts[name] = {"folder": part["folder"]}
        else:
            parts[name] = {"args": {}, "seed": 0, **part}
    return parts, problems


def _part(work: Path, part: Mapping[str, Any]) -> DataFolder:
    if "folder" in part:
        return DataFolder(Path(part["folder"]))
    build = _function(part["builder"])
    if (work / "card.json").is_file():  # of an interrupted build of the same arguments
        return DataFolder(work)
    work.parent.mkdir(parents=True, exist_ok=True)
    folder: DataFolder = build(work, seed=part["seed"], **part["args"])
    return folder


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name.partition(":")[0])
    except ImportError as error:
        raise UserError(f"cannot load {name!r} ({error}); name it 'module:build'") from None


def _function(name: str) -> Callable[..., DataFolder]:
    found = getattr(_module(name), name.partition(":")[2], None)
    if not callable(found) or "seed" not in inspect.signature(found).parameters:
        raise UserError(f"{name!r} is no builder; name a function build(out, *, seed, **args)")
    return found  # type: ignore[no-any-return]


def _joined(part: str, id: str) -> str:
    """Policies for overriding keep their folder: `override/x` becomes `override/part-x`."""
    folder, slash, name = id.rpartition("/")
    return f"{folder}{slash}{part}-{name}"


def _copy(root: Path, part: str, data: DataFolder, file: str) -> str:
    relative = Path(file).relative_to(data.root.resolve())
    target = root / relative.parts[0] / part / Path(*relative.parts[1:])
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target.with_name(f".{target.name}.part"))
        target.with_name(f".{target.name}.part").replace(target)
    return str(target)


def _moved_policy(root: Path, part: str, data: DataFolder, policy: Policy) -> Policy:
    moved: list[Part] = [
        ImagePart(_copy(root, part, data, p.path)) if isinstance(p, ImagePart) else p
        for p in policy.parts
    ]
    return replace(policy, parts=tuple(moved))


def _moved(root: Path, part: str, data: DataFolder, sample: Sample) -> Sample:
    return replace(
        sample,
        id=f"{part}-{sample.id}",
        images=tuple(_copy(root, part, data, image) for image in sample.images),
        policy=None if sample.policy is None else _joined(part, sample.policy),
        facts={**sample.facts, "part": part},
    )
