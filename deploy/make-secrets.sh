#!/bin/sh
# Makes the secrets of docker-compose.yml, once: deploy/secrets, which only you can enter. What is there stays.
set -eu
cd "$(dirname "$0")"
mkdir -p -m 700 secrets
# The files themselves are readable, because the containers read them as other users; the folder above them is not.
make() { [ -e "secrets/$1" ] || { printf '%s\n' "$2" >"secrets/$1"; chmod 444 "secrets/$1"; echo "made deploy/secrets/$1"; }; }
make superuser-password "$(openssl rand -hex 24)"
make owner-url "postgresql://chancery_owner:$(openssl rand -hex 24)@postgres:5432/chancery"
make serving-url "postgresql://chancery:$(openssl rand -hex 24)@postgres:5432/chancery"
make token-pin "$(openssl rand -hex 16)"
make token-so-pin "$(openssl rand -hex 16)"
