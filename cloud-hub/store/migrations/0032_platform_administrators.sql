-- Keys of platform administrators, who make and end tenants over the network and are no user of any. No tenant's rows: a key is about all of them.
-- Revoked ones stay, so that it can be told whose an entry of the audit was.

CREATE TABLE platform_key (
    id           uuid        PRIMARY KEY,
    name         text        NOT NULL,
    role         text        NOT NULL CHECK (role IN ('administrator', 'auditor')),
    mac          bytea       NOT NULL CHECK (octet_length(mac) = 32),
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz,
    last_used_at timestamptz,
    revoked_at   timestamptz
);
GRANT SELECT, INSERT ON platform_key TO lintel_app;
GRANT UPDATE (last_used_at, revoked_at) ON platform_key TO lintel_app;

UPDATE schema_version SET version = 32;
