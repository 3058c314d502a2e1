"""One real request, or more, for every operation that made-up data cannot reach: by operation, what makes it.

In: the hub. Out: requests that must succeed. Each makes whatever it needs anew, so that none depends on another, and what one
deletes is nobody else's.
"""

import base64
import json
import struct

import hub as hub_of


def request(path=None, query=None, body=None, kind=None, headers=None, authorization=None):
    return {
        "path": path or {}, "query": query or {}, "body": body, "kind": kind or ("application/json" if body is not None else None),
        "headers": headers or {}, "authorization": authorization,
    }


def form(**body):
    return {"body": body, "kind": "multipart/form-data"}


def picture(hub):
    photograph = hub.picture("obama.jpg")
    return [request(body={"image": hub.in_base64("obama.jpg")}), request(**form(image=photograph))]


def compare_faces(hub):
    two = {"image": hub.in_base64("obama.jpg"), "other_image": hub.in_base64("biden.jpg")}
    return [
        request(body=two),
        request(body={"template": hub.template, "other_template": hub.template}),
        request(**form(image=hub.picture("obama.jpg"), other_image=hub.picture("biden.jpg"))),
    ]


def verify_person(hub):
    person = hub.enrolled()
    return [
        request(body={"person_id": person, "template": hub.template}),
        request(**form(image=hub.picture("obama2.jpg"), options=json.dumps({"person_id": person}))),
    ]


def probes(hub):
    hub.enrolled()
    return [request(body={"template": hub.template}), request(**form(image=hub.picture("biden.jpg")))]


def of_session(frames=(), body=None):
    """By the key of the tenant, and by the session's own token."""

    def given(hub):
        out = []
        for by_token in (False, True):
            session, token = hub.session(frames)
            more = body(hub) if body else {}
            headers = {"X-Session-Token": token} if by_token else {}
            out.append(request({"id": session}, headers=headers, authorization="" if by_token else None, **more))
        return out

    return given


def by_user(make):
    def given(hub):
        return [request(authorization=hub_of.of_user(hub.logged_in()), **make(hub))]

    return given


def confirm_totp(hub):
    bearer = hub_of.of_user(hub.logged_in())
    secret = hub.must("POST", "/v1/me/totp", {"password": hub_of.PASSWORD}, authorization=bearer)["secret"]
    return [request(body={"code": hub_of.code(secret)}, authorization=bearer)]


def remove_totp(hub):
    _, bearer, secret = hub.with_totp()
    return [request(body={"password": hub_of.PASSWORD, "code": hub_of.code(secret, 1)}, authorization=bearer)]


def import_people(hub):
    head = "external_id,name,groups\n"
    return [
        request(body=(head + f"{hub.name('row')},Ada,visitors;night\n").encode(), kind="text/csv"),
        request(body=(json.dumps({"external_id": hub.name("row"), "name": "Ben"}) + "\n").encode(), kind="application/x-ndjson"),
    ]


def end_tenant(hub):
    tenant, name = hub.customer(suspended=True)
    return [request({"id": tenant}, {"confirm": name})]


AGREED = {"tier": "basic", "quotas": {"people": 7, "devices": None}, "requests": {"per_hour": "tier"}, "features": {"recognition": True}}


def list_search_paths(hub):
    """Of a tenant in whose gallery somebody was just looked for."""
    hub.enrolled()
    hub.must("POST", "/v1/recognition/identify", {"template": hub.template})
    return [request()]


def put_twin(hub):
    device = hub.new_device()[0]
    hub.must("GET", f"/v1/devices/{device}/twin")
    return [request({"id": device}, headers={"If-Match": hub.etag}, body={"log": {"level": "info"}})]


def update_person(hub):
    person = hub.person()
    hub.must("GET", f"/v1/people/{person}")
    return [request({"id": person}, headers={"If-Match": hub.etag}, body={"name": "Grace"})]


def create_device_enrolment(hub):
    person = hub.person()
    command = hub.command("enrol", to_door=True, person_id=person)
    # A face that nobody has.
    axis = struct.pack("<512f", *([0.0] * 511 + [1.0]))
    body = {
        "v": 1, "command": command, "person": person, "space_id": hub.template["space_id"], "pack": "test 1", "quality": 0.8,
        "template": base64.b64encode(axis).decode(),
    }
    return [request(body=body)]


def of(make, **more):
    """The path parameters alone."""

    def given(hub):
        return [request(make(hub), **more)]

    return given


def made(path, **body):
    return lambda hub: {"id": hub.made(path, {**body, "name": hub.name("made")})["id"]}


def anchored(hub):
    person, anchor = hub.anchor()
    return {"id": person, "anchor": anchor}


KEY = made("/v1/api-keys")
ROLE = made("/v1/roles", permissions=["events:read"])
CONSUMER = made("/v1/consumers")
WEBHOOK = lambda hub: {"id": hub.made("/v1/webhooks", {"url": "https://hooks.example.com/lintel"})["id"]}
PERSON = lambda hub: {"id": hub.person()}
USER = lambda hub: {"id": hub.invited()[0]}
NEW_DEVICE = lambda hub: {"id": hub.new_device()[0]}
DEVICE = lambda hub: {"id": hub.device()["id"]}
DOOR = lambda hub: {"id": hub.device()["door"]}
TENANT = lambda hub: {"id": hub.customer()[0]}
SITE = made("/v1/sites", time_zone="Asia/Jakarta")

GIVEN = {
    "get_api_key": of(KEY),
    "revoke_api_key": of(KEY),
    "rotate_api_key": of(KEY, body={"overlap_s": 60}),
    "create_api_key": lambda hub: [request(body={"name": "sheet", "role": "operator", "scopes": ["events:read"]})],
    "admin_create_tenant": lambda hub: [request(body={"name": hub.name("made"), "tier": "professional"})],
    "admin_get_tenant": of(TENANT),
    "admin_change_tenant": of(TENANT, body=AGREED),
    "admin_suspend_tenant": of(TENANT),
    "admin_resume_tenant": of(TENANT),
    "admin_delete_tenant": end_tenant,
    "admin_list_search_paths": list_search_paths,
    "admin_put_settings": lambda hub: [request(body={"changes": {"intrusion.people": 0}, "comment": "as it is"})],
    "get_role": of(ROLE),
    "change_role": of(ROLE, body={"description": "Front desk"}),
    "delete_role": of(ROLE),
    "get_user": of(USER),
    "change_user": of(USER, body={"role": "auditor"}),
    "invite_user": of(USER),
    "delete_user": of(USER),
    "take_totp_off_user": lambda hub: [request({"id": hub.with_totp()[0]})],
    "put_login_policy": lambda hub: [request(body={"require_totp": True})],
    "log_in": lambda hub: [request(body=hub.words(hub.user()[1]))],
    "refresh_login": lambda hub: [request(body={"refresh_token": hub.logged_in()["refresh_token"]})],
    "accept_invitation": lambda hub: [request(body={"invitation": hub.invited()[2], "password": hub_of.PASSWORD})],
    "get_me": by_user(lambda hub: {}),
    "log_out": by_user(lambda hub: {}),
    "change_my_password": by_user(lambda hub: {"body": {"old_password": hub_of.PASSWORD, "new_password": "horse battery staple"}}),
    "begin_totp": by_user(lambda hub: {"body": {"password": hub_of.PASSWORD}}),
    "confirm_totp": confirm_totp,
    "remove_totp": remove_totp,
    "get_site": of(SITE),
    "create_door": lambda hub: [request(body={"name": hub.name("Gate"), "site_id": SITE(hub)["id"]})],
    "create_device": lambda hub: [request(body={"name": hub.name("porch"), "site_id": SITE(hub)["id"], "doors": []})],
    "get_device": of(NEW_DEVICE),
    "revoke_device": of(NEW_DEVICE),
    "create_claim_token": of(NEW_DEVICE),
    "claim_device": lambda hub: [request(body=hub.new_device()[3])],
    "get_twin": of(NEW_DEVICE),
    "put_twin": put_twin,
    "list_twin_versions": of(NEW_DEVICE),
    "list_device_commands": of(DEVICE),
    "create_device_command": of(DEVICE, body={"kind": "refresh"}),
    "create_door_command": of(DOOR, body={"kind": "unlock", "hold_ms": 2000}),
    "unlock_door": of(DOOR, body={"hold_ms": 2000}),
    "get_command": of(lambda hub: {"id": hub.command("refresh")}),
    "get_command_logs": of(lambda hub: {"id": hub.logs()}),
    "get_device_link": lambda hub: [request()],
    "renew_device_certificate": lambda hub: [request(body={"v": 1, "csr": hub.csr("next")[1]})],
    "put_device_logs": lambda hub: [
        request({"command": hub.command("collect_logs")}, body=b'{"event":"one"}\n', kind="application/x-ndjson")
    ],
    "create_device_enrolment": create_device_enrolment,
    "get_person": of(PERSON),
    "update_person": update_person,
    "delete_person": of(PERSON),
    "import_people": import_people,
    "create_enrolment": lambda hub: [request({"id": hub.person()}, {"allow_duplicate": "true"}, **form(photo=[hub.picture("obama.jpg")]))],
    "create_negative_anchor": lambda hub: [request({"id": hub.enrolled()}, {"confirm": "true"}, **form(photo=hub.picture("biden.jpg")))],
    "list_negative_anchors": of(lambda hub: {"id": hub.anchor()[0]}),
    "delete_negative_anchor": of(anchored),
    "detect_faces": picture,
    "quality_of_face": picture,
    "liveness_of_face": picture,
    "embed_faces": picture,
    "compare_faces": compare_faces,
    "verify_person": verify_person,
    "identify_faces": probes,
    "search_faces": probes,
    "open_enrolment_session": lambda hub: [request(body={"person_id": hub.person()})],
    "open_authentication_session": lambda hub: [
        request(body={"kind": "verification", "person_id": hub.enrolled()}), request(body={"kind": "identification"}),
    ],
    "get_session": of_session(),
    "cancel_session": of_session(),
    "add_session_frames": of_session(body=lambda hub: {"body": {"images": [hub.in_base64("obama.jpg")]}}),
    "complete_session": of_session(frames=["obama.jpg"]),
    "delete_consumer": of(CONSUMER),
    "rotate_consumer_password": of(CONSUMER),
    "create_webhook": lambda hub: [request(body={"url": "https://hooks.example.com/door"})],
    "delete_webhook": of(WEBHOOK),
}
