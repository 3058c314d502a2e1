-- Requests with an `Idempotency-Key`: claimed before they are carried out, their answers kept for a day.

CREATE TABLE idempotency_key (
    tenant_id     uuid        NOT NULL REFERENCES tenant,
    -- Keyed hash of the caller and the key they sent.
    key_index     bytea       NOT NULL CHECK (octet_length(key_index) = 32),
    -- Keyed hash of what was asked.
    request_index bytea       NOT NULL CHECK (octet_length(request_index) = 32),
    -- Who carries it out: a transaction of another attempt does not commit.
    attempt       uuid        NOT NULL,
    -- Written by the transaction that changes something, with the change.
    changed       boolean     NOT NULL DEFAULT false,
    held_until    timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL,
    -- NULL: not known yet, or never.
    status        smallint    CHECK (status BETWEEN 100 AND 499),
    -- Head and body of the answer, under the tenant's key. NULL: not kept.
    answer_sealed bytea,
    -- Ids that the answer is about: whatever is erased takes it along.
    about         uuid[]      NOT NULL DEFAULT '{}',
    PRIMARY KEY (tenant_id, key_index),
    CHECK (answer_sealed IS NULL OR status IS NOT NULL)
);
CREATE INDEX idempotency_key_expiry ON idempotency_key (tenant_id, expires_at);

-- How much a tenant keeps; counted in the transactions that change it.
CREATE TABLE idempotency_use (
    tenant_id uuid    PRIMARY KEY REFERENCES tenant,
    keys      integer NOT NULL CHECK (keys >= 0),
    bytes     bigint  NOT NULL CHECK (bytes >= 0)
);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['idempotency_key', 'idempotency_use'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format(
            'CREATE POLICY tenant_isolation ON %I
                 USING (tenant_id = NULLIF(current_setting(''lintel.tenant'', true), '''')::uuid)
                 WITH CHECK (tenant_id = NULLIF(current_setting(''lintel.tenant'', true), '''')::uuid)',
            name);
    END LOOP;
END
$$;
GRANT SELECT, INSERT, DELETE ON idempotency_key TO lintel_app;
GRANT UPDATE (request_index, attempt, changed, held_until, expires_at, status, answer_sealed, about)
    ON idempotency_key TO lintel_app;
GRANT SELECT, INSERT ON idempotency_use TO lintel_app;
GRANT UPDATE (keys, bytes) ON idempotency_use TO lintel_app;

UPDATE schema_version SET version = 30;
