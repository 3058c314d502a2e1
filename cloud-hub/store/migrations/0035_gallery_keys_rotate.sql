-- The highest epoch that any gallery was ever raised to, of all tenants. Each hub keeps it beside the person keys, so that a backup
-- of the database is raised above the epochs that it does not have. Not told by the galleries themselves: those of other
-- tenants are nobody's to see.
ALTER TABLE hub_mark ADD COLUMN gallery_epoch bigint NOT NULL DEFAULT 0 CHECK (gallery_epoch >= 0);

UPDATE schema_version SET version = 35;
