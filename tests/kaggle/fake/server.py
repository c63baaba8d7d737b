"""A fake Kaggle on this machine: the few calls of the API that Podium makes, over real HTTP, without an account.

Tests write faults into `script`. KAGGLE_API_ENVIRONMENT=LOCALHOST sends the package kaggle to http://localhost, and a
proxy setting sends that to this server; requests for any other host end here too.
"""

import json
import re
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from fake.kernels import KERNEL_ROUTES, log_stream, output_file
from fake.state import Graded, State

TOKEN = "rehearsal-token"
MODIFIED = "Thu, 01 Jan 2026 00:00:00 GMT"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
DIRECT = ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy")


class FakeServer:
    """The server, running as long as its context."""

    def __init__(self, state: State):
        self.state = state
        handler = type("Handler", (_Handler,), {"state": state})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True

    def __enter__(self) -> "FakeServer":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self, environment: Mapping[str, str], home: Path) -> dict[str, str]:
        """`environment` with everything turned to this server, and nothing left of the user's own account."""
        home.mkdir(parents=True, exist_ok=True)
        kept = {name: value for name, value in environment.items() if not name.startswith("KAGGLE_")}
        for name in DIRECT:
            kept.pop(name, None)
        return {
            **kept,
            **dict.fromkeys(PROXIES, f"http://127.0.0.1:{self._server.server_port}"),
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / ".config"),
            "KAGGLE_CONFIG_DIR": str(home / ".kaggle"),
            "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
            "KAGGLE_API_TOKEN": TOKEN,
        }


class _Handler(BaseHTTPRequestHandler):
    state: State
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Do not print requests."""

    def do_CONNECT(self) -> None:
        """Refuse connections to other hosts."""
        self.state.asked.append(f"CONNECT {self.path}")
        self.send_error(403, "the fake Kaggle forwards nothing")

    def do_POST(self) -> None:
        """A call of the API."""
        path = urlsplit(self.path).path
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.state.asked.append(path.rsplit("/", 1)[-1])
        if self._is_faulty(path):
            return
        method = path.rsplit("/", 1)[-1]
        if method != "IntrospectToken" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.refuse(401, "Unauthenticated")
            return
        answer = ROUTES.get(method)
        request = json.loads(body or b"{}")
        if answer is None or request.get("competitionName", self.state.slug) != self.state.slug:
            self.refuse(self.state.unknown_status, "Permission 'competitions.participate' was denied")
        else:
            answer(self, request)

    def do_PUT(self) -> None:
        """The upload of a file."""
        path = urlsplit(self.path).path
        self.state.asked.append("PUT")
        length = int(self.headers.get("Content-Length") or 0)
        fault = self.state.next_fault("PUT") or self.state.next_fault(path)
        if fault and fault.before:
            fault.before()
        if fault and fault.cut:
            self.rfile.read(length // 2)
            self.close_connection = True
            self.connection.close()
            return
        body = self.rfile.read(length)
        if (self.headers.get("Content-Range") or "").startswith("bytes */"):
            self._send(308, b"", "text/plain")  # "how much have you?" Nothing.
            return
        if fault and fault.status:
            self.refuse(fault.status, fault.message)
            return
        self.state.uploads[path.rsplit("/", 1)[-1]] = body
        self.json({})

    def do_GET(self) -> None:
        """A file that a call was redirected to."""
        path = urlsplit(self.path).path
        self.state.asked.append("GET")
        if log := log_stream(self.state.kernels, path):
            if not self._is_faulty(path):
                self._send(200, *log)
            return
        content = output_file(self.state.kernels, path)
        if content is None:
            content = self.state.leaderboard if "leaderboard" in path else self.state.archive
            content = self.state.contents.get(unquote(path.removeprefix("/files/single/")), content)
        if not self._is_faulty(path, content):
            self._bytes(content)

    def _is_faulty(self, path: str, content: bytes = b"") -> bool:
        fault = self.state.next_fault(path)
        if fault and fault.before:
            fault.before()
        if fault and fault.stall_seconds is not None:
            self._stall(content, fault.stall_seconds)
            return True
        if not fault or not (fault.status or fault.cut):
            return False
        if fault.cut:
            self._bytes(content[: len(content) // 2])
        else:
            self.refuse(fault.status, fault.message)
        return True

    def _introspect_token(self, request: dict) -> None:
        known = request.get("token") == TOKEN
        self.json({"active": True, "username": "rehearsal"} if known else {"active": False})

    def _start_submission_upload(self, request: dict) -> None:
        token = f"upload-{len(self.state.asked)}-{request['fileName']}"
        self.json({"token": token, "createUrl": f"http://localhost/upload/{token}"})

    def _create_submission(self, request: dict) -> None:
        token = request["blobFileTokens"]
        self._add_submission(request, token.split("-", 2)[2], self.state.uploads[token])

    def _create_code_submission(self, request: dict) -> None:
        state, notebook = self.state.kernels, f"{request['kernelOwner']}/{request['kernelSlug']}"
        if request["kernelVersion"] not in state.versions.get(notebook, ()):
            self.refuse(400, "Kernel version not found")
            return
        self._add_submission(request, request["fileName"], state.ran[notebook].files[request["fileName"]])

    def _add_submission(self, request: dict, name: str, content: bytes) -> None:
        with self.state.lock:
            ref = 1000 + len(self.state.submissions)
            graded = self.state.grade(content)
            self.state.submissions.insert(
                0,
                {
                    "ref": ref,
                    "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
                    "description": request.get("submissionDescription", ""),
                    "fileName": name,
                    "graded": graded,
                },
            )
        self.json({"message": "Successfully submitted", "ref": ref})

    def _get_competition(self, _: dict) -> None:
        about = {"ref": f"http://localhost/competitions/{self.state.slug}", "userHasEntered": self.state.entered}
        self.json(about | self.state.about)

    def _get_submission_limits(self, _: dict) -> None:
        used = len(self.state.submissions)
        self.json({"numToday": used, "numTotal": used, "numAllowedNow": max(0, self.state.daily - used)})

    def _list_submissions(self, _: dict) -> None:
        with self.state.lock:
            for submission in self.state.submissions:
                self.state.polls[submission["ref"]] = self.state.polls.get(submission["ref"], -1) + 1
            self.json({"submissions": [self._shown(submission) for submission in self.state.submissions]})

    def _get_submission(self, request: dict) -> None:
        submission = next(
            submission for submission in self.state.submissions if submission["ref"] == int(request["ref"])
        )
        graded = submission["graded"]
        reason = {"errorDescription": graded.error} if graded and graded.error else {}
        self.json(self._shown(submission) | reason)

    def _list_data_files(self, request: dict) -> None:
        date = "2026-01-01T00:00:00.000Z"
        files = [
            {"name": name, "totalBytes": size, "creationDate": date} for name, size in sorted(self.state.files.items())
        ]
        first, size = int(request.get("pageToken") or 0), self.state.page_size or int(request["pageSize"])
        more = {"nextPageToken": str(first + size)} if len(files) > first + size else {}
        self.json({"files": files[first : first + size]} | more)

    def _download_data_files(self, _: dict) -> None:
        self._redirect("archive.zip")

    def _download_data_file(self, request: dict) -> None:
        name = request["fileName"]
        served = next((served for served in (name, f"{name}.zip") if served in self.state.contents), None)
        if served is None:
            self.refuse(404, f"{name} not found")
        else:
            self._redirect(f"single/{quote(served)}")

    def _download_leaderboard(self, _: dict) -> None:
        self._redirect("leaderboard.zip")

    def _shown(self, submission: dict[str, Any]) -> dict[str, Any]:
        row = {name: value for name, value in submission.items() if name != "graded"}
        graded: Graded | None = submission["graded"]
        if graded is None or self.state.polls.get(submission["ref"], 0) < self.state.polls_before_score:
            return row | {"status": "PENDING"}
        if graded.error is not None:
            return row | {"status": "ERROR"}
        scores = {"publicScore": graded.public, "privateScore": graded.private}
        return row | {"status": "COMPLETE"} | {name: score for name, score in scores.items() if score}

    def _redirect(self, name: str) -> None:
        self.send_response(302)
        self.send_header("Location", f"http://localhost/files/{name}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def refuse(self, status: int, message: str) -> None:
        """Answer with an error."""
        # Without JSON the CLI tells the status; with a "code" it tells the words alone.
        if message:
            self._send(status, json.dumps({"code": status, "message": message}).encode(), "application/json")
        else:
            self._send(status, b"", "text/plain")

    def json(self, content: dict[str, Any]) -> None:
        """Answer with JSON."""
        self._send(200, json.dumps(content).encode(), "application/json")

    def _bytes(self, content: bytes) -> None:
        if self.state.announce_length:
            first = self._first_byte()
            part = {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"} if first else {}
            headers = {"Accept-Ranges": "bytes", **part}
            self._send(206 if first else 200, content[first:], "application/zip", **headers)
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/zip")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = True

    def _first_byte(self) -> int:
        """Where a download goes on, if it is of the file that is still here."""
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if found is None or self.headers.get("If-Range", MODIFIED) != MODIFIED:
            return 0
        self.state.resumed.append(int(found[1]))
        return int(found[1])

    def _stall(self, content: bytes, seconds: float) -> None:
        self.send_response(200)
        headers = {"Content-Type": "application/zip", "Content-Length": str(len(content)), "Accept-Ranges": "bytes"}
        for name, value in (headers | {"Last-Modified": MODIFIED}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.wfile.flush()
        time.sleep(seconds)
        self.close_connection = True

    def _send(self, status: int, content: bytes, kind: str, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Last-Modified", MODIFIED)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


ROUTES = {
    "IntrospectToken": _Handler._introspect_token,
    "StartSubmissionUpload": _Handler._start_submission_upload,
    "CreateSubmission": _Handler._create_submission,
    "CreateCodeSubmission": _Handler._create_code_submission,
    "GetCompetition": _Handler._get_competition,
    "GetSubmissionLimits": _Handler._get_submission_limits,
    "ListSubmissions": _Handler._list_submissions,
    "GetSubmission": _Handler._get_submission,
    "ListDataFiles": _Handler._list_data_files,
    "DownloadDataFiles": _Handler._download_data_files,
    "DownloadDataFile": _Handler._download_data_file,
    "DownloadLeaderboard": _Handler._download_leaderboard,
    **KERNEL_ROUTES,
}
