-- A delivery is known by its endpoint and its event's position, which grow: a random id of its own needed a third index, at
-- whose scattered places each row made a page of its own dirty. Position and event belong together one to one (event has a
-- unique key on either), so that the primary key says "once" as the constraint did.
--
-- Its keys to endpoint and event are gone for the reason given in 0016. Both rows are read by the statement that writes the
-- delivery, and neither can be deleted.

ALTER TABLE webhook_delivery
    DROP CONSTRAINT webhook_delivery_tenant_id_endpoint_id_fkey,
    DROP CONSTRAINT webhook_delivery_tenant_id_event_id_fkey,
    DROP CONSTRAINT webhook_delivery_once,
    DROP CONSTRAINT webhook_delivery_pkey,
    DROP COLUMN id,
    ADD PRIMARY KEY (tenant_id, endpoint_id, position);

REVOKE DELETE ON webhook_endpoint FROM lintel_app;

UPDATE schema_version SET version = 17;
