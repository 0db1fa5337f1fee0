#!/bin/bash
# deps.sh GROUP... - see that what Troupe needs is installed; groups: build, test, browser, fuzz.
#
# On Debian and its relatives only what is missing is installed, with apt-get as root or through
# sudo, and said before. On other systems nothing is installed: what is missing is listed.
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail

# libyaml-dev: libcyaml's own package forgets it.
packages_of() {
  case $1 in
  build)
    echo build-essential cmake ninja-build pkg-config libopenmpi-dev openmpi-bin libzmq3-dev \
      libprotobuf-c-dev protobuf-c-compiler libcyaml-dev libyaml-dev libpcre2-dev \
      libxxhash-dev libjansson-dev libmicrohttpd-dev libgnutls28-dev libedit-dev
    ;;
  test) echo libcmocka-dev python3 python3-numpy curl ;;
  browser) # other packages than Debian's may have brought node and npm
    command -v chromium >/dev/null || echo chromium
    command -v node >/dev/null || echo nodejs
    command -v npm >/dev/null || echo npm
    command -v gnuplot >/dev/null || echo gnuplot-nox
    ;;
  fuzz) echo clang libclang-rt-dev ;;
  *)
    echo "deps.sh: unknown group \"$1\"; give build, test, browser or fuzz" >&2
    exit 2
    ;;
  esac
}

# What the packages are there for, by names that every system knows.
commands_of() {
  case $1 in
  build) echo cc cmake ninja pkg-config mpicc mpirun protoc-c ;;
  test) echo python3 curl ;;
  browser) echo chromium node npm gnuplot ;;
  fuzz) echo clang ;;
  esac
}
modules_of() {
  case $1 in
  build)
    echo "libzmq libprotobuf-c libcyaml libpcre2-8 libxxhash jansson libmicrohttpd gnutls" \
      "libedit"
    ;;
  test) echo cmocka ;;
  browser | fuzz) ;;
  esac
}

is_installed() {
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

install_debian() {
  local missing=() as_root=() package
  for package in "$@"; do
    is_installed "$package" || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
      echo "These packages are missing, and neither are you root nor is there sudo." >&2
      echo "As root:  apt-get install --no-install-recommends ${missing[*]}" >&2
      exit 1
    fi
    as_root=(sudo)
  fi
  echo "Installing ${#missing[@]} packages with ${as_root[*]:+sudo }apt-get: ${missing[*]}"
  "${as_root[@]}" apt-get update -q
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -q -y --no-install-recommends "${missing[@]}"
}

list_others() {
  local missing=() group name
  for group in "$@"; do
    for name in $(commands_of "$group"); do
      command -v "$name" >/dev/null || missing+=("the command $name")
    done
    if [ "$group" = test ] && ! /usr/bin/python3 -c "import numpy" 2>/dev/null; then
      missing+=("numpy for /usr/bin/python3")
    fi
    for name in $(modules_of "$group"); do
      pkg-config --exists "$name" 2>/dev/null || missing+=("the library $name with its headers")
    done
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  {
    echo "This system has no apt-get, so please install these first:"
    printf '  %s\n' "${missing[@]}"
    echo "Versions: CMake 3.25, Open MPI 4.0, libzmq 4.3 with CURVE, libprotobuf-c 1.4,"
    echo "libcyaml 1.3, PCRE2 10.40, xxHash 0.8, Jansson 2.13, cmocka 1.1, or later."
  } >&2
  exit 1
}

[ $# -gt 0 ] || set -- build
if command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
  packages=()
  for group in "$@"; do
    list=$(packages_of "$group")
    read -r -a words <<<"$list"
    packages+=("${words[@]}")
  done
  install_debian "${packages[@]}"
else
  list_others "$@"
fi
