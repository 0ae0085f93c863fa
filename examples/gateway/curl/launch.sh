#!/bin/sh
# Uses a headgate gateway with curl.
#
#   headgate gateway --emulator          # in another terminal
#
# HEADGATE_KEY is a caller's key; with --emulator none is needed.
set -eu
gateway=${HEADGATE_URL:-http://127.0.0.1:8080}

call() {
	if [ -n "${HEADGATE_KEY:-}" ]; then
		# From a file, so that the key does not show in the list of processes.
		printf 'header = "Authorization: Bearer %s"\n' "$HEADGATE_KEY" | curl -sS --config - "$@"
	else
		curl -sS "$@"
	fi
}

launch() {
	n=$1
	shift
	call "$gateway/api/v2/flows/executions" -H 'Content-Type: application/json' \
		-d "{\"flowId\":\"my-flow\",\"inputData\":{\"Flow.n\":$n}}" "$@"
}

echo '# wait: held until the limit lets it go, for a minute at most'
launch 1 -i -H 'Prefer: wait=60' -H 'Priority: u=1'

printf '\n\n# leave: on disk once it is answered\n'
accepted=$(launch 2 -i -H 'Prefer: respond-async' -H "Idempotency-Key: $(date +%s)-$$")
echo "$accepted"
self=$(echo "$accepted" | tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
printf '\n# come back for the end of it\n'
call "$gateway$self" -H 'Prefer: wait=30'
printf '\n# or for nothing but the answer of the platform\n'
call "$gateway$self/answer"
echo
