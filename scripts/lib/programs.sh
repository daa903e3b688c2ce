# shellcheck shell=bash
# Builds the programs that the tests start, and patched copies of the workspace.

# build_programs: builds the programs and the faulty programs, and exports ORDER_SERVICE_BIN_DIR.
build_programs() {
    local root target copy
    root=$(git rev-parse --show-toplevel)
    target=$(cargo metadata --no-deps --format-version 1 | jq -r .target_directory)
    copy=$(patched_copy faulty "$root"/e2e/sabotage/*.patch) || return
    cargo build --workspace --bins
    build_copy "$copy" --features worker/faults,api/faults
    export ORDER_SERVICE_BIN_DIR=$target/debug
}

# build_next_release: builds worker-next and api-next, a release that adds an optional field to the order. Call build_programs
# first.
build_next_release() {
    local copy
    copy=$(patched_copy next "$(git rev-parse --show-toplevel)/docs/extending/optional-field.diff") || return
    build_copy "$copy"
}

# patched_copy NAME PATCH...: copies the workspace, with uncommitted changes, to the target folder and applies the patches in
# order. Prints the copy's path. Only files that changed since the last copy are written, so that Cargo rebuilds little.
patched_copy() {
    local name=$1 root copy fresh patch file
    shift
    root=$(git rev-parse --show-toplevel)
    copy=$(cargo metadata --no-deps --format-version 1 | jq -r .target_directory)/copies/$name
    fresh=$copy.fresh
    rm -rf "$fresh"
    mkdir -p "$copy" "$fresh"
    # A file that was deleted without a commit is listed too.
    git -C "$root" ls-files -z --cached --others --exclude-standard |
        tar -C "$root" --null --ignore-failed-read -T - -cf - | tar -C "$fresh" -xf -
    for patch in "$@"; do
        # Outside a repository, git writes to the current folder in every case.
        if ! (cd "$fresh" && GIT_CEILING_DIRECTORIES=${fresh%/*} git apply -- "$patch"); then
            cat >&2 <<TEXT
error: $patch does not apply: the code that it changes was edited.
Renew it; docs/development.md, "Patched copies", lists the commands.
TEXT
            return 1
        fi
    done
    suffix_programs "$fresh" "$name"
    (cd "$copy" && find . -type f -print0) | while IFS= read -r -d '' file; do
        [[ -e $fresh/$file ]] || rm "$copy/$file"
    done
    (cd "$fresh" && find . -type f -print0) | while IFS= read -r -d '' file; do
        cmp -s "$fresh/$file" "$copy/$file" || { mkdir -p "$(dirname "$copy/$file")" && cp "$fresh/$file" "$copy/$file"; }
    done
    rm -rf "$fresh"
    printf '%s\n' "$copy"
}

# suffix_programs COPY NAME: renames worker and api to worker-NAME and api-NAME, so that both builds share a target folder. The
# version gets a suffix too: Cargo names the files of a crate by version and features, not by the path of the workspace.
suffix_programs() {
    local crate
    sed -Ei "s/^version = \"([^\"]+)\"/version = \"\1+$2\"/" "$1/Cargo.toml"
    for crate in worker api; do
        printf '\n[[bin]]\nname = "%s-%s"\npath = "src/main.rs"\n' "$crate" "$2" >>"$1/$crate/Cargo.toml"
    done
}

# build_copy COPY [OPTION...]: builds worker-NAME and api-NAME of the copy NAME, next to the other programs.
build_copy() {
    local copy=$1 name=${1##*/}
    shift
    cargo build --manifest-path "$copy/Cargo.toml" --target-dir "${copy%/copies/*}" --package worker --package api \
        --bin "worker-$name" --bin "api-$name" "$@"
}
