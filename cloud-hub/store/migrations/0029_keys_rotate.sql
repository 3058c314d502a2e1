-- What is sealed under a tenant's key, or under the master key, is sealed anew when that key is replaced.

GRANT UPDATE (login_sealed) ON app_user TO lintel_app;
GRANT UPDATE (sealed) ON session_frame TO lintel_app;
GRANT UPDATE (sealed) ON token_key TO lintel_app;

UPDATE schema_version SET version = 29;
