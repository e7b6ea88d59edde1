#!/bin/sh
# What the image runs: `container.sh start OPTIONS` is lonc, `container.sh health` asks that lonc.
# The two are separate processes, so which lonc it is (--config, --standalone) is noted at the start.
set -eu
which=${LONC_WHICH:-/tmp/lonc-which}

case $1 in
start)
    shift
    : >"$which"
    previous=
    for each; do
        case $previous in
        --config | -c) printf '%s\n' "--config=$each" >>"$which" ;;
        --standalone) printf '%s\n' "--standalone=$each" >>"$which" ;;
        esac
        case $each in --config=* | --standalone=*) printf '%s\n' "$each" >>"$which" ;; esac
        previous=$each
    done
    exec twistd --nodaemon lonc "$@"
    ;;
health)
    shift
    while IFS= read -r each; do set -- "$@" "$each"; done <"$which"
    status=0
    lonc status "$@" >/dev/null || status=$?
    # 1 and 2 are mostly about other machines, and to start this container again mends none of them.
    test "$status" -le 2
    ;;
*)
    echo "container.sh: start or health, not $1" >&2
    exit 64
    ;;
esac
