#!/bin/bash
# deps.sh GROUP... - see that what Troupe needs is installed; groups: build, test, browser,
# fuzz, arm.
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
  arm) # the tests of kernels for another processor: a compiler, libraries, an emulator
    echo gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user libcmocka-dev:arm64 \
      libxxhash-dev:arm64
    ;;
  *)
    echo "deps.sh: unknown group \"$1\"; give build, test, browser, fuzz or arm" >&2
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
  arm) echo aarch64-linux-gnu-gcc qemu-aarch64 ;;
  esac
}
modules_of() {
  case $1 in
  build)
    echo "libzmq libprotobuf-c libcyaml libpcre2-8 libxxhash jansson libmicrohttpd gnutls" \
      "libedit"
    ;;
  test) echo cmocka ;;
  browser | fuzz | arm) ;;
  esac
}

# For this machine, or for the architecture that the name ends with.
is_installed() {
  local architecture
  case $1 in
  *:*) architecture=${1#*:} ;;
  *) architecture=$(dpkg --print-architecture) ;;
  esac
  dpkg-query -W -f '${Architecture} ${db:Status-Status}\n' "$1" 2>/dev/null |
    grep -qxE "($architecture|all) installed"
}

# Packages for arm64 are wanted, and dpkg has not been told that it may take such.
needs_arm64() {
  [[ "$* " == *:arm64\ * ]] || return 1
  ! { dpkg --print-architecture && dpkg --print-foreign-architectures; } | grep -qx arm64
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
      needs_arm64 "${missing[@]}" &&
        echo "As root:  dpkg --add-architecture arm64; apt-get update" >&2
      echo "As root:  apt-get install --no-install-recommends ${missing[*]}" >&2
      exit 1
    fi
    as_root=(sudo)
  fi
  echo "Installing ${#missing[@]} packages with ${as_root[*]:+sudo }apt-get: ${missing[*]}"
  if needs_arm64 "${missing[@]}"; then
    echo "Letting packages for arm64 stand beside this machine's: dpkg --add-architecture arm64"
    "${as_root[@]}" dpkg --add-architecture arm64
  fi
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
