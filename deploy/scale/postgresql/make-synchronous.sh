#!/bin/sh
# Waits until a standby follows the primary, then makes every commit wait for the standby's disk.
# Finds the primary of the two servers. PGHOST, PGUSER and so on name the servers and the administrator.
set -eu

following() {
  psql --no-psqlrc --tuples-only --no-align --command="SELECT count(*) FROM pg_stat_replication
    WHERE state = 'streaming' AND application_name IN ('database', 'standby')"
}

until [ "$(following)" = 1 ]; do
  sleep 1
done
exec psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 \
  --command="ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (database, standby)'" \
  --command="SELECT pg_reload_conf()"
