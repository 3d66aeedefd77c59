#!/bin/sh
# Makes the token in which Chancery keeps its keys, once. The PINs come from files and never stand in arguments.
set -eu
module=${CHANCERY_PKCS11_MODULE:?}
tokens=$(sed -n 's/^directories\.tokendir *= *//p' "${SOFTHSM2_CONF:?}")
mkdir -p -m 700 "$tokens"
if pkcs11-tool --module "$module" --list-token-slots | grep -q 'token label *: chancery$'; then
  exit 0
fi
PIN=$(cat "${CHANCERY_PKCS11_PIN_FILE:?}")
SO_PIN=$(cat "${SO_PIN_FILE:?}")
export PIN SO_PIN
pkcs11-tool --module "$module" --slot-index 0 --init-token --label chancery --so-pin env:SO_PIN
pkcs11-tool --module "$module" --token-label chancery --login --login-type so --so-pin env:SO_PIN --init-pin --new-pin env:PIN
