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
