# Shared by every script here: messages, the data folder, ports, and background processes that are ours.
# shellcheck shell=bash

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# Everything native lives outside the source tree, so that clones share one download and one set of services.
# Root gets a system folder: PostgreSQL refuses to run as root, and its own user cannot enter /root.
if [[ -z ${ORDER_SERVICE_HOME:-} ]]; then
    if ((EUID == 0)); then
        ORDER_SERVICE_HOME=/var/lib/order-service
    else
        ORDER_SERVICE_HOME=${HOME:?}/.cache/order-service
    fi
fi
[[ $ORDER_SERVICE_HOME == /* ]] || ORDER_SERVICE_HOME=$PWD/$ORDER_SERVICE_HOME
export ORDER_SERVICE_HOME

# make_folder DIR: creates it and its parents readable by other users, whatever the umask is.
make_folder() { (umask 022 && mkdir -p -- "$1"); }

# absolute DIR: the folder under its one true name, which is what tells our processes from anybody else's.
absolute() { realpath -m -- "$1"; }

# single_instance NAME SCRIPT ARGS...: runs the script again under a lock of that name. flock keeps the lock's descriptor
# to itself (--close), so no service started below can hold the lock after the script has ended.
single_instance() {
    local name=$1
    shift
    make_folder "$ORDER_SERVICE_HOME"
    exec flock --close "$ORDER_SERVICE_HOME/$name.lock" "$@"
}

# port_open PORT [HOST]: somebody accepts connections there.
port_open() { (exec 3<>"/dev/tcp/${2:-127.0.0.1}/$1") 2>/dev/null; }

# running DIR: prints the pid of the process that was launched for this folder, and fails when there is none. A pid alone
# proves nothing, for the kernel gives the numbers out again; the environment that launch sets does.
running() {
    local pid
    pid=$(cat "$1/pid" 2>/dev/null) || return
    grep -zqxF -- "ORDER_SERVICE_PROCESS=$1" "/proc/$pid/environ" 2>/dev/null && echo "$pid"
}

# launch DIR COMMAND...: runs the command in the background, apart from this terminal, with its output in DIR/log (the
# one of the run before is kept as DIR/log.1) and its pid in DIR/pid.
launch() {
    local dir=$1
    shift
    [[ ! -e $dir/log ]] || mv -f "$dir/log" "$dir/log.1"
    ORDER_SERVICE_PROCESS=$dir setsid "$@" </dev/null >"$dir/log" 2>&1 &
    echo $! >"$dir/pid"
}

# await NAME DIR SECONDS CHECK...: polls until the check succeeds; ends with the tail of the log when the process ends
# or the deadline passes first.
await() {
    local name=$1 dir=$2 seconds=$3
    shift 3
    local deadline=$((SECONDS + seconds)) problem
    until "$@" >/dev/null 2>&1; do
        if ! kill -0 "$(cat "$dir/pid")" 2>/dev/null; then
            problem="$name ended while it started"
        elif ((SECONDS >= deadline)); then
            problem="$name is not ready after $seconds s"
        else
            sleep 0.1
            continue
        fi
        printf 'error: %s; the end of %s:\n' "$problem" "$dir/log" >&2
        tail -n 15 "$dir/log" 2>/dev/null | sed 's/^/    /' >&2
        return 1
    done
}

# halt DIR SIGNAL SECONDS: asks the process of this folder to end, and kills it when it has not done so in time.
halt() {
    local dir=$1 signal=$2 deadline=$((SECONDS + $3)) pid
    if pid=$(running "$dir"); then
        kill "-$signal" "$pid" 2>/dev/null || true
        while running "$dir" >/dev/null; do
            if ((SECONDS >= deadline)); then
                kill -KILL "$pid" 2>/dev/null || true
            fi
            sleep 0.05
        done
        # What was killed is gone a moment before its sockets are closed.
        while [[ -e $dir/port ]] && port_open "$(cat "$dir/port")" && ((SECONDS < deadline)); do
            sleep 0.05
        done
    fi
    rm -f "$dir/pid"
}

# claim_port NAME DIR PORT: for a start. 0 = the port is free, 1 = our process already runs there; ends the script when
# the process of this folder has another port, or somebody else has this one.
claim_port() {
    local name=$1 dir=$2 port=$3 current
    if running "$dir" >/dev/null; then
        current=$(cat "$dir/port")
        [[ $current == "$port" ]] || die "$name in $dir already runs on port $current, not $port: stop it first"
        return 1
    fi
    ! port_open "$port" || die "port $port, wanted for $name, is taken by another process: choose another one"
    echo "$port" >"$dir/port"
}
