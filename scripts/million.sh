#!/bin/sh
# Runs a million rows through `headgate run` against an emulator in another
# process, and shows peak memory and the size of the journal. Takes some minutes
# and about a gigabyte of disk, in a folder of its own that is removed.
set -eu
rows=${ROWS:-1000000}
dir=$(mktemp -d)
trap 'kill "$emulator" 2> /dev/null || true; rm -rf "$dir"' EXIT
binary=$(pwd)/headgate
cd "$dir"
awk -v n="$rows" 'BEGIN { for (i = 1; i <= n; i++) printf "{\"flowId\":\"flow\",\"n\":%d,\"customer\":\"customer-%d\",\"text\":\"a payload about as long as real ones are, with a few fields\"}\n", i, i }' > rows.jsonl
"$binary" emulate --listen 127.0.0.1:18080 --admin 127.0.0.1:18081 --limit 1000000/s,burst=100000 --for 1h > report.txt 2> emulator.log &
emulator=$!
while ! grep -q 'report on' emulator.log; do sleep 0.1; done
export GENESYSCLOUD_OAUTHCLIENT_ID=emulator-client GENESYSCLOUD_OAUTHCLIENT_SECRET=emulator-secret
"$binary" run --api-url http://127.0.0.1:18080 --login-url http://127.0.0.1:18080 \
	--limit 1000000/s --burst 100000 --out results.jsonl --progress plain rows.jsonl &
run=$!
peak=0
while kill -0 "$run" 2> /dev/null; do
	now=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$run/status" 2> /dev/null || true)
	[ -z "$now" ] || peak=$now
	sleep 1
done
wait "$run"
echo "peak memory: $((peak / 1024)) MB for $rows rows; results: $(wc -l < results.jsonl); journal: $(($(wc -c < rows.jsonl.journal) / 1048576)) MB"
kill -INT "$emulator"
wait "$emulator" || true
cat report.txt
