"""One question to Kaggle's API in a process of its own: `python ask.py competitions list_submissions '{...}'`.

Prints one JSON object: `answer` (null for an error), `status` (the HTTP status, null where Kaggle did not answer) and
`message` (Kaggle's own words). Podium starts this file and never imports it: importing the package kaggle logs in.
"""

import json
import sys
from contextlib import redirect_stdout
from typing import Any

CLIENTS = {"competitions": "competition_api_client", "datasets": "dataset_api_client", "kernels": "kernels_api_client"}


def ask(service: str, method: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The result of one call; `fields` have the API's names, such as competitionName."""
    from requests import RequestException

    from kaggle import api

    api.already_printed_version_warning = True
    result = {"status": 200, "message": "", "answer": None}
    try:
        result["answer"] = call(api, service, method, fields)
    except RequestException as error:
        status = None if error.response is None else error.response.status_code
        result |= {"status": status, "message": str(error)}
    except json.JSONDecodeError as error:
        result |= {"status": None, "message": f"the answer is not JSON: {error}"}
    except ValueError as error:  # the package refused the fields, or Kaggle's answer, with a message of its own
        result |= {"status": 400, "message": str(error)}
    except SystemExit:  # authenticate() found no valid credentials
        result["status"] = 401
    return result


def call(api: Any, service: str, method: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The answer as JSON values."""
    if service == "account":
        api.authenticate()
        return {"user": api.config_values["username"]}
    with api.build_kaggle_client() as kaggle:
        function = getattr(getattr(getattr(kaggle, service), CLIENTS[service]), method)
        request = function.__annotations__["request"].from_dict(fields)
        return function(request).to_dict(ignore_defaults=False)


if __name__ == "__main__":
    with redirect_stdout(sys.stderr):  # stdout has the JSON alone
        result = ask(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
    print(json.dumps(result))
