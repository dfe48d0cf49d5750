"""From the path in a recipe to a model folder on this machine: package data, folder or hub id."""

import importlib.resources
from pathlib import Path

from trimpi.errors import UserError
from trimpi.recipe import ModelConfig

PACKAGE = "package://"
SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.model")


class Unreachable(UserError):
    """The hub cannot be asked, so that nothing is known about the model."""


def locate(config: ModelConfig, where: str = "model.path", weights: bool = True) -> Path:
    """The folder of a model; a hub model is downloaded (safetensors only) unless it is cached.

    Args:
        config: `path` with local folders already absolute (as `load_recipe` gives them).
        where: key of the recipe for messages.
        weights: False fetches configuration and processor alone, which a dry run needs.

    Raises:
        UserError: no such package data, folder or hub model.
        Unreachable: a hub model that is not cached, and the hub cannot be reached.
    """
    if config.path.startswith(PACKAGE):
        package, _, inner = config.path.removeprefix(PACKAGE).partition("/")
        try:
            folder = Path(str(importlib.resources.files(package))) / inner
        except (ModuleNotFoundError, ValueError, TypeError):  # also of odd spellings
            raise UserError(f"{where}: no package {package!r} in {config.path!r}") from None
        if not folder.is_dir():
            raise UserError(f"{where}: package {package!r} holds no folder {inner!r}")
        return folder
    path = Path(config.path)
    if path.is_absolute():
        if not path.is_dir():
            raise UserError(f"{where}: no model folder {path}; correct the path")
        return path
    return _from_hub(config, where, weights)


def _from_hub(config: ModelConfig, where: str, weights: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = [*SMALL_FILES, "*.safetensors"] if weights else list(SMALL_FILES)
    try:
        return Path(
            snapshot_download(config.path, revision=config.revision, allow_patterns=patterns)
        )
    except (LocalEntryNotFoundError, ConnectionError, TimeoutError):
        raise Unreachable(
            f"{where}: {config.path!r} is no folder here and not in the local cache, "
            "and the hub cannot be reached; check name and network, or give a folder"
        ) from None
    except (HfHubHTTPError, HFValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{where}: {config.path!r} is no folder here and the hub refuses it "
            f"({reason}); correct the name, or log in"
        ) from None
