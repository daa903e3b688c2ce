# shellcheck shell=bash
# Builds the programs that the tests start.

# build_programs: builds the programs and the builds with faults, and exports ORDER_SERVICE_BIN_DIR.
build_programs() {
    cargo build --workspace --bins
    cargo build --package worker --package api --features worker/faults,api/faults --bin worker-faulty --bin api-faulty
    ORDER_SERVICE_BIN_DIR=$(cargo metadata --no-deps --format-version 1 | jq -r .target_directory)/debug
    export ORDER_SERVICE_BIN_DIR
}
