-- A tenant's index key and its seeds are replaced beside the ones before, and so is the hub's pepper.

-- 'gi': the key by which doors know groups. It stays when the index key goes; a tenant of before gets the index key that it has then.
ALTER TABLE tenant_secret
    DROP CONSTRAINT tenant_secret_kind_check,
    ADD CONSTRAINT tenant_secret_kind_check CHECK (kind IN ('tk', 'bi', 'rs', 'gi')),
    -- From then on nobody marks or looks under it; it is kept until nobody can be at work who did.
    ADD COLUMN ended_at timestamptz;

-- Marks under index keys of odd versions are in the columns that there were, those of even versions in these. Whoever writes knows at
-- least one key that any other writer knows, and writes its marks under all that they know: unique in each column is unique.
ALTER TABLE person
    ADD COLUMN external_id_index_even bytea,
    ADD COLUMN email_index_even bytea,
    ADD CONSTRAINT person_external_id_even_unique UNIQUE (tenant_id, external_id_index_even),
    ADD CONSTRAINT person_deleted_has_no_mark
        CHECK (state = 'active' OR (external_id_index_even IS NULL AND email_index_even IS NULL));

ALTER TABLE app_user
    ALTER COLUMN login_index DROP NOT NULL,
    ADD COLUMN login_index_even bytea CHECK (octet_length(login_index_even) = 32),
    ADD CONSTRAINT app_user_login_even_unique UNIQUE (tenant_id, login_index_even),
    ADD CONSTRAINT app_user_has_a_mark CHECK (num_nonnulls(login_index, login_index_even) > 0);
GRANT UPDATE (login_index, login_index_even) ON app_user TO lintel_app;

-- Under which index key a row is that can only wait for its end: what was marked is not known any more.
ALTER TABLE login_attempt ADD COLUMN index_version integer NOT NULL DEFAULT 1;
ALTER TABLE idempotency_key ADD COLUMN index_version integer NOT NULL DEFAULT 1;

-- Photographs are marked under their person's key from now on. Marks of before, under the tenant's, serve until its index key goes.
ALTER TABLE template ADD COLUMN photographs_person_mark bytea CHECK (octet_length(photographs_person_mark) = 32);

-- By which version of its space's seed a vector is rotated.
ALTER TABLE template_vector ADD COLUMN seed_version integer NOT NULL DEFAULT 1;

-- Which pepper made a MAC, by 16 bytes that say nothing of it. NULL: the one that there was before.
ALTER TABLE api_key ADD COLUMN pepper bytea CHECK (octet_length(pepper) = 16);
ALTER TABLE recovery_code ADD COLUMN pepper bytea CHECK (octet_length(pepper) = 16);
ALTER TABLE platform_key ADD COLUMN pepper bytea CHECK (octet_length(pepper) = 16);
GRANT UPDATE (mac, pepper) ON platform_key TO lintel_app;

UPDATE schema_version SET version = 34;
