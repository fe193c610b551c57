"""The store as it is followed: what serves when versions come, change and go."""

from __future__ import annotations

import errno
import gc
import shutil
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app import metrics
from app.bundle import (
    ENCODER,
    GATE,
    MANIFEST,
    MANIFEST_HASH,
    MODEL_CARD,
    Bundle,
    BundleError,
    new_version,
    seal,
)
from app.inference.familiarity import gate_bytes
from app.inference.models import Lineup
from app.inference.sessions import GraphError
from app.inference.store import REASONS, Store
from app.settings import Settings
from export.sign import sign
from tests.stores import mend, put_corrupt_version, put_version
from tests.test_signature import new_pair


@contextmanager
def following(store: Path, bundle: Bundle, **settings: Any) -> Iterator[tuple[Store, Lineup]]:
    """A store that was started, with what serves."""
    chosen = {"model": bundle.manifest.name, "workers": 1} | settings
    followed = Store(Settings(model_store=store, **chosen))
    lineup = followed.start()
    try:
        yield followed, lineup
    finally:
        lineup.default.compute.stop()


def after(looks: int, store: Store, lineup: Lineup) -> Lineup:
    for _ in range(looks):
        lineup = store.followed(lineup)
    return lineup


def refused_now() -> float:
    value: float = metrics.REFUSED_MODELS._value.get()
    return value


def version(lineup: Lineup) -> str:
    return lineup.default.bundle.manifest.version


@contextmanager
def refusing(**expected: int) -> Iterator[None]:
    """So many versions are refused meanwhile, for these reasons and no others."""

    def told() -> dict[str, float]:
        return {reason: metrics.MODELS_REFUSED.labels(reason)._value.get() for reason in REASONS}

    before = told()
    yield
    assert {r: n - before[r] for r, n in told().items() if n != before[r]} == expected


# the start


def test_newest_version_is_served_and_a_pinned_one_where_it_is_named(
    bundle: Bundle, tmp_path: Path
) -> None:
    for made in ("1.9.0", "1.10.0"):
        put_version(bundle, tmp_path, made)
    with following(tmp_path, bundle, model=None) as (_, lineup):
        assert version(lineup) == "1.10.0"
    with following(tmp_path, bundle, model=f"{bundle.manifest.name}/1.9.0") as (_, lineup):
        assert version(lineup) == "1.9.0"


def test_start_takes_an_older_version_for_a_bad_one_and_counts_it(
    bundle: Bundle, tmp_path: Path
) -> None:
    put_version(bundle, tmp_path, "1.0.0")
    put_corrupt_version(bundle, tmp_path, "1.1.0")
    with refusing(bundle=1), following(tmp_path, bundle) as (store, lineup):
        assert version(lineup) == "1.0.0"
        assert version(after(3, store, lineup)) == "1.0.0"
    assert refused_now() == 1


def test_start_is_refused_where_nothing_or_a_pinned_version_cannot_be_served(
    bundle: Bundle, tmp_path: Path
) -> None:
    put_version(bundle, tmp_path, "1.0.0")
    put_corrupt_version(bundle, tmp_path, "1.1.0")
    name = bundle.manifest.name
    for settings in (
        {"model": f"{name}/1.1.0"},
        {"model": f"{name}/1.2.0"},
        {"canary": f"{name}/1.1.0"},
        {"shadow": "other"},
        {"more_models": "../elsewhere"},
    ):
        with pytest.raises(BundleError), following(tmp_path, bundle, **settings):
            pass
    shutil.rmtree(tmp_path / name / "1.0.0")
    with pytest.raises(BundleError, match=ENCODER), following(tmp_path, bundle):
        pass


def test_version_with_several_roles_is_loaded_once(bundle: Bundle, tmp_path: Path) -> None:
    put_version(bundle, tmp_path, "1.0.0")
    put_version(bundle, tmp_path, "1.1.0")
    name = bundle.manifest.name
    with following(
        tmp_path, bundle, canary=f"{name}/1.1.0", more_models=f"{name}/1.0.0, {name}"
    ) as (_, lineup):
        assert lineup.canary is lineup.default
        assert lineup.others[1] is lineup.default
        assert lineup.others[0].compute is lineup.default.compute


# a new version


def test_new_version_is_taken_once_its_files_rest(bundle: Bundle, tmp_path: Path) -> None:
    put_version(bundle, tmp_path, "1.0.0")
    with following(tmp_path, bundle) as (store, lineup), refusing():
        assert after(3, store, lineup) == lineup
        put_version(bundle, tmp_path, "1.1.0")
        assert after(1, store, lineup) == lineup
        now = after(1, store, lineup)
        assert version(now) == "1.1.0"
        assert now.default.compute is lineup.default.compute


def test_pinned_version_stays(bundle: Bundle, tmp_path: Path) -> None:
    put_version(bundle, tmp_path, "1.0.0")
    name = bundle.manifest.name
    with following(tmp_path, bundle, model=f"{name}/1.0.0", shadow=name) as (store, lineup):
        put_version(bundle, tmp_path, "1.1.0")
        now = after(3, store, lineup)
        assert version(now) == "1.0.0"
        assert now.shadow is not None
        assert now.shadow.model == f"{name}/1.1.0"


def test_another_model_does_not_disturb_the_only_one(bundle: Bundle, tmp_path: Path) -> None:
    put_version(bundle, tmp_path, "1.0.0")
    with following(tmp_path, bundle, model=None) as (store, lineup), refusing():
        (tmp_path / "another" / "9.0.0").mkdir(parents=True)
        assert after(3, store, lineup) == lineup


@pytest.mark.parametrize("role", ["canary", "shadow", None])
def test_version_that_is_copied_in_file_by_file_is_waited_for(
    bundle: Bundle, tmp_path: Path, role: str | None
) -> None:
    """Also where it is asked for twice, and so looked at twice in a row."""
    put_version(bundle, tmp_path, "1.0.0")
    made = put_version(bundle, tmp_path / "elsewhere", "1.1.0")
    target = tmp_path / bundle.manifest.name / "1.1.0"
    roles = {role: bundle.manifest.name} if role else {}
    with following(tmp_path, bundle, **roles) as (store, lineup), refusing():
        target.mkdir()
        for part in sorted(made.iterdir()):
            assert after(1, store, lineup) == lineup
            shutil.copy(part, target)
        assert version(after(2, store, lineup)) == "1.1.0"


def test_version_that_is_taken_away_gives_way_to_the_one_before(
    bundle: Bundle, tmp_path: Path
) -> None:
    put_version(bundle, tmp_path, "1.0.0")
    newest = put_version(bundle, tmp_path, "1.1.0")
    with following(tmp_path, bundle) as (store, lineup):
        shutil.rmtree(newest)
        assert version(after(2, store, lineup)) == "1.0.0"


def test_model_that_was_replaced_goes(bundle: Bundle, tmp_path: Path) -> None:
    put_version(bundle, tmp_path, "1.0.0")
    with following(tmp_path, bundle) as (store, lineup):
        old, compute = weakref.ref(lineup.default), lineup.default.compute
        put_version(bundle, tmp_path, "1.1.0")
        lineup = after(2, store, lineup)
        assert lineup.default.compute is compute
        gc.collect()
        assert old() is not None  # `following` has it
    gc.collect()
    assert old() is None


# a bad version


def test_corrupt_version_is_refused_once_and_taken_when_it_is_mended(
    bundle: Bundle, tmp_path: Path
) -> None:
    put_version(bundle, tmp_path, "1.0.0")
    with following(tmp_path, bundle) as (store, lineup):
        with refusing(bundle=1):
            bad = put_corrupt_version(bundle, tmp_path, "1.1.0")
            assert after(5, store, lineup) == lineup
        assert refused_now() == 1
        mend(bad)
        assert version(after(2, store, lineup)) == "1.1.0"
        assert refused_now() == 0


def test_bad_version_is_of_no_concern_once_a_newer_one_serves(
    bundle: Bundle, tmp_path: Path
) -> None:
    put_version(bundle, tmp_path, "1.0.0")
    with following(tmp_path, bundle) as (store, lineup):
        put_corrupt_version(bundle, tmp_path, "1.1.0")
        assert after(3, store, lineup) == lineup
        assert refused_now() == 1
        put_version(bundle, tmp_path, "1.2.0")
        assert version(after(3, store, lineup)) == "1.2.0"
        assert refused_now() == 0


def test_version_that_the_machine_could_not_load_is_tried_again(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lack of memory, which passes; it is told once."""
    put_version(bundle, tmp_path, "1.0.0")
    with following(tmp_path, bundle) as (store, lineup), refusing(other=1):
        put_version(bundle, tmp_path, "1.1.0")
        with monkeypatch.context() as lacking:
            lacking.setattr("app.inference.store._AGAIN_SECONDS", 0)

            def fails(*_: object) -> None:
                raise MemoryError

            lacking.setattr("app.inference.store.Pipeline", fails)
            assert after(4, store, lineup) == lineup
        assert version(after(1, store, lineup)) == "1.1.0"


def test_version_that_could_not_be_read_is_tried_again(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For lack of rights, say: that they were given does not change the time of a file."""
    monkeypatch.setattr("app.inference.store._AGAIN_SECONDS", 0)
    read = Path.read_bytes

    def unreadable(path: Path) -> bytes:
        if path.name == ENCODER:
            raise PermissionError(errno.EACCES, "Permission denied")
        return read(path)

    put_version(bundle, tmp_path, "1.0.0")
    with following(tmp_path, bundle) as (store, lineup), refusing(bundle=2):
        put_version(bundle, tmp_path, "1.1.0")
        with monkeypatch.context() as lacking:
            lacking.setattr(Path, "read_bytes", unreadable)
            assert after(4, store, lineup) == lineup
        lineup = after(1, store, lineup)
        assert version(lineup) == "1.1.0"
        # what serves is watched in the same way
        (lineup.default.bundle.folder / MODEL_CARD).touch()
        with monkeypatch.context() as lacking:
            lacking.setattr(Path, "read_bytes", unreadable)
            after(4, store, lineup)
            assert refused_now() == 1
        after(1, store, lineup)
        assert refused_now() == 0


def test_version_that_nobody_signed_is_refused_until_it_is_signed(
    bundle: Bundle, tmp_path: Path
) -> None:
    ours, other = new_pair(tmp_path / "ours"), new_pair(tmp_path / "other")
    store_folder = tmp_path / "store"
    sign(put_version(bundle, store_folder, "1.0.0"), ours.private)
    with following(store_folder, bundle, model_key=ours.public) as (store, lineup):
        with refusing(bundle=1):
            newer = put_version(bundle, store_folder, "1.1.0")
            assert after(3, store, lineup) == lineup
        sign(newer, ours.private)
        lineup = after(2, store, lineup)
        assert version(lineup) == "1.1.0"
        # its key is taken out of the list: the next start would refuse it
        shutil.copy(other.public, ours.public)
        with refusing(bundle=1):
            assert after(3, store, lineup) == lineup


def test_version_that_stays_half_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    put_version(bundle, tmp_path, "1.0.0")
    with following(tmp_path, bundle) as (store, lineup), refusing(bundle=1):
        (put_version(bundle, tmp_path, "1.1.0") / MODEL_CARD).unlink()
        assert after(5, store, lineup) == lineup


def test_good_version_below_a_bad_one_is_taken(bundle: Bundle, tmp_path: Path) -> None:
    put_version(bundle, tmp_path, "1.0.0")
    with following(tmp_path, bundle) as (store, lineup), refusing(bundle=1):
        put_corrupt_version(bundle, tmp_path, "1.2.0")
        put_version(bundle, tmp_path, "1.1.0")
        assert version(after(4, store, lineup)) == "1.1.0"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"classes": ["benign", "malignant", "other"], "positive_class": "malignant"}, "graph"),
        ({"heatmap": {"rows": 3, "columns": 3, "method": "none"}}, "graph"),
        ({"input": {"height": 256, "width": 160}}, "graph"),
        ({"preprocessing": {"version": "0", "description": "older"}}, "bundle"),
    ],
)
def test_version_that_could_not_answer_is_refused(
    bundle: Bundle, tmp_path: Path, changed: dict[str, Any], reason: str
) -> None:
    put_version(bundle, tmp_path, "1.0.0")
    with following(tmp_path, bundle) as (store, lineup), refusing(**{reason: 1}):
        put_version(bundle, tmp_path, "1.1.0", **changed)
        assert after(3, store, lineup) == lineup


def test_version_whose_gate_is_of_another_encoder_is_refused(
    bundle: Bundle, tmp_path: Path
) -> None:
    put_version(bundle, tmp_path, "1.0.0")
    with np.load(bundle.folder / GATE) as stored:
        mean, scale, basis = (stored[name][:-1] for name in ("mean", "scale", "basis"))
    with following(tmp_path, bundle) as (store, lineup), refusing(graph=1):
        with new_version(tmp_path / bundle.manifest.name / "1.1.0") as folder:
            sealed = shutil.ignore_patterns(MANIFEST, MANIFEST_HASH)
            shutil.copytree(bundle.folder, folder, ignore=sealed, dirs_exist_ok=True)
            (folder / GATE).write_bytes(gate_bytes(mean, scale, basis))
            seal(folder, bundle.manifest.model_dump(exclude={"files"}) | {"version": "1.1.0"})
        assert after(3, store, lineup) == lineup


def test_start_with_a_version_that_could_not_answer_is_refused(
    bundle: Bundle, tmp_path: Path
) -> None:
    put_version(bundle, tmp_path, "1.0.0", heatmap={"rows": 3, "columns": 3, "method": "none"})
    with pytest.raises(GraphError, match=MANIFEST), following(tmp_path, bundle):
        pass


def test_version_in_service_that_is_spoiled_goes_on_and_is_told(
    bundle: Bundle, tmp_path: Path
) -> None:
    folder = put_version(bundle, tmp_path, "1.0.0")
    with following(tmp_path, bundle) as (store, lineup):
        encoder = folder / ENCODER
        whole = encoder.read_bytes()
        with refusing(bundle=1):
            encoder.write_bytes(whole[:-1])
            assert after(5, store, lineup) == lineup
        assert refused_now() == 1
        with refusing():
            encoder.write_bytes(whole)
            assert after(5, store, lineup) == lineup
        assert refused_now() == 0
        with refusing(bundle=1):
            shutil.rmtree(folder)
            put_version(bundle, tmp_path, "1.0.0", temperature=7.0)
            assert after(5, store, lineup) == lineup


def test_version_that_serves_in_one_role_comes_to_another_only_as_it_is(
    bundle: Bundle, tmp_path: Path
) -> None:
    """It was taken out, whereupon who wants the newest left it, and who named it kept it."""
    put_version(bundle, tmp_path, "1.0.0")
    folder = put_version(bundle, tmp_path, "1.1.0")
    name = bundle.manifest.name
    with following(tmp_path, bundle, more_models=f"{name}/1.1.0") as (store, lineup):
        both = lineup
        for changed in ({}, {"temperature": 7.0}):
            shutil.rmtree(folder)
            lineup = after(2, store, lineup)
            assert version(lineup) == "1.0.0"
            assert lineup.others == both.others
            put_version(bundle, tmp_path, "1.1.0", **changed)
            with refusing(**({"bundle": 1} if changed else {})):
                lineup = after(3, store, lineup)
            assert lineup == (both if not changed else both._replace(default=lineup.default))
        assert version(lineup) == "1.0.0"
        assert refused_now() == 1


def test_store_that_goes_for_a_while_changes_nothing_and_is_told_once(
    bundle: Bundle, tmp_path: Path
) -> None:
    store_folder = tmp_path / "store"
    put_version(bundle, store_folder, "1.0.0")
    with following(store_folder, bundle) as (store, lineup):
        with refusing(bundle=1):
            store_folder.rename(tmp_path / "away")
            assert after(5, store, lineup) == lineup
        assert refused_now() == 1
        (tmp_path / "away").rename(store_folder)
        with refusing():
            assert after(5, store, lineup) == lineup
        assert refused_now() == 0
