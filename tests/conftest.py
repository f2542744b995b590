"""Nothing that tests measure or observe is kept in the user's own folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_data_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOESTRO_DATA", str(tmp_path_factory.mktemp("data")))
        yield
