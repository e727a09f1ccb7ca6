#!/bin/sh
# The password is kept out of the arguments, which all users of the machine can read, and off the disk.
set -eu
: "${REDIS_PASSWORD:?set it in .env, letters and digits only}"
exec redis-server - <<SETTINGS
$(cat /etc/shopassist/redis.conf)
requirepass $REDIS_PASSWORD
SETTINGS
