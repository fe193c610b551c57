"""The models that are loaded, and which of them a request is for.

Each is a ``Pipeline``; all of them compute on the same threads. Who looks gets the models of that
moment: a request keeps the one that it was given, whatever is swapped in meanwhile, and a model
that was replaced goes with the last request that uses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from app.inference.compute import Compute
from app.inference.pipeline import Pipeline
from app.problems import Refusal

Role = Literal["default", "canary", "shadow", "on_request"]


class Lineup(NamedTuple):
    """Which model does what: the ``default`` answers, the ``canary`` answers a share of requests,
    ``others`` answer those that name them, the ``shadow`` answers none. One may have two roles."""

    default: Pipeline
    others: tuple[Pipeline, ...] = ()
    canary: Pipeline | None = None
    shadow: Pipeline | None = None


class Models:
    """The models of a process, stopped once."""

    def __init__(
        self,
        default: Pipeline,
        others: Sequence[Pipeline] = (),
        canary: Pipeline | None = None,
        shadow: Pipeline | None = None,
    ) -> None:
        self._lineup = Lineup(default, tuple(others), canary, shadow)
        self._compute = default.compute

    @property
    def lineup(self) -> Lineup:
        return self._lineup

    def swap(self, lineup: Lineup) -> None:
        """From now on requests get these; those under way keep theirs."""
        self._lineup = lineup

    @property
    def default(self) -> Pipeline:
        """What answers unless a request names another, or is the canary's."""
        return self._lineup.default

    @property
    def answering(self) -> tuple[Pipeline, ...]:
        """Every model that a request may get, the default first."""
        default, others, canary, _ = self._lineup
        return tuple(dict.fromkeys([default, *others, *([canary] if canary else [])]))

    @property
    def all(self) -> tuple[Pipeline, ...]:
        """Every model that is loaded, the default first."""
        shadow = self._lineup.shadow
        return tuple(dict.fromkeys([*self.answering, *([shadow] if shadow else [])]))

    def roles(self, pipeline: Pipeline) -> list[Role]:
        default, others, canary, shadow = self._lineup
        held: dict[Role, bool] = {
            "default": pipeline is default,
            "canary": pipeline is canary,
            "shadow": pipeline is shadow,
            "on_request": pipeline in others,
        }
        return [role for role, has in held.items() if has]

    def named(self, name: str, version: str | None = None) -> Pipeline:
        """The model of that name and version that answers; without one the first of that name, so
        the default if it has it. Raises ``Refusal`` (``unknown_model``)."""
        answering = self.answering
        for pipeline in answering:
            manifest = pipeline.bundle.manifest
            if manifest.name == name and version in (None, manifest.version):
                return pipeline
        raise Refusal("unknown_model", f"There are: {', '.join(p.model for p in answering)}.")

    @property
    def compute(self) -> Compute:
        """What they compute with."""
        return self._compute

    def stop(self) -> None:
        """Finish what is under way, then end the threads."""
        self._compute.stop()
