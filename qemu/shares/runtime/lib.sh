# Shell functions for the cases, sourced as `. /mnt/share/lib.sh`. In: a container's script, more lines of JSON.
# Out: bundles under /tmp. Must never: judge; that is the cases' part.

# bundle NAME SCRIPT: makes /tmp/NAME with a config.json that runs SCRIPT by the example root's sh, and goes there.
bundle() {
    mkdir -p "/tmp/$1" && cd "/tmp/$1" || return
    script=$(printf '%s' "$2" | sed 's/\\/\\\\/g; s/"/\\"/g') awk '
        { at = index($0, "@SCRIPT@") }
        at { $0 = substr($0, 1, at - 1) ENVIRON["script"] substr($0, at + 8) }
        { print }' /mnt/share/config.json > config.json
}

# insert KEY TEXT: puts TEXT in as the first thing inside the object or list KEY of this folder's config.json.
insert() {
    key="\"$1\": " text=$2 awk '
        { print }
        !done && index($0, ENVIRON["key"]) && /[{[]$/ { print ENVIRON["text"]; done = 1 }
        END { exit !done }' config.json > config.json.new && mv config.json.new config.json
}

# pid NAME: the process id of a container's init, as `runc state` tells it.
pid() {
    runc state "$1" | sed -n 's/.*"pid": \([0-9]*\).*/\1/p'
}

# network_bundle NAME NETWORK SCRIPT [FLAG...]: the same from `runc spec --network NETWORK FLAG...`, with ping allowed.
network_bundle() {
    name=$1 network=$2 script=$3
    shift 3
    rm -rf "/tmp/$name" && mkdir "/tmp/$name" && cd "/tmp/$name" && runc spec --network "$network" "$@" || return
    sed -i -e 's|"rootfs"|"/containers/mycontainer/rootfs"|' -e 's|"terminal": true|"terminal": false|' \
        -e 's|"CAP_KILL"|"CAP_KILL", "CAP_NET_RAW"|' -e 's|^\(.*\)"sh"$|\1"/bin/sh", "-c", "'"$script"'"|' config.json
}

# address NAME: the container's address on eth0.
address() {
    runc exec "$1" ip -4 -o addr show eth0 | sed -n 's|.* inet \([0-9.]*\)/.*|\1|p'
}

# traces: what attached containers leave on the host: links, leases, cached results.
traces() {
    ip -o link | sed -n 's/^[0-9]*: \(veth[^:@]*\).*/\1/p'
    find /var/lib/cni/networks -type f -name '*[0-9].*[0-9].*' 2> /dev/null
    find /var/lib/cni/results -type f 2> /dev/null
    [ ! -d /run/netns ] || ls /run/netns
}
