# shellcheck shell=bash
# Runs one private Docker engine for the tests. tests/it/support/engine.rs starts it and holds the other end of its
# standard input. When that end closes, the engine, its containers and its folder are removed, whatever ended the
# tests.
#
# FOLDER is set in the environment. The engine listens on FOLDER/docker.sock. Needs root.
set -u

engine=

# Processes with our folder in their command line: the engine, its containerd, and its helpers for each container.
ours() {
    grep -lsF -e "$FOLDER" /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3 | grep -vx -e "$$" -e "$BASHPID"
}

clean_up() {
    trap '' INT TERM HUP
    # TERM first: only the engine knows its containers.
    [ -z "$engine" ] || kill -TERM "$engine" 2>/dev/null
    for _ in $(seq 200); do
        kill -0 "$engine" 2>/dev/null || break
        sleep 0.05
    done
    for _ in $(seq 40); do
        pids=$(ours)
        [ -n "$pids" ] || break
        # shellcheck disable=SC2086 # each id is one word
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
# Our engine must use nothing of the system's engine, and the system must keep its network.
for variable in $(compgen -e DOCKER_); do unset "$variable"; done
echo '{}' >daemon.json
dockerd --config-file "$FOLDER/daemon.json" --host "unix://$FOLDER/docker.sock" --pidfile "$FOLDER/docker.pid" \
    --data-root "$FOLDER/data" --exec-root "$FOLDER/exec" --shutdown-timeout 1 \
    --bridge none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false --userland-proxy=false \
    </dev/null >>engine.log 2>&1 &
engine=$!

while read -r _; do :; done
