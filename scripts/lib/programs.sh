# shellcheck shell=bash
# The programs that the tests drive.

# build_programs: builds them, those with faults in them too, and exports where they are.
build_programs() {
    cargo build --workspace --bins
    cargo build --package worker --package api --features worker/faults,api/faults --bin worker-faulty --bin api-faulty
    ORDER_SERVICE_BIN_DIR=$(cargo metadata --no-deps --format-version 1 | jq -r .target_directory)/debug
    export ORDER_SERVICE_BIN_DIR
}
