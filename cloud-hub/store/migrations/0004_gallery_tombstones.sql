-- What was deleted from a gallery, by its id: every put asks whether its entry is among these. The index grows by one row for
-- each deletion and is read for single ids only.

CREATE INDEX gallery_record_deleted ON gallery_record (tenant_id, gallery_id, object_id) WHERE op = 'del';
