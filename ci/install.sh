#!/usr/bin/env bash
# What the tests need besides Rust, Go, Java 17 and Maven: kcat, an S3 server, etcd, Kafka's clients and tools. What is there
# already is left alone.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

packages=()
command -v kcat >/dev/null || packages+=(kcat)
# The tests start their own on ports of their own.
command -v etcd >/dev/null || packages+=(etcd-server)
if [ ${#packages[@]} -gt 0 ]; then
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
fi
if ! command -v versitygw >/dev/null && [ ! -x "$(go env GOPATH)/bin/versitygw" ]; then
    go install github.com/versity/versitygw/cmd/versitygw@latest
fi
# Stands behind its own file, so that an interrupted download is not taken for a whole one.
if [ ! -f "$here/java/target/complete" ] ||
    [ -n "$(find "$here/java/pom.xml" "$here/java/src" -newer "$here/java/target/complete")" ]; then
    mvn -q -B -ntp -f "$here/java/pom.xml" package
    touch "$here/java/target/complete"
fi
