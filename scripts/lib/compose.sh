# The whole system in containers, for `make up` where a Docker engine answers. Needs common.sh and processes.sh.
# shellcheck shell=bash disable=SC2154

compose_root=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
# Holds the name of the compose project that `make up` has started: what `make down` stops.
compose_record=$run_folder/compose-project

# compose ARGS...: docker compose for this source tree.
compose() { (cd "$compose_root" && docker compose "$@"); }

# docker_answers: an engine and compose are there. An engine that hangs is none.
docker_answers() {
    have docker && timeout 10 docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1
}

# compose_project: the name of the project whose containers `make up` has started, if any of them is left.
compose_project() {
    local project
    project=$(cat "$compose_record" 2>/dev/null) && docker_answers &&
        [[ -n $(docker ps --quiet --filter "label=com.docker.compose.project=$project") ]] && echo "$project"
}

# check_compose_ports: ends the script when somebody else has a port that compose is about to publish.
check_compose_ports() {
    local ours service port
    ours=" $(compose ps --services --status running | tr '\n' ' ') "
    while read -r service port; do
        if [[ $ours != *" $service "* ]] && port_open "$port"; then
            service=${service^^}
            die "port $port is taken by another process; choose another one: ${service//-/_}_PORT=PORT make up"
        fi
    done < <(compose config --format json |
        jq -r '.services | to_entries[] | .key as $service | .value.ports[]? | "\($service) \(.published)"')
}

# addresses SERVICE PORT: one http:// address per container of the service, as other containers see them.
addresses() {
    compose exec -T gateway getent ahostsv4 "$1" </dev/null | sort -Vu |
        awk -v port="$2" '$2 == "STREAM" { print "http://" $1 ":" port }'
}

# start_compose WORKERS APIS: builds the images, starts everything and waits until all of it is healthy.
start_compose() {
    local settings
    settings=$(compose config --format json) || die "docker compose cannot read docker-compose.yml or .env; see above"
    check_compose_ports
    make_folder "$run_folder"
    jq -r .name <<<"$settings" >"$compose_record"
    compose up --detach --build --wait --scale worker="$1" --scale api="$2" ||
        die "the containers did not start; look at them with: docker compose ps --all, docker compose logs SERVICE (NATIVE=1 make up does without Docker)"
}

# stop_compose: stops and removes the containers that `make up` has started; the volumes stay.
stop_compose() {
    local project
    [[ -e $compose_record ]] || return 0
    docker_answers || die "the containers that make up has started cannot be stopped: no Docker engine answers"
    project=$(<"$compose_record")
    # Outside the source tree compose goes by labels alone: complete, whatever profiles were on and the files say by now.
    (cd / && docker compose --project-name "$project" down --remove-orphans)
    rm -f "$compose_record"
    echo "the data stays in the volumes of project $project; to delete them: docker compose --profile '*' down --volumes"
}
