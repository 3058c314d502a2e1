-- A second factor of users, roles of a tenant's own, and the keys of access tokens, which all hubs share.

-- The secret that a user's authenticator app has, sealed under the tenant's key. It counts once a code of it was shown.
CREATE TABLE user_totp (
    tenant_id     uuid        NOT NULL REFERENCES tenant,
    user_id       uuid        NOT NULL,
    secret_sealed bytea       NOT NULL,
    begun_at      timestamptz NOT NULL,
    confirmed_at  timestamptz,
    -- The step of the last code that was taken: a code is good once, and none before it is good any more.
    last_step     bigint      NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, user_id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES app_user ON DELETE CASCADE
);

-- For whoever lost the app: each opens one log-in. By their MACs; used ones stay, so that it can be told how many are left.
CREATE TABLE recovery_code (
    tenant_id uuid  NOT NULL REFERENCES tenant,
    user_id   uuid  NOT NULL,
    mac       bytea NOT NULL CHECK (octet_length(mac) = 32),
    used_at   timestamptz,
    PRIMARY KEY (tenant_id, user_id, mac),
    FOREIGN KEY (tenant_id, user_id) REFERENCES user_totp ON DELETE CASCADE
);

ALTER TABLE tenant ADD COLUMN require_totp boolean NOT NULL DEFAULT false;

-- A role that a tenant made. A deleted one stays for the keys that ended with it.
CREATE TABLE tenant_role (
    tenant_id   uuid        NOT NULL REFERENCES tenant,
    id          uuid        NOT NULL,
    name        text        NOT NULL CHECK (name ~ '^[a-z][a-z0-9_-]{0,39}$'),
    description text        NOT NULL DEFAULT '',
    permissions text[]      NOT NULL CHECK (cardinality(permissions) > 0),
    created_at  timestamptz NOT NULL,
    changed_at  timestamptz NOT NULL,
    deleted_at  timestamptz,
    PRIMARY KEY (tenant_id, id)
);
CREATE UNIQUE INDEX tenant_role_name_unique ON tenant_role (tenant_id, name) WHERE deleted_at IS NULL;

-- `own`: the tenant's role beside it.
ALTER TABLE app_user DROP CONSTRAINT app_user_role_check;
ALTER TABLE app_user
    ADD CONSTRAINT app_user_role_check
        CHECK (role IN ('owner', 'administrator', 'operator', 'auditor', 'integrator', 'own')),
    ADD COLUMN own_role uuid,
    ADD CONSTRAINT app_user_own_role_check CHECK ((role = 'own') = (own_role IS NOT NULL)),
    ADD CONSTRAINT app_user_own_role FOREIGN KEY (tenant_id, own_role) REFERENCES tenant_role;
CREATE INDEX app_user_of_role ON app_user (tenant_id, own_role) WHERE own_role IS NOT NULL;
ALTER TABLE api_key DROP CONSTRAINT api_key_role_check;
ALTER TABLE api_key
    ADD CONSTRAINT api_key_role_check
        CHECK (role IN ('owner', 'administrator', 'operator', 'auditor', 'integrator', 'own')),
    ADD COLUMN own_role uuid,
    ADD CONSTRAINT api_key_own_role_check CHECK ((role = 'own') = (own_role IS NOT NULL)),
    ADD CONSTRAINT api_key_own_role FOREIGN KEY (tenant_id, own_role) REFERENCES tenant_role;
CREATE INDEX api_key_of_role ON api_key (tenant_id, own_role) WHERE own_role IS NOT NULL;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['user_totp', 'recovery_code', 'tenant_role'] LOOP
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
GRANT UPDATE (secret_sealed, begun_at, confirmed_at, last_step) ON user_totp TO lintel_app;
GRANT UPDATE (used_at) ON recovery_code TO lintel_app;
GRANT UPDATE (name, description, permissions, changed_at, deleted_at) ON tenant_role TO lintel_app;
GRANT UPDATE (own_role) ON app_user TO lintel_app;

-- The keys that sign access tokens, sealed under the master key, which every hub has. No tenant's: a token names its own.
CREATE TABLE token_key (
    id         uuid        PRIMARY KEY,
    sealed     bytea       NOT NULL,
    created_at timestamptz NOT NULL,
    -- From when on it signs; until then it is known to whoever verifies.
    signs_from timestamptz NOT NULL
);
GRANT SELECT, INSERT, DELETE ON token_key TO lintel_app;

UPDATE schema_version SET version = 27;
