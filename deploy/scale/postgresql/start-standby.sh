#!/bin/sh
# Copies the server at PRIMARY ("host=… port=…") into PGDATA, unless it has data already, then runs the given command
# (none: only copy). STANDBY is the name of this server and of its slot on the primary.
set -eu
: "${PRIMARY:?}" "${STANDBY:?}" "${PGDATA:?}"

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  : "${REPLICATION_PASSWORD:?set DB_REPLICATION_PASSWORD in .env, letters and digits only}"
  export PGPASSWORD="$REPLICATION_PASSWORD"
  link="$PRIMARY user=shopassist_replication application_name=$STANDBY"
  # An interrupted copy starts again, with a new slot. The slot of a connected standby cannot be dropped.
  unfinished="$PGDATA.unfinished"
  rm -rf "$unfinished"
  mkdir -p "$(dirname "$PGDATA")"
  psql --no-psqlrc --quiet "$link replication=true" -c "DROP_REPLICATION_SLOT $STANDBY" 2>/dev/null || true
  pg_basebackup --dbname="$link" --pgdata="$unfinished" --write-recovery-conf --checkpoint=fast \
    --create-slot --slot="$STANDBY"
  # After a promotion it must not wait for a standby, since it has none.
  echo "synchronous_standby_names = ''" >> "$unfinished/postgresql.auto.conf"
  mv "$unfinished" "$PGDATA"
fi

[ "$#" -eq 0 ] || exec "$@"
