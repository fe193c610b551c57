"""Hyperparameter search: the next trial is proposed from what the finished ones found.

Tree-structured Parzen estimators (Bergstra et al., NIPS 2011) by Optuna. Run folder: ``study.db``
(finished trials), ``trial-NNN`` (a fit each), ``trials.csv``, ``best.toml`` (a config for
``fit``), ``metrics.json``, plots, ``report.html``. A stopped search resumes: finished trials are
kept, and what is proposed depends on them and on the seed alone, so a trial that was stopped is
proposed again and its fit goes on.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial
from pydantic import Field, ValidationError, model_validator
from tqdm import tqdm

from app.imaging.preprocess import InputGeometry
from training import breasts, manifest
from training.config import FitConfig, Section
from training.metrics import Estimate
from training.run_folder import open_run, write_metrics
from training.subfits import Backend, FitTable, complete, run_fit
from training.tune_page import HYPERPARAMETERS, NOTE, Trial, write_page, write_table, written


class SpaceConfig(Section):
    """What is searched: from and to, both included. What is left out keeps the value of ``fit``.
    ``learning_rate``, ``images_per_batch`` and ``lstm_units`` are drawn on a logarithmic scale;
    ``blocks`` is the depth of the ``paper`` encoder, ``lstm_layers`` that of the LSTM."""

    learning_rate: tuple[float, float] | None = None
    images_per_batch: tuple[int, int] | None = None
    blocks: tuple[int, int] | None = None
    lstm_layers: tuple[int, int] | None = None
    lstm_units: tuple[int, int] | None = None
    dropout: tuple[float, float] | None = None

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """The ranges that were given, by hyperparameter."""
        given = {name: getattr(self, name) for name in HYPERPARAMETERS}
        return {name: ends for name, ends in given.items() if ends is not None}


class TuneConfig(Section):
    """``fit``: the tables of the fit config that every trial starts from. The first
    ``random_trials`` are drawn at random, the others proposed."""

    run: Path
    backend: Backend | None = None
    trials: int = Field(12, ge=2)
    random_trials: int = Field(5, ge=1)
    seed: int = 20261122
    space: SpaceConfig
    fit: FitTable

    @model_validator(mode="after")
    def _space_can_be_searched(self) -> TuneConfig:
        ranges = self.space.ranges
        faults = [] if ranges else ["space: nothing to search"]
        for name, (low, high) in ranges.items():
            if low > high:
                faults.append(f"space: {name} is from {low} to {high}")
            for value in (low, high):
                faults += _faults_of(self, {name: value})
        if "blocks" in ranges and self.fit.model.encoder != "paper":
            faults.append("space: blocks is a hyperparameter of the paper encoder")
        if {"lstm_layers", "lstm_units"} & ranges.keys() and (
            self.fit.model.architecture == "cnn_only"
        ):
            faults.append("space: cnn_only has no LSTM")
        if faults:
            raise ValueError("; ".join(faults))
        return self


def tune(config: TuneConfig) -> Path:
    """Run the trials that are still to be run, and report. Returns the run folder."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    _check_data(config.fit)
    open_run(config.run, config)
    study = optuna.create_study(
        storage=f"sqlite:///{config.run / 'study.db'}",
        study_name="tune",
        direction="maximize",
        load_if_exists=True,
    )
    space = _distributions(config.space)
    done = len(study.trials)
    with tqdm(total=config.trials, initial=done, desc="tune", unit="trial") as bar:
        for number in range(done, config.trials):
            values = _propose(config, space, study.trials)
            print(f"trial {number}: {written(values)}", flush=True)
            run = run_fit(_trial_config(config, number, values))
            study.add_trial(_finished(run, values, space))
            bar.update()
    _report(config, study)
    return config.run


def _faults_of(config: TuneConfig, values: Mapping[str, Any]) -> list[str]:
    """What a fit would refuse in one end of a range."""
    try:
        _trial_config(config, 0, values)
    except ValidationError as error:
        return [f"space: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
    return []


def _check_data(table: FitTable) -> None:
    """Raise ``ManifestError`` before a search is started on data that no fit takes."""
    size = InputGeometry(table.model.height, table.model.width)
    manifest.read_checked(
        table.data.manifest,
        table.data.image_root,
        classes=table.data.classes,
        positive_class=table.data.positive_class,
        is_known=lambda images: breasts.is_cached(images, size, table.cache),
    )


def _distributions(space: SpaceConfig) -> dict[str, BaseDistribution]:
    found: dict[str, BaseDistribution] = {}
    for name, (low, high) in space.ranges.items():
        log = HYPERPARAMETERS[name].log
        if isinstance(low, int) and isinstance(high, int):
            found[name] = IntDistribution(low, high, log=log)
        else:
            found[name] = FloatDistribution(low, high, log=log)
    return found


def _propose(
    config: TuneConfig, space: dict[str, BaseDistribution], finished: Sequence[FrozenTrial]
) -> dict[str, Any]:
    """The next trial's hyperparameters, from the finished trials and the seed alone: a sampler
    that lived on between trials would not be where it was once a search is resumed."""
    sampler = optuna.samplers.TPESampler(
        seed=config.seed + len(finished), n_startup_trials=config.random_trials
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials(finished)
    return study.ask(space).params


def _trial_config(
    config: TuneConfig, number: int, values: Mapping[str, Any], run: Path | None = None
) -> FitConfig:
    changes: dict[str, dict[str, Any]] = {"model": {}, "optimiser": {}}
    for name, value in values.items():
        changes[HYPERPARAMETERS[name].table][name] = value
    return complete(config.fit, run or config.run / f"trial-{number:03d}", config.backend, changes)


def _finished(run: Path, values: dict[str, Any], space: dict[str, BaseDistribution]) -> FrozenTrial:
    """A finished fit as a trial of the study."""
    auc = json.loads((run / "metrics.json").read_text())["auc_per_breast"]
    with (run / "history.csv").open(newline="") as file:
        epochs = [float(row["val_auc_breast"]) for row in csv.DictReader(file)]
    return optuna.create_trial(
        params=values,
        distributions=space,
        value=auc["value"],
        user_attrs={
            "low": auc["low"],
            "high": auc["high"],
            "best_epoch": epochs.index(max(epochs)) + 1,
            "epochs": len(epochs),
        },
    )


def _report(config: TuneConfig, study: optuna.Study) -> None:
    trials = [
        Trial(
            number=trial.number,
            values={name: trial.params[name] for name in config.space.ranges},
            auc=Estimate(trial.values[0], trial.user_attrs["low"], trial.user_attrs["high"]),
            best_epoch=trial.user_attrs["best_epoch"],
            epochs=trial.user_attrs["epochs"],
        )
        for trial in study.trials
    ]
    best = max(trials, key=lambda trial: trial.auc.value)
    importance = _importance(study, config.seed)
    chosen = _trial_config(config, best.number, best.values, config.run / "best")
    (config.run / "best.toml").write_text(
        f"# Trial {best.number} of {len(trials)}; its figure is optimistic, see report.html\n"
        + as_toml(chosen)
    )
    found = {
        "note": NOTE,
        "best_trial": best.number,
        "best": best.values,
        "auc_per_breast": asdict(best.auc),
        "importance": importance,
        "trials": [asdict(trial) for trial in trials],
    }
    write_metrics(config.run, found)
    write_table(config.run / "trials.csv", trials)
    write_page(config.run, trials, importance)


def _importance(study: optuna.Study, seed: int) -> dict[str, float]:
    """The share of the variance among trials that each hyperparameter explains (fANOVA: Hutter
    et al., ICML 2014); empty where all trials ended alike."""
    if len({trial.value for trial in study.trials}) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
    return optuna.importance.get_param_importances(study, evaluator=evaluator)


def as_toml(config: FitConfig) -> str:
    """A fit config as a TOML file that ``fit`` reads: what was stated, without the defaults."""
    values = config.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    tables = {name: value for name, value in values.items() if isinstance(value, dict)}
    # JSON's strings, numbers and lists are TOML's too
    lines = [
        f"{k} = {json.dumps(v, ensure_ascii=False)}" for k, v in values.items() if k not in tables
    ]
    for name, table in tables.items():
        lines += [
            "",
            f"[{name}]",
            *(f"{k} = {json.dumps(v, ensure_ascii=False)}" for k, v in table.items()),
        ]
    return "\n".join(lines) + "\n"
