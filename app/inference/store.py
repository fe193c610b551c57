"""The model store as a service follows it: what is asked for -> models that are verified and warm.

A model that is asked for by its name alone is the newest version that can be served; one that is
asked for with a version is that one. What cannot be served is refused once and tried again when its
files change, and every minute; until then whatever served before goes on (docs/decisions/016).
"""

from __future__ import annotations

import logging
import time
import weakref
from pathlib import Path

from app import metrics
from app.bundle import Bundle, BundleError, find_versions, load_bundle
from app.imaging.preprocess import PREPROCESSING_VERSION
from app.inference.models import Lineup
from app.inference.pipeline import Pipeline
from app.inference.sessions import DeviceError, GraphError
from app.settings import Settings

_LOG = logging.getLogger("mammoseq")
_KINDS: dict[str, type[Exception]] = {
    "bundle": BundleError,
    "graph": GraphError,
    "device": DeviceError,
    "other": Exception,
}
REASONS = tuple(_KINDS)

_Files = tuple[tuple[str, int, int], ...]  # name, size, time of change

_AGAIN_SECONDS = 60  # the fault may be the machine's: a lack of memory, or of rights to a file


def bundle_to_serve(folder: Path, settings: Settings) -> Bundle:
    """Verify and read a bundle that is to be served: at the start, and whenever one is swapped in.

    Raises ``BundleError``.
    """
    bundle = load_bundle(folder, settings.model_key)
    if bundle.manifest.preprocessing.version != PREPROCESSING_VERSION:
        raise BundleError(
            f"{bundle.folder} needs preprocessing {bundle.manifest.preprocessing.version}, "
            f"this service has {PREPROCESSING_VERSION}"
        )
    return bundle


class Store:
    """Not thread-safe: asked by one thread at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._default = settings.model
        self._loaded: weakref.WeakValueDictionary[Path, Pipeline] = weakref.WeakValueDictionary()
        self._good: dict[Path, _Files] = {}  # the files as they were when they were verified
        self._bad: dict[Path, _Files] = {}
        self._again: dict[Path, float] = {}  # when a bad one is tried again all the same
        self._seen: dict[Path, _Files] = {}  # as they were when they were last seen
        self._seen_before: dict[Path, _Files] = {}  # the same before the look that goes on
        self._absent: set[str] = set()  # what is asked for, of which there is no version any more
        self._in_vain: set[Path] = set()  # what should be served at the latest look, and cannot be

    def start(self) -> Lineup:
        """Load what the settings ask for.

        Raises ``BundleError``, ``GraphError`` or ``DeviceError`` if some of it cannot be served.
        """
        default = self._first(self._default)
        # The only model is asked for by its name from now on, whatever others come
        self._default = self._default or default.bundle.manifest.name
        chosen = self._settings
        return Lineup(
            default,
            tuple(self._first(asked) for asked in chosen.more_models),
            self._first(chosen.canary) if chosen.canary else None,
            self._first(chosen.shadow) if chosen.shadow else None,
        )

    def followed(self, now: Lineup) -> Lineup:
        """Look at the store again: what serves from now on. Raises nothing."""
        chosen = self._settings
        self._in_vain.clear()
        self._seen_before = self._seen.copy()
        lineup = Lineup(
            self._next(self._default, now.default),
            tuple(map(self._next, chosen.more_models, now.others)),
            self._next(chosen.canary, now.canary) if now.canary else None,
            self._next(chosen.shadow, now.shadow) if now.shadow else None,
        )
        metrics.REFUSED_MODELS.set(len(self._in_vain) + len(self._absent))
        return lineup

    def _first(self, asked: str | None) -> Pipeline:
        """The newest that can be served, as if a bad one had come later. Raises the fault of the
        newest if none can."""
        faults: list[tuple[Path, _Files, Exception]] = []
        for folder in find_versions(self._settings.model_store, asked):
            files = self._files(folder)
            try:
                pipeline = self._load(folder, files)
            except (BundleError, GraphError, DeviceError) as fault:
                faults.append((folder, files, fault))
                continue
            for bad in faults:
                self._refuse(*bad)
            metrics.REFUSED_MODELS.set(len(self._in_vain))
            return pipeline
        raise faults[0][2]

    def _next(self, asked: str | None, now: Pipeline) -> Pipeline:
        assert asked is not None
        try:
            versions = find_versions(self._settings.model_store, asked)
        except BundleError as error:  # the store may have gone for a while
            if asked not in self._absent:
                self._absent.add(asked)
                _tell(error)
            return now
        self._absent.discard(asked)
        for folder in versions:
            found = self._tried(folder, now)
            if found is not None:
                return found
        return now

    def _tried(self, folder: Path, now: Pipeline) -> Pipeline | None:
        """The model in ``folder``; ``now`` where it is not known yet whether it can be served, and
        None if it cannot."""
        files = self._files(folder)
        if folder == now.bundle.folder:
            self._check_unchanged(now, files)
            return now
        if self._is_known_bad(folder, files):
            self._in_vain.add(folder)
            return None
        if self._is_changing(folder, files):
            return now
        try:
            return self._load(folder, files)
        except Exception as error:  # also a lack of memory, or what a broken graph leads to
            self._refuse(folder, files, error)
            return None

    def _load(self, folder: Path, files: _Files) -> Pipeline:
        pipeline = self._loaded.get(folder)
        if pipeline is not None and self._good[folder] == files:
            return pipeline
        bundle = bundle_to_serve(folder, self._settings)
        if pipeline is None:
            first = next(iter(self._loaded.values()), None)
            pipeline = Pipeline(bundle, self._settings, first.compute if first else None)
            if pipeline.sessions.device != pipeline.compute.device:
                raise DeviceError(f"{pipeline.model} is not on the device that the others are on")
            self._loaded[folder] = pipeline
        else:  # it was taken out and put in again while a role kept it
            _check_same(pipeline, bundle)
        self._good[folder] = files
        self._bad.pop(folder, None)
        return pipeline

    def _check_unchanged(self, serving: Pipeline, files: _Files) -> None:
        """What is loaded is not read again; but the next start would read it."""
        folder = serving.bundle.folder
        if files == self._good.get(folder):
            self._bad.pop(folder, None)
            return
        if self._is_known_bad(folder, files):
            self._in_vain.add(folder)
            return
        if self._is_changing(folder, files):
            return
        try:
            _check_same(serving, bundle_to_serve(folder, self._settings))
        except BundleError as error:
            self._refuse(folder, files, error)
        else:
            self._good[folder] = files
            self._bad.pop(folder, None)

    def _is_known_bad(self, folder: Path, files: _Files) -> bool:
        return self._bad.get(folder) == files and time.monotonic() < self._again[folder]

    def _is_changing(self, folder: Path, files: _Files) -> bool:
        """Whether the files are not yet as they were at the look before, whatever models of the
        same name have seen at this one: somebody may be writing."""
        self._seen[folder] = files
        return self._seen_before.get(folder) != files

    def _refuse(self, folder: Path, files: _Files, error: Exception) -> None:
        self._again[folder] = time.monotonic() + _AGAIN_SECONDS
        self._in_vain.add(folder)
        if self._bad.get(folder) == files:
            return
        self._bad[folder] = files
        _tell(error)

    def _files(self, folder: Path) -> _Files:
        """What tells that a file of a version was changed, or the one with the keys that sign it;
        nothing where one cannot be read."""
        key = self._settings.model_key
        try:
            paths = [*folder.iterdir(), *([key] if key else [])]
            found = [(str(path), path.stat()) for path in paths]
        except OSError:
            return ()
        return tuple(sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in found))


def _check_same(loaded: Pipeline, bundle: Bundle) -> None:
    if bundle.sha256 != loaded.bundle.sha256:
        raise BundleError(f"{bundle.folder} was changed; a version is never overwritten")


def _tell(error: Exception) -> None:
    reason = next(reason for reason, kind in _KINDS.items() if isinstance(error, kind))
    metrics.MODELS_REFUSED.labels(reason).inc()
    # The message of an error that is not ours may quote anything
    why = type(error).__name__ if reason == "other" else str(error)
    _LOG.error("model_refused", extra={"fields": {"reason": reason, "why": why}})
