#!/bin/sh
# Fetches the lists of all shards of the issuers in LISTS (URLs, with spaces between), and has mosquitto read them. An issuer with one
# list is there with the URL of that: …/0.crl. mosquitto refuses everybody whose issuer has no list. Where one cannot be had nothing
# changes: those that are there hold until their end.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
last=$((${SHARDS:-128} - 1))
issuer=0
for url in $LISTS; do
  case $url in *.crl) lists=$url ;; *) lists="$url/[0-$last].crl" ;; esac
  curl --silent --show-error --fail --fail-early --retry 3 --output "$work/$issuer.#1.crl" "$lists"
  issuer=$((issuer + 1))
done
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
