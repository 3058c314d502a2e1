-- Which authority issued a device's certificates, by its key: when others take the places of the hub's authorities, this tells how many
-- devices have not renewed since. A row of before has none, which counts as an authority before: none was ever replaced until now.
ALTER TABLE device
    ADD COLUMN certificate_issuer      bytea CHECK (octet_length(certificate_issuer) = 32),
    ADD COLUMN next_certificate_issuer bytea CHECK (octet_length(next_certificate_issuer) = 32);

UPDATE schema_version SET version = 38;
