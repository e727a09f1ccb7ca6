#!/bin/sh
# Waits until a standby follows the primary, and then lets every commit wait until it is on the standby's disk as well.
# Whichever of the two is the primary. Which servers, and who asks, is said by PGHOST, PGUSER and so on.
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
