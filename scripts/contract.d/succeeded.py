"""Which operations of the document never succeeded in the runs of schemathesis whose reports are given.

In: the OpenAPI document, reports (NDJSON). Out: a line for each that should have; exit 1 if there is one. Answers that are
always the same refusal prove nothing about an operation, however many they are.
"""

import json
import sys

METHODS = ("get", "post", "put", "patch", "delete")
# What needs more than a key and made-up data, and the tests that have it.
ELSEWHERE = {
    "claim_device": "a request signed by its own key: cloud-hub/tests/hub/devices.rs",
    "create_device_command": "a device that is connected: cloud-hub/tests/hub/commands.rs",
    "create_door_command": "a device that is connected: cloud-hub/tests/hub/commands.rs",
    "unlock_door": "a device that is connected: cloud-hub/tests/hub/commands.rs",
    "get_command": "a device that is connected: cloud-hub/tests/hub/commands.rs",
    "get_command_logs": "a device that is connected: cloud-hub/tests/hub/commands.rs",
    "create_enrolment": "a picture of a face: cloud-hub/tests/hub/enrolment.rs",
    "create_negative_anchor": "a picture of a face: cloud-hub/tests/custody/anchors.rs",
    "delete_negative_anchor": "a picture of a face: cloud-hub/tests/custody/anchors.rs",
    "detect_faces": "a picture: cloud-hub/tests/hub/recognition.rs",
    "quality_of_face": "a picture of a face: cloud-hub/tests/hub/recognition.rs",
    "liveness_of_face": "a picture of a face: cloud-hub/tests/hub/recognition.rs",
    "embed_faces": "a picture of a face: cloud-hub/tests/hub/recognition.rs",
    "compare_faces": "a picture of a face, or a template: cloud-hub/tests/hub/recognition.rs",
    "verify_person": "a picture of a face, or a template: cloud-hub/tests/hub/recognition.rs",
    "identify_faces": "a picture of a face, or a template: cloud-hub/tests/hub/recognition.rs",
    "search_faces": "a picture of a face, or a template: cloud-hub/tests/hub/recognition.rs",
    "add_session_frames": "a picture of a face: cloud-hub/tests/hub/sessions.rs",
    "complete_session": "a picture of a face: cloud-hub/tests/hub/sessions.rs",
    "get_session": "the id of a session that was opened: cloud-hub/tests/hub/sessions.rs",
    "cancel_session": "the id of a session that was opened: cloud-hub/tests/hub/sessions.rs",
    "open_enrolment_session": "the id of a person: cloud-hub/tests/hub/sessions.rs",
    "log_in": "a user with a password: cloud-hub/tests/hub/login.rs",
    "refresh_login": "a log-in: cloud-hub/tests/hub/login.rs",
    "accept_invitation": "an invitation: cloud-hub/tests/hub/login.rs",
    "get_me": "a log-in: cloud-hub/tests/hub/login.rs",
    "change_my_password": "a log-in: cloud-hub/tests/hub/login.rs",
    "begin_totp": "a log-in: cloud-hub/tests/hub/totp.rs",
    "confirm_totp": "a log-in: cloud-hub/tests/hub/totp.rs",
    "remove_totp": "a log-in: cloud-hub/tests/hub/totp.rs",
    "take_totp_off_user": "a user with a second factor: cloud-hub/tests/hub/totp.rs",
    "log_out": "a log-in: cloud-hub/tests/hub/login.rs",
    "get_openapi": "it is how the document was read",
    "stream_events": "a stream that does not end: cloud-hub/tests/hub/events.rs",
}


def operations(document):
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield f"{method.upper()} {path}", item[method]


def succeeded(report):
    with open(report, encoding="utf-8") as lines:
        for line in lines:
            recorder = json.loads(line).get("ScenarioFinished", {}).get("recorder", {})
            for call in (recorder.get("interactions") or {}).values():
                status = (call.get("response") or {}).get("status_code")
                if status and status < 400:
                    yield recorder["label"]


def main(document, *reports):
    with open(document, encoding="utf-8") as file:
        document = json.load(file)
    seen = {label for report in reports for label in succeeded(report)}
    never = []
    for label, operation in operations(document):
        for_devices = any("Device" in scheme for scheme in operation["security"])
        if label not in seen and not for_devices and operation["operationId"] not in ELSEWHERE:
            never.append(label)
    for label in never:
        print(f"error: {label} never succeeded", file=sys.stderr)
    print(f"{len(seen)} operations succeeded", file=sys.stderr)
    return 1 if never else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
