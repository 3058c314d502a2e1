-- Who may read a tenant's feed at the broker: a user of the consumers' listener. Its password is 256 random bits, of which
-- only the broker's hash is kept; a consumer that was removed has none.

CREATE TABLE consumer (
    tenant_id      uuid        NOT NULL REFERENCES tenant,
    id             uuid        NOT NULL,
    name           text        NOT NULL,
    password_hash  text,
    home_assistant boolean     NOT NULL DEFAULT false,
    created_at     timestamptz NOT NULL DEFAULT now(),
    rotated_at     timestamptz,
    removed_at     timestamptz,
    PRIMARY KEY (tenant_id, id),
    CHECK ((password_hash IS NULL) = (removed_at IS NOT NULL)),
    -- One line of the broker's password file holds it.
    CHECK (password_hash !~ '[:\s]')
);

ALTER TABLE consumer ENABLE ROW LEVEL SECURITY;
ALTER TABLE consumer FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON consumer
    USING (tenant_id = NULLIF(current_setting('lintel.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('lintel.tenant', true), '')::uuid);
GRANT SELECT, INSERT ON consumer TO lintel_app;
GRANT UPDATE (password_hash, rotated_at, removed_at) ON consumer TO lintel_app;

-- The broker's files are written for all tenants at once: those with consumers are found here.
ALTER TABLE route DROP CONSTRAINT route_kind_check;
ALTER TABLE route ADD CONSTRAINT route_kind_check CHECK (kind IN ('tenant', 'api_key', 'claim', 'device', 'consumer'));
