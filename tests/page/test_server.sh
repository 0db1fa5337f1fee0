#!/bin/bash
# test_server.sh - the browser test of the page against `troupe serve` with three workers.
#
# USE    test_server.sh FOLDER     for the pictures
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/../e2e/lib.sh"

start_server page -w 3
"$(dirname "$0")/test_page.sh" --base "$url" --mode text --prompt "ROMEO:" --shots "$1" --losses
case $? in
0) stop_server page ;;
77)
  stop_server page
  exit 77
  ;;
*) fail "the page" ;;
esac
finish
