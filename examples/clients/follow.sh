#!/usr/bin/env bash
# Run a pipeline and follow it with curl and jq: over the WebSocket if websocat is there, else by polling.
#
#     ./follow.sh hello '{"fast": true}'
#
# The log goes to stdout, the progress to stderr. NFCTL_URL says where the service is; NFCTL_TOKEN is sent as a
# bearer token. Exit code: 0 succeeded, 1 failed, 2 cancelled, 3 wrong usage, or the service refuses or is away.
# That the service has lost events that were seen here is noticed as long as it has not come to as many again:
# websocat does not tell the reason that a socket is closed with.
set -euo pipefail

say() { printf '%s\n' "$*" >&2; }
give_up() { say "$*"; exit 3; }

[ $# -ge 1 ] || give_up "usage: follow.sh PIPELINE [PARAMETERS, a JSON object]"
command -v jq > /dev/null || give_up "follow.sh needs jq"
url=${NFCTL_URL:-http://127.0.0.1:8000}
api=${url%/}/api/v1/pipeline

# curl reads the token from its standard input: an argument would stand in the list of processes.
call() {
    curl --silent --show-error --max-time 30 --config - "$@" \
        <<< "${NFCTL_TOKEN:+header = \"Authorization: Bearer $NFCTL_TOKEN\"}"
}

# The frames of the run behind event $since, one a line: until the connection ends, or those there are.
stream() {
    exec websocat --no-close --buffer-size 4194304 \
        ${NFCTL_TOKEN:+--header="Authorization: Bearer $NFCTL_TOKEN"} \
        "${api/#http/ws}/stream?run_id=$run_id&since=$since" < /dev/null
}
poll() {
    call --fail "$api/runs/$run_id/events?since=$since" |
        jq --compact-output '{type: "status", data: {last_id, status}}, .events[]'
}

# One row a thing to show: the frame's id, the run's final status or -, the kind, the text. With id 0 it is no event, but
# tells the id of the last one there is, and the run's status.
# shellcheck disable=SC2016  # $data is jq's
render='
    def counts: to_entries | map(select(.key != "name" and .value > 0) | "\(.value) \(.key)") | join(", ");
    def things: .data as $data |
        if .type == "log" then $data.lines[] | [.message]
        elif .type == "progress" then $data.processes[] | ["[\($data.percent | floor)%] \(.name): \(counts)"]
        elif .type == "error" then ["\($data.level): \($data.message) \($data.hint // "")"]
        elif .type == "complete" then ["\($data.status) in \($data.duration_seconds // 0 | round) s"]
        elif .id then ["status: \($data.status)"]
        elif $data.last_id then ["\($data.last_id) \($data.status)"]
        else empty end;
    [.id // 0, (select(.type == "complete").data.status) // "-", .type] + things | @tsv'

body=$(jq --null-input --arg pipeline "$1" --argjson parameters "${2:-"{}"}" \
    '{$pipeline, $parameters, when_busy: "queue", triggered_by: "follow.sh"}' 2> /dev/null) || give_up "the parameters are no JSON object: $2"
answer=$(call --fail-with-body --header 'Content-Type: application/json' --data "$body" "$api/run") ||
    give_up "the service refused, or is not there: $answer"
run_id=$(jq --raw-output .run_id <<< "$answer")
say "run $run_id: $(jq --raw-output .status <<< "$answer")"

since=0 result=- shown= rows=
while [ "$result" = - ]; do
    exec 3< <(if command -v websocat > /dev/null; then stream; else poll; fi)
    source=$!
    while IFS=$'\t' read -r id result kind text; do
        if [ "$id" = 0 ]; then
            last=${text% *} rows=1
            case "$last ${text#* }" in    # it has all, and yet not the end that it was told
                "$since succeeded" | "$since failed" | "$since cancelled") [ "$since" != 0 ] || continue ;;
                *) [ "$last" -lt "$since" ] || continue ;;
            esac
            say "the service has lost events that were seen here: all that it keeps comes again"
            since=0
            break
        fi
        since=$id
        text=$(printf '%b.' "$text")    # @tsv has escaped tabs and backslashes; the dot keeps line ends
        case $kind in
            log) printf '%s\n' "${text%.}" ;;
            progress) [[ $shown == *"${text#*]}"$'\n'* ]] || { shown+=$text$'\n'; say "${text%.}"; } ;;
            *) say "${text%.}" ;;
        esac
        [ "$result" = - ] || break
    done < <(jq --raw-output --unbuffered "$render" <&3)
    kill "$source" 2> /dev/null || true
    result=${result:--}
    if [ "$result" = - ]; then
        [ -n "$rows" ] || case $(call --output /dev/null --write-out '%{http_code}' "$api/runs/$run_id" 2> /dev/null || true) in
            401 | 403 | 404) give_up "the service refuses to show the run, or has it no more" ;;
        esac
        rows=
        sleep 1
    fi
done

case $result in succeeded) exit 0 ;; failed) exit 1 ;; cancelled) exit 2 ;; *) exit 3 ;; esac
