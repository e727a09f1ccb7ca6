#!/bin/sh
# PgBouncer reads passwords only from a file: write it to a tmpfs.
set -eu
umask 077
echo "\"shopassist_app\" \"$DB_APP_PASSWORD\"" > /run/pgbouncer/users
exec pgbouncer /etc/pgbouncer/pgbouncer.ini
