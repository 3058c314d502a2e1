-- People who log in: who they are, what they may do, and what they hold of it at present.

CREATE TABLE app_user (
    tenant_id     uuid        NOT NULL REFERENCES tenant,
    id            uuid        NOT NULL,
    -- A name to log in by says who somebody is: sealed under the tenant's key, found by its keyed hash.
    login_sealed  bytea       NOT NULL,
    login_index   bytea       NOT NULL CHECK (octet_length(login_index) = 32),
    role          text        NOT NULL CHECK (role IN ('owner', 'administrator', 'operator', 'auditor', 'integrator')),
    state         text        NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'disabled')),
    -- Salt (16) and Argon2id of it (32); NULL until the first password was chosen.
    password      bytea       CHECK (octet_length(password) = 48),
    -- The MAC of the secret with which a password may be chosen, once.
    invitation    bytea       CHECK (octet_length(invitation) = 32),
    invited_until timestamptz,
    created_at    timestamptz NOT NULL DEFAULT now(),
    last_login_at timestamptz,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT app_user_login_unique UNIQUE (tenant_id, login_index),
    CHECK ((invitation IS NULL) = (invited_until IS NULL))
);

-- Attempts by name, of users and of names that nobody has alike: a lock that only users had would tell who is one.
CREATE TABLE login_attempt (
    tenant_id    uuid        NOT NULL REFERENCES tenant,
    login_index  bytea       NOT NULL CHECK (octet_length(login_index) = 32),
    failures     integer     NOT NULL CHECK (failures > 0),
    locked_until timestamptz,
    last_at      timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, login_index)
);

-- One log-in, and everything that was made of it by refreshing: it ends as a whole.
CREATE TABLE login (
    tenant_id  uuid        NOT NULL REFERENCES tenant,
    id         uuid        NOT NULL,
    user_id    uuid        NOT NULL,
    kind       text        NOT NULL CHECK (kind IN ('tokens', 'cookie')),
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES app_user ON DELETE CASCADE
);
CREATE INDEX login_of_user ON login (tenant_id, user_id);

-- Refresh tokens and cookies by their MACs. Used ones stay as long as their log-in: whoever shows one again has a copy.
CREATE TABLE login_secret (
    tenant_id uuid  NOT NULL REFERENCES tenant,
    mac       bytea NOT NULL CHECK (octet_length(mac) = 32),
    login_id  uuid  NOT NULL,
    used_at   timestamptz,
    PRIMARY KEY (tenant_id, mac),
    FOREIGN KEY (tenant_id, login_id) REFERENCES login ON DELETE CASCADE
);
CREATE INDEX login_secret_of_login ON login_secret (tenant_id, login_id);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['app_user', 'login_attempt', 'login', 'login_secret'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format(
            'CREATE POLICY tenant_isolation ON %I
                 USING (tenant_id = NULLIF(current_setting(''lintel.tenant'', true), '''')::uuid)
                 WITH CHECK (tenant_id = NULLIF(current_setting(''lintel.tenant'', true), '''')::uuid)',
            name);
        EXECUTE format('GRANT SELECT, INSERT, DELETE ON %I TO lintel_app', name);
    END LOOP;
END
$$;
GRANT UPDATE (role, state, password, invitation, invited_until, last_login_at) ON app_user TO lintel_app;
GRANT UPDATE (failures, locked_until, last_at) ON login_attempt TO lintel_app;
GRANT UPDATE (revoked_at) ON login TO lintel_app;
GRANT UPDATE (used_at) ON login_secret TO lintel_app;

UPDATE schema_version SET version = 23;
