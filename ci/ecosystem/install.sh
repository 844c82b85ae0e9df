#!/usr/bin/env bash
# Kafka's tools and frameworks, Flink, and Apache Kafka beside which they run. Needs Java 17 and Maven; everything lands under
# this folder and ci/matrix. What is there already is left alone.
set -euo pipefail
cd "$(dirname "$0")"

../matrix/install.sh java
for folder in . flink; do
    marker=$folder/target/complete
    if [ ! -f "$marker" ] || [ -n "$(find "$folder/pom.xml" "$folder/src" -newer "$marker")" ]; then
        mvn -q -B -ntp -f "$folder/pom.xml" package
        touch "$marker"
    fi
done
