#!/bin/sh
# The commands of the image: `container.sh start OPTIONS` runs lonc, `container.sh health` checks it.
# These are separate processes, so the options that identify the lonc (--config, --standalone) are saved at the start.
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
    # 1 and 2 are mostly problems of other machines, which restarting this container would not fix.
    test "$status" -le 2
    ;;
*)
    echo "container.sh: start or health, not $1" >&2
    exit 64
    ;;
esac
