#!/bin/sh
# Fetches the lists of all shards of an issuer, and has mosquitto read them. Where one cannot be had nothing changes: those that
# are there hold until their end, and then mosquitto refuses everybody.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
last=$((${SHARDS:-128} - 1))
curl --silent --show-error --fail --fail-early --retry 3 --output "$work/#1.crl" "$LISTS/[0-$last].crl"
for list in "$work"/*.crl; do
  echo '-----BEGIN X509 CRL-----'
  base64 "$list"
  echo '-----END X509 CRL-----'
done >"$OUT.next"
if cmp -s "$OUT.next" "$OUT"; then
  rm "$OUT.next"
else
  mv "$OUT.next" "$OUT"
  # The first time nobody is there to be told.
  ${RELOAD:-pkill -HUP -x mosquitto} || true
fi
