-- Negative anchors: an embedding of somebody who was taken for a person and is not them, sealed under that person's key and gone
-- with it. A kind of its own in the log. No searchable vector: nobody is ever found by one.

CREATE TABLE anchor (
    tenant_id     uuid        NOT NULL,
    id            uuid        NOT NULL,
    person_id     uuid        NOT NULL,
    space_id      text        NOT NULL,
    model_version text        NOT NULL,
    quality       real        NOT NULL,
    revision      integer     NOT NULL DEFAULT 1,
    sealed        bytea       NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, person_id) REFERENCES person
);
CREATE INDEX anchor_by_person ON anchor (tenant_id, person_id);

ALTER TABLE anchor ENABLE ROW LEVEL SECURITY;
ALTER TABLE anchor FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON anchor
    USING (tenant_id = NULLIF(current_setting('lintel.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('lintel.tenant', true), '')::uuid);
GRANT SELECT, INSERT, DELETE ON anchor TO lintel_app;

ALTER TABLE gallery_record DROP CONSTRAINT gallery_record_kind_check;
ALTER TABLE gallery_record ADD CONSTRAINT gallery_record_kind_check
    CHECK (kind IN ('person', 'template', 'credential', 'rule', 'anchor'));
