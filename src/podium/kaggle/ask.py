"""One question to Kaggle, asked in a process of its own: `python ask.py competitions list_submissions '{...}'`.

Prints one JSON object: `status` (the HTTP status, null where there is no answer), `message` (Kaggle's own words for an
error) and `answer` (null for an error). Podium starts this file and never imports it: importing the package `kaggle`
logs in.
"""

import json
import sys
from contextlib import redirect_stdout
from typing import Any

CLIENTS = {"competitions": "competition_api_client", "datasets": "dataset_api_client", "kernels": "kernels_api_client"}


def ask(service: str, method: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Kaggle's answer to one call of its API; `fields` have the API's names, such as competitionName."""
    from requests import RequestException

    from kaggle import api

    try:
        if service == "account":
            api.authenticate()
            answer = {"user": api.config_values["username"]}
        else:
            with api.build_kaggle_client() as kaggle:
                call = getattr(getattr(getattr(kaggle, service), CLIENTS[service]), method)
                request = call.__annotations__["request"].from_dict(fields)
                answer = call(request).to_dict(ignore_defaults=False)
    except RequestException as error:
        status = None if error.response is None else error.response.status_code
        return {"status": status, "message": str(error), "answer": None}
    except json.JSONDecodeError as error:
        return {"status": None, "message": f"the answer is not JSON: {error}", "answer": None}
    except SystemExit:  # authenticate() found no valid credentials
        return {"status": 401, "message": "", "answer": None}
    return {"status": 200, "message": "", "answer": answer}


if __name__ == "__main__":
    with redirect_stdout(sys.stderr):  # the package prints advice, which is not part of the answer
        result = ask(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
    print(json.dumps(result))
