#!/usr/bin/env bash
# What the docker targets of the Makefile call: checks the variables, names things, then calls Docker Compose.
#
#   docker/compose.sh build|up|down|logs|shell|ps|run|demo|tensorboard|monitor|serve|config
#
#   usecase=ships     infra, ships, or one of your own from CONF_DIR (or the demo)
#   CUDA_DEVICES=1    GPUs of the container: 0  1,3  GPU-8f2c...  all  none; unset is all, and the run
#                     leases a free one (none on a server without nvidia-smi)
#   NAME=lr2          tells two containers of one user, use case and GPU apart
#   ARGS='...'        overrides for the run
# The rest stands in docker/compose.yaml.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "docker: $*" >&2; exit 2; }

# Small letters, digits, - and _: what a container name takes.
plain() { tr '[:upper:]' '[:lower:]' <<<"$1" | tr -c 'a-z0-9_\n' '-' | tr -s '-' | sed -E 's/^[-_]+|-+$//g'; }

name_everything() {
    me=$(id -un)
    usecase=${usecase:-${USECASE:-}}
    CUDA_DEVICES=${CUDA_DEVICES:-$(all_gpus)}
    export SAR_UID=${SAR_UID:-$(id -u)} SAR_GID=${SAR_GID:-$(id -g)} SAR_USER=$me
    export IMAGE=${IMAGE:-sar_experiments:$(plain "$me")} COMPOSE_PROFILES=all CUDA_DEVICES
    [[ $CUDA_DEVICES =~ ^(all|none|[0-9]+(,[0-9]+)*|(GPU|MIG)-[A-Za-z0-9/-]+(,(GPU|MIG)-[A-Za-z0-9/-]+)*)$ ]] ||
        fail "CUDA_DEVICES=$CUDA_DEVICES names no GPUs; accepted are indices (1 or 0,2), UUIDs as nvidia-smi -L shows them, all, none"
}

all_gpus() { if nvidia-smi -L >/dev/null 2>&1; then echo all; else echo none; fi; }

# sar-USER-USECASE-gpuDEVICES[-NAME]; a user whose name had to be changed is told apart by number.
project() {
    local user gpu
    user=$(plain "$me")
    [ "$user" = "$me" ] || user=$user-$(id -u)
    gpu=$(plain "gpu$CUDA_DEVICES")
    echo "sar-$user-$1${gpu:+-$gpu}${NAME:+-$(plain "$NAME")}"
}

service_of() {
    case $1 in
        infra | ships) echo "$1" ;;
        *) echo usecase ;;
    esac
}

need_usecase() {
    [ -n "$usecase" ] || fail "usecase=infra, usecase=ships or one of your own must be given: make $1 usecase=ships"
    [[ $usecase =~ ^[A-Za-z0-9_-]+$ ]] || fail "usecase=$usecase is no name of a use case (letters, digits, - and _)"
    service=$(service_of "$usecase")
    project=$(project "$(plain "$usecase")")
    export USECASE=$usecase
}

# Docker would make a missing folder as root, where nobody but root could write.
make_folders() {
    [ "$SAR_UID" != 0 ] || fail "a container does not run as root: call make as the user who owns the data, or set SAR_UID and SAR_GID"
    local locks=${SAR_GPU_LOCK_DIR:-/tmp/sar-gpu-locks}
    mkdir -p "${RUNS_DIR:-multirun}" "${CACHE_DIR:-docker/mounts/cache}"
    [ -d "$locks" ] || { mkdir -p "$locks" && chmod 1777 "$locks"; }
    for variable in DATA_DIR CONF_DIR CACHE_DIR RUNS_DIR SAR_GPU_LOCK_DIR; do
        local folder=${!variable:-}
        [ -z "$folder" ] || { [[ $folder = /* ]] && [ -d "$folder" ]; } ||
            fail "$variable=$folder is no folder; accepted is the absolute path of one"
    done
}

# Compose would look for it in a registry.
need_image() { docker image inspect "$IMAGE" >/dev/null 2>&1 || fail "there is no image $IMAGE yet: make docker-build"; }

find_compose() {
    if docker compose version >/dev/null 2>&1; then
        compose_command=(docker compose)
    elif command -v docker-compose >/dev/null; then
        compose_command=(docker-compose)
    else
        fail "neither 'docker compose' nor docker-compose is found; on Debian: apt install docker-compose-plugin (or docker-compose)"
    fi
}

# Each GPU must be an item of its own, and a server without GPUs refuses to reserve any: YAML variables can do
# neither, so that the one line changes here.
compose() {
    local devices
    case $CUDA_DEVICES in
        none) sed '/driver: nvidia/s/devices: .*/devices: []/' docker/compose.yaml ;;
        *)
            devices=\"${CUDA_DEVICES//,/\", \"}\"
            sed "s|\"\${CUDA_DEVICES:-all}\"|$devices|" docker/compose.yaml
            ;;
    esac >"$edited"
    "${compose_command[@]}" --project-directory docker --file "$edited" --project-name "$project" "$@"
}

containers() { docker ps --quiet --filter "label=sar_experiments.user=$me" "$@"; }

build() {
    local version
    version=$(sed -nE 's/^version = "(.*)"/\1/p' pyproject.toml)
    commit=$(git rev-parse HEAD 2>/dev/null || true)
    [ -z "$commit" ] || git diff --quiet HEAD || commit=$commit+dirty
    secret=()
    [ -z "${PIP_CONF:-}" ] || secret=(--secret "id=pip_conf,src=$PIP_CONF")
    # shellcheck disable=SC2086 # BUILD_ARGS holds several words
    DOCKER_BUILDKIT=1 docker build --file docker/Dockerfile --tag "$IMAGE" \
        --build-arg "UID=$SAR_UID" --build-arg "GID=$SAR_GID" \
        --build-arg "VERSION=$version" --build-arg "GIT_COMMIT=$commit" \
        "${secret[@]}" ${BUILD_ARGS:-} .
}

up() {
    need_usecase docker-up
    make_folders
    [ -f "conf/usecase/$usecase.yaml" ] || [ -f "${CONF_DIR:-docker/mounts/conf}/usecase/$usecase.yaml" ] ||
        fail "usecase=$usecase is neither one of ours nor in CONF_DIR=${CONF_DIR:-docker/mounts/conf}, as usecase/$usecase.yaml"
    need_image
    # Compose would stop a run that goes on, to replace it.
    [ -z "$(containers --filter "label=com.docker.compose.project=$project")" ] ||
        fail "$project is running already; another CUDA_DEVICES or a NAME starts a second, make docker-down $(same) ends it"
    SAR_HOST=$(short "$(hostname).$project")
    RUN_NAME=${RUN_NAME:-$(date +%Y-%m-%d_%H-%M-%S)_train_$usecase${NAME:+_$NAME}}
    export SAR_HOST RUN_NAME
    compose up --detach --no-build "$service"
    echo "docker: $project writes multirun/$RUN_NAME; make docker-logs $(same) shows it"
}

# What has to be said again to mean the same container.
same() { echo "usecase=$usecase CUDA_DEVICES=$CUDA_DEVICES${NAME:+ NAME=$NAME}"; }

short() { cut -c-63 <<<"$1" | sed -E 's/[-.]+$//'; }

# One project, or all of ours; never anybody else's.
down() {
    if [ -n "$usecase" ]; then
        need_usecase docker-down
        compose down
        return
    fi
    local ours
    mapfile -t ours < <(containers --all)
    [ ${#ours[@]} -gt 0 ] || { echo "docker: $me has no containers"; return; }
    docker stop --time "${STOP_GRACE_S:-90}" "${ours[@]}" >/dev/null
    docker rm "${ours[@]}" >/dev/null
    echo "docker: ${#ours[@]} container(s) of $me stopped and removed"
}

# A shell beside the run, or in a container of its own.
shell() {
    need_usecase docker-shell
    if [ -n "$(containers --filter "label=com.docker.compose.project=$project")" ]; then
        compose exec "$service" bash
    else
        make_folders
        need_image
        compose run --rm --entrypoint bash "$service"
    fi
}

# A command in a container of its own, which is gone after it.
once() {
    make_folders
    need_image
    project=$(project once)
    SAR_HOST=$(short "$(hostname).$project")
    export SAR_HOST
    local terminal=()
    [ -t 0 ] || terminal=(-T)
    local code=0
    compose run --rm "${terminal[@]}" "$@" || code=$?
    echo "docker: /sar/multirun is $(realpath "${RUNS_DIR:-multirun}") here" >&2
    return $code
}

run() {
    local words
    [ -n "${ARGS:-}" ] || fail "ARGS='task=predict weights=multirun/RUN source=/data/scene.tif', or another task, must be given"
    mapfile -t words < <(xargs -n 1 printf '%s\n' <<<"$ARGS")
    once usecase "${words[@]}"
}

# What `serve` cannot use would start again and again.
need_weights() {
    local weights=${WEIGHTS:-multirun/ships}
    [[ $weights = multirun/* ]] && [ -e "${RUNS_DIR:-multirun}/${weights#multirun/}" ] ||
        fail "WEIGHTS=$weights is no run; accepted is a run folder or checkpoint, as multirun/RUN"
}

# TensorBoard, monitor and service: one of each per user, and more with NAME.
aside() {
    CUDA_DEVICES=$2
    make_folders
    need_image
    project=sar-$(plain "$me")-$1${NAME:+-$(plain "$NAME")}
    [ "$1" = monitor ] && { compose run --rm monitor; return; }
    SAR_HOST=$(short "$(hostname).$project")
    export SAR_HOST
    compose up --detach --no-build "$1"
    local where=${TENSORBOARD_BIND:-0.0.0.0}:${TENSORBOARD_PORT:-6010}
    [ "$1" = tensorboard ] || where=${SERVE_BIND:-127.0.0.1}:${SERVE_PORT:-8000}
    echo "docker: $project listens on $where in a moment; make docker-ps shows it, make docker-down ends it"
}

command=${1:-}
name_everything
case $command in
    build | ps) ;;
    *)
        find_compose
        edited=$(mktemp)
        trap 'rm -f "$edited"' EXIT
        ;;
esac
case $command in
    build | up | down | shell) "$command" ;;
    logs) need_usecase docker-logs && compose logs --follow --tail 200 ;;
    ps) docker ps --all --filter "label=sar_experiments.user=$me" --format 'table {{.Names}}\t{{.Status}}\t{{.Ports}}' ;;
    config) usecase=${usecase:-demo} && need_usecase docker-config && compose config ;;
    tensorboard) aside tensorboard none ;;
    monitor) aside monitor "$(all_gpus)" ;;
    serve) need_weights && aside serve "$CUDA_DEVICES" ;;
    run) run ;;
    demo) CUDA_DEVICES=none && once --entrypoint 'tini -- make' usecase demo ${ARGS:+"ARGS=$ARGS"} ;;
    *) fail "'$command' is none of build, up, down, logs, shell, ps, run, demo, tensorboard, monitor, serve, config" ;;
esac
