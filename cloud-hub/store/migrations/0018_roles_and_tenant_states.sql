-- What a key may do and how long, and whether a tenant is served.

-- Keys that are there already could do everything, and still can.
ALTER TABLE api_key
    ADD COLUMN role text NOT NULL DEFAULT 'owner'
        CHECK (role IN ('owner', 'administrator', 'operator', 'auditor', 'integrator')),
    -- Narrows the role; NULL: everything that the role allows.
    ADD COLUMN scopes text[],
    ADD COLUMN expires_at timestamptz,
    -- To the minute: noted at most once in that time.
    ADD COLUMN last_used_at timestamptz,
    -- The key that took its place, if it was rotated.
    ADD COLUMN replaced_by uuid;
ALTER TABLE api_key ALTER COLUMN role DROP DEFAULT;

ALTER TABLE tenant
    ADD COLUMN tier text NOT NULL DEFAULT 'enterprise' CHECK (tier IN ('basic', 'professional', 'enterprise')),
    ADD COLUMN suspended_at timestamptz,
    -- Where the tenant's quotas differ from its tier's: {"people": 100}, or null for none.
    ADD COLUMN quotas jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(quotas) = 'object');

UPDATE schema_version SET version = 18;
