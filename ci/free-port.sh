# free_port: a free port, as far as one can know before somebody takes it; below those that the system gives to
# connections. Sourced by the scripts that start servers.
free_port() {
    local port
    for _ in $(seq 50); do
        port=$((20000 + RANDOM % 12000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
    return 1
}
