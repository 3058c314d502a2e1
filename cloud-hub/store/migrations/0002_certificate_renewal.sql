-- While a device renews its certificate it has two: the present one, and the next one from the hub's answer until the
-- device first shows it. Whichever way the answer is lost, one of the two works.

ALTER TABLE device
    ADD COLUMN next_spki_sha256            bytea,
    ADD COLUMN next_certificate_serial     text,
    ADD COLUMN next_certificate_expires_at timestamptz,
    ADD CONSTRAINT device_next_certificate_whole CHECK (
        (next_spki_sha256 IS NULL) = (next_certificate_serial IS NULL)
        AND (next_spki_sha256 IS NULL) = (next_certificate_expires_at IS NULL)
    );

UPDATE schema_version SET version = 2;
