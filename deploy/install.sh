#!/usr/bin/env bash
# Installs MedIQA Node into PREFIX (default /opt/mediqa-node) with an environment of its own.
#   deploy/install.sh                       a host: also user, configuration in /etc/mediqa and the systemd unit
#   deploy/install.sh --prefix DIR --plain  only the program and a configuration file below DIR (containers, tests)
set -euo pipefail
source_folder="$(cd "$(dirname "$0")/.." && pwd)"
prefix=/opt/mediqa-node
plain=no
while [ $# -gt 0 ]; do
    case "$1" in
        --prefix) [ $# -ge 2 ] || { echo "install: --prefix needs a folder" >&2; exit 2; }; prefix=$2; shift 2 ;;
        --plain) plain=yes; shift ;;
        -h|--help) sed -n '2,4p' "$0" | cut -c3-; exit 0 ;;
        *) echo "install: unknown argument $1; see --help" >&2; exit 2 ;;
    esac
done
if [ "$plain" = no ] && [ "$(id -u)" != 0 ]; then
    echo "install: run as root, or use --plain --prefix DIR" >&2
    exit 1
fi

mkdir -p "$prefix"
for item in node qa_engine storage scripts pyproject.toml constraints.txt config.yaml README.md LICENSE; do
    rm -rf "${prefix:?}/$item"
    cp -R "$source_folder/$item" "$prefix/$item"
done
(cd "$prefix" && scripts/setup)

if [ "$plain" = yes ]; then
    mkdir -p "$prefix/etc"
    [ -f "$prefix/etc/config.yaml" ] || sed "s#^  data: mediqa-data #  data: $prefix/data #" "$source_folder/config.yaml" > "$prefix/etc/config.yaml"
    echo "installed: $prefix/.venv/bin/mediqa serve --config $prefix/etc/config.yaml"
    exit 0
fi

id mediqa >/dev/null 2>&1 || useradd --system --home-dir /var/lib/mediqa --shell /usr/sbin/nologin mediqa
install -d -m 0755 /etc/mediqa
[ -f /etc/mediqa/config.yaml ] || sed 's#^  data: mediqa-data #  data: /var/lib/mediqa #' "$source_folder/config.yaml" > /etc/mediqa/config.yaml
chmod 0644 /etc/mediqa/config.yaml
install -m 0644 "$source_folder/deploy/mediqa-node.service" /etc/systemd/system/mediqa-node.service
echo "installed: edit /etc/mediqa/config.yaml, then: systemctl daemon-reload && systemctl enable --now mediqa-node"
