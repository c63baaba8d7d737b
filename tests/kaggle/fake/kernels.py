"""Datasets and notebooks (kernels) of the fake Kaggle; a pushed notebook runs."""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

DATE = "2026-01-01T00:00:00.000Z"
USER = "rehearsal"


@dataclass
class Ran:
    """How a kernel ended, or that it did not yet: its output by name, and its log."""

    status: str = "RUNNING"
    failure: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)
    log: str = ""


RunKernel = Callable[[dict[str, Any], Mapping[str, Mapping[str, bytes]]], Ran]
"""Runs a kernel, given the push and the datasets by `<user>/<slug>`."""


@dataclass
class KernelState:
    """Datasets, kernels and what runs them. A Kaggle that `loses_files` keeps none of an upload."""

    run: RunKernel = lambda push, datasets: Ran("ERROR", "nothing runs kernels here")
    datasets: dict[str, dict[str, bytes]] = field(default_factory=dict)
    statuses: list[str] = field(default_factory=list)  # of the dataset, before it is ready
    loses_files: bool = False
    pushes: list[dict[str, Any]] = field(default_factory=list)
    ran: dict[str, Ran] = field(default_factory=dict)
    versions: dict[str, list[int]] = field(default_factory=dict)  # of each kernel
    invalid: dict[str, list[str]] = field(default_factory=dict)  # what a push says it could not attach
    refusal: str = ""
    quota: tuple[int, int] | None = (0, 30)  # hours of a GPU used and allowed in this week


def output_file(state: KernelState, path: str) -> bytes | None:
    """A file of a kernel's output; None for an address of something else."""
    if not path.startswith("/output/"):
        return None
    _, _, user, slug, name = path.split("/", 4)
    return state.ran[f"{user}/{slug}"].files[unquote(name)]


def log_stream(state: KernelState, path: str) -> tuple[bytes, str] | None:
    """A kernel's log with its content type, events while it runs; None for an address of something else."""
    if "/kernels/logs/stream/" not in path:
        return None
    ran = state.ran["/".join(path.split("/")[-2:])]
    if ran.status != "RUNNING":
        return ran.log.encode(), "application/json"
    events = [f"data: {json.dumps(event)}\n\n" for event in json.loads(ran.log or "[]")]
    return "".join(events).encode(), "text/event-stream"


def _start_upload(handler: Any, request: dict) -> None:
    token = f"upload-{len(handler.state.asked)}-{request['name']}"
    handler.json({"token": token, "createUrl": f"http://localhost/upload/{quote(token)}"})


def _create_dataset(handler: Any, request: dict) -> None:
    _take_files(handler, f"{request['ownerSlug']}/{request['slug']}", request.get("files", []))


def _create_version(handler: Any, request: dict) -> None:
    _take_files(handler, f"{request['ownerSlug']}/{request['datasetSlug']}", request["body"].get("files", []))


def _take_files(handler: Any, dataset: str, files: list[dict]) -> None:
    state, names = handler.state, {file["token"]: file["token"].split("-", 2)[2] for file in files}
    kept = {} if state.kernels.loses_files else {name: state.uploads[token] for token, name in names.items()}
    state.kernels.datasets[dataset] = kept
    handler.json({"status": "ok", "url": f"http://localhost/{dataset}", "ref": dataset})


def _dataset_of(handler: Any, request: dict) -> dict[str, bytes] | None:
    found = handler.state.kernels.datasets.get(f"{request['ownerSlug']}/{request['datasetSlug']}")
    if found is None:
        handler.refuse(403, "Permission 'datasets.get' was denied")
    return found


def _dataset_status(handler: Any, request: dict) -> None:
    if _dataset_of(handler, request) is not None:
        waiting = handler.state.kernels.statuses
        handler.json({"status": waiting.pop(0) if waiting else "READY"})


def _dataset_files(handler: Any, request: dict) -> None:
    files = _dataset_of(handler, request)
    if files is not None:
        listed = [{"name": name, "totalBytes": len(content), "creationDate": DATE} for name, content in files.items()]
        handler.json({"datasetFiles": listed})


def _save_kernel(handler: Any, request: dict) -> None:
    state = handler.state.kernels
    if state.refusal:
        handler.json({"error": state.refusal})
        return
    state.pushes.append(request)
    state.versions.setdefault(request["slug"], []).append(len(state.pushes))
    ran = state.ran[request["slug"]] = Ran()

    def run() -> None:
        done = Ran("ERROR", "what runs kernels here failed")
        try:
            done = state.run(request, state.datasets)
        except OSError as error:
            done = Ran("ERROR", f"what runs kernels here failed: {error}")
        finally:
            ran.files, ran.log, ran.failure = done.files, done.log, done.failure
            ran.status = done.status  # last: with it everything is there

    threading.Thread(target=run, daemon=True).start()
    url = f"http://localhost/code/{request['slug']}"
    handler.json(
        {"ref": request["slug"], "url": url, "versionNumber": state.versions[request["slug"]][-1], **state.invalid}
    )


def _ran(handler: Any, request: dict) -> Ran | None:
    found = handler.state.kernels.ran.get(f"{request['userName']}/{request['kernelSlug']}")
    if found is None:
        handler.refuse(403, "Permission 'kernels.get' was denied")
    return found


def _kernel_status(handler: Any, request: dict) -> None:
    if (ran := _ran(handler, request)) is not None:
        handler.json({"status": ran.status} | ({"failureMessage": ran.failure} if ran.failure else {}))


def _kernel_output(handler: Any, request: dict) -> None:
    if (ran := _ran(handler, request)) is not None:
        at = f"http://localhost/output/{request['userName']}/{request['kernelSlug']}"
        files = [{"url": f"{at}/{quote(name)}", "fileName": name} for name in ran.files]
        handler.json({"files": files, "log": ran.log})


def _quota(handler: Any, _: dict) -> None:
    answer: dict[str, Any] = {"quotaRefreshTime": "2026-12-05T00:00:00Z"}
    if handler.state.kernels.quota:
        used, allowed = (f"{hours * 3600}s" for hours in handler.state.kernels.quota)
        answer["gpuQuota"] = {"timeUsed": used, "totalTimeAllowed": allowed}
    handler.json(answer)


def _get_kernel(handler: Any, request: dict) -> None:
    if _ran(handler, request) is not None:
        push = [push for push in handler.state.kernels.pushes if push["slug"].endswith(f"/{request['kernelSlug']}")][-1]
        blob = {"source": push["text"], "language": "python", "kernelType": "script", "slug": request["kernelSlug"]}
        version = handler.state.kernels.versions.get(push["slug"], [1])[-1]
        handler.json({"metadata": {"ref": push["slug"], "currentVersionNumber": version}, "blob": blob})


KERNEL_ROUTES = {
    "StartBlobUpload": _start_upload,
    "CreateDataset": _create_dataset,
    "CreateDatasetVersion": _create_version,
    "GetDatasetStatus": _dataset_status,
    "ListDatasetFiles": _dataset_files,
    "SaveKernel": _save_kernel,
    "GetKernelSessionStatus": _kernel_status,
    "ListKernelSessionOutput": _kernel_output,
    "GetKernel": _get_kernel,
    "GetAcceleratorQuotaStatistics": _quota,
}
