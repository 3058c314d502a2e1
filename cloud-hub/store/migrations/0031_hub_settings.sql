-- Settings that are changed while the hubs run, version by version. No tenant's: they are the hub's own. Nothing of it is ever changed.

CREATE TABLE hub_settings (
    version    integer     PRIMARY KEY CHECK (version > 0),
    -- What lies over the file, by the name of the setting.
    changes    jsonb       NOT NULL CHECK (jsonb_typeof(changes) = 'object'),
    actor      text        NOT NULL,
    comment    text        NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL
);
GRANT SELECT, INSERT ON hub_settings TO lintel_app;

UPDATE schema_version SET version = 31;
