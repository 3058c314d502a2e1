-- How each device should be set up, with everything that was ever wished for it, and how it says that it is.

CREATE TABLE twin_desired (
    tenant_id  uuid        NOT NULL REFERENCES tenant,
    device_id  uuid        NOT NULL,
    version    bigint      NOT NULL CHECK (version > 0),
    settings   jsonb       NOT NULL,
    actor      text        NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, device_id, version),
    FOREIGN KEY (tenant_id, device_id) REFERENCES device
);

CREATE TABLE twin_reported (
    tenant_id       uuid        NOT NULL REFERENCES tenant,
    device_id       uuid        NOT NULL,
    seen_epoch      bigint,
    seen_version    bigint,
    applied_epoch   bigint,
    applied_version bigint,
    hash            bytea,
    state           text        NOT NULL CHECK (state IN ('none', 'applied', 'restart_needed', 'refused')),
    settings        jsonb       NOT NULL,
    restart_needed  jsonb       NOT NULL,
    code            text,
    reason          text,
    reported_at     timestamptz NOT NULL,
    -- Since when it stands as it does.
    since           timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, device_id),
    FOREIGN KEY (tenant_id, device_id) REFERENCES device
);

ALTER TABLE twin_desired ENABLE ROW LEVEL SECURITY;
ALTER TABLE twin_desired FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON twin_desired
    USING (tenant_id = NULLIF(current_setting('lintel.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('lintel.tenant', true), '')::uuid);
ALTER TABLE twin_reported ENABLE ROW LEVEL SECURITY;
ALTER TABLE twin_reported FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON twin_reported
    USING (tenant_id = NULLIF(current_setting('lintel.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('lintel.tenant', true), '')::uuid);
-- What was wished for does not change; a change is a new version.
GRANT SELECT, INSERT ON twin_desired TO lintel_app;
GRANT SELECT, INSERT, UPDATE ON twin_reported TO lintel_app;
