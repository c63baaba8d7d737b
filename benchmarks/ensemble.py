"""The time of the whole command, of each strategy beside what a user would run instead, and on more data.

    python benchmarks/ensemble.py [--repeats 5] [--large]

The command is `make ensemble` in its own project, with the start of the interpreter. Greedy selection is compared with
the plain loop (every row scored at every step), and must give the same weights; the stack with scikit-learn's
LogisticRegression on the same log-probabilities. Many runs and many classes are compared with the plain NumPy
arithmetic of the same result. `--large` adds 20 runs of 100,000 rows and 100 classes, memory-mapped, and does not
reduce the others.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command line does

import numpy as np

from podium.config.keys import Ensemble
from podium.ensemble.build import build_ensemble
from podium.ensemble.pool import Pool, pool_of
from podium.ensemble.strategies import greedy as greedy_module
from podium.ensemble.strategies.greedy import greedy_weights
from podium.ensemble.strategies.stack import stack_weights
from podium.ensemble.strategies.table import ONE_AVERAGE, STRATEGIES
from podium.lock import Lock, write_lock
from podium.metrics import METRICS, log_softmax
from podium.plan.paths import Paths
from podium.predictions.align import Aligned
from podium.predictions.artefact import Predictions, save_predictions
from podium.targets.target import Target

ROOT = Path(__file__).parents[1]
SETTINGS = 'title = "Benchmark"\n[data]\nsource = "folders"\n[validation]\nrows = {rows}\n[ensemble]\nthreshold = 0.8\n'
RECIPE = 'architecture = "resnet34"\nseeds = [1]\nepochs = 1\nlearning_rate = 0.1\n'


def random_logits(runs: int, rows: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits (runs, rows, classes) float32 with an accuracy of about 0.95, and labels (rows,)."""
    draw = np.random.default_rng(0)
    labels = draw.integers(classes, size=rows)
    difficulty = draw.exponential(size=(rows, 1)).astype(np.float32)
    common = draw.standard_normal((rows, classes), dtype=np.float32)
    logits = np.empty((runs, rows, classes), np.float32)
    for run in logits:
        run[:] = (common + draw.standard_normal((rows, classes), dtype=np.float32)) * difficulty
        run[np.arange(rows), labels] += 7
    return logits, labels


def aligned_of(logits: np.ndarray, labels: np.ndarray) -> Aligned:
    runs = tuple(f"run{run:03}.s1" for run in range(len(logits)))
    abouts = tuple({"architecture": run.split(".")[0], "recipe": {}} for run in runs)
    ids, classes = np.arange(logits.shape[1]).astype(str), tuple(str(k) for k in range(logits.shape[2]))
    return Aligned(
        runs, abouts, ids, logits, labels, ids[:100], logits[:, :100], classes, Target("class", len(classes))
    )


def pool_from(logits: np.ndarray, labels: np.ndarray) -> Pool:
    return pool_of(aligned_of(logits, labels), Ensemble(select="all", run_temperatures="never"), metric="accuracy")


def seconds_of(work: Callable[[], object], repeats: int) -> tuple[float, object]:
    times, result = [], None
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
    return statistics.median(times), result


def load() -> str:
    return f"load average {os.getloadavg()[0]:.2f}"


def command(repeats: int) -> None:
    """`make ensemble` on 9 runs of 10,000 rows and 10 classes, in its own project."""
    logits, labels = random_logits(9, 20_000, 10)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in ("Makefile", "environment.mk", "pyproject.toml", "requirements.lock"):
            shutil.copy(ROOT / name, folder)
        (folder / "src").symlink_to(ROOT / "src")
        _write_project(folder, logits, labels)
        print(f"make ensemble, 9 runs x 10,000 rows x 10 classes, medians of {repeats}, {load()}")
        for options in ([], ["STRATEGY=accuracy"], ["STRATEGY=log-loss"], ["STRATEGY=greedy"], ["STRATEGY=stack"]):
            line = ["make", f"PYTHON={sys.executable}", "ensemble", "COMPETITION=benchmark", *options]
            run = lambda line=line: subprocess.run(line, cwd=folder, check=True, capture_output=True)  # noqa: E731
            seconds, _ = seconds_of(run, repeats)
            print(f"  {' '.join(options) or 'all strategies':<20} {seconds:6.2f} s")


def _write_project(folder: Path, logits: np.ndarray, labels: np.ndarray) -> None:
    paths, half = Paths("benchmark", folder, folder), logits.shape[1] // 2
    competition = folder / "competitions" / "benchmark"
    competition.mkdir(parents=True)
    (competition / "competition.toml").write_text(SETTINGS.format(rows=half))
    (competition / "run.toml").write_text(RECIPE)
    ids = np.array([f"{row:06}" for row in range(2 * half)])
    classes = tuple(f"class{k}" for k in range(logits.shape[2]))
    lock = Lock("data", classes, ids[:half], labels[:half], np.zeros(half, np.int64), ids[half:])
    write_lock(paths.lock_file, lock)
    for place, run_logits in enumerate(logits):
        run = f"run{place}.s1"
        about = {"run": run, "architecture": run.split(".")[0], "recipe": {}, "fingerprint": "data"}
        about["fold_sha256"] = lock.fold_sha256
        arrays = (ids[:half], run_logits[:half], labels[:half], ids[half:], run_logits[half:])
        save_predictions(paths.predictions_file(run), Predictions(*arrays, classes, about))


def plain_loop(probabilities: np.ndarray, labels: np.ndarray, steps: int) -> list[int]:
    """Caruana's algorithm without a running sum."""
    bag: list[int] = []
    for _ in range(steps):
        scores = []
        for member in range(len(probabilities)):
            blend = sum(probabilities[chosen] for chosen in [*bag, member]) / (len(bag) + 1)
            scores.append((METRICS["accuracy"](blend, labels), -METRICS["log_loss"](blend, labels), member))
        bag.append(max(scores)[2])
    return bag


def compare_with_others(runs: int, repeats: int) -> None:
    """Greedy selection compared with the plain loop, the stack with scikit-learn."""
    from sklearn.linear_model import LogisticRegression

    logits, labels = random_logits(runs, 10_000, 10)
    pool = pool_from(logits, labels)
    probabilities = np.exp(pool.logs)
    greedy_module.BAGS = 1
    ours, (weights, _) = seconds_of(lambda: greedy_weights(pool, "probabilities"), repeats)
    theirs, bag = seconds_of(lambda: plain_loop(probabilities, labels, greedy_module.STEPS), 1)
    best = max(_prefixes(probabilities, labels, bag))
    same = np.allclose(weights, np.bincount(bag[: best[2]], minlength=runs) / best[2])
    print(f"{runs} runs x 10,000 x 10, {load()}")
    print(f"  greedy, one bag of {greedy_module.STEPS} steps {ours:10.3f} s")
    print(f"  the plain loop                {theirs:10.3f} s   {theirs / ours:.0f}x; same weights: {same}")
    stack, _ = seconds_of(lambda: stack_weights(pool, "logits"), repeats)
    columns = pool.logs.transpose(1, 0, 2).reshape(len(labels), -1)
    regression = LogisticRegression(max_iter=50 if runs > 9 else 200)
    sklearn, _ = seconds_of(lambda: regression.fit(columns, labels), 1)
    print(f"  stack, strength selected      {stack:10.3f} s")
    print(f"  scikit-learn, one strength    {sklearn:10.3f} s   {sklearn / stack:.1f}x; {regression.n_iter_[0]} steps")


def _prefixes(probabilities: np.ndarray, labels: np.ndarray, bag: list[int]) -> list[tuple[float, float, int]]:
    scores = []
    for length in range(1, len(bag) + 1):
        blend = probabilities[bag[:length]].mean(axis=0)
        scores.append((METRICS["accuracy"](blend, labels), -METRICS["log_loss"](blend, labels), length))
    return scores


def growth(runs: int, rows: int, classes: int, names: list[str]) -> None:
    """Each strategy fitted once, and one built and scored, in its own process; peak memory."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "logits.npy"
        logits, labels = random_logits(runs, rows, classes)
        np.save(file, logits)
        np.save(file.with_name("labels.npy"), labels)
        del logits
        command = [sys.executable, __file__, "--child", str(file), *names]
        subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(ROOT / "src")})


def plain_arithmetic(logits: np.ndarray, labels: np.ndarray, parts: int) -> None:
    """What the strategy accuracy needs: each part predicted by a blend of the others, also without each run."""
    probabilities = np.exp(log_softmax(logits.astype(np.float64)))
    correct = probabilities.argmax(axis=2) == labels
    for part in range(parts):
        outside = np.arange(len(labels)) % 5 == part % 5
        weights = correct[:, ~outside].mean(axis=1)
        weights /= weights.sum()
        for rows in (~outside, outside):
            blend = np.tensordot(weights, probabilities[:, rows], 1)
        if part < 5 and len(logits) > 1:
            for weight, run in zip(weights, probabilities[:, outside], strict=True):
                log_softmax(np.log((blend - weight * run) / (1 - weight) + 1e-12))
    for answers in correct:
        (answers != correct).sum(axis=1)
    np.corrcoef(~correct)


def compare_with_arithmetic(runs: int, rows: int, classes: int) -> None:
    """The strategy accuracy, built and scored, compared with the plain arithmetic."""
    logits, labels = random_logits(runs, rows, classes)
    settings = Ensemble(strategy="accuracy", select="all")
    ours, _ = seconds_of(lambda: build_ensemble(aligned_of(logits, labels), settings, metric="accuracy", only=True), 1)
    parts = settings.cross_fit_parts * settings.cross_fit_repeats
    plain, _ = seconds_of(lambda: plain_arithmetic(logits, labels, parts), 1)
    print(f"{runs:,} runs x {rows:,} x {classes:,}, {load()}")
    print(f"  accuracy, built and scored    {ours:10.3f} s")
    print(f"  plain NumPy arithmetic        {plain:10.3f} s   ratio {ours / plain:.1f}", flush=True)


def child(file: Path, names: list[str]) -> None:
    logits, labels = np.load(file, mmap_mode="r"), np.load(file.with_name("labels.npy"))
    print(f"{' x '.join(f'{size:,}' for size in logits.shape)}, memory-mapped, {load()}")
    for name in names:
        pool, average = pool_from(logits, labels), "logits" if name in ONE_AVERAGE else "probabilities"
        seconds, _ = seconds_of(lambda pool=pool, name=name, average=average: STRATEGIES[name](pool, average), 1)
        del pool
        print(f"  {name:<12} fitted once  {seconds:8.2f} s", flush=True)
    settings = Ensemble(strategy="accuracy", select="all", cross_fit_repeats=1)
    seconds, _ = seconds_of(
        lambda: build_ensemble(aligned_of(logits, labels), settings, metric="accuracy", only=True), 1
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"  accuracy, built and scored    {seconds:8.2f} s; peak memory of the process {peak:.2f} GB", flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--large", action="store_true")
    arguments.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.child:
        child(Path(options.child[0]), options.child[1:])
        return
    command(options.repeats)
    for runs in (9, 100):
        compare_with_others(runs, options.repeats)
    shrink = 1 if options.large else 4
    compare_with_arithmetic(1000 // shrink, 2000, 10)
    compare_with_arithmetic(3, 2000, 5000 // shrink)
    growth(100, 10_000, 10, ["accuracy", "log-loss", "greedy", "stack"])
    if options.large:
        growth(20, 100_000, 100, ["accuracy", "log-loss", "greedy"])


if __name__ == "__main__":
    main()
