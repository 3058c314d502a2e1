-- Snapshots of galleries, the compaction of their logs, and what tells a restored database from the one before.

-- Up to here the log lacks what is no longer live; behind it it is whole. A device below it gets a snapshot.
ALTER TABLE gallery ADD COLUMN compacted_to bigint NOT NULL DEFAULT 0 CHECK (compacted_to >= 0);

-- The newest record of each entry up to a version, by id from any id on: what a chunk of a snapshot is made of.
CREATE INDEX gallery_record_by_object ON gallery_record (tenant_id, gallery_id, epoch, object_id, version DESC);

-- Ids whose `del` is no longer in the log. No put of one of them is ever appended again.
CREATE TABLE gallery_buried (
    tenant_id  uuid NOT NULL,
    gallery_id uuid NOT NULL,
    object_id  uuid NOT NULL,
    PRIMARY KEY (tenant_id, gallery_id, object_id),
    FOREIGN KEY (tenant_id, gallery_id) REFERENCES gallery
);

-- What is offered to a device: never the content, which is made anew of the log's sealed records whenever it is asked for, so
-- that an erasure leaves nothing here.
CREATE TABLE gallery_snapshot (
    tenant_id  uuid        NOT NULL,
    id         uuid        NOT NULL,
    device_id  uuid        NOT NULL,
    gallery_id uuid        NOT NULL,
    epoch      bigint      NOT NULL,
    version    bigint      NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    -- The key of its chunks under the tenant key. From here on: null until the device asks for the manifest.
    key_sealed bytea,
    root       bytea       CHECK (octet_length(root) = 32),
    records    bigint,
    -- Each chunk's last id (16), length (4) and hash (32).
    chunks     bytea       CHECK (octet_length(chunks) % 52 = 0),
    bytes      bigint,
    -- How far the device has read.
    fetched    bigint      NOT NULL DEFAULT 0,
    fetched_at timestamptz,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT gallery_snapshot_of_device UNIQUE (tenant_id, device_id, gallery_id),
    FOREIGN KEY (tenant_id, device_id) REFERENCES device,
    FOREIGN KEY (tenant_id, gallery_id) REFERENCES gallery,
    CHECK ((key_sealed IS NULL) = (root IS NULL) AND (root IS NULL) = (chunks IS NULL) AND (root IS NULL) = (bytes IS NULL))
);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['gallery_buried', 'gallery_snapshot'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format(
            'CREATE POLICY tenant_isolation ON %I
                 USING (tenant_id = NULLIF(current_setting(''lintel.tenant'', true), '''')::uuid)
                 WITH CHECK (tenant_id = NULLIF(current_setting(''lintel.tenant'', true), '''')::uuid)', name);
    END LOOP;
END $$;
GRANT SELECT, INSERT ON gallery_buried TO lintel_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON gallery_snapshot TO lintel_app;

-- Grows while the hub runs; the same number is kept beside the person keys. A database with a lower one than was seen there
-- is older than what devices have been told. No tenant's data, one row.
CREATE TABLE hub_mark (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    mark     bigint  NOT NULL CHECK (mark >= 0)
);
INSERT INTO hub_mark (mark) VALUES (0);
GRANT SELECT, UPDATE ON hub_mark TO lintel_app;

-- Roots of versions before the compaction go with their records; none is ever changed.
GRANT DELETE ON gallery_version TO lintel_app;
