# Runs the whole system in containers, for `make up` with a Docker engine. Needs common.sh and processes.sh.
# shellcheck shell=bash disable=SC2154

compose_root=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
# Holds the name of the compose project that `make up` started and `make down` stops.
compose_record=$run_folder/compose-project

# compose ARGS...: runs docker compose for this source tree.
compose() { (cd "$compose_root" && docker compose "$@"); }

# docker_answers: succeeds if an engine and compose answer. An engine that hangs counts as missing.
docker_answers() {
    have docker && timeout 10 docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1
}

# compose_project: prints the name of the project that `make up` started, if any of its containers still exists.
compose_project() {
    local project
    project=$(cat "$compose_record" 2>/dev/null) && docker_answers &&
        [[ -n $(docker ps --quiet --filter "label=com.docker.compose.project=$project") ]] && echo "$project"
}

# check_compose_ports: ends the script if another process uses a port that compose publishes.
check_compose_ports() {
    local ours service port
    ours=" $(compose ps --services --status running | tr '\n' ' ') "
    while read -r service port; do
        if [[ $ours != *" $service "* ]] && port_open "$port"; then
            service=${service^^}
            die "another process uses port $port; choose another port: ${service//-/_}_PORT=PORT make up"
        fi
    done < <(compose config --format json |
        jq -r '.services | to_entries[] | .key as $service | .value.ports[]? | "\($service) \(.published)"')
}

# addresses SERVICE PORT: prints one http:// address per container of the service, as seen by other containers.
addresses() {
    compose exec -T gateway getent ahostsv4 "$1" </dev/null | sort -Vu |
        awk -v port="$2" '$2 == "STREAM" { print "http://" $1 ":" port }'
}

# start_compose WORKERS APIS: builds the images, starts everything and waits until all containers are healthy.
start_compose() {
    local settings
    settings=$(compose config --format json) || die "docker compose cannot read docker-compose.yml or .env; see its error above"
    check_compose_ports
    make_folder "$run_folder"
    jq -r .name <<<"$settings" >"$compose_record"
    compose up --detach --build --wait --scale worker="$1" --scale api="$2" ||
        die "the containers did not start; run: docker compose ps --all, docker compose logs SERVICE (or, without Docker: NATIVE=1 make up)"
}

# stop_compose: stops and removes the containers that `make up` started; keeps the volumes.
stop_compose() {
    local project
    [[ -e $compose_record ]] || return 0
    docker_answers || die "cannot stop the containers that make up started: no Docker engine answers"
    project=$(<"$compose_record")
    # Outside the source tree compose selects by labels alone, so this stops all containers, regardless of profiles and files.
    (cd / && docker compose --project-name "$project" down --remove-orphans)
    rm -f "$compose_record"
    echo "the data stays in the volumes of project $project; to delete them: docker compose --profile '*' down --volumes"
}
