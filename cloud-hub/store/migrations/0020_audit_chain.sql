-- The audit's chain: what waits for its place, what has one and never changes again, and what was signed of it.

-- Where the sealer finds work: one row for each statement that wrote entries, in its transaction. Rows are only added and taken
-- away, so that no two transactions wait for each other, as they would for one row a tenant. A routing table: ids only.
CREATE TABLE route_unsealed (
    id        uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
GRANT SELECT, INSERT, DELETE ON route_unsealed TO lintel_app;

-- By the database, so that no writer can forget it.
CREATE FUNCTION audit_entry_waits_for_its_place() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO route_unsealed (tenant_id) SELECT DISTINCT tenant_id FROM new_entries WHERE chain_position IS NULL;
    RETURN NULL;
END
$$;
CREATE TRIGGER audit_entry_waits_for_its_place AFTER INSERT ON audit_entry
    REFERENCING NEW TABLE AS new_entries FOR EACH STATEMENT EXECUTE FUNCTION audit_entry_waits_for_its_place();

-- What was written before there was a sealer. Entries of tenants cannot be seen from here, so each tenant is looked at once.
INSERT INTO route_unsealed (tenant_id) SELECT tenant_id FROM route WHERE kind = 'tenant';

-- The entries of a tenant that have no place, in the order in which they get one.
CREATE INDEX audit_entry_unsealed ON audit_entry (tenant_id, at, id) WHERE chain_position IS NULL;

-- A place is whole or not there.
ALTER TABLE audit_entry ADD CONSTRAINT audit_entry_place_whole CHECK (
    num_nulls(chain_position, previous_hash, entry_hash) IN (0, 3)
    AND chain_position > 0 AND octet_length(previous_hash) = 32 AND octet_length(entry_hash) = 32);

-- The sealer may fill in a place, once. Whoever owns the database can take this away; what they change then, the hashes and the
-- heads outside tell.
CREATE FUNCTION audit_entry_is_sealed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE insufficient_privilege USING MESSAGE = 'a sealed audit entry does not change';
END
$$;
CREATE TRIGGER audit_entry_is_sealed BEFORE UPDATE ON audit_entry
    FOR EACH ROW WHEN (OLD.chain_position IS NOT NULL) EXECUTE FUNCTION audit_entry_is_sealed();

-- The last head of each tenant. It is signed and committed before its line is written outside, so that a line that a crash
-- cut off is written again as it was; published_at says that the line is on the disk there.
CREATE TABLE audit_head (
    tenant_id    uuid        PRIMARY KEY REFERENCES tenant,
    number       bigint      NOT NULL CHECK (number > 0),
    position     bigint      NOT NULL CHECK (position > 0),
    entry_hash   bytea       NOT NULL CHECK (octet_length(entry_hash) = 32),
    signed_at    timestamptz NOT NULL,
    key_id       uuid        NOT NULL,
    signature    bytea       NOT NULL CHECK (octet_length(signature) = 64),
    published_at timestamptz
);
ALTER TABLE audit_head ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_head FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON audit_head
    USING (tenant_id = NULLIF(current_setting('lintel.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('lintel.tenant', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE ON audit_head TO lintel_app;

UPDATE schema_version SET version = 20;
