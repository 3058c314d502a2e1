"""The hub as the runs of schemathesis find it: a client of its API, and what real requests are made of.

In: the folder of a run, with `given.json`: the hub's addresses, its root certificate, keys of two tenants and of the platform. Out: people, photographs,
users who have logged in, sessions, a device with a certificate that says it is there. All of it comes from the API itself.
"""

import base64
import hashlib
import hmac
import http.client
import itertools
import json
import os
import ssl
import struct
import subprocess
import time
import uuid
from urllib.parse import urlsplit

PASSWORD = "correct horse battery"


class Refused(AssertionError):
    """The hub did not take what it should have."""


class Hub:
    def __init__(self, folder):
        self.folder = folder
        with open(os.path.join(folder, "given.json"), encoding="utf-8") as file:
            given = json.load(file)
        self.url, self.mqtt, self.root, self.pictures = given["url"], given["mqtt"], given["root"], given["pictures"]
        self.tenant = given["tenant"]["tenant"]["id"]
        self.key_id = given["tenant"]["api_key"]["id"]
        self.authorization = of_key(given["tenant"]["api_key"])
        # Whose settings may be changed without anybody minding.
        self.other_authorization = of_key(given["other"]["api_key"])
        # Who makes and ends tenants.
        self.platform_authorization = f"PlatformKey {given['admin']['id']}:{given['admin']['secret']}"
        self.counter = itertools.count(1)
        # What this run is called with or lives by: nothing may end it.
        self.kept = {self.key_id, self.tenant, given["other"]["tenant"]["id"]}

    def call(self, method, path, body=None, authorization=None, kind="application/json", cert=None):
        """Status and answer; JSON is read. Without `authorization` as the tenant's key."""
        context = ssl.create_default_context(cafile=self.root)
        if cert:
            context.load_cert_chain(*cert)
        headers = {"Authorization": self.authorization if authorization is None else authorization}
        if cert or authorization == "":
            del headers["Authorization"]
        if body is not None:
            headers["Content-Type"] = kind
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPSConnection(urlsplit(self.url).netloc, context=context, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read()
            self.etag = answer.getheader("ETag")
        finally:
            connection.close()
        is_json = "json" in (answer.getheader("Content-Type") or "") and "x-ndjson" not in answer.getheader("Content-Type")
        return answer.status, json.loads(text) if is_json and text else text

    def must(self, method, path, body=None, **how):
        status, answer = self.call(method, path, body, **how)
        if status >= 300:
            raise Refused(f"{method} {path}: {status} {answer!r:.400}")
        return answer

    def made(self, path, body=None):
        return self.must("POST", path, {} if body is None else body)

    def name(self, what):
        # Several runs go through one hub.
        return f"{what}-{os.getpid()}-{next(self.counter)}"

    # People and faces.

    def picture(self, name):
        with open(os.path.join(self.pictures, name), "rb") as file:
            return file.read()

    def in_base64(self, name):
        return base64.b64encode(self.picture(name)).decode()

    def await_models(self):
        """They are opened after the hub is ready."""
        until = time.monotonic() + 60
        while True:
            status, answer = self.call("POST", "/v1/recognition/embed", {"image": self.in_base64("obama.jpg")})
            if status != 503 or time.monotonic() > until:
                break
            time.sleep(0.2)
        if status != 200:
            raise Refused(f"embed: {status} {answer}")
        self.template = {name: answer[name] for name in ("space_id", "vector", "quality")}

    def person(self):
        return self.made("/v1/people", {"external_id": self.name("E"), "name": "Ada"})["id"]

    def photograph(self, path, name):
        """Sends a form with one photograph."""
        boundary = "lintel-contract"
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="photo"; filename="{name}"\r\nContent-Type: image/jpeg\r\n\r\n'
        body = head.encode() + self.picture(name) + f"\r\n--{boundary}--\r\n".encode()
        return self.must("POST", path, body, kind=f"multipart/form-data; boundary={boundary}")

    def enrolled(self):
        person = self.person()
        self.photograph(f"/v1/people/{person}/enrolments?allow_duplicate=true", "obama.jpg")
        return person

    def anchor(self):
        person = self.enrolled()
        return person, self.photograph(f"/v1/people/{person}/negative-anchors?confirm=true", "biden.jpg")["id"]

    def session(self, frames=()):
        body = {"person_id": self.person(), "allow_duplicate": True}
        opened = self.made("/v1/sessions/enrolment", body)
        session = opened["session"]["id"]
        if frames:
            self.made(f"/v1/sessions/{session}/frames", {"images": [self.in_base64(name) for name in frames]})
        return session, opened["token"]

    # Tenants.

    def customer(self, suspended=False):
        """Another tenant: its id and its name."""
        name = self.name("customer")
        made = self.must("POST", "/v1/admin/tenants", {"name": name}, authorization=self.platform_authorization)
        tenant = made["tenant"]["id"]
        if suspended:
            self.must("POST", f"/v1/admin/tenants/{tenant}/suspend", authorization=self.platform_authorization)
        return tenant, name

    # Users.

    def invited(self, role="operator"):
        login = self.name("user")
        made = self.made("/v1/users", {"login": login, "role": role})
        return made["id"], login, made["invitation"]

    def user(self):
        user, login, invitation = self.invited()
        self.kept.add(user)
        self.must("POST", "/v1/login/invitation", {"invitation": invitation, "password": PASSWORD}, authorization="")
        return user, login

    def words(self, login):
        return {"tenant": self.tenant, "login": login, "password": PASSWORD}

    def logged_in(self, login=None):
        return self.must("POST", "/v1/login", self.words(login or self.user()[1]), authorization="")

    def with_totp(self):
        """A user with a second factor: their id, an `Authorization`, the secret."""
        user, login = self.user()
        bearer = of_user(self.logged_in(login))
        secret = self.must("POST", "/v1/me/totp", {"password": PASSWORD}, authorization=bearer)["secret"]
        self.must("POST", "/v1/me/totp/confirm", {"code": code(secret)}, authorization=bearer)
        return user, bearer, secret

    # A device.

    def csr(self, name):
        key, request = (os.path.join(self.folder, f"{name}.{kind}") for kind in ("key", "csr"))
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
        openssl("req", "-new", "-key", key, "-subj", "/CN=somebody", "-out", request)
        with open(request, encoding="ascii") as file:
            return key, file.read()

    def new_device(self):
        """One that waits for its claim, with a door: id, door, and what claims it (as its key and the request)."""
        site = self.made("/v1/sites", {"name": self.name("HQ"), "time_zone": "Asia/Jakarta"})["id"]
        name = self.name("entrance")
        doors = [{"local_id": "main", "name": self.name("Main")}]
        made = self.made("/v1/devices", {"name": name, "site_id": site, "doors": doors})
        door = next(door["id"] for door in self.must("GET", "/v1/doors")["data"] if door["device_id"] == made["id"])
        encoded = made["claim"]["token"].split(".", 1)[1]
        token = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
        key, csr = self.csr(name)
        return made["id"], door, key, {"v": 1, "claim_id": token["claim_id"], "secret": token["secret"], "serial": "SN-1", "csr": csr}

    def device(self):
        """The one that is there: claimed, with a certificate, and heard at the broker."""
        if not hasattr(self, "own_device"):
            device, door, key, claim = self.new_device()
            chain = os.path.join(self.folder, "device.pem")
            with open(chain, "w", encoding="ascii") as file:
                file.write(self.must("POST", "/v1/claims", claim, authorization="")["certificate_chain"])
            self.own_device = {"id": device, "door": door, "cert": (chain, key)}
            self.kept.add(device)
            self.say("status", {
                "v": 1, "state": "online", "boot": str(uuid.uuid4()), "connection_epoch": 1,
                "since": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime()), "agent_version": "0.0.0", "pack": None, "space_id": None,
            })
            until = time.monotonic() + 20
            while not self.must("GET", f"/v1/devices/{device}").get("online"):
                if time.monotonic() > until:
                    raise Refused("the device said that it is there, and the hub does not see it")
                time.sleep(0.1)
        return self.own_device

    def say(self, channel, message):
        """The device says something: in the envelope that its link key makes (crates/wire-contract/src/envelope.rs)."""
        device = self.own_device
        link = self.must("GET", "/v1/device/link", cert=device["cert"])
        epoch = struct.pack(">I", link["link_epoch"])
        fields = lambda *fields: b"".join(struct.pack(">I", len(field)) + field for field in fields)
        prk = hmac.digest(b"lintel.link.v1", base64.b64decode(link["link_key"]), "sha256")
        key = hmac.digest(prk, fields(b"up", uuid.UUID(device["id"]).bytes, epoch) + b"\x01", "sha256")
        topic = f"lintel/v1/{self.tenant}/{device['id']}/up/{channel}"
        payload = json.dumps(message).encode()
        payload = b"\x01" + epoch + hmac.digest(key, fields(topic.encode(), epoch, payload), "sha256") + payload
        host, port = self.mqtt.rsplit(":", 1)
        command = ["mosquitto_pub", "-V", "5", "-h", host, "-p", port, "--cafile", self.root, "--cert", device["cert"][0], "--key", device["cert"][1]]
        command += ["-i", device["id"], "-q", "1", "-r", "-t", topic, "-s"]
        subprocess.run(command, input=payload, check=True, timeout=20)

    def command(self, kind, to_door=False, **fields):
        device = self.device()
        path = f"/v1/doors/{device['door']}/commands" if to_door else f"/v1/devices/{device['id']}/commands"
        return self.must("POST", path, {"kind": kind, **fields})["id"]

    def logs(self):
        """A command whose log the device has sent."""
        command = self.command("collect_logs")
        path = f"/v1/device/logs/{command}"
        self.must("PUT", path, b'{"event":"one"}\n', kind="application/x-ndjson", cert=self.device()["cert"])
        return command


def of_key(key):
    return f"ApiKey {key['id']}:{key['secret']}"


def of_user(granted):
    return f"Bearer {granted['access_token']}"


def openssl(*words):
    subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=20)


def code(secret, steps=0):
    """What an authenticator app shows, so many steps from now (RFC 6238)."""
    key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    tag = hmac.digest(key, struct.pack(">Q", int(time.time()) // 30 + steps), hashlib.sha1)
    at = tag[19] & 15
    return f"{(struct.unpack('>I', tag[at:at + 4])[0] & 0x7FFFFFFF) % 1_000_000:06}"
