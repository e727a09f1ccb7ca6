#!/bin/sh
# Creates the role that standbys use for replication, with the password REPLICATION_PASSWORD. Repeating it is harmless.
# PGHOST, PGUSER and so on name the server and the administrator.
set -eu
: "${REPLICATION_PASSWORD:?set DB_REPLICATION_PASSWORD in .env, letters and digits only}"

exec psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 <<'SQL'
-- The password is not to be found in the server's log.
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_error_statement = 'panic';
-- The standby that a commit would wait for starts after this.
SET synchronous_commit = local;
\getenv password REPLICATION_PASSWORD
SELECT 'CREATE ROLE shopassist_replication'
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'shopassist_replication') \gexec
ALTER ROLE shopassist_replication LOGIN REPLICATION PASSWORD :'password';
SQL
