# What the scripts of the CNI callers look at, sourced behind tap.bash. In: nothing. Out: functions and lists of words. Must
# never: pass over a kind of trace because a caller is known to leave it.

# Commands in a container: a server on port 80; the first address; the default route's gateway.
# shellcheck disable=SC2034 # for the scripts
serve=(sh -c 'mkdir /www; echo answer > /www/index.html; exec httpd -f -p 80 -h /www')
# shellcheck disable=SC2034
addresses=(sh -c 'ip -4 -o address show eth0 | sed "s/.*inet //; s/ .*//"')
# shellcheck disable=SC2034
default_route=(sh -c 'ip -4 route | sed -n "s/^default via //p" | cut -d " " -f 1')

# An answer by the gateway and the published port, asked for in a container. By nc: of bookworm's static BusyBox, wget crashes.
# shellcheck disable=SC2034
ask_gateway=(sh -c 'printf "GET / HTTP/1.0\r\n\r\n" | nc "$(ip -4 route | sed -n "s/^default via //p" | cut -d " " -f 1)" 8080 | tail -n 1')

# fetch ADDRESS PORT: what a server answers, without its head.
fetch() {
    exec 3<> "/dev/tcp/$1/$2" && printf 'GET / HTTP/1.0\r\n\r\n' >&3 && sed $'1,/^\r$/d' <&3
}

# answers NAME ADDRESS PORT: the check that a server there answers.
answers() {
    check "$1" "answer" bash -c 'fetch "$@"' fetch "$2" "$3"
}

# leftovers: what no container is behind any more: links, rules of one container, reservations, results of the cache.
leftovers() {
    ip -o link show type veth
    ip -o link show type macvlan
    nft list ruleset | grep -E 'dnat|comment|10\.8[0-9]\.|fd8[0-9]::'
    find /var/lib/cni/networks -type f \( -name '10.*' -o -name 'fd*' \)
    find /var/lib/cni/results /run/cni -type f 2> /dev/null
    ls /run/netns 2> /dev/null
    return 0
}

# rules: the ruleset without its numbers.
rules() {
    nft list ruleset | sed 's/ # handle.*//'
}
export -f fetch leftovers rules
