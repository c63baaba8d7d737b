"""The trials of a search as files to look at: a table and Optuna's plots."""

import warnings
from collections.abc import Callable

import matplotlib
import numpy as np
import optuna

from podium.files import atomic_write
from podium.tune.study import Tuning

# With fewer complete trials, the importance of keys is noise.
TRIALS_FOR_IMPORTANCE = 8


def write_report(tuning: Tuning) -> None:
    """Write trials.csv, history.svg, values.svg and importance.svg into the search's folder."""
    table = tuning.study.trials_dataframe(attrs=("number", "state", "value", "duration", "params", "user_attrs"))
    with atomic_write(tuning.folder / "trials.csv") as stream:
        table.to_csv(stream, index=False)
    if tuning.best is None:
        return
    plots = optuna.visualization.matplotlib
    _save(tuning, "history", plots.plot_optimization_history)
    _save(tuning, "values", plots.plot_slice)
    if (table["state"] == "COMPLETE").sum() >= TRIALS_FOR_IMPORTANCE and table["value"].nunique() > 1:
        _save(tuning, "importance", plots.plot_param_importances)


def _save(tuning: Tuning, name: str, plot: Callable) -> None:
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sign = "" if tuning.metric.greater_is_better else "-"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna's matplotlib plots are marked experimental
        figure = np.ravel(plot(tuning.study, target_name=f"{sign}{tuning.metric_name}"))[0].figure
        with atomic_write(tuning.folder / f"{name}.svg") as stream:
            figure.savefig(stream, format="svg", bbox_inches="tight")
    plt.close(figure)
