#!/bin/bash
# test_page.sh - the browser test of the page; skipped (77) where node or chromium is missing.
#
# USE    test_page.sh [options of test_page.mjs]
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
cd "$(dirname "$0")"

skip() {
  echo "skipped: $*"
  exit 77
}

node=$(command -v node || command -v nodejs) || skip "no node (Debian: nodejs)"
major=$("$node" -p 'process.versions.node.split(".")[0]')
[ "$major" -ge 18 ] || skip "node is $major, 18 or later is needed"
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome) ||
  skip "no chromium (Debian: chromium)"

exec "$node" test_page.mjs --browser "$browser" "$@"
