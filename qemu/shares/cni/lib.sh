# Shell functions for plugins called by hand, sourced as `. /mnt/share/lib.sh`. In: configurations, the namespace `box`.
# Out: files in /tmp/plugins. Must never: judge; that is the cases' part.

export CNI_CONTAINERID=box CNI_NETNS=/run/netns/box CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin
mkdir -p /tmp/plugins && cd /tmp/plugins

# conf TYPE [FIELDS]: writes the plugin's configuration.
conf() {
    echo '{ "cniVersion": "1.1.0", "name": "test", "type": "'"$1\"${2:+, $2} }" > "$1"
}

# static ADDRESS[,GATEWAY]... [ROUTE]: the field ipam with these addresses, and a route to ROUTE.
static() {
    list=
    for pair in $1; do
        item='{ "address": "'${pair%,*}'"'
        [ "${pair#*,}" = "$pair" ] || item=$item', "gateway": "'${pair#*,}'"'
        list="$list${list:+, }$item }"
    done
    [ -z "$2" ] || list=$list'], "routes": [{ "dst": "'$2'" }'
    echo '"ipam": { "type": "static", "addresses": ['"$list"'] }'
}

# call VERB TYPE: runs the plugin with its configuration; CHECK, DEL and GC get the result of the last ADD that went well.
call() {
    if [ "$1" = ADD ]; then
        CNI_COMMAND=ADD "/opt/cni/bin/$2" < "$2" > answer
        status=$?
        cat answer
        [ $status != 0 ] || cp answer result
        return $status
    fi
    sed "s|}\$|, \"prevResult\": $(cat result 2> /dev/null || echo null) }|" "$2" > "$2.later"
    CNI_COMMAND=$1 "/opt/cni/bin/$2" < "$2.later"
}

# inside COMMAND...: runs it in the namespace.
inside() {
    ip netns exec box "$@"
}

# gone TYPE: DEL, DEL again, DEL when the namespace is gone, DEL without one.
gone() {
    call DEL "$1" && call DEL "$1" && ip netns del box && call DEL "$1" && CNI_NETNS= call DEL "$1"
}
