#!/bin/sh
# Copies the server at PRIMARY ("host=… port=…") into PGDATA, unless there is data already, and then runs what it is told
# to; nothing, to copy and no more. STANDBY is the name by which the primary knows this one, and of its slot there.
set -eu
: "${PRIMARY:?}" "${STANDBY:?}" "${PGDATA:?}"

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  : "${REPLICATION_PASSWORD:?set DB_REPLICATION_PASSWORD in .env, letters and digits only}"
  export PGPASSWORD="$REPLICATION_PASSWORD"
  link="$PRIMARY user=shopassist_replication application_name=$STANDBY"
  # A copy that was broken off is begun anew, its slot too. The slot of a standby that is connected cannot be dropped.
  unfinished="$PGDATA.unfinished"
  rm -rf "$unfinished"
  mkdir -p "$(dirname "$PGDATA")"
  psql --no-psqlrc --quiet "$link replication=true" -c "DROP_REPLICATION_SLOT $STANDBY" 2>/dev/null || true
  pg_basebackup --dbname="$link" --pgdata="$unfinished" --write-recovery-conf --checkpoint=fast \
    --create-slot --slot="$STANDBY"
  # Once promoted it must not wait for a standby that it does not have.
  echo "synchronous_standby_names = ''" >> "$unfinished/postgresql.auto.conf"
  mv "$unfinished" "$PGDATA"
fi

[ "$#" -eq 0 ] || exec "$@"
