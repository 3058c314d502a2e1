-- Which photographs a template was made of, so that an import that is run again does not make a second template of them. An HMAC under
-- the tenant's index key, as of an external id; it goes with its template. Templates of before have none: their photographs are gone.

ALTER TABLE template ADD COLUMN photographs_mark bytea CHECK (octet_length(photographs_mark) = 32);
