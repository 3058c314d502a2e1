-- Sessions: enrolment frame by frame, verification and identification with a challenge. Each has a token of its own, bounds of
-- time and attempts, and frames that last no longer than the session is open.

ALTER TABLE session DROP CONSTRAINT session_kind_check;
ALTER TABLE session ADD CONSTRAINT session_kind_check CHECK (kind IN ('enrolment', 'verification', 'identification'));
ALTER TABLE session DROP CONSTRAINT session_state_check;
ALTER TABLE session ADD CONSTRAINT session_state_check
    CHECK (state IN ('initialized', 'processing', 'completed', 'failed', 'cancelled', 'expired'));
ALTER TABLE session
    -- The MAC of the token's secret. NULL: one request with photographs, which nobody can join.
    ADD COLUMN token_mac        bytea    CHECK (octet_length(token_mac) = 32),
    ADD COLUMN allow_duplicate  boolean  NOT NULL DEFAULT false,
    ADD COLUMN require_liveness boolean  NOT NULL DEFAULT false,
    ADD COLUMN max_attempts     smallint NOT NULL DEFAULT 1 CHECK (max_attempts BETWEEN 1 AND 5),
    ADD COLUMN attempts         smallint NOT NULL DEFAULT 0 CHECK (attempts BETWEEN 0 AND max_attempts),
    -- Grows with everything that happens to the session: what was read before is not written after.
    ADD COLUMN revision         integer  NOT NULL DEFAULT 0,
    -- What the present attempt's movements are drawn from. It never leaves the hub.
    ADD COLUMN challenge_seed   bigint,
    -- The present prompt: frames that answer it carry its nonce.
    ADD COLUMN prompt_nonce     bytea    CHECK (octet_length(prompt_nonce) = 16),
    ADD COLUMN prompted_at      timestamptz,
    -- The decision about the last attempt: numbers, codes and an id. Never a picture or a vector.
    ADD COLUMN result           jsonb,
    ADD CONSTRAINT session_prompt CHECK (num_nulls(challenge_seed, prompt_nonce, prompted_at) IN (0, 3)),
    ADD CONSTRAINT session_end CHECK ((state IN ('initialized', 'processing')) = (ended_at IS NULL)) NOT VALID;
CREATE INDEX session_open ON session (tenant_id, expires_at) WHERE ended_at IS NULL;

-- What frames of an open session gave: how good they were, where the head pointed, and the template, sealed under the person's key
-- (in an identification, where the person is not known yet, under the tenant's). No picture. Rows go when the session ends.
CREATE TABLE session_frame (
    tenant_id  uuid     NOT NULL,
    session_id uuid     NOT NULL,
    number     integer  NOT NULL CHECK (number >= 0),
    accepted   boolean  NOT NULL,
    quality    real,
    reasons    text[]   NOT NULL,
    -- Pose, scores and eyes, for the question whether somebody lives: nothing that tells one person from another.
    look       jsonb,
    space_id   text,
    sealed     bytea,
    PRIMARY KEY (tenant_id, session_id, number),
    FOREIGN KEY (tenant_id, session_id) REFERENCES session ON DELETE CASCADE,
    CHECK ((sealed IS NULL) = (space_id IS NULL))
);
ALTER TABLE session_frame ENABLE ROW LEVEL SECURITY;
ALTER TABLE session_frame FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON session_frame
    USING (tenant_id = NULLIF(current_setting('lintel.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('lintel.tenant', true), '')::uuid);
GRANT SELECT, INSERT, DELETE ON session_frame TO lintel_app;

-- How long a tenant's sessions stay open.
ALTER TABLE tenant
    ADD COLUMN authentication_session_s integer NOT NULL DEFAULT 120 CHECK (authentication_session_s BETWEEN 30 AND 600),
    ADD COLUMN enrolment_session_s integer NOT NULL DEFAULT 900 CHECK (enrolment_session_s BETWEEN 60 AND 3600);

-- Where the job finds sessions whose time is over.
ALTER TABLE route_due DROP CONSTRAINT route_due_kind_check;
ALTER TABLE route_due ADD CONSTRAINT route_due_kind_check CHECK (kind IN ('webhook', 'erasure', 'deletion', 'session'));

UPDATE schema_version SET version = 25;
