# Installs the generators of clients, and what their test programs need, outside the source tree. The versions are pinned in
# e2e/clients. Needs common.sh and node.sh, and `here`, the folder of the scripts.
# shellcheck shell=bash

sources=$(realpath "$here/../e2e/clients")

# cached NAME FILE...: prints the folder for what these files pin.
cached() {
    local digest
    digest=$(cat "${@:2}" | sha256sum | cut -c1-16)
    echo "$ORDER_SERVICE_HOME/clients/$1-$digest"
}

# once FOLDER COMMAND...: runs the command, which fills the folder, unless an earlier run completed it. Waits for another script
# that fills it.
once() {
    local folder=$1 lock
    shift
    make_folder "${folder%/*}"
    exec {lock}>"$folder.lock"
    flock "$lock"
    if [[ ! -e $folder/complete ]]; then
        rm -rf "$folder"
        make_folder "$folder"
        "$@" "$folder"
        touch "$folder/complete"
    fi
    exec {lock}>&-
}

# use_npm_tools: sets npm_folder, which has node_modules, and links it into the sources for the TypeScript compiler.
use_npm_tools() {
    use_node
    npm_folder=$(cached npm "$sources/typescript/package-lock.json")
    once "$npm_folder" install_npm_tools
    ln -sfn "$npm_folder/node_modules" "$sources/typescript/node_modules"
}

install_npm_tools() {
    cp "$sources"/typescript/package{,-lock}.json "$1"
    # Scripts of packages could fetch anything; none is needed.
    npm ci --prefix "$1" --ignore-scripts --no-audit --no-fund --loglevel=error
}

# use_python_tools: sets python_folder, a virtual environment.
use_python_tools() {
    "$here/deps" python
    python_folder=$(cached "python-$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')" "$sources/python/requirements.txt")
    once "$python_folder" install_python_tools
}

install_python_tools() {
    python3 -m venv "$1"
    "$1/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement "$sources/python/requirements.txt"
}

# use_rust_tools: builds the generator and sets rust_target, the folder of the build, and generator, its path. The client's own
# build uses the same folder: they have many packages in common.
use_rust_tools() {
    "$here/deps" build
    rust_target=$ORDER_SERVICE_HOME/clients/rust-target
    generator=$rust_target/debug/order-client-generator
    build_rust "$sources/rust/generator"
}

# build_rust FOLDER: builds the crate in the folder. An unoptimised build takes a fraction of the time.
build_rust() { CARGO_TARGET_DIR=$rust_target cargo build --quiet --locked --manifest-path "$1/Cargo.toml"; }
