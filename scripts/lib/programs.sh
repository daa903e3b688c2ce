# shellcheck shell=bash
# Builds the programs that the tests start. scripts/patched-copy makes the copies.

# build_programs: builds the programs and the faulty programs, and exports ORDER_SERVICE_BIN_DIR.
build_programs() {
    local root target copy
    root=$(git rev-parse --show-toplevel)
    target=$(cargo metadata --no-deps --format-version 1 | jq -r .target_directory)
    copy=$("$root/scripts/patched-copy" faulty "$root"/e2e/sabotage/*.patch) || return
    cargo build --workspace --bins
    build_copy "$copy" --features worker/faults,api/faults
    export ORDER_SERVICE_BIN_DIR=$target/debug
}

# build_next_release: builds worker-next and api-next, a release that adds an optional field to the order. Call build_programs
# first.
build_next_release() {
    local root copy
    root=$(git rev-parse --show-toplevel)
    copy=$("$root/scripts/patched-copy" next "$root/docs/extending/optional-field.diff") || return
    build_copy "$copy"
}

# build_copy COPY [OPTION...]: builds worker-NAME and api-NAME of the copy NAME, next to the other programs.
build_copy() {
    local copy=$1 name=${1##*/}
    shift
    cargo build --manifest-path "$copy/Cargo.toml" --target-dir "${copy%/copies/*}" --package worker --package api \
        --bin "worker-$name" --bin "api-$name" "$@"
}
