-- Galleries that are too large for the hub's memory are searched in template_vector.

-- 2,056 bytes are just too many for a row that may be moved out of its table: each vector lay in two pieces elsewhere, and a scan
-- of 100,000 took 280 ms instead of 100. Vectors that are there stay where they are until they are written anew.
ALTER TABLE template_vector ALTER COLUMN vector SET STORAGE PLAIN;

-- Whether every template of the tenant has its vector. Unlogged as the vectors are, so that a crash empties both: where no row says so,
-- vectors may be missing, and a search by them would take the nearest of those that are left for the nearest of all.
CREATE UNLOGGED TABLE template_vector_whole (
    tenant_id uuid    PRIMARY KEY REFERENCES tenant,
    -- Who looks for missing ones: a look that a crash fell into says nothing.
    look      uuid    NOT NULL,
    whole     boolean NOT NULL
);
ALTER TABLE template_vector_whole ENABLE ROW LEVEL SECURITY;
ALTER TABLE template_vector_whole FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON template_vector_whole
    USING (tenant_id = NULLIF(current_setting('lintel.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('lintel.tenant', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE ON template_vector_whole TO lintel_app;

UPDATE schema_version SET version = 33;
