# shellcheck shell=bash
# Keeps one private Docker engine for the tests: run by tests/it/support/engine.rs, which holds the other end of its
# standard input. When that closes, however the tests ended, the engine, its containers and its folder go.
#
# FOLDER comes in the environment; the engine listens on FOLDER/docker.sock. Needs root.
set -u

engine=

# Processes that name our folder: the engine, its containerd, and what that keeps for each container.
ours() {
    grep -lsF -e "$FOLDER" /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3 | grep -vx -e "$$" -e "$BASHPID"
}

clean_up() {
    trap '' INT TERM HUP
    # Politely first: only the engine knows its containers.
    [ -z "$engine" ] || kill -TERM "$engine" 2>/dev/null
    for _ in $(seq 200); do
        kill -0 "$engine" 2>/dev/null || break
        sleep 0.05
    done
    for _ in $(seq 40); do
        pids=$(ours)
        [ -n "$pids" ] || break
        # shellcheck disable=SC2086 # one word each
        kill -KILL $pids 2>/dev/null
        sleep 0.05
    done
    awk -v folder="$FOLDER/" 'index($2, folder) == 1 { print $2 }' /proc/mounts | sort -r | while read -r mount; do
        umount -l "$mount" 2>/dev/null
    done
    rm -rf "$FOLDER"
}
trap clean_up EXIT
trap 'exit 1' INT TERM HUP

cd "$FOLDER" || exit 1
# Nothing of the system's engine must reach ours, nor ours the system's network.
for variable in $(compgen -e DOCKER_); do unset "$variable"; done
echo '{}' >daemon.json
dockerd --config-file "$FOLDER/daemon.json" --host "unix://$FOLDER/docker.sock" --pidfile "$FOLDER/docker.pid" \
    --data-root "$FOLDER/data" --exec-root "$FOLDER/exec" --shutdown-timeout 1 \
    --bridge none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false --userland-proxy=false \
    </dev/null >>engine.log 2>&1 &
engine=$!

while read -r _; do :; done
