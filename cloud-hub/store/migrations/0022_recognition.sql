-- What a tenant's templates and anchors have come to, for the indexes that are kept in memory; and how sure recognition must be.

-- Each change adds a row, so that nobody waits for anybody; the sum never goes down. A job folds rows into one.
CREATE TABLE template_change (
    tenant_id uuid   NOT NULL REFERENCES tenant,
    id        uuid   NOT NULL DEFAULT gen_random_uuid(),
    changes   bigint NOT NULL CHECK (changes > 0),
    PRIMARY KEY (tenant_id, id)
);
ALTER TABLE template_change ENABLE ROW LEVEL SECURITY;
ALTER TABLE template_change FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON template_change
    USING (tenant_id = NULLIF(current_setting('lintel.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('lintel.tenant', true), '')::uuid);
GRANT SELECT, INSERT, DELETE ON template_change TO lintel_app;

-- A trigger, so that no statement that changes templates can forget it.
CREATE FUNCTION note_template_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO template_change (tenant_id, changes) SELECT tenant_id, count(*) FROM changed GROUP BY tenant_id;
    RETURN NULL;
END $$;
CREATE TRIGGER template_put AFTER INSERT ON template
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_template_change();
CREATE TRIGGER template_gone AFTER DELETE ON template
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_template_change();
CREATE TRIGGER anchor_put AFTER INSERT ON anchor
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_template_change();
CREATE TRIGGER anchor_gone AFTER DELETE ON anchor
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_template_change();

-- A FAR from the model pack's table of thresholds.
ALTER TABLE tenant ADD COLUMN match_far text NOT NULL DEFAULT '1e-4';

UPDATE schema_version SET version = 22;
