"""What the tests share: the bundle that is shipped, a real running service, an OpenID provider."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.bundle import Bundle, find_bundle, load_bundle
from tests.provider import Provider, running_provider
from tests.serving import Service, serving

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def bundle_folder() -> Path:
    return newest_bundle()


def newest_bundle() -> Path:
    """The newest shipped bundle; ``MAMMOSEQ_MODEL_STORE`` puts another store in its place."""
    store = Path(os.environ.get("MAMMOSEQ_MODEL_STORE", REPOSITORY / "model_store"))
    return find_bundle(store.resolve(), os.environ.get("MAMMOSEQ_MODEL"))


@pytest.fixture(scope="session")
def bundle(bundle_folder: Path) -> Bundle:
    return load_bundle(bundle_folder)


@pytest.fixture(scope="session")
def server(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service with its default settings, shared by all tests that only ask it things."""
    with serving(bundle_folder, tmp_path_factory.mktemp("server")) as service:
        yield service


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    with running_provider(tmp_path_factory.mktemp("provider")) as provider:
        yield provider


@pytest.fixture(scope="module")
def service_with_provider(
    provider: Provider, bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """The service where one logs in at ``provider``."""
    folder = tmp_path_factory.mktemp("service")
    with serving(bundle_folder, folder, **provider.settings()) as service:
        yield service
