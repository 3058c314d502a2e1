-- Commands of every kind, what a device sent in answer to one, and the logs that were collected.

ALTER TABLE command
    DROP CONSTRAINT command_kind_check,
    DROP CONSTRAINT command_check1,
    ADD COLUMN args   jsonb NOT NULL DEFAULT '{}',
    -- What came of it beside its state: the template that an enrolment at a door made.
    ADD COLUMN answer jsonb,
    ADD CONSTRAINT command_kind_check
        CHECK (kind IN ('unlock', 'refresh', 'lockdown', 'reboot', 'log_level', 'collect_logs', 'enrol')),
    ADD CONSTRAINT command_door_check
        CHECK (CASE WHEN kind IN ('unlock', 'enrol') THEN door_id IS NOT NULL
                    WHEN kind = 'lockdown' THEN true
                    ELSE door_id IS NULL END);
GRANT UPDATE (answer) ON command TO lintel_app;

CREATE TABLE device_log (
    tenant_id    uuid        NOT NULL REFERENCES tenant,
    command_id   uuid        NOT NULL,
    device_id    uuid        NOT NULL,
    -- JSON lines, redacted by the device: ids, no names.
    lines        bytea       NOT NULL CHECK (octet_length(lines) <= 524288),
    collected_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, command_id),
    FOREIGN KEY (tenant_id, command_id) REFERENCES command
);

ALTER TABLE device_log ENABLE ROW LEVEL SECURITY;
ALTER TABLE device_log FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON device_log
    USING (tenant_id = NULLIF(current_setting('lintel.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('lintel.tenant', true), '')::uuid);
GRANT SELECT, INSERT, DELETE ON device_log TO lintel_app;
