"""Data folders built once for the tests of evaluation."""

import pytest

from tests import evaluation_fakes
from trimpi.sample import DataFolder


@pytest.fixture(scope="session")
def clevr(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    """Two ClevrPolicy policies of depth 2, 16 test rows, 12 override rows."""
    return evaluation_fakes.clevr_folder(tmp_path_factory.mktemp("clevr") / "data")


@pytest.fixture(scope="session")
def skills(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    """Two rows of each general skill."""
    return evaluation_fakes.skills_folder(tmp_path_factory.mktemp("skills") / "data")
