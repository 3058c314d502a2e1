-- A key of access tokens that took the place of all others at once, because somebody may have had them: what goes on for long by a token of
-- one of those ends.
ALTER TABLE token_key ADD COLUMN alone boolean NOT NULL DEFAULT false;

UPDATE schema_version SET version = 39;
