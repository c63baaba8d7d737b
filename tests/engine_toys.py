"""What the tests of schedulers compare: the results of a run, without times."""

from safetensors.torch import load_file

from digits_toys import digits_workspace
from podium.predictions.artefact import load_predictions
from podium.training.run import train_run

TIMES = ("created", "seconds", "images_per_second")


def results_of(workspace):
    """Logits, parameters and description of the only run."""
    (run,), paths = workspace.runs, workspace.paths
    predictions = load_predictions(paths.predictions_file(run.run))
    about = {key: value for key, value in predictions.about.items() if key not in TIMES}
    parameters = load_file(paths.parameters_file(run.run))
    logits = predictions.oof_logits.tobytes() + predictions.test_logits.tobytes()
    return about, logits, {name: value.numpy().tobytes() for name, value in parameters.items()}


def in_sequence(folder, **settings):
    """A workspace whose only run is trained here, one fit after the other."""
    workspace = digits_workspace(folder, **settings)
    train_run(workspace, workspace.runs[0])
    return workspace
