ip link add br0 type bridge
ip addr add 192.168.1.1/24 dev br0
ip link set br0 up
ip link add veth0 type veth peer name veth1
ip link set veth0 master br0
ip link set veth0 up
ip link set veth1 up
ip netns add mynetns
ip link set veth1 netns mynetns
ip netns exec mynetns ip addr add 192.168.1.2/24 dev veth1
ip netns exec mynetns ip link set lo up
ip netns exec mynetns ip link set veth1 up
