-- The hub's schema: tenants, people, galleries, devices, events and what is derived from them.
--
-- Rules that every later migration keeps, and that tests prove over the catalogue:
--   * every table that holds a tenant's rows has `tenant_id` first in its primary key, and its foreign and
--     unique keys are led by `tenant_id`, so that no row can refer to another tenant's;
--   * every such table has row-level security ENABLEd and FORCEd, with one policy that has USING and WITH CHECK;
--   * the policy reads the transaction's tenant through NULLIF, because a custom setting that was once set
--     reads as '' and not as NULL after the transaction, and ''::uuid is an error rather than "no rows".
--
-- Roles are made by whoever owns the server (the embedded supervisor, or an administrator), not here:
--   lintel_owner  owns the schema and runs the migrations;
--   lintel_app    the running hub; neither superuser nor BYPASSRLS. The hub refuses to start otherwise.
-- The extension needs a superuser where it is not yet there; if it exists this line does nothing.
CREATE EXTENSION IF NOT EXISTS vector;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'lintel_app') THEN
        RAISE EXCEPTION 'role lintel_app does not exist: create it (LOGIN NOSUPERUSER NOBYPASSRLS) before migrating';
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'lintel_app' AND (rolsuper OR rolbypassrls)) THEN
        RAISE EXCEPTION 'role lintel_app is a superuser or bypasses row-level security: alter it to NOSUPERUSER NOBYPASSRLS';
    END IF;
END
$$;

-- ---------------------------------------------------------------------------------------------------------
-- Not a tenant's: the schema's version, and routing without personal data.

CREATE TABLE schema_version (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version  integer NOT NULL
);
INSERT INTO schema_version (version) VALUES (1);

-- Which tenant an opaque id belongs to, for the few places where work arrives before its tenant is known:
-- an API key, a claim, a device certificate, the list of tenants for jobs. Ids only.
CREATE TABLE route (
    kind      text    NOT NULL CHECK (kind IN ('tenant', 'api_key', 'claim', 'device')),
    id        uuid    NOT NULL,
    tenant_id uuid    NOT NULL,
    active    boolean NOT NULL DEFAULT true,
    PRIMARY KEY (kind, id)
);

-- When a tenant's jobs of one kind are next due. A job reads this, then works inside that tenant's transactions.
CREATE TABLE route_due (
    kind      text        NOT NULL CHECK (kind IN ('webhook', 'erasure')),
    tenant_id uuid        NOT NULL,
    due_at    timestamptz NOT NULL,
    PRIMARY KEY (kind, tenant_id)
);
CREATE INDEX route_due_by_time ON route_due (kind, due_at);

-- Serial numbers of device certificates that were replaced or revoked before their end: what the broker's revocation
-- list is made of. Random numbers and times only.
CREATE TABLE revoked_certificate (
    serial     text        PRIMARY KEY CHECK (serial ~ '^[0-9a-f]+$'),
    revoked_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
);

-- ---------------------------------------------------------------------------------------------------------
-- Tenant, keys under the master key, and who may call.

CREATE TABLE tenant (
    tenant_id  uuid        PRIMARY KEY,
    name       text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- The next position of the tenant's feed. Its row is locked by every transaction that writes an event, so that
-- positions follow the order of commit and a reader that has seen position n will never find a smaller new one.
CREATE TABLE feed_counter (
    tenant_id uuid   PRIMARY KEY REFERENCES tenant,
    position  bigint NOT NULL DEFAULT 0
);

-- Sealed tenant secrets: 'tk' the tenant key under the master key, 'bi' the blind index key and 'rs' a rotation
-- seed per embedding space, the last two under the tenant key.
CREATE TABLE tenant_secret (
    tenant_id  uuid        NOT NULL REFERENCES tenant,
    kind       text        NOT NULL CHECK (kind IN ('tk', 'bi', 'rs')),
    name       text        NOT NULL DEFAULT '',
    version    integer     NOT NULL DEFAULT 1,
    sealed     bytea       NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, kind, name, version)
);

CREATE TABLE api_key (
    tenant_id    uuid        NOT NULL REFERENCES tenant,
    id           uuid        NOT NULL,
    name         text        NOT NULL,
    mac          bytea       NOT NULL CHECK (octet_length(mac) = 32),
    created_at   timestamptz NOT NULL DEFAULT now(),
    revoked_at   timestamptz,
    PRIMARY KEY (tenant_id, id)
);

-- ---------------------------------------------------------------------------------------------------------
-- Places.

CREATE TABLE site (
    tenant_id  uuid        NOT NULL REFERENCES tenant,
    id         uuid        NOT NULL,
    name       text        NOT NULL,
    time_zone  text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT site_name_unique UNIQUE (tenant_id, name)
);

CREATE TABLE device (
    tenant_id        uuid        NOT NULL REFERENCES tenant,
    id               uuid        NOT NULL,
    site_id          uuid        NOT NULL,
    name             text        NOT NULL,
    state            text        NOT NULL DEFAULT 'created' CHECK (state IN ('created', 'claimed', 'revoked')),
    serial           text,
    spki_sha256      bytea,
    certificate_serial text,
    certificate_expires_at timestamptz,
    link_epoch       bigint      NOT NULL DEFAULT 0,
    online           boolean     NOT NULL DEFAULT false,
    boot_id          text,
    connection_epoch bigint,
    versions         jsonb,
    last_seen_at     timestamptz,
    created_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT device_name_unique UNIQUE (tenant_id, name),
    FOREIGN KEY (tenant_id, site_id) REFERENCES site
);

-- One link key per epoch, sealed under the tenant key. The epoch before the present one is accepted until `retired_at` + 24 h.
CREATE TABLE device_link (
    tenant_id  uuid        NOT NULL,
    device_id  uuid        NOT NULL,
    link_epoch bigint      NOT NULL,
    sealed     bytea       NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    retired_at timestamptz,
    PRIMARY KEY (tenant_id, device_id, link_epoch),
    FOREIGN KEY (tenant_id, device_id) REFERENCES device
);

CREATE TABLE door (
    tenant_id  uuid        NOT NULL,
    id         uuid        NOT NULL,
    site_id    uuid        NOT NULL,
    device_id  uuid,
    local_id   text,
    name       text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT door_local_id_unique UNIQUE (tenant_id, device_id, local_id),
    FOREIGN KEY (tenant_id, site_id) REFERENCES site,
    FOREIGN KEY (tenant_id, device_id) REFERENCES device
);

-- A one-time claim. The secret is kept as a MAC only; the first public key that shows the secret owns the claim.
CREATE TABLE claim (
    tenant_id    uuid        NOT NULL,
    id           uuid        NOT NULL,
    device_id    uuid        NOT NULL,
    secret_mac   bytea       NOT NULL CHECK (octet_length(secret_mac) = 32),
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    bound_spki   bytea,
    bound_at     timestamptz,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, device_id) REFERENCES device
);

-- ---------------------------------------------------------------------------------------------------------
-- People. Names and other profile data are sealed under the person's own key; lookups go by keyed blind indexes.

CREATE TABLE person (
    tenant_id         uuid        NOT NULL REFERENCES tenant,
    id                uuid        NOT NULL,
    state             text        NOT NULL CHECK (state IN ('active', 'deleted')),
    revision          integer     NOT NULL DEFAULT 1,
    profile_sealed    bytea,
    external_id_index bytea,
    email_index       bytea,
    -- Belongs to every site, those still to be made included; otherwise to the galleries of gallery_member alone.
    all_sites         boolean     NOT NULL,
    -- The key store has no key for this active person: their sealed rows are as good as erased until it is back.
    key_missing       boolean     NOT NULL DEFAULT false,
    created_at        timestamptz NOT NULL DEFAULT now(),
    deleted_at        timestamptz,
    key_destroyed_at  timestamptz,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT person_external_id_unique UNIQUE (tenant_id, external_id_index),
    CHECK ((state = 'deleted') = (deleted_at IS NOT NULL)),
    CHECK (state = 'active' OR (profile_sealed IS NULL AND external_id_index IS NULL AND email_index IS NULL))
);

-- The record: the embedding sealed under the person's key. Of every space and model version that made one.
CREATE TABLE template (
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
CREATE INDEX template_by_person ON template (tenant_id, person_id);

-- Derived: rotated by the tenant's seed, searchable, and in no WAL and no base backup. Emptied by a crash and
-- then rebuilt from the sealed records.
CREATE UNLOGGED TABLE template_vector (
    tenant_id   uuid        NOT NULL,
    template_id uuid        NOT NULL,
    person_id   uuid        NOT NULL,
    space_id    text        NOT NULL,
    vector      vector(512) NOT NULL,
    PRIMARY KEY (tenant_id, template_id),
    FOREIGN KEY (tenant_id, template_id) REFERENCES template ON DELETE CASCADE
);
CREATE INDEX template_vector_by_space ON template_vector (tenant_id, space_id);

-- Enrolment and, later, verification and identification: state machines with an expiry.
CREATE TABLE session (
    tenant_id  uuid        NOT NULL REFERENCES tenant,
    id         uuid        NOT NULL,
    kind       text        NOT NULL CHECK (kind IN ('enrolment')),
    state      text        NOT NULL CHECK (state IN ('initialized', 'processing', 'completed', 'failed')),
    person_id  uuid,
    template_id uuid,
    reason     text,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    ended_at   timestamptz,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, person_id) REFERENCES person
);

-- ---------------------------------------------------------------------------------------------------------
-- Galleries: a log per site, its root per version, and the leaves of the present state.

CREATE TABLE gallery (
    tenant_id  uuid        NOT NULL,
    id         uuid        NOT NULL,
    site_id    uuid        NOT NULL,
    epoch      bigint      NOT NULL DEFAULT 1,
    version    bigint      NOT NULL DEFAULT 0,
    gdk_sealed bytea       NOT NULL,
    ck_sealed  bytea       NOT NULL,
    -- The 256 bucket hashes of the present state, 32 bytes each, in order.
    buckets    bytea       NOT NULL CHECK (octet_length(buckets) = 8192),
    root       bytea       NOT NULL CHECK (octet_length(root) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT gallery_site_unique UNIQUE (tenant_id, site_id),
    FOREIGN KEY (tenant_id, site_id) REFERENCES site
);

CREATE TABLE gallery_member (
    tenant_id  uuid NOT NULL,
    gallery_id uuid NOT NULL,
    person_id  uuid NOT NULL,
    PRIMARY KEY (tenant_id, gallery_id, person_id),
    FOREIGN KEY (tenant_id, gallery_id) REFERENCES gallery,
    FOREIGN KEY (tenant_id, person_id) REFERENCES person
);
CREATE INDEX gallery_member_by_person ON gallery_member (tenant_id, person_id);

CREATE TABLE gallery_record (
    tenant_id  uuid     NOT NULL,
    gallery_id uuid     NOT NULL,
    epoch      bigint   NOT NULL,
    version    bigint   NOT NULL,
    op         text     NOT NULL CHECK (op IN ('put', 'del')),
    kind       text     NOT NULL CHECK (kind IN ('person', 'template', 'credential', 'rule')),
    object_id  uuid     NOT NULL,
    revision   bigint   NOT NULL,
    -- Whose key seals the body; null for rules, which the tenant key seals.
    person_id  uuid,
    -- Of templates: the embedding space, which the seal is bound to.
    space_id   text,
    -- Null for `del`, and for a `put` whose person has been erased since.
    sealed     bytea,
    -- The leaf of a put: a keyed hash, which outlives the body, so that the root of any version can be told again.
    leaf       bytea CHECK (octet_length(leaf) = 32),
    at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, gallery_id, epoch, version),
    FOREIGN KEY (tenant_id, gallery_id) REFERENCES gallery,
    CHECK ((op = 'put') = (leaf IS NOT NULL)),
    CHECK (op = 'put' OR sealed IS NULL)
);
CREATE INDEX gallery_record_by_person ON gallery_record (tenant_id, person_id) WHERE person_id IS NOT NULL;

CREATE TABLE gallery_version (
    tenant_id  uuid   NOT NULL,
    gallery_id uuid   NOT NULL,
    epoch      bigint NOT NULL,
    version    bigint NOT NULL,
    root       bytea  NOT NULL CHECK (octet_length(root) = 32),
    PRIMARY KEY (tenant_id, gallery_id, epoch, version),
    FOREIGN KEY (tenant_id, gallery_id) REFERENCES gallery
);

-- The leaves of the present state. A change reads one bucket of these instead of the whole gallery.
CREATE TABLE gallery_leaf (
    tenant_id  uuid     NOT NULL,
    gallery_id uuid     NOT NULL,
    bucket     smallint NOT NULL,
    object_id  uuid     NOT NULL,
    kind       text     NOT NULL,
    revision   bigint   NOT NULL,
    leaf       bytea    NOT NULL CHECK (octet_length(leaf) = 32),
    PRIMARY KEY (tenant_id, gallery_id, bucket, object_id),
    FOREIGN KEY (tenant_id, gallery_id) REFERENCES gallery
);

-- What each device last reported of each of its galleries, from the snapshot it searches.
CREATE TABLE device_gallery (
    tenant_id   uuid    NOT NULL,
    device_id   uuid    NOT NULL,
    gallery_id  uuid    NOT NULL,
    epoch       bigint  NOT NULL DEFAULT 0,
    version     bigint  NOT NULL DEFAULT 0,
    root        bytea,
    equal       boolean NOT NULL DEFAULT false,
    reported_at timestamptz,
    PRIMARY KEY (tenant_id, device_id, gallery_id),
    FOREIGN KEY (tenant_id, device_id) REFERENCES device,
    FOREIGN KEY (tenant_id, gallery_id) REFERENCES gallery
);

-- ---------------------------------------------------------------------------------------------------------
-- Events and what leaves the hub because of them.

CREATE TABLE stream (
    tenant_id  uuid        NOT NULL,
    device_id  uuid        NOT NULL,
    stream     text        NOT NULL CHECK (stream ~ '^[0-9a-f]{32}$'),
    committed  bigint      NOT NULL DEFAULT 0,
    conflicted boolean     NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, device_id, stream),
    FOREIGN KEY (tenant_id, device_id) REFERENCES device
);

-- Events of devices have (device_id, stream, sequence); those that the hub itself makes have none of the three.
CREATE TABLE event (
    tenant_id   uuid        NOT NULL REFERENCES tenant,
    id          uuid        NOT NULL,
    position    bigint      NOT NULL,
    type        text        NOT NULL,
    class       text        NOT NULL,
    device_id   uuid,
    stream      text,
    sequence    bigint,
    occurred_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    body        jsonb       NOT NULL,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT event_position_unique UNIQUE (tenant_id, position),
    CONSTRAINT event_sequence_unique UNIQUE (tenant_id, device_id, stream, sequence),
    FOREIGN KEY (tenant_id, device_id) REFERENCES device,
    FOREIGN KEY (tenant_id, device_id, stream) REFERENCES stream,
    CHECK ((device_id IS NULL) = (stream IS NULL) AND (stream IS NULL) = (sequence IS NULL))
);
-- Readers who want some classes only find the next ones here, however rare they are.
CREATE INDEX event_by_class ON event (tenant_id, class, position);

-- What a clone of a device said: kept for the investigation, acknowledged to nobody, counted nowhere.
CREATE TABLE event_quarantine (
    tenant_id   uuid        NOT NULL,
    id          uuid        NOT NULL,
    device_id   uuid        NOT NULL,
    stream      text        NOT NULL,
    sequence    bigint      NOT NULL,
    event_id    uuid        NOT NULL,
    body        jsonb       NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT event_quarantine_once UNIQUE (tenant_id, device_id, stream, sequence, event_id),
    FOREIGN KEY (tenant_id, device_id) REFERENCES device
);

-- How far the broker feed has been published.
CREATE TABLE feed_cursor (
    tenant_id uuid   NOT NULL REFERENCES tenant,
    name      text   NOT NULL,
    position  bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, name)
);

CREATE TABLE webhook_endpoint (
    tenant_id     uuid        NOT NULL REFERENCES tenant,
    id            uuid        NOT NULL,
    url           text        NOT NULL,
    -- Null means every class.
    classes       text[],
    secret_sealed bytea       NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    deleted_at    timestamptz,
    PRIMARY KEY (tenant_id, id)
);

-- One row per event and endpoint, written in the transaction of the event.
CREATE TABLE webhook_delivery (
    tenant_id    uuid        NOT NULL,
    id           uuid        NOT NULL,
    endpoint_id  uuid        NOT NULL,
    event_id     uuid        NOT NULL,
    position     bigint      NOT NULL,
    state        text        NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'failed')),
    attempts     integer     NOT NULL DEFAULT 0,
    next_at      timestamptz,
    last_status  integer,
    last_error   text,
    delivered_at timestamptz,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT webhook_delivery_once UNIQUE (tenant_id, endpoint_id, event_id),
    FOREIGN KEY (tenant_id, endpoint_id) REFERENCES webhook_endpoint,
    FOREIGN KEY (tenant_id, event_id) REFERENCES event,
    CHECK ((state = 'pending') = (next_at IS NOT NULL))
);
CREATE INDEX webhook_delivery_due ON webhook_delivery (tenant_id, next_at) WHERE state = 'pending';

-- ---------------------------------------------------------------------------------------------------------
-- Audit. Entries are written in the transaction of what they tell of; the chain columns are filled afterwards
-- by one sealer per tenant, so that business transactions never wait for the chain.

CREATE TABLE audit_entry (
    tenant_id   uuid        NOT NULL REFERENCES tenant,
    id          uuid        NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    actor       text        NOT NULL,
    action      text        NOT NULL,
    object_kind text        NOT NULL,
    object_id   uuid,
    detail      jsonb       NOT NULL DEFAULT '{}',
    chain_position bigint,
    previous_hash  bytea,
    entry_hash     bytea,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT audit_entry_chain_unique UNIQUE (tenant_id, chain_position)
);

-- ---------------------------------------------------------------------------------------------------------
-- Row-level security for every table above that holds a tenant's rows. The routing tables are the exception:
-- they are read before a tenant is known and hold ids and times only.

DO $$
DECLARE
    name text;
BEGIN
    FOR name IN
        SELECT c.relname
        FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
        WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p')
          AND c.relname NOT IN ('route', 'route_due')
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format(
            'CREATE POLICY tenant_isolation ON %I
                 USING (tenant_id = NULLIF(current_setting(''lintel.tenant'', true), '''')::uuid)
                 WITH CHECK (tenant_id = NULLIF(current_setting(''lintel.tenant'', true), '''')::uuid)',
            name);
    END LOOP;
END
$$;

GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO lintel_app;
-- History is added to, never changed, except for the sealer's columns.
REVOKE UPDATE, DELETE ON audit_entry FROM lintel_app;
GRANT UPDATE (chain_position, previous_hash, entry_hash) ON audit_entry TO lintel_app;
REVOKE UPDATE, DELETE ON event, gallery_version FROM lintel_app;
REVOKE INSERT, UPDATE, DELETE ON schema_version FROM lintel_app;

-- The migration tool's own table is nobody's business at run time.
DO $$
BEGIN
    IF to_regclass('_sqlx_migrations') IS NOT NULL THEN
        REVOKE ALL ON _sqlx_migrations FROM lintel_app;
    END IF;
END
$$;
