# Installs subcommands of cargo outside the source tree. Needs common.sh.
# shellcheck shell=bash

# cargo_tool NAME VERSION: installs the tool once and puts it first in PATH. Without optimisation, which would take longer than
# everything that the tool does.
cargo_tool() {
    local name=$1 version=$2 root lock log
    root=$ORDER_SERVICE_HOME/tools/$name-$version
    log=$root.log
    make_folder "$ORDER_SERVICE_HOME/tools"
    if [[ ! -x $root/bin/$name ]]; then
        exec {lock}>"$root.lock"
        flock "$lock"
        if [[ ! -x $root/bin/$name ]]; then
            printf 'installing %s %s\n' "$name" "$version" >&2
            CARGO_PROFILE_DEV_DEBUG=0 cargo install --locked --debug --root "$root" "$name@$version" >"$log" 2>&1 || {
                tail -n 5 "$log" >&2
                die "cargo install $name@$version failed (full output: $log)"
            }
        fi
        exec {lock}>&-
    fi
    PATH=$root/bin:$PATH
}
