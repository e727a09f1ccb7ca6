#!/bin/sh
# PgBouncer takes passwords from a file alone: it is written where nothing is kept.
set -eu
umask 077
echo "\"shopassist_app\" \"$DB_APP_PASSWORD\"" > /run/pgbouncer/users
exec pgbouncer /etc/pgbouncer/pgbouncer.ini
