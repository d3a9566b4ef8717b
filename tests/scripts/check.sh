#!/usr/bin/env bash
# Everything that can be said about the sources without running them. All of
# it is said, also after a first failure.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

failed=()
check() {
    say "--- $1"
    "${@:2}" || failed+=("$1")
}

# The advisory database lies on the network. Where it can't be reached the
# check is left out aloud rather than silently.
advisories() {
    if timeout 60 cargo-deny deny fetch db >/dev/null 2>&1 </dev/null; then
        cargo-deny deny --log-level error check advisories
    else
        say "advisories NOT checked: the advisory database can't be reached from here"
    fi
}

check "format" cargo fmt --all --check
check "style" python3 tests/scripts/style.py
check "spelling" typos
check "protocol: lint" buf lint
check "protocol: nothing breaks proto/image.binpb" buf breaking --against proto/image.binpb
check "dependencies: none unused" cargo-shear shear --deny-warnings
check "dependencies: bans, licences, sources" \
    cargo-deny deny --log-level error check bans licenses sources
check "dependencies: advisories" advisories
check "clippy" cargo clippy --workspace --all-targets --quiet -- -D warnings

[ ${#failed[@]} -eq 0 ] || die "checks failed: $(printf '%s; ' "${failed[@]}")"
