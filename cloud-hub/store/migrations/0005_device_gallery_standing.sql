-- How a device's gallery stands, for people: whether it is something that the hub never had, since when it stands so, and how
-- long the last change took from its transaction to the device's report of it.

ALTER TABLE device_gallery
    ADD COLUMN differs        boolean NOT NULL DEFAULT false,
    ADD COLUMN since          timestamptz,
    ADD COLUMN propagation_ms bigint CHECK (propagation_ms >= 0);
