-- What operators order devices to do, and how far it got. A command lives seconds; the row stays as a record of it.

CREATE TABLE command (
    tenant_id  uuid        NOT NULL REFERENCES tenant,
    id         uuid        NOT NULL,
    device_id  uuid        NOT NULL,
    door_id    uuid,
    kind       text        NOT NULL CHECK (kind IN ('unlock', 'refresh')),
    hold_ms    integer     CHECK (hold_ms BETWEEN 1 AND 60000),
    actor      text        NOT NULL,
    issued_at  timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    state      text        NOT NULL DEFAULT 'issued'
               CHECK (state IN ('issued', 'accepted', 'executing', 'succeeded', 'failed', 'expired')),
    code       text,
    changed_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, device_id) REFERENCES device,
    CHECK (expires_at > issued_at),
    CHECK ((kind = 'unlock') = (door_id IS NOT NULL))
);
CREATE INDEX command_of_device ON command (tenant_id, device_id, id DESC);

ALTER TABLE command ENABLE ROW LEVEL SECURITY;
ALTER TABLE command FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON command
    USING (tenant_id = NULLIF(current_setting('lintel.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('lintel.tenant', true), '')::uuid);
GRANT SELECT, INSERT ON command TO lintel_app;
-- What was ordered does not change; how far it got does.
GRANT UPDATE (state, code, changed_at) ON command TO lintel_app;

UPDATE schema_version SET version = 3;
