# Runs the workers and api replicas of `make up` as background processes. Needs common.sh.
# shellcheck shell=bash

run_folder=$(absolute "$ORDER_SERVICE_HOME/run")

# One process per admin port. The api ports and the api admin ports have the same order.
read -ra worker_ports <<<"${ORDER_SERVICE_WORKER_ADMIN_PORTS:-8181 8182 8183}"
read -ra api_ports <<<"${ORDER_SERVICE_API_PORTS:-8080 8090}"
read -ra api_admin_ports <<<"${ORDER_SERVICE_API_ADMIN_PORTS:-8281 8282}"
((${#api_ports[@]} == ${#api_admin_ports[@]})) ||
    die "ORDER_SERVICE_API_PORTS has ${#api_ports[@]} ports and ORDER_SERVICE_API_ADMIN_PORTS ${#api_admin_ports[@]}; name equally many"

# process_folders: prints the folder of each worker or replica that has a pid file.
process_folders() { compgen -G "$run_folder/*/pid" | xargs -r dirname; }

# check_ports: ends the script if another process uses a port that we need.
check_ports() {
    local folder mine=' '
    for folder in $(process_folders); do
        if running "$folder" >/dev/null; then mine+="$(cat "$folder/ports") "; fi
    done
    check_port_list ORDER_SERVICE_API_PORTS "${api_ports[@]}"
    check_port_list ORDER_SERVICE_API_ADMIN_PORTS "${api_admin_ports[@]}"
    check_port_list ORDER_SERVICE_WORKER_ADMIN_PORTS "${worker_ports[@]}"
}

# check_port_list VARIABLE PORT...: reads `mine`, the ports of our own processes.
check_port_list() {
    local port
    for port in "${@:2}"; do
        if [[ $mine != *" $port "* ]] && port_open "$port"; then
            die "another process uses port $port; choose other ports: $1=\"${*:2}\""
        fi
    done
}

# start_processes FOLDER-OF-PROGRAMS: starts all processes, then waits until each is ready.
start_processes() {
    local bin=$1 i name names=() ports=()
    for i in "${!worker_ports[@]}"; do
        names+=("worker-$((i + 1))")
        ports+=("${worker_ports[i]}")
        launch_process "worker-$((i + 1))" "${worker_ports[i]}" "${worker_ports[i]}" "$bin/worker" run
    done
    for i in "${!api_ports[@]}"; do
        names+=("api-$((i + 1))")
        ports+=("${api_admin_ports[i]}")
        API_ALLOW_ANONYMOUS=true API_ADDR=127.0.0.1:${api_ports[i]} launch_process "api-$((i + 1))" "${api_admin_ports[i]}" \
            "${api_ports[i]} ${api_admin_ports[i]}" "$bin/api" serve
    done
    for i in "${!names[@]}"; do
        name=${names[i]}
        await "$name" "$run_folder/$name" 60 curl -fsS --noproxy '*' --max-time 2 "http://127.0.0.1:${ports[i]}/readyz"
    done
}

# launch_process NAME ADMIN-PORT PORTS COMMAND...
launch_process() {
    local folder=$run_folder/$1 admin_port=$2
    make_folder "$folder"
    echo "$3" >"$folder/ports"
    ADMIN_ADDR=127.0.0.1:$admin_port launch "$folder" "${@:4}"
}

# stop_processes: stops all processes at once. Each has 30 s to finish its work.
stop_processes() {
    local folder pids=()
    for folder in $(process_folders); do
        halt "$folder" TERM 30 &
        pids+=($!)
    done
    ((${#pids[@]} == 0)) || wait "${pids[@]}"
}
