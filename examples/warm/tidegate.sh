# Serves the jobs of a tidegate pool of kind "warm". Source it in a POSIX shell, and call `serve COMMAND...`.
#
# COMMAND, usually a function, is called for each job, with the job as one line of JSON on standard input (to read
# with jq, for example). Its exit code is the outcome: 0 done, 65 reject, 75 retry, anything else failed. Its output
# goes to the log; it cannot reply. Use this if starting is slow and the work is fast. If starting is fast, use the
# kind "exec".
serve() {
    exec 3>&1 1>&2 # From here on all output goes to the log.
    echo '{"ready":true,"protocol":1}' >&3
    while IFS= read -r tidegate_job; do
        # The id is the first key. It is returned unchanged: a string with its quotes and escapes.
        tidegate_id=$(printf '%s\n' "$tidegate_job" | sed -E 's/^\{"id":("([^"\\]|\\.)*").*/\1/')
        printf '%s\n' "$tidegate_job" | "$@" 3>&-
        case $? in
            0) tidegate_answer='"outcome":"done"' ;;
            65) tidegate_answer='"outcome":"reject"' ;;
            75) tidegate_answer='"outcome":"retry"' ;;
            *) tidegate_answer="\"outcome\":\"failed\",\"error\":\"exit code $?\"" ;;
        esac
        printf '{"id":%s,%s}\n' "$tidegate_id" "$tidegate_answer" >&3
    done
}
