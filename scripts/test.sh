#!/bin/bash
# test.sh [ctest arguments] - from a fresh checkout through all tests.
#
# Installs what is missing (deps.sh says what), builds into build/release, and runs ctest.
# TROUPE_WERROR=1 makes warnings errors.
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/deps.sh build test
cmake --preset release -DTROUPE_TESTS=ON -DTROUPE_WERROR="${TROUPE_WERROR:-0}"
cmake --build build/release
# Two at a time: several tests are whole MPI jobs.
ctest --test-dir build/release --output-on-failure --no-tests=error -j 2 "$@"
