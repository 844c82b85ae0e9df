#!/usr/bin/env bash
# The clients of the matrix, pinned, and Apache Kafka beside which they run; `install.sh java`: only Apache Kafka and the
# Java client. Needs what ci/install.sh needs, Node.js with npm, and Python 3; everything lands under ci/matrix. What is there
# already is left alone.
set -euo pipefail
cd "$(dirname "$0")"

# newer MARKER FILE...: whether one of these changed since the marker was set.
newer() {
    [ ! -f "$1" ] || [ -n "$(find "${@:2}" -newer "$1")" ]
}

mkdir -p target
if newer target/java.complete java/pom.xml java/src; then
    mvn -q -B -ntp -f java/pom.xml package
    touch target/java.complete
fi
[ "${1:-}" != java ] || exit 0
if newer target/python.complete python/requirements.txt; then
    rm -rf target/venv
    python3 -m venv target/venv
    target/venv/bin/pip install -q --disable-pip-version-check --only-binary :all: -r python/requirements.txt
    touch target/python.complete
fi
if newer target/node.complete node/package.json; then
    npm install --prefix node --no-audit --no-fund --no-package-lock --loglevel=error >/dev/null
    touch target/node.complete
fi
# These look for changes themselves.
(cd go && go build -o ../target/go/ ./...)
CARGO_TARGET_DIR=target/rskafka cargo build -q --locked --manifest-path rskafka/Cargo.toml
