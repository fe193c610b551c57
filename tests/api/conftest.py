"""What several tests of the interface share: an OpenID provider."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.provider import Provider, running_provider


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    with running_provider(tmp_path_factory.mktemp("provider")) as provider:
        yield provider
