"""What schemathesis does not know by itself: who calls what, one real request for each operation, and how some bodies are sent.

In: the folder of a run in LINTEL_CONTRACT (see hub.py). A real request that is refused is a failure of its own kind.
"""

import os
import re
import uuid

import schemathesis
from schemathesis.auths import AuthContext, set_on_case

from given import GIVEN
from hub import Hub, of_user

NOBODY = "00000000-0000-4000-8000-000000000000"
HUB = Hub(os.environ["LINTEL_CONTRACT"])
HUB.await_models()
BEARERS = {}
# Requests that must succeed, by the id of their case.
REAL = set()
KEY = re.compile(r'("([ !#-\[\]-~]|\\["\\])+"|[A-Za-z0-9._~:+/=-]+)')


@schemathesis.serializer("application/x-ndjson", "application/zip", "text/csv")
def as_it_is(ctx, value):
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


def name_of(operation):
    return operation.definition.raw["operationId"]


def schemes_of(operation):
    return {scheme for alternative in operation.definition.raw.get("security", []) for scheme in alternative}


@schemathesis.auth(refresh_interval=None)
class Credentials:
    """A key of the tenant or of the platform, where one is taken; a user's log-in, where only that is."""

    def get(self, case, ctx):
        name, schemes = name_of(ctx.operation), schemes_of(ctx.operation)
        if name == "put_login_policy":
            # A second factor that is demanded of everybody would end the log-ins of this run.
            return HUB.other_authorization
        if "PlatformKey" in schemes:
            return HUB.platform_authorization
        if "ApiKey" in schemes:
            return HUB.authorization
        if "Bearer" in schemes:
            # One for each operation: some end it.
            if name not in BEARERS:
                BEARERS[name] = of_user(HUB.logged_in())
            return BEARERS[name]
        return None

    def set(self, case, data, ctx):
        case.headers["Authorization"] = data


@schemathesis.hook
def before_add_examples(context, examples):
    operation = context.operation
    for real in GIVEN.get(name_of(operation), lambda hub: [])(HUB):
        more = {} if real["kind"] is None else {"body": real["body"], "media_type": real["kind"]}
        case = operation.Case(path_parameters=real["path"], query=real["query"], headers=real["headers"], **more)
        if real["authorization"]:
            case.headers["Authorization"] = real["authorization"]
            case._has_explicit_auth = True
        elif real["authorization"] is None:
            set_on_case(case, AuthContext(operation=operation, app=None), None)
        else:
            case._has_explicit_auth = True
        REAL.add(case.id)
        examples.append(case)


@schemathesis.hook
def before_call(context, case, kwargs):
    for name, value in case.path_parameters.items():
        # What an answer does not name (a door without a device) is no id; schemathesis goes on with it all the same.
        if value in (None, "None"):
            case.path_parameters[name] = NOBODY
    if case.method.upper() != "GET" and case.path_parameters.get("id") in HUB.kept and "commands" not in case.path:
        # Never what the run itself lives by, in whatever way its id was come by.
        if case.id not in REAL:
            case.path_parameters["id"] = NOBODY
    if name_of(case.operation) == "admin_put_settings" and case.id not in REAL and isinstance(case.body, dict):
        # What it sets would hold for this run: wrong keys are the point of it.
        if case.body.get("dry_run") in (None, False):
            case.body["dry_run"] = True
    key = (case.headers or {}).get("Idempotency-Key")
    if isinstance(key, str) and len(key) <= 255 and KEY.fullmatch(key):
        # No schema can say that two requests under one key are one, or a mistake.
        case.headers["Idempotency-Key"] = str(uuid.uuid4())
    if "Device" in schemes_of(case.operation):
        kwargs["cert"] = HUB.device()["cert"]


@schemathesis.check
def real_request_is_taken(ctx, response, case):
    if case.id in REAL and response.status_code >= 400:
        raise AssertionError(f"A real request was refused with {response.status_code}: {response.text[:300]}")
