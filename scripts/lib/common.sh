# Shared by all scripts: messages, the data folder, ports, and our background processes.
# shellcheck shell=bash

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# All native data is outside the source tree, so that clones share one download and one set of services.
# Root uses a system folder: PostgreSQL does not run as root, and its user cannot enter /root.
if [[ -z ${ORDER_SERVICE_HOME:-} ]]; then
    if ((EUID == 0)); then
        ORDER_SERVICE_HOME=/var/lib/order-service
    else
        ORDER_SERVICE_HOME=${HOME:?}/.cache/order-service
    fi
fi
[[ $ORDER_SERVICE_HOME == /* ]] || ORDER_SERVICE_HOME=$PWD/$ORDER_SERVICE_HOME
export ORDER_SERVICE_HOME

# make_folder DIR: creates it and its parents readable by other users, regardless of the umask.
make_folder() { (umask 022 && mkdir -p -- "$1"); }

# absolute DIR: prints its canonical path, which identifies our processes (see `running`).
absolute() { realpath -m -- "$1"; }

# single_instance NAME SCRIPT ARGS...: runs the script again under a lock of that name. flock does not pass on the lock's
# descriptor (--close), so no service that the script starts can hold the lock after the script ends.
single_instance() {
    local name=$1
    shift
    make_folder "$ORDER_SERVICE_HOME"
    exec flock --close "$ORDER_SERVICE_HOME/$name.lock" "$@"
}

# port_open PORT [HOST]: succeeds if the port accepts connections.
port_open() { (exec 3<>"/dev/tcp/${2:-127.0.0.1}/$1") 2>/dev/null; }

# started PID: prints the boot and the time since then at which the process started; fails if it ended. Both identify a
# process, as the kernel reuses pids. Every user can read them; only root can read the environment of our programs, which
# keep their memory from other processes.
started() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return
    # Field 2, the name of the program in parentheses, can have spaces. The state is field 3, the start time field 22.
    read -ra stat <<<"${stat##*) }"
    [[ ${stat[0]} != [ZX] ]] && echo "$(cat /proc/sys/kernel/random/boot_id) ${stat[19]}"
}

# running DIR: prints the pid of the process that `launch` started for this folder; fails if there is none.
running() {
    local pid now
    pid=$(cat "$1/pid" 2>/dev/null) && now=$(started "$pid") || return
    if [[ -e $1/started ]]; then
        [[ $now == "$(cat "$1/started")" ]]
    else
        # Earlier versions of these scripts marked the environment instead.
        grep -zqxF -- "ORDER_SERVICE_PROCESS=$1" "/proc/$pid/environ" 2>/dev/null
    fi && echo "$pid"
}

# launch DIR COMMAND...: runs the command in the background, detached from the terminal, with its output in DIR/log, its pid
# in DIR/pid, and its start in DIR/started. The previous log becomes DIR/log.1.
launch() {
    local dir=$1
    shift
    [[ ! -e $dir/log ]] || mv -f "$dir/log" "$dir/log.1"
    setsid "$@" </dev/null >"$dir/log" 2>&1 &
    echo $! >"$dir/pid"
    # `await` reports a process that has already ended.
    started $! >"$dir/started" || true
}

# await NAME DIR SECONDS CHECK...: polls until the check succeeds. Fails and prints the tail of the log if the process ends
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

# halt DIR SIGNAL SECONDS: sends the signal to the process of this folder, and SIGKILL if it does not end in time.
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
        # The kernel closes the sockets of a killed process a moment after it ends.
        while [[ -e $dir/port ]] && port_open "$(cat "$dir/port")" && ((SECONDS < deadline)); do
            sleep 0.05
        done
    fi
    rm -f "$dir/pid" "$dir/started"
}

# claim_port NAME DIR PORT: returns 0 if the port is free, 1 if our process already uses it. Ends the script if the process
# of this folder uses another port, or another process uses this one.
claim_port() {
    local name=$1 dir=$2 port=$3 current
    if running "$dir" >/dev/null; then
        current=$(cat "$dir/port")
        [[ $current == "$port" ]] || die "$name in $dir already runs on port $current, not $port: stop it first"
        return 1
    fi
    ! port_open "$port" || die "another process uses port $port, which $name needs: choose another port"
    echo "$port" >"$dir/port"
}
