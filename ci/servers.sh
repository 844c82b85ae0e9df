# What scripts that start servers share. Sourced.

# A free port, as far as one can know before somebody takes it; below those that the system gives to connections.
free_port() {
    local port
    for _ in $(seq 50); do
        port=$((20000 + RANDOM % 12000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
    return 1
}

# start_etcd DIRECTORY PORT PEER_PORT LOG: an etcd of one member at 127.0.0.1:PORT; its pid is in `etcd`.
start_etcd() {
    local client=http://127.0.0.1:$2 peer=http://127.0.0.1:$3
    etcd --data-dir "$1" --name one --initial-cluster "one=$peer" --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
        --listen-client-urls "$client" --advertise-client-urls "$client" --logger zap --log-level warn >>"$4" 2>&1 </dev/null &
    etcd=$!
}
