#!/bin/sh
# Makes the token in which Chancery keeps its keys, once. The PINs come from files and never stand in arguments.
set -eu
module=${CHANCERY_PKCS11_MODULE:?}
tokens=$(sed -n 's/^directories\.tokendir *= *//p' "${SOFTHSM2_CONF:?}")
mkdir -p -m 700 "$tokens"
# Not in a pipe: where the slots cannot be listed, nothing is made.
slots=$(pkcs11-tool --module "$module" --list-slots)
# By its index: pkcs11-tool takes any token whose label begins as the one that is named, and would try its SO PIN.
indexOf() { printf '%s\n' "$slots" | sed -n "/^Slot /{s/^Slot \([0-9]*\).*/\1/;h;}; /$1/{g;p;q;}"; }
label='token label *: chancery$'
PIN=$(cat "${CHANCERY_PKCS11_PIN_FILE:?}")
SO_PIN=$(cat "${SO_PIN_FILE:?}")
export PIN SO_PIN
if [ -z "$(indexOf "$label")" ]; then
  # A slot without a token: another token would be erased, with all its keys.
  free=$(indexOf 'token state: *uninitialized')
  if [ -z "$free" ]; then
    echo "There is no slot without a token; make one called chancery with the module's own tools." >&2
    exit 1
  fi
  pkcs11-tool --module "$module" --slot-index "$free" --init-token --label chancery --so-pin env:SO_PIN
  slots=$(pkcs11-tool --module "$module" --list-slots)
elif printf '%s\n' "$slots" | sed -n "/$label/,/^Slot /p" | grep -q 'PIN initialized'; then
  exit 0
fi
# Also for one that was made by a run that did not come this far.
pkcs11-tool --module "$module" --slot-index "$(indexOf "$label")" --login --login-type so --so-pin env:SO_PIN --init-pin --new-pin env:PIN
