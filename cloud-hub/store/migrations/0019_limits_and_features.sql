-- How much a tenant and a key may ask, and which features a tenant has.

ALTER TABLE tenant
    -- NULL: as many as its tier.
    ADD COLUMN requests_per_hour bigint CHECK (requests_per_hour BETWEEN 1 AND 4294967295),
    ADD COLUMN requests_per_day bigint CHECK (requests_per_day BETWEEN 1 AND 4294967295),
    -- Where the tenant's features differ from its tier's: {"recognition": true}.
    ADD COLUMN features jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(features) = 'object');

-- NULL: as many as its tenant.
ALTER TABLE api_key ADD COLUMN requests_per_hour bigint CHECK (requests_per_hour BETWEEN 1 AND 4294967295);

UPDATE schema_version SET version = 19;
