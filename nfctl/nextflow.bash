#!/usr/bin/env bash
# Starts the Nextflow whose jars lie in lib/ beside this script; the folder may be moved.
set -eu

here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
java_home=${NXF_JAVA_HOME:-${JAVA_HOME:-}}
java=${java_home:+$java_home/bin/}java
command -v -- "$java" >/dev/null || {
    echo "nextflow: there is no '$java'. Install Java 17 or newer, or set JAVA_HOME to one." >&2
    exit 127
}

opened=()
for package in java.io java.lang java.net java.nio java.nio.file.spi java.util java.util.concurrent.atomic \
    java.util.concurrent.locks java.util.regex jdk.internal.misc jdk.internal.vm sun.net.www.protocol.file \
    sun.net.www.protocol.ftp sun.net.www.protocol.http sun.net.www.protocol.https sun.nio.ch sun.nio.fs; do
    opened+=("--add-opens=java.base/$package=ALL-UNNAMED")
done

# The default plugins are for clouds and come from a registry of Nextflow's own; a pipeline that names a plugin still gets it.
export NXF_PLUGINS_DEFAULT=${NXF_PLUGINS_DEFAULT:-false}
# A release is pinned here, so there is nothing to be told about newer ones.
export NXF_DISABLE_CHECK_LATEST=${NXF_DISABLE_CHECK_LATEST:-true}
# Nextflow records this as the command line of a run.
NXF_CLI=$(printf '%q ' nextflow "$@")
export NXF_CLI=${NXF_CLI% }

# The quick compiler alone: Nextflow mostly waits, and a small run ends in 4 s in place of 6, for half the CPU.
# NXF_OPTS and NXF_JVM_ARGS hold several words and come last: of two settings of one thing Java takes the last.
# shellcheck disable=SC2086
exec "$java" -Xmx512m -XX:TieredStopAtLevel=1 -Dfile.encoding=UTF-8 -Djava.awt.headless=true "${opened[@]}" \
    ${NXF_OPTS:-} ${NXF_JVM_ARGS:-} -cp "$here/lib/*" nextflow.cli.Launcher "$@"
