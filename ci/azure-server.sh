#!/usr/bin/env bash
# Azurite, an emulator of Azure Blob Storage from npm, on loopback for tests, over a temporary directory.
#   ci/azure-server.sh start    prints shell assignments: the container, the client's variables, AZURE_SERVER_PID,
#                               AZURE_SERVER_DIR
#   ci/azure-server.sh stop     ends the server that these variables name and removes its directory
set -euo pipefail

container=millrace-test
# Azurite's well-known account, which is no secret.
account=devstoreaccount1
key=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==

azurite() {
    local home="${MILLRACE_AZURITE:-$HOME/.cache/millrace-azurite}"
    [ -x "$home/node_modules/.bin/azurite-blob" ] || npm install --prefix "$home" --silent azurite >&2
    echo "$home/node_modules/.bin/azurite-blob"
}

# Waits until something listens on the port, or the process is gone.
listens() {
    for _ in $(seq 200); do
        kill -0 "$1" 2>/dev/null || return 1
        if (exec 3<>"/dev/tcp/127.0.0.1/$2") 2>/dev/null; then return 0; fi
        read -rt 0.1 <> <(:) || true
    done
    return 1
}

# Makes the container, with a request signed by the account's key.
make_container() {
    node - "$1" "$account" "$key" "$container" <<'END'
const [port, account, key, container] = process.argv.slice(2);
const date = new Date().toUTCString(), version = '2021-08-06';
const text = `PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:${date}\nx-ms-version:${version}\n` +
    `/${account}/${account}/${container}\nrestype:container`;
const hash = require('crypto').createHmac('sha256', Buffer.from(key, 'base64')).update(text, 'utf8').digest('base64');
const headers = {'x-ms-date': date, 'x-ms-version': version, Authorization: `SharedKey ${account}:${hash}`, 'Content-Length': 0};
const path = `/${account}/${container}?restype=container`;
const request = require('http').request({host: '127.0.0.1', port, path, method: 'PUT', headers}, answer => {
    answer.resume();
    if (answer.statusCode !== 201) { console.error(`the container: ${answer.statusCode}`); process.exit(1); }
});
request.end();
END
}

start() {
    local binary dir port pid
    binary=$(azurite)
    dir=$(mktemp -d)
    # A port may be taken between the choice and the bind: another one is tried.
    for _ in 1 2 3 4 5; do
        port=$((20000 + RANDOM % 20000))
        "$binary" --blobHost 127.0.0.1 --blobPort "$port" --location "$dir" --silent --skipApiVersionCheck \
            >"$dir/log" 2>&1 </dev/null &
        pid=$!
        if listens "$pid" "$port" && make_container "$port"; then
            cat <<END
export MILLRACE_TEST_CONTAINER=$container
export AZURE_STORAGE_ACCOUNT_NAME=$account
export AZURE_STORAGE_ACCOUNT_KEY=$key
export AZURE_STORAGE_ENDPOINT=http://127.0.0.1:$port/$account
export AZURE_SERVER_PID=$pid
export AZURE_SERVER_DIR=$dir
END
            return
        fi
        kill "$pid" 2>/dev/null || true
    done
    cat "$dir/log" >&2
    echo "azurite did not start" >&2
    rm -rf "$dir"
    exit 1
}

stop() {
    kill "${AZURE_SERVER_PID:?}" 2>/dev/null || true
    # It writes until it has ended.
    while kill -0 "$AZURE_SERVER_PID" 2>/dev/null; do read -rt 0.1 <> <(:) || true; done
    rm -rf "${AZURE_SERVER_DIR:?}"
}

case "${1:-}" in
start) start ;;
stop) stop ;;
*)
    sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
