-- The end of a tenant: marked in one transaction, emptied in batches by a job, and one row without personal data that stays.

-- Since when the tenant is being deleted. From then on its keys are gone, so there is no way back.
ALTER TABLE tenant
    ADD COLUMN deleting_since timestamptz,
    ADD CONSTRAINT tenant_deleting_is_suspended CHECK (deleting_since IS NULL OR suspended_at IS NOT NULL);

CREATE FUNCTION tenant_deletion_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE insufficient_privilege USING MESSAGE = 'the deletion of a tenant cannot be taken back';
END
$$;
CREATE TRIGGER tenant_deletion_is_final BEFORE UPDATE ON tenant
    FOR EACH ROW WHEN (OLD.deleting_since IS NOT NULL AND NEW.deleting_since IS DISTINCT FROM OLD.deleting_since)
    EXECUTE FUNCTION tenant_deletion_is_final();

-- What is left of a tenant. No key leads from here to `tenant`: that row goes.
CREATE TABLE erased_tenant (
    tenant_id     uuid        PRIMARY KEY,
    began_at      timestamptz NOT NULL,
    -- Person keys destroyed in the key store, and rows removed, by table.
    person_keys   bigint      NOT NULL DEFAULT 0 CHECK (person_keys >= 0),
    removed       jsonb       NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(removed) = 'object'),
    -- The last head of its audit. Set before the first entry goes, and never changed.
    head_number   bigint      CHECK (head_number > 0),
    head_position bigint      CHECK (head_position > 0),
    head_hash     bytea       CHECK (octet_length(head_hash) = 32),
    closed_at     timestamptz,
    -- The receipt over all of the above, by the hub's signing key.
    finished_at   timestamptz,
    key_id        uuid,
    signature     bytea       CHECK (octet_length(signature) = 64),
    CHECK (num_nulls(head_number, head_position, head_hash) IN (0, 3)),
    CHECK (num_nulls(finished_at, key_id, signature) IN (0, 3)),
    CHECK (head_number IS NULL OR closed_at IS NOT NULL),
    CHECK (finished_at IS NULL OR closed_at IS NOT NULL)
);
ALTER TABLE erased_tenant ENABLE ROW LEVEL SECURITY;
ALTER TABLE erased_tenant FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON erased_tenant
    USING (tenant_id = NULLIF(current_setting('lintel.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('lintel.tenant', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE ON erased_tenant TO lintel_app;

CREATE FUNCTION erased_tenant_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.finished_at IS NOT NULL
        OR OLD.closed_at IS NOT NULL
            AND (OLD.closed_at, OLD.head_number, OLD.head_position, OLD.head_hash)
                IS DISTINCT FROM (NEW.closed_at, NEW.head_number, NEW.head_position, NEW.head_hash)
        OR (OLD.tenant_id, OLD.began_at) IS DISTINCT FROM (NEW.tenant_id, NEW.began_at)
    THEN
        RAISE insufficient_privilege USING MESSAGE = 'what is left of a tenant does not change';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER erased_tenant_is_final BEFORE UPDATE ON erased_tenant
    FOR EACH ROW EXECUTE FUNCTION erased_tenant_is_final();

-- The id of a tenant that was erased is nobody's again: its heads are outside, and mean that tenant.
CREATE FUNCTION tenant_id_is_used_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM erased_tenant WHERE tenant_id = NEW.tenant_id) THEN
        RAISE unique_violation USING MESSAGE = 'a tenant of this id was erased; ids are never used again';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER tenant_id_is_used_once BEFORE INSERT ON tenant
    FOR EACH ROW EXECUTE FUNCTION tenant_id_is_used_once();

-- What the application itself may not do (history is only added to), this does for it: with the owner's rights, for the tenant of
-- the transaction, and only once that is marked. Row-level security is forced on the owner too, so that a tenant is all that it
-- can reach. The audit goes only after its last head was noted above.
CREATE FUNCTION remove_rows_of_deleted_tenant(of_table text, at_most integer) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    this    uuid := NULLIF(current_setting('lintel.tenant', true), '')::uuid;
    removed bigint;
BEGIN
    -- Locked to the end: two hubs take turns, and nothing that refers to the tenant is added meanwhile.
    PERFORM FROM tenant WHERE tenant_id = this AND deleting_since IS NOT NULL FOR UPDATE;
    IF NOT FOUND THEN
        RAISE insufficient_privilege USING MESSAGE = 'only a tenant that is being deleted can be emptied';
    END IF;
    IF of_table = 'erased_tenant' OR NOT EXISTS (
        SELECT FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
        WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND c.relname = of_table)
    THEN
        RAISE insufficient_privilege USING MESSAGE = format('%s is no table to be emptied', of_table);
    END IF;
    IF of_table IN ('audit_entry', 'audit_head', 'route_unsealed', 'route', 'route_due', 'tenant')
        AND NOT EXISTS (SELECT FROM erased_tenant WHERE tenant_id = this AND closed_at IS NOT NULL)
    THEN
        RAISE insufficient_privilege USING MESSAGE = 'the last head of the audit is not noted yet';
    END IF;
    EXECUTE format(
        'DELETE FROM %I WHERE tenant_id = $1 AND ctid = ANY (ARRAY(SELECT ctid FROM %I WHERE tenant_id = $1 LIMIT $2))',
        of_table, of_table) USING this, at_most;
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END
$$;
REVOKE EXECUTE ON FUNCTION remove_rows_of_deleted_tenant(text, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION remove_rows_of_deleted_tenant(text, integer) TO lintel_app;

-- Where the job finds tenants that are being deleted.
ALTER TABLE route_due DROP CONSTRAINT route_due_kind_check;
ALTER TABLE route_due ADD CONSTRAINT route_due_kind_check CHECK (kind IN ('webhook', 'erasure', 'deletion'));

UPDATE schema_version SET version = 24;
