"""The trials of a search: an Optuna study in a journal file that several processes share and a later search resumes."""

from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from podium.errors import ConfigError
from podium.seeding import stream_seed

# What Podium writes beside each trial.
OWN, REASON, SCORE, LOG_LOSS, AGAIN = "own values", "reason", "score", "log loss", "judged again"
STOPPED = "stopped"
# Trials that are drawn at random before the sampler learns from them, and before any is ended early.
DRAWN, NEVER_PRUNED = 8, 4
# The median rule, not Hyperband: that deals the trials to brackets which learn on their own, and tens of trials of a
# few epochs each are too few for it. Before the second epoch a one-cycle run says nothing.
PRUNER = optuna.pruners.MedianPruner(n_startup_trials=NEVER_PRUNED, n_warmup_steps=2)


def open_history(journal: Path, name: str, *, seed: int) -> tuple[optuna.Study, bool]:
    """The study `name`, begun if it is not there; and whether the journal has one of other values or data.

    Raises ConfigError for a file that is no journal.
    """
    journal.parent.mkdir(parents=True, exist_ok=True)
    try:
        storage = _storage(journal)
        others = [one for one in optuna.get_all_study_names(storage) if one != name]
        study = optuna.create_study(
            storage=storage, study_name=name, direction="maximize", pruner=PRUNER, load_if_exists=True
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            "The history of a search is damaged.",
            file=journal,
            found=f"{type(error).__name__}: {str(error)[:200]}",
            fix=f"rm {journal}, and search anew",
        ) from None
    # Another stream whenever it is resumed: the same one would draw the same trials again.
    drawn = stream_seed(seed, f"tune after {len(study.trials)}") % 2**32
    study.sampler = TPESampler(seed=drawn, n_startup_trials=DRAWN, constant_liar=True)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):  # of a search that was killed
        stop(study, trial.number)
    return study, bool(others) and not study.trials


def load_history(journal: Path, name: str) -> optuna.Study:
    """The study as a process that judges a trial sees it: it draws nothing."""
    return optuna.load_study(
        storage=_storage(journal), study_name=name, pruner=PRUNER, sampler=optuna.samplers.RandomSampler()
    )


def _storage(journal: Path) -> JournalStorage:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return JournalStorage(JournalFileBackend(str(journal)))


def stop(study: optuna.Study, number: int) -> None:
    """End a trial that was interrupted: it counts for nothing."""
    note(study, number, {REASON: STOPPED})
    study.tell(number, state=TrialState.FAIL)


def note(study: optuna.Study, number: int, notes: dict[str, Any]) -> None:
    """Write something beside a trial that has not ended yet."""
    trial = optuna.Trial(study, study.trials[number]._trial_id)
    for name, value in notes.items():
        trial.set_user_attr(name, value)


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that came to an end of their own: judged, pruned, or failed."""
    return [one for one in study.get_trials(deepcopy=False) if one.state.is_finished() and not was_stopped(one)]


def was_stopped(trial: FrozenTrial) -> bool:
    """Whether the trial was interrupted."""
    return trial.user_attrs.get(REASON) == STOPPED


def judged(study: optuna.Study) -> list[FrozenTrial]:
    """Trials with a score, the best first; of equals the one with the smaller log loss."""
    done = [one for one in finished(study) if one.state == TrialState.COMPLETE]
    return sorted(done, key=lambda one: (-one.value, one.user_attrs[LOG_LOSS], one.number))


def own_trial(study: optuna.Study) -> FrozenTrial | None:
    """The trial of the recipe's own values, if it came to an end."""
    return next((one for one in finished(study) if one.user_attrs.get(OWN)), None)


def state_word(trial: FrozenTrial) -> str:
    """What people call the trial's state."""
    if trial.state == TrialState.FAIL:
        return STOPPED if was_stopped(trial) else "failed"
    return {"COMPLETE": "judged", "WAITING": "waits"}.get(trial.state.name, trial.state.name.lower())


def note_words(trial: FrozenTrial) -> str:
    """What there is to say of a trial beside its numbers."""
    own = "the recipe as it is" if trial.user_attrs.get(OWN) else ""
    reason = "" if was_stopped(trial) else trial.user_attrs.get(REASON, "")
    return "; ".join(word for word in (own, reason) if word)


def remembered(study: optuna.Study, number: int) -> dict[str, Any] | None:
    """How trial `number` did on other rows, if that was looked at already."""
    again = study.user_attrs.get(AGAIN)
    return again if again and again["number"] == number else None
