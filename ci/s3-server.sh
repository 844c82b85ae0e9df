#!/usr/bin/env bash
# An S3 server on loopback for tests: versitygw over a temporary directory.
#   ci/s3-server.sh start      prints shell assignments: endpoint, bucket, credentials, S3_SERVER_PID, S3_SERVER_DIR
#   ci/s3-server.sh stop       ends the server that these variables name and removes its directory
#   ci/s3-server.sh program    prints where the server's program is
# In a script: eval "$(ci/s3-server.sh start)"; trap "ci/s3-server.sh stop" EXIT
set -euo pipefail

gateway() {
    local found
    found=$(command -v versitygw || true)
    if [ -z "$found" ]; then
        found="$(go env GOPATH)/bin/versitygw"
        [ -x "$found" ] || go install github.com/versity/versitygw/cmd/versitygw@latest >&2
    fi
    echo "$found"
}

start() {
    local binary dir port pid
    binary=$(gateway)
    dir=$(mktemp -d)
    mkdir "$dir/buckets" "$dir/buckets/millrace-test"
    # A port may be taken between the choice and the bind: another one is tried.
    for _ in 1 2 3 4 5; do
        port=$((20000 + RANDOM % 20000))
        "$binary" --access test-access --secret test-secret --keep-alive --port "127.0.0.1:$port" posix "$dir/buckets" \
            >"$dir/log" 2>&1 </dev/null &
        pid=$!
        for _ in $(seq 100); do
            kill -0 "$pid" 2>/dev/null || break
            if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
                cat <<END
export MILLRACE_TEST_S3_ENDPOINT=http://127.0.0.1:$port
export MILLRACE_TEST_S3_BUCKET=millrace-test
export AWS_ENDPOINT_URL=http://127.0.0.1:$port
export AWS_ACCESS_KEY_ID=test-access
export AWS_SECRET_ACCESS_KEY=test-secret
export AWS_REGION=us-east-1
export S3_SERVER_PID=$pid
export S3_SERVER_DIR=$dir
END
                return
            fi
            read -rt 0.1 <> <(:) || true
        done
        kill "$pid" 2>/dev/null || true
    done
    cat "$dir/log" >&2
    echo "versitygw did not start" >&2
    rm -rf "$dir"
    exit 1
}

stop() {
    kill "${S3_SERVER_PID:?}" 2>/dev/null || true
    rm -rf "${S3_SERVER_DIR:?}"
}

case "${1:-}" in
start) start ;;
stop) stop ;;
program) gateway ;;
*) sed -n '2,6s/^# //p' "$0" >&2; exit 2 ;;
esac
