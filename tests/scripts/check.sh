#!/usr/bin/env bash
# Everything that can be said about the sources without running them.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# The advisory database lies on the network. Where it can't be reached the
# check is left out aloud rather than silently.
advisories() {
    if timeout 60 cargo-deny deny fetch db >/dev/null 2>&1 </dev/null; then
        cargo-deny deny check -D warnings advisories
    else
        say "advisories NOT checked: the advisory database can't be reached from here"
    fi
}

step "format" cargo fmt --all --check
step "spelling" typos
step "protocol: lint" buf lint
step "protocol: no breaking change against proto/image.binpb" \
    buf breaking --against proto/image.binpb
step "dependencies: bans, licences, sources" \
    cargo-deny deny --log-level error check bans licenses sources
step "dependencies: advisories" advisories
step "clippy" cargo clippy --workspace --all-targets --quiet -- -D warnings
