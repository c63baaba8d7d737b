"""Time and cost of many runs on rented devices, simulated; what was measured for the defaults is in docs/scale.md."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice, product
from typing import Any

from podium.config.pixels import Pixels, count_pixels
from podium.config.schema import key
from podium.errors import ConfigError
from podium.plan.simulate import Machines, Task, shares_of_time, simulate

MOST_FAILURES = 8  # a task then begins exp(8) = 3,000 times until it reaches its next checkpoint


@dataclass(frozen=True, kw_only=True)
class Rental:
    """Rented devices: what is trained on them, and what that costs."""

    runs: tuple[int, ...] = key("numbers of runs", (9, 100, 1000), low=1)
    devices: tuple[int, ...] = key("numbers of GPUs, or cores", (1, 2, 4, 8, 16, 32, 64), low=1)
    devices_per_node: int = key("of a machine", 8, low=1)
    price: float = key("of a device for an hour, whether it computes or waits", 0.0, low=0)
    seconds_per_run: float = key("or fit, on one device; 0: timed here, as by make estimate", 0.0, low=0)
    speed: float = key("of a device, relative to the one that the seconds are for", 1.0, low=0.001)
    images: int = key("labelled and test images; 0: those of the competition", 0, low=0)
    pixels: Pixels = key("of the decoded images: their side, or [height, width]; 0: as in the recipes", 0, low=0)
    decode_per_second: float = key("images that the driver decodes, on all its cores", 2100.0, low=0.001)
    megabytes_per_second: float = key("that the driver sends to all nodes together", 245.0, low=0.001)
    start_seconds: float = key("until the process of a task computes", 8.5, low=0)
    driver_seconds: float = key("of the driver, for each task", 0.04, low=0)
    stragglers: float = key("standard deviation of the times of equal tasks, relative to their mean", 0.05, low=0)
    failures_per_day: float = key("of each node", 0.0, low=0)
    repair_minutes: float = key("until a lost node is back", 10.0, low=0)
    checkpoint_minutes: float = key("between two checkpoints that other nodes can read", 5.0, low=0.001)


def costs(rental: Rental, seconds: Sequence[Sequence[float]]) -> Iterator[dict[str, Any]]:
    """What each number of runs takes on each number of devices, simulated, and what keeps devices from computing.

    `seconds` are those of the fits of each known run, on one device; more runs than these are the same again. Raises
    ConfigError where nodes fail so often that the simulation would hardly end.
    """
    for runs, devices in product(rental.runs, rental.devices):
        nodes = math.ceil(devices / rental.devices_per_node)
        megabytes = rental.images * 3 * count_pixels(rental.pixels) / 10**6 if nodes > 1 else 0  # one is the driver's
        machines = Machines(
            nodes=nodes,
            devices=math.ceil(devices / nodes),
            decode=rental.images / rental.decode_per_second,
            driver=rental.driver_seconds,
            transfer=megabytes / rental.megabytes_per_second,
            start=rental.start_seconds,
            stragglers=rental.stragglers,
            failures=rental.failures_per_day / 86_400,
            repair=rental.repair_minutes * 60,
            checkpoint=rental.checkpoint_minutes * 60,
        )
        longest_first = sorted(islice(cycle(seconds), runs), key=sum, reverse=True)
        tasks = [Task(fit / rental.speed) for run in longest_first for fit in run]
        at_risk = min(machines.checkpoint, max(task.seconds for task in tasks)) * machines.failures
        if at_risk > MOST_FAILURES:
            expected = f"at most {MOST_FAILURES} between two checkpoints of a task"
            raise ConfigError("Nodes fail too often to train anything.", expected=expected, found=f"{at_risk:.1f}")
        outcome, shares = simulate(tasks, machines), shares_of_time(tasks, machines)
        others = [f"{name} {share:.0%}" for name, share in shares.items() if name != "computing" and share >= 0.005]
        devices, hours = nodes * machines.devices, outcome.seconds / 3600
        yield {
            "runs": runs,
            "devices": devices,
            "nodes": nodes,
            "hours": hours,
            "cost": devices * hours * rental.price,
            "busy": outcome.busy,
            "not_busy_because_of": ", ".join(others[:2]),
        }
