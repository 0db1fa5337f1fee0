#!/bin/bash
# test_client.sh - the openai client of npm against the server; skipped (77) where node or npm is
# missing, or npm's registry can't be reached.
#
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/../e2e/lib.sh"
here=$(cd "$(dirname "$0")" && pwd)

skip() {
  echo "skipped: $*"
  exit 77
}

command -v node >/dev/null && command -v npm >/dev/null || skip "no node or npm (Debian: npm)"
[ "$(node -p 'process.versions.node.split(".")[0]')" -ge 18 ] || skip "node 18 or later is needed"
cp "$here/package.json" "$here/test_client.mjs" "$WORK"
(cd "$WORK" && npm install --no-audit --no-fund --loglevel=error) >"$WORK/npm" 2>&1 ||
  skip "npm can't install the client: $(tail -1 "$WORK/npm")"

start_server client -w 2
node "$WORK/test_client.mjs" "$url" || fail "the openai client"
stop_server client
finish
