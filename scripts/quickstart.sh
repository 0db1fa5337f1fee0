#!/bin/bash
# quickstart.sh [PROMPT] - from a fresh checkout to text from a coordinator and three workers.
#
# Installs what is missing (deps.sh says what), builds into build/release, and generates from the
# shipped model under mpirun.
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/deps.sh build
echo "Building into build/release"
cmake --preset release -DTROUPE_TESTS=OFF --log-level=WARNING
cmake --build build/release --target troupe troupe-worker

run=(build/release/bin/troupe run -m models/demo.gguf -w 3 -p "${1:-ROMEO:}" -n 64)
printf '\n$'
printf ' %q' "${run[@]}"
printf '\n'
exec "${run[@]}"
