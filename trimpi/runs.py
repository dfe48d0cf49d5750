"""The run folder: what is written where, and how a finished step is told from a broken one.

    RUN/recipe.yaml  run.json  data/  skills/  replay/
    RUN/seed-S/<stage1>+<stage2>/    a stage folder: model/, checkpoints/, metrics.jsonl, stage.json
    RUN/seed-S/eval/<chain|base>/<setting>/
    RUN/report/

A marker (`stage.json`, `done.json`) is written last and holds the digest of everything that the
step depends on, so a step counts as done only for the very same content.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trimpi import __version__
from trimpi.errors import UserError

PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "safetensors",
    "pillow",
    "numpy",
    "bitsandbytes",
    "vllm",
)
STARTED, STAGE, METRICS = "started.json", "stage.json", "metrics.jsonl"


def write_json(file: Path, content: Any) -> None:
    """Write JSON under a temporary name and rename it, so that it is whole or absent."""
    write_text(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def write_text(file: Path, text: str) -> None:
    """Write text under a temporary name and rename it; what a full disk cut off is removed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(file)
    except OSError as error:
        error.filename = str(file)  # a write that fails names none
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def read_json(file: Path) -> Any | None:
    """The content of a JSON file; None when it is absent or not whole."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def digest(content: Any) -> str:
    """SHA-256 over the canonical JSON of `content`."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def model_digest(folder: Path) -> str:
    """SHA-256 over names and bytes of the files that make a model folder behave as it does.

    Lineage and model card are left out: the same weights reached twice are the same model.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such model folder; check the path")
    sha = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if not file.is_file() or name.startswith(".") or name in ("lineage.json", "README.md"):
            continue
        with file.open("rb") as stream:
            sha.update(f"{name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return sha.hexdigest()


def data_digest(folder: Path, card: Mapping[str, Any]) -> str:
    """What identifies a data folder: its card, and its splits and policies as they are now.

    Pictures go in by their hashes in the card; `trimpi data check` reads them again.
    """
    files = sorted([*folder.glob("*.jsonl"), *(folder / "policies").rglob("*.json")])
    hashes = {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }
    return digest([dict(card), hashes])


def versions() -> dict[str, str | None]:
    """Versions of what a result depends on; None for what is not installed."""
    found: dict[str, str | None] = {
        "trimpi": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git": _git_state(Path(__file__).resolve().parent),
    }
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def _git_state(folder: Path) -> str | None:
    """Commit of the checkout that holds `folder`, `+` when it has changes; None outside of one."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        top = Path(_git(folder, "rev-parse", "--show-toplevel"))
        if not (top / "trimpi").is_dir():
            return None  # installed inside somebody else's repository
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changed else "")


def _git(folder: Path, *command: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *command], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()


def chain_name(chain: Iterable[str]) -> str:
    """Folder name of a chain of stages, `base` for none."""
    return "+".join(chain) or "base"


def stage_folder(run: Path, seed: int, chain: Iterable[str]) -> Path:
    """Folder of the last stage of `chain`."""
    return run / f"seed-{seed}" / chain_name(chain)


def eval_folder(run: Path, seed: int, chain: Iterable[str]) -> Path:
    """Folder of the evaluation of the model at the end of `chain`."""
    return run / f"seed-{seed}" / "eval" / chain_name(chain)


def begin(folder: Path, identity: Mapping[str, Any], overwrite: bool = False) -> bool:
    """Open a step's folder for work of this identity.

    A folder begun with the same identity is kept, so that the step resumes; one begun with
    another is refused, since its checkpoints would be continued under other settings.

    Args:
        folder: stage or evaluation folder.
        identity: everything that the result depends on, as JSON.
        overwrite: set a folder of another identity aside (`<name>.old-<n>`) instead of refusing.

    Returns:
        True when the step is done already: its marker names this very identity.

    Raises:
        UserError: the folder holds work of another identity, naming what differs.
    """
    before = read_json(folder / STARTED)
    # Hidden files are those of a write that was cut off.
    begun = folder.is_dir() and any(not f.name.startswith(".") for f in folder.iterdir())
    if begun and before != identity:
        if not overwrite:
            raise UserError(
                f"{folder}: made with other settings ({differences(before, identity)}); choose "
                "another --output, or redo it with --overwrite (the old folder is kept aside)"
            )
        set_aside(folder)
    write_json(folder / STARTED, identity)
    return _is_done(folder, identity)


def set_aside(folder: Path) -> Path:
    """Rename a folder to `<name>.old-<n>`, the first `n` that is free; returns the new name."""
    number = 1
    while (aside := folder.with_name(f"{folder.name}.old-{number}")).exists():
        number += 1
    folder.rename(aside)
    return aside


def finish(folder: Path, identity: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Mark a step as done; written last."""
    write_json(folder / "done.json", {"identity": digest(identity), **result})


def _is_done(folder: Path, identity: Mapping[str, Any]) -> bool:
    done = read_json(folder / "done.json")
    return isinstance(done, dict) and done.get("identity") == digest(identity)


def differences(before: Any, after: Any, key: str = "") -> str:
    """The first few places where two JSON contents differ, as `key: old -> new`."""
    found = list(_differences(before, after, key))
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return ", ".join(found[:3]) + more


def _differences(before: Any, after: Any, key: str) -> Iterable[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for name in [*before, *(n for n in after if n not in before)]:
            here = f"{key}.{name}" if key else name
            yield from _differences(before.get(name), after.get(name), here)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _differences(old, new, f"{key}.{index}")
    elif before != after:
        old, new = str(before), str(after)
        pairs = enumerate(zip(old, new, strict=False))
        shared = next((place for place, (a, b) in pairs if a != b), min(len(old), len(new)))
        yield f"{key or 'content'}: {_cut(old, shared)} -> {_cut(new, shared)}"


def _cut(text: str, shared: int) -> str:
    """A long text around the place where it begins to differ from the other."""
    if len(text) < 30:
        return text
    start = shared - 8 if shared > 12 else 0
    end = start + (28 if start else 12)
    return ("..." if start else "") + text[start:end] + ("..." if end < len(text) else "")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The logged steps of a stage folder; a last line cut off by a kill is left out."""
    file = folder / METRICS
    rows = []
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            if number < len(lines):
                raise UserError(f"{file}:{number}: not JSON; restore or remove the line") from None
    return rows
