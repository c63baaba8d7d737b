"""A discrete-event simulation of a scheduler: when the last of many tasks ends, and what the time is spent on.

Tasks wait in one queue, as with make, Ray and SLURM; the first one gets the first devices that are free. A heap of
events is enough: SimPy would need a process for each node and each task. Only the standard library is imported.
"""

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

PARTS = 8  # in which a node's images are sent, in turn with those of other nodes
OVERHEADS = ("decode", "driver", "transfer", "start", "stragglers", "failures")  # fields of Machines


@dataclass(frozen=True, kw_only=True)
class Machines:
    """Where tasks are trained, and what costs time there beside computing. All times are in seconds."""

    nodes: int = 1
    devices: int = 1  # of each node: its GPUs, or its cores
    decode: float = 0.0  # the driver decodes all images before the first task begins
    driver: float = 0.0  # the driver's time for each task, one task after the other
    transfer: float = 0.0  # the driver sends a node its images, once; nodes share its network
    start: float = 0.0  # of the process of a task, on its devices
    stragglers: float = 0.0  # standard deviation of the times of equal tasks, relative to their mean
    failures: float = 0.0  # of a node, per second
    repair: float = 0.0  # until a lost node is back, without images
    checkpoint: float = math.inf  # between two checkpoints of a task


@dataclass(frozen=True)
class Task:
    """A task that computes so many seconds on so many devices of one node; on all, where the node has fewer."""

    seconds: float
    devices: int = 1


@dataclass(frozen=True)
class Outcome:
    """When the last task ends, in seconds; what share of all devices' time is computed; how often a task was lost."""

    seconds: float
    busy: float
    lost: int


def simulate(tasks: Sequence[Task], machines: Machines, *, seed: int = 0) -> Outcome:
    """Run all tasks, which begin in their order; failures and stragglers are drawn from `seed`."""
    simulation = _Simulation(tasks, machines, seed)
    while simulation.unfinished:
        simulation.step()
    work = sum(task.seconds * min(task.devices, machines.devices) for task in tasks)
    return Outcome(simulation.now, work / (simulation.now * machines.nodes * machines.devices), simulation.lost)


def shares_of_time(tasks: Sequence[Task], machines: Machines, *, seed: int = 0) -> dict[str, float]:
    """What the time is spent on -> its share, the largest first.

    `computing` is the time that the devices would need if all were busy to the end, `idle devices` what is added
    because there are few tasks, or a long one at the end. The share of anything else is the time that would be saved
    without it, so the shares do not add up to 1.
    """
    whole = simulate(tasks, machines, seed=seed).seconds
    plain = simulate(tasks, Machines(nodes=machines.nodes, devices=machines.devices))
    seconds = {"computing": plain.busy * plain.seconds, "idle devices": (1 - plain.busy) * plain.seconds}
    for name in OVERHEADS:
        if getattr(machines, name):
            seconds[name] = whole - simulate(tasks, replace(machines, **{name: 0.0}), seed=seed).seconds
    return {name: seconds[name] / whole for name in sorted(seconds, key=seconds.get, reverse=True)}


@dataclass(eq=False)
class _Attempt:
    """A task on a node, from when it gets its devices until it ends or the node is lost."""

    task: Task
    node: int
    slowness: float
    began: float = math.inf
    is_lost: bool = False


class _Simulation:
    """The state at the time `now`, and the events to come."""

    def __init__(self, tasks: Sequence[Task], machines: Machines, seed: int):
        self.machines, self.draw = machines, random.Random(seed)
        self.now = self.driver_is_free = self.network_is_free = machines.decode
        self.events: list[tuple[float, int, Callable[..., None], object]] = []
        self.numbers = itertools.count()  # events at the same time happen in the order in which they were planned
        self.waiting = deque(replace(task, devices=min(task.devices, machines.devices)) for task in tasks)
        self.unfinished, self.lost, nodes = len(tasks), 0, machines.nodes
        self.free, self.attempts = [0] * nodes, [[] for _ in range(nodes)]
        self.missing, self.due = [0] * nodes, [0.0] * nodes  # parts of the images to ask for; when the last one comes
        for node in range(nodes):
            self.join(node)

    def step(self) -> None:
        self.now, _, action, subject = heapq.heappop(self.events)
        action(subject)

    def plan(self, time: float, action: Callable[..., None], subject: object) -> None:
        heapq.heappush(self.events, (time, next(self.numbers), action, subject))

    def assign(self) -> None:
        """Give free devices to the tasks that wait, in their order; the first node with enough of them is taken."""
        while self.waiting and max(self.free) >= self.waiting[0].devices:
            task, variance = self.waiting.popleft(), math.log1p(self.machines.stragglers**2)
            node = next(node for node, free in enumerate(self.free) if free >= task.devices)
            self.free[node] -= task.devices
            slowness = self.draw.lognormvariate(-variance / 2, math.sqrt(variance))  # of mean 1
            self.attempts[node].append(_Attempt(task, node, slowness))
            self.driver_is_free = max(self.driver_is_free, self.now) + self.machines.driver
            self.plan(self.driver_is_free, self.arrive, self.attempts[node][-1])

    def arrive(self, attempt: _Attempt) -> None:
        """A task is at its node. It begins if the images are there; else it fetches or awaits the next part of them."""
        node = attempt.node
        if attempt.is_lost:
            return
        if self.now >= self.due[node] and not self.missing[node]:
            attempt.began = self.now + self.machines.start
            self.plan(attempt.began + attempt.task.seconds * attempt.slowness, self.finish, attempt)
            return
        if self.now >= self.due[node]:
            self.missing[node] -= 1
            self.network_is_free = max(self.network_is_free, self.now) + self.machines.transfer / PARTS
            self.due[node] = self.network_is_free
        self.plan(self.due[node], self.arrive, attempt)

    def finish(self, attempt: _Attempt) -> None:
        if not attempt.is_lost:
            self.unfinished -= 1
            self.attempts[attempt.node].remove(attempt)
            self.free[attempt.node] += attempt.task.devices
            self.assign()

    def join(self, node: int) -> None:
        """A node begins to work, without images and for as long as it does not fail."""
        self.free[node], self.missing[node] = self.machines.devices, PARTS if self.machines.transfer else 0
        if self.machines.failures:
            self.plan(self.now + self.draw.expovariate(self.machines.failures), self.fail, node)
        self.assign()

    def fail(self, node: int) -> None:
        """A node is lost: its tasks wait again, less what they had computed at their last checkpoint."""
        for attempt in self.attempts[node]:
            attempt.is_lost = True
            computed = max(0.0, self.now - attempt.began) / attempt.slowness
            kept = computed - computed % self.machines.checkpoint
            self.waiting.append(replace(attempt.task, seconds=attempt.task.seconds - kept))
        self.lost += len(self.attempts[node])
        self.free[node], self.attempts[node] = 0, []
        self.plan(self.now + self.machines.repair, self.join, node)
        self.assign()
