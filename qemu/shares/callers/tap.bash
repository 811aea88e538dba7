# TAP for the callers' scripts, sourced. In: calls of `check`, programs for it. Out: one line for each, and what was different; at the end the
# plan. Must never: let a command that fails pass for one that printed what was asked for.

number=0

# check NAME EXPECTED COMMAND...: passes when the command's standard output is EXPECTED, and its status 0, or the one
# behind `status=` at EXPECTED's end. EXPECTED may be a pattern of bash.
check() {
    local name=$1 expected=$2 wanted=0 output status
    shift 2
    if [[ $expected == *status=[0-9]* ]]; then
        wanted=${expected##*status=}
        expected=${expected%status=*}
    fi
    number=$((number + 1))
    output=$(timeout 120 "$@" 2> /tmp/stderr < /dev/null)
    status=$?
    # shellcheck disable=SC2053 # a pattern is meant
    if [[ $output == $expected && $status == "$wanted" ]]; then
        echo "ok $number $name"
    else
        echo "not ok $number $name"
        printf '%s\n' "expected: $expected (status $wanted)" "printed: $output (status $status)" | sed 's/^/# /'
        tail -n 8 /tmp/stderr | sed 's/^/# stderr: /'
    fi
}

# program NAME: what follows on standard input, as a program of bash's: checks run programs.
program() {
    mkdir -p /tmp/bin
    { echo '#!/bin/bash'; cat; } > "/tmp/bin/$1"
    chmod +x "/tmp/bin/$1"
}
export PATH=/tmp/bin:$PATH

# until_true COMMAND...: tries again for a minute.
until_true() {
    local try
    for try in $(seq 120); do
        "$@" > /dev/null 2>&1 && return 0
        sleep 0.5
    done
    return 1
}

# image FILE: a root of BusyBox as a tar file.
image() {
    local root=/tmp/image applet
    mkdir -p $root/bin $root/etc $root/proc $root/sys $root/dev $root/tmp
    cp /bin/busybox $root/bin/busybox
    for applet in $(busybox --list); do
        ln -sf busybox "$root/bin/$applet"
    done
    rm $root/bin/busybox
    cp /bin/busybox $root/bin/busybox
    echo 'root:x:0:0:root:/:/bin/sh' > $root/etc/passwd
    tar -C $root -cf "$1" .
    rm -r $root
}

done_testing() {
    echo "1..$number"
}
