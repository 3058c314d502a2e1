-- How far the change of the keys of a tenant's people has come: ordered, then another key for everybody, then what is sealed, person after person.

CREATE TABLE person_key_change (
    tenant_id  uuid        PRIMARY KEY REFERENCES tenant,
    -- Higher with each order, also over a restored backup: a key is of the order that made it.
    generation bigint      NOT NULL CHECK (generation > 0),
    ordered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Everybody has another key.
    renewed_at timestamptz,
    -- What is sealed is under it, of everybody up to this one.
    through    uuid,
    ended_at   timestamptz,
    CHECK (renewed_at IS NOT NULL OR (through IS NULL AND ended_at IS NULL))
);
ALTER TABLE person_key_change ENABLE ROW LEVEL SECURITY;
ALTER TABLE person_key_change FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON person_key_change
    USING (tenant_id = NULLIF(current_setting('lintel.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('lintel.tenant', true), '')::uuid);
GRANT SELECT, INSERT, DELETE ON person_key_change TO lintel_app;
GRANT UPDATE (generation, ordered_at, renewed_at, through, ended_at) ON person_key_change TO lintel_app;

-- The body of an anchor was written once and never changed.
GRANT UPDATE (sealed) ON anchor TO lintel_app;

UPDATE schema_version SET version = 37;
