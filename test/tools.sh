#!/usr/bin/env bash
# Installs what the tests need and may not be there: btrfs-progs (from Debian's backports where that is newer), nbdkit, zstd
# and python3. Does nothing when everything is there, or when it may not install (no root, no apt); the tests then say what
# they skip.
set -euo pipefail

want=6.14
have() { command -v "$1" >/dev/null 2>&1; }
newest() { printf '%s\n' "$@" | sort -V | tail -n 1; }
progs_version() { btrfs --version 2>/dev/null | sed -n 's/^btrfs-progs v\([0-9.]*\).*/\1/p' | head -n 1; }
recent_progs() { have btrfs && [ "$(newest "$(progs_version)" "$want")" = "$(progs_version)" ]; }

if recent_progs && have zstd && have python3 && have losetup && have findmnt && have nbdkit; then exit 0; fi
if [ "$(id -u)" != 0 ] || ! have apt-get; then
  echo "test/tools.sh: cannot install btrfs-progs $want here (needs root and apt); tests that need it are skipped" >&2
  exit 0
fi

export DEBIAN_FRONTEND=noninteractive
. /etc/os-release
if [ "${ID:-}" = debian ] && [ -n "${VERSION_CODENAME:-}" ] && ! grep -rqs -- "${VERSION_CODENAME}-backports" /etc/apt/sources.list /etc/apt/sources.list.d; then
  mirror=$(grep -rhoE 'https?://[^ ]*debian\.org/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null | grep -v snapshot | head -n 1 | tr -d ' ' || true)
  echo "deb ${mirror:-http://deb.debian.org/debian} ${VERSION_CODENAME}-backports main" > /etc/apt/sources.list.d/gobtrfs-backports.list
fi
apt-get update -qq >/dev/null 2>&1 || echo "test/tools.sh: apt-get update failed; trying with what is known" >&2
apt-get install -qq -y zstd python3 util-linux mount nbdkit >/dev/null 2>&1 || true
if ! recent_progs; then
  apt-get install -qq -y -t "${VERSION_CODENAME:-stable}-backports" btrfs-progs >/dev/null 2>&1 ||
    apt-get install -qq -y btrfs-progs >/dev/null 2>&1 || true
fi
if have btrfs; then echo "test/tools.sh: $(btrfs --version | head -n 1)" >&2; else echo "test/tools.sh: btrfs-progs could not be installed" >&2; fi
