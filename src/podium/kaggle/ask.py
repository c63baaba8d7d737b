"""One call of the package kaggle in a process of its own: `python ask.py competitions list_submissions '{...}'`.

Prints one JSON object: `answer` (null for an error), `status` (the HTTP status, null where Kaggle did not answer),
`message` (Kaggle's own words), `call` (the call of the API that failed), `printed` (the package's last line) and
`has_credentials`.
Podium starts this file and never imports it: importing the package kaggle logs in.
"""

import io
import json
import os
import sys
from contextlib import redirect_stdout
from typing import Any

CLIENTS = {"competitions": "competition_api_client", "datasets": "dataset_api_client", "kernels": "kernels_api_client"}
PRINTS_TOKEN = ("VERBOSE", "VERBOSE_OUTPUT")
# A shorter text is not a secret: masking "a" would mask every a.
MIN_SECRET_LENGTH = 6
secrets: set[str] = set()


def ask(service: str, method: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The result of one call: of the API (`fields` have its names, such as competitionName) or of the package."""
    from requests import RequestException

    from kaggle import api

    api.already_printed_version_warning = True
    result = {"status": 200, "message": "", "call": "", "answer": None}
    try:
        secrets.update(find_secrets(api.config_values))
        result["answer"] = call(api, service, method, fields)
    except RequestException as error:
        failed = str(error.request.url).rsplit("/", 1)[-1] if error.request else ""
        status = None if error.response is None else error.response.status_code
        result |= {"status": status, "message": str(error), "call": failed}
    except json.JSONDecodeError as error:
        result |= {"status": None, "message": f"the answer is not JSON: {error}"}
    except ValueError as error:  # the package refused the fields, or Kaggle's answer, with a message of its own
        result |= {"status": 400, "message": str(error)}
    except SystemExit:  # authenticate() found no valid credentials
        result["status"] = 401
    return result


def call(api: Any, service: str, method: str, fields: dict[str, Any]) -> Any:
    """The answer as JSON values; None for a method of the `package` that returns no object of the API."""
    if service == "account":
        api.authenticate()
        return {"user": api.config_values["username"]}
    if service == "package":
        answer = getattr(api, method)(**fields)
        return answer.to_dict(ignore_defaults=False) if hasattr(answer, "to_dict") else None
    with api.build_kaggle_client() as kaggle:
        function = getattr(getattr(getattr(kaggle, service), CLIENTS[service]), method)
        request = function.__annotations__["request"].from_dict(fields)
        return function(request).to_dict(ignore_defaults=False)


def find_secrets(config: dict[str, Any]) -> list[str]:
    """The tokens and keys that the package has read, from the environment or from files."""
    from kagglesdk.kaggle_env import get_access_token_from_env

    values = [str(value) for name, value in config.items() if "key" in name or "token" in name]
    values.append(get_access_token_from_env()[0] or "")
    return [value for value in values if len(value) >= MIN_SECRET_LENGTH]


def masked(text: str) -> str:
    """The text with every secret replaced by [token]."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "[token]")
    return text


def print_error(kind: type, error: BaseException, _: object) -> None:
    """Print an unexpected error in one line, instead of a traceback."""
    print(masked(f"{kind.__name__}: {error}"), file=sys.stderr)


if __name__ == "__main__":
    sys.excepthook = print_error
    for name in PRINTS_TOKEN:
        os.environ.pop(name, None)
    with redirect_stdout(io.StringIO()) as output:
        result = ask(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
    last_line = output.getvalue().strip().rpartition("\n")[2]
    texts = {"message": masked(result["message"]), "printed": masked(last_line)}
    print(json.dumps({**result, **texts, "has_credentials": bool(secrets)}))
