#!/bin/sh
# The password goes neither into the arguments, which everybody on the machine can read, nor onto a disk.
set -eu
: "${REDIS_PASSWORD:?set it in .env, letters and digits only}"
exec redis-server - <<SETTINGS
$(cat /etc/shopassist/redis.conf)
requirepass $REDIS_PASSWORD
SETTINGS
