# Runs one private RabbitMQ node for the tests. tests/it/support/broker.rs starts it and holds the other end of its
# standard input. When that end closes, the node and its folder are removed, whatever ended the tests.
#
# Reads `start`, `kill`, `suspend` and `resume`, one per line, and answers each with `done`. FOLDER, SERVER, EPMD,
# NODE, DIST_PORT and EPMD_PORT are set in the environment. The arguments are words to put before SERVER and EPMD.
set -u

node=
epmd=

# KILL: nothing in the node must be saved. Until the emulator is dead, it holds its ports and writes files.
end_group() { # GROUP
    [ -n "$1" ] || return 0
    kill -KILL -- "-$1" 2>/dev/null
    wait "$1" 2>/dev/null
    for _ in $(seq 100); do
        kill -0 -- "-$1" 2>/dev/null || break
        sleep 0.05
    done
}

clean_up() {
    end_group "$node"
    end_group "$epmd"
    rm -rf "$FOLDER"
}
trap clean_up EXIT
trap 'exit 1' INT TERM HUP

cd "$FOLDER" || exit 1
for variable in $(compgen -e RABBITMQ_); do unset "$variable"; done
# Our node must use nothing of the system's broker: no settings, and no cookie through HOME.
export HOME=$FOLDER ERL_CRASH_DUMP=$FOLDER/erl_crash.dump ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT=$EPMD_PORT
export RABBITMQ_NODENAME=$NODE RABBITMQ_DIST_PORT=$DIST_PORT RABBITMQ_PID_FILE=$FOLDER/node.pid
export RABBITMQ_CONFIG_FILE=$FOLDER/rabbitmq.conf RABBITMQ_CONFIG_FILES=$FOLDER/conf.d
export RABBITMQ_ADVANCED_CONFIG_FILE=$FOLDER/advanced.config RABBITMQ_CONF_ENV_FILE=$FOLDER/rabbitmq-env.conf
export RABBITMQ_ENABLED_PLUGINS_FILE=$FOLDER/enabled_plugins RABBITMQ_GENERATED_CONFIG_DIR=$FOLDER/generated
export RABBITMQ_LOG_BASE=$FOLDER/log RABBITMQ_MNESIA_BASE=$FOLDER/mnesia RABBITMQ_SCHEMA_DIR=$FOLDER/schema

# Process groups of their own, to kill each as a whole.
set -m
# An epmd of its own, in the foreground. If the node started one itself, it would stay as a daemon.
"$@" "$EPMD" -port "$EPMD_PORT" </dev/null >>epmd.log 2>&1 &
epmd=$!

while read -r command; do
    case $command in
    start)
        end_group "$node"
        "$@" "$SERVER" </dev/null >>console.log 2>&1 &
        node=$!
        ;;
    kill) end_group "$node" ;;
    suspend) kill -STOP -- "-$node" ;;
    resume) kill -CONT -- "-$node" ;;
    esac
    echo 'done'
done
