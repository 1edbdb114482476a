#!/usr/bin/env bash
# test/fuzz.sh TIME [PATTERN] — runs every fuzz target of the module, or those whose "package Target" matches PATTERN, for
# TIME each (go test -fuzztime). Stops at the first finding.
set -euo pipefail
time=${1:-10s} pattern=${2:-.}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
grep -rlE '^func Fuzz' --include='*_test.go' . | sort | while read -r file; do
  pkg=$(dirname "$file")
  sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' "$file" | while read -r target; do
    echo "$pkg $target" | grep -qE "$pattern" || continue
    echo "== $pkg $target"
    go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$pkg" 2>&1 | tee "$log" || {
      # The end of the time, met by a running input, may look like a failure; a finding names its input.
      grep -q 'context deadline exceeded' "$log" && ! grep -q 'Failing input' "$log"
    }
  done
done
