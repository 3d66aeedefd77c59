#!/bin/sh
# Fetches all lists of the issuers in LISTS (URLs, with spaces between), and has mosquitto read them. Each is asked for the files that
# there are: one issuer may have 128, and the one that follows it one. mosquitto refuses everybody whose issuer has no list. Where one
# cannot be had nothing changes: those that are there hold until their end.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Whoever does not answer is given up, in SECONDS_EACH a file: the next round asks again, and one that waited for ever would be the last.
each=${SECONDS_EACH:-60}
fetch() { curl --silent --show-error --fail --fail-early --max-time "$each" --retry 3 --retry-max-time "$each" "$@"; }
issuer=0
for url in $LISTS; do
  url=${url%/}
  files=$(fetch "$url/")
  # They become names of files here.
  case $files in '' | *[!0-9crl.[:space:]]*) echo "$url/ does not tell which lists there are" >&2 && exit 1 ;; esac
  fetch --output "$work/$issuer.#1" "$url/{$(echo $files | tr ' ' ,)}"
  issuer=$((issuer + 1))
done
for list in "$work"/*.crl; do
  # It begins as DER of more than 127 octets, and a page that says why there is none does not: mosquitto would read no list after it.
  case $(head -c 2 "$list" | base64) in MI*) ;; *) echo 'a file that was fetched is no list' >&2 && exit 1 ;; esac
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
