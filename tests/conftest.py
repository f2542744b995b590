"""What holds for all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from moestro.engine.child import SHORT_SPIN


@pytest.fixture(scope="session", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that tests measure or observe is kept in the user's own folder, and engines that they
    start compute beside those of another process of the same suite."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOESTRO_DATA", str(tmp_path_factory.mktemp("data")))
        patch.setenv("GOMP_SPINCOUNT", SHORT_SPIN)
        yield
