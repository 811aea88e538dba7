/* The floor of a network: one process with the same effects in the kernel as a chain of plugins, by raw netlink. In:
 * `add|del FOLDER bare|chain|dual`. Out: the namespace at /run/netns/floor has an interface `eth0` on the bridge `floor0`
 * with one address, or with two (dual), a file for each in FOLDER; with `chain` and `dual` rules that publish a port and let
 * packets through, and another MTU. Must never: do what a plugin is for. Nothing is read, checked, kept or answered. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define BRIDGE "floor0"
#define INTERFACE "eth0"
#define MTU 1400
#define TABLE "floor_hostport"
#define FIREWALL "floor_firewall"
#define NAT_DST (-100)
#define NAT_SRC 100
#define RAW (-300)

static char buffer[65536];
static size_t used, message_start;
static unsigned sequence;
static const char *folder;

static void fail(const char *what)
{
	fprintf(stderr, "netfloor: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void put(const void *bytes, size_t length)
{
	memcpy(buffer + used, bytes, length);
	used += length;
	while (used % 4)
		buffer[used++] = 0;
}

static void begin(int type, int flags, const void *header, size_t length)
{
	struct nlmsghdr message = { .nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | flags, .nlmsg_seq = ++sequence };
	message_start = used;
	put(&message, sizeof message);
	put(header, length);
}

static void end(void)
{
	((struct nlmsghdr *)(buffer + message_start))->nlmsg_len = used - message_start;
}

static size_t nest(int type)
{
	struct nlattr attribute = { .nla_type = type | NLA_F_NESTED };
	size_t at = used;
	put(&attribute, sizeof attribute);
	return at;
}

static void close_nest(size_t at)
{
	((struct nlattr *)(buffer + at))->nla_len = used - at;
}

static void attribute(int type, const void *value, size_t length)
{
	struct nlattr attribute = { .nla_type = type, .nla_len = sizeof attribute + length };
	put(&attribute, sizeof attribute);
	put(value, length);
}

static void text(int type, const char *value)
{
	attribute(type, value, strlen(value) + 1);
}

static void number(int type, uint32_t value)
{
	attribute(type, &value, sizeof value);
}

static void big(int type, uint32_t value)
{
	number(type, htonl(value));
}

static int open_netlink(int protocol)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
	if (fd < 0)
		fail("socket");
	return fd;
}

/* Sends what has been put together, and reads until there is an answer to each of `messages`. Gives the index of a link that
 * was asked for. */
static int send_all(int fd, const char *what, int messages)
{
	static char answer[32768];
	int index = 0;
	if (send(fd, buffer, used, 0) < 0)
		fail(what);
	used = 0;
	while (messages > 0) {
		ssize_t length = recv(fd, answer, sizeof answer, 0);
		if (length < 0)
			fail(what);
		for (struct nlmsghdr *at = (void *)answer; NLMSG_OK(at, length); at = NLMSG_NEXT(at, length)) {
			if (at->nlmsg_type == RTM_NEWLINK)
				index = ((struct ifinfomsg *)NLMSG_DATA(at))->ifi_index;
			if (at->nlmsg_type != NLMSG_ERROR)
				continue;
			errno = -((struct nlmsgerr *)NLMSG_DATA(at))->error;
			if (errno)
				fail(what);
			messages--;
		}
	}
	return index;
}

static int link_of(int fd, const char *name)
{
	struct ifinfomsg header = { 0 };
	begin(RTM_GETLINK, NLM_F_ACK, &header, sizeof header);
	text(IFLA_IFNAME, name);
	end();
	return send_all(fd, name, 1);
}

static void set_link(int fd, int index, uint32_t mtu)
{
	struct ifinfomsg header = { .ifi_index = index, .ifi_flags = mtu ? 0 : IFF_UP, .ifi_change = mtu ? 0 : IFF_UP };
	begin(RTM_SETLINK, NLM_F_ACK, &header, sizeof header);
	if (mtu)
		number(IFLA_MTU, mtu);
	end();
	send_all(fd, "the interface", 1);
}

static void make_pair(int fd, int netns, int bridge)
{
	struct ifinfomsg up = { .ifi_flags = IFF_UP, .ifi_change = IFF_UP }, down = { 0 };
	begin(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &up, sizeof up);
	text(IFLA_IFNAME, "floorveth");
	number(IFLA_MASTER, bridge);
	size_t info = nest(IFLA_LINKINFO);
	text(IFLA_INFO_KIND, "veth");
	size_t data = nest(IFLA_INFO_DATA), peer = nest(VETH_INFO_PEER);
	put(&down, sizeof down);
	text(IFLA_IFNAME, INTERFACE);
	number(IFLA_NET_NS_FD, netns);
	close_nest(peer);
	close_nest(data);
	close_nest(info);
	end();
	send_all(fd, "the pair", 1);
}

/* An address of 4 or 16 bytes with a default route by `gateway`. */
static void put_address(int fd, int index, int family, const char *address, int prefix)
{
	char bytes[16];
	size_t length = family == AF_INET ? 4 : 16;
	struct ifaddrmsg header = { .ifa_family = family, .ifa_prefixlen = prefix, .ifa_index = index };
	inet_pton(family, address, bytes);
	begin(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &header, sizeof header);
	attribute(IFA_LOCAL, bytes, length);
	attribute(IFA_ADDRESS, bytes, length);
	if (family == AF_INET6)
		number(IFA_FLAGS, IFA_F_NODAD);
	end();
	send_all(fd, address, 1);
}

static void put_route(int fd, int index, int family, const char *gateway)
{
	char bytes[16];
	struct rtmsg header = { .rtm_family = family, .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_BOOT, .rtm_type = RTN_UNICAST };
	inet_pton(family, gateway, bytes);
	begin(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &header, sizeof header);
	attribute(RTA_GATEWAY, bytes, family == AF_INET ? 4 : 16);
	number(RTA_OIF, index);
	end();
	send_all(fd, gateway, 1);
}

static void reserve(const char *address, int is_wanted)
{
	static const char text[] = "floor\r\neth0";
	char path[256];
	snprintf(path, sizeof path, "%s/%s", folder, address);
	if (!is_wanted) {
		if (unlink(path) < 0)
			fail(path);
		return;
	}
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, text, sizeof text - 1) < 0)
		fail(path);
	close(fd);
}

/* nf_tables: the messages of one transaction. */

static int rule_family, batch_messages;
static const char *rule_table;
static size_t rule_list;

static void nft_begin(int type, int flags)
{
	struct nfgenmsg header = { .nfgen_family = rule_family };
	begin(NFNL_SUBSYS_NFTABLES << 8 | type, NLM_F_ACK | flags, &header, sizeof header);
	text(NFTA_TABLE_NAME, rule_table);
	batch_messages++;
}

static void batch_mark(int type)
{
	struct nfgenmsg header = { .res_id = htons(NFNL_SUBSYS_NFTABLES) };
	begin(type, 0, &header, sizeof header);
	end();
}

static void chain(const char *name, const char *kind, int hook, int priority)
{
	nft_begin(NFT_MSG_NEWCHAIN, NLM_F_CREATE);
	text(NFTA_CHAIN_NAME, name);
	if (kind) {
		size_t at = nest(NFTA_CHAIN_HOOK);
		big(NFTA_HOOK_HOOKNUM, hook);
		big(NFTA_HOOK_PRIORITY, priority);
		close_nest(at);
		text(NFTA_CHAIN_TYPE, kind);
	}
	end();
}

static void rule(const char *name)
{
	nft_begin(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND);
	text(NFTA_RULE_CHAIN, name);
	rule_list = nest(NFTA_RULE_EXPRESSIONS);
}

static void end_rule(void)
{
	close_nest(rule_list);
	end();
}

static size_t element, element_data;

static void expression(const char *name)
{
	element = nest(NFTA_LIST_ELEM);
	text(NFTA_EXPR_NAME, name);
	element_data = nest(NFTA_EXPR_DATA);
}

static void end_expression(void)
{
	close_nest(element_data);
	close_nest(element);
}

static void value(int type, const void *bytes, size_t length)
{
	size_t at = nest(type);
	attribute(NFTA_DATA_VALUE, bytes, length);
	close_nest(at);
}

static void compare(int operator, const void *bytes, size_t length)
{
	expression("cmp");
	big(NFTA_CMP_SREG, NFT_REG_1);
	big(NFTA_CMP_OP, operator);
	value(NFTA_CMP_DATA, bytes, length);
	end_expression();
}

static void meta(int key, const void *bytes, size_t length, int operator)
{
	expression("meta");
	big(NFTA_META_DREG, NFT_REG_1);
	big(NFTA_META_KEY, key);
	end_expression();
	compare(operator, bytes, length);
}

static void payload(int base, int offset, int length)
{
	expression("payload");
	big(NFTA_PAYLOAD_DREG, NFT_REG_1);
	big(NFTA_PAYLOAD_BASE, base);
	big(NFTA_PAYLOAD_OFFSET, offset);
	big(NFTA_PAYLOAD_LEN, length);
	end_expression();
}

static void mask(const void *bytes, size_t length)
{
	static const char zero[16];
	expression("bitwise");
	big(NFTA_BITWISE_SREG, NFT_REG_1);
	big(NFTA_BITWISE_DREG, NFT_REG_1);
	big(NFTA_BITWISE_LEN, length);
	value(NFTA_BITWISE_MASK, bytes, length);
	value(NFTA_BITWISE_XOR, zero, length);
	end_expression();
}

/* The address at `end` (0: sender, 1: receiver) lies in address/prefix. */
static void address_is(int family, int at_end, const char *address, int prefix)
{
	unsigned char bytes[16], bits[16] = { 0 };
	int length = family == AF_INET ? 4 : 16;
	inet_pton(family, address, bytes);
	for (int bit = 0; bit < prefix; bit++)
		bits[bit / 8] |= 0x80 >> bit % 8;
	for (int index = 0; index < length; index++)
		bytes[index] &= bits[index];
	payload(NFT_PAYLOAD_NETWORK_HEADER, family == AF_INET ? 12 + 4 * at_end : 8 + 16 * at_end, length);
	if (prefix < length * 8)
		mask(bits, length);
	compare(NFT_CMP_EQ, bytes, length);
}

static void verdict(int code, const char *to)
{
	expression("immediate");
	big(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
	size_t data = nest(NFTA_IMMEDIATE_DATA), inner = nest(NFTA_DATA_VERDICT);
	big(NFTA_VERDICT_CODE, code);
	if (to)
		text(NFTA_VERDICT_CHAIN, to);
	close_nest(inner);
	close_nest(data);
	end_expression();
}

static void has_bits(int key, uint32_t bits, int operator)
{
	static const uint32_t zero;
	expression("ct");
	big(NFTA_CT_DREG, NFT_REG_1);
	big(NFTA_CT_KEY, key);
	end_expression();
	mask(&bits, sizeof bits);
	compare(operator, &zero, sizeof zero);
}

static void jump_if_local(const char *from, const char *to)
{
	const uint32_t local = RTN_LOCAL;
	rule(from);
	expression("fib");
	big(NFTA_FIB_DREG, NFT_REG_1);
	big(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
	big(NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR);
	end_expression();
	compare(NFT_CMP_EQ, &local, sizeof local);
	verdict(NFT_JUMP, to);
	end_rule();
}

static void immediate(int reg, const void *bytes, size_t length)
{
	expression("immediate");
	big(NFTA_IMMEDIATE_DREG, reg);
	value(NFTA_IMMEDIATE_DATA, bytes, length);
	end_expression();
}

static void redirect(int family, const char *address)
{
	const unsigned char tcp = IPPROTO_TCP;
	const uint16_t host_port = htons(8080), port = htons(80);
	char bytes[16];
	inet_pton(family, address, bytes);
	rule("hostports");
	meta(NFT_META_L4PROTO, &tcp, 1, NFT_CMP_EQ);
	payload(NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2);
	compare(NFT_CMP_EQ, &host_port, 2);
	immediate(NFT_REG_1, bytes, family == AF_INET ? 4 : 16);
	immediate(NFT_REG_2, &port, 2);
	expression("nat");
	big(NFTA_NAT_TYPE, NFT_NAT_DNAT);
	big(NFTA_NAT_FAMILY, family == AF_INET ? NFPROTO_IPV4 : NFPROTO_IPV6);
	big(NFTA_NAT_REG_ADDR_MIN, NFT_REG_1);
	big(NFTA_NAT_REG_PROTO_MIN, NFT_REG_2);
	end_expression();
	end_rule();
}

static void masquerade(int family, const char *from, int prefix, const char *to)
{
	rule("masquerading");
	address_is(family, 0, from, prefix);
	address_is(family, 1, to, family == AF_INET ? 32 : 128);
	expression("masq");
	end_expression();
	end_rule();
}

static void use_table(int family, const char *name)
{
	rule_family = family;
	rule_table = name;
}

static void guard(const char *from, int knows)
{
	const char lo[IFNAMSIZ] = "lo";
	rule(from);
	address_is(AF_INET, 1, "127.0.0.0", 8);
	meta(NFT_META_IIFNAME, lo, sizeof lo, NFT_CMP_NEQ);
	if (knows)
		has_bits(NFT_CT_STATE, 2 | 4, NFT_CMP_EQ);
	verdict(NF_DROP, NULL);
	end_rule();
}

static void publish(int family, const char *address, int prefix)
{
	use_table(family == AF_INET ? NFPROTO_IPV4 : NFPROTO_IPV6, TABLE);
	nft_begin(NFT_MSG_NEWTABLE, NLM_F_CREATE);
	end();
	chain("hostip_hostports", NULL, 0, 0);
	chain("hostports", NULL, 0, 0);
	chain("masquerading", NULL, 0, 0);
	chain("prerouting", "nat", NF_INET_PRE_ROUTING, NAT_DST);
	chain("output", "nat", NF_INET_LOCAL_OUT, NAT_DST);
	chain("postrouting", "nat", NF_INET_POST_ROUTING, NAT_SRC);
	if (family == AF_INET)
		guard("prerouting", 0);
	for (int index = 0; index < 2; index++) {
		const char *from = index ? "output" : "prerouting";
		jump_if_local(from, "hostip_hostports");
		jump_if_local(from, "hostports");
	}
	rule("postrouting");
	has_bits(NFT_CT_STATUS, IPS_DST_NAT, NFT_CMP_NEQ);
	verdict(NFT_JUMP, "masquerading");
	end_rule();
	redirect(family, address);
	masquerade(family, address, prefix, address);
	if (family == AF_INET) {
		chain("guard", "filter", NF_INET_LOCAL_IN, RAW);
		guard("guard", 1);
		masquerade(family, "127.0.0.0", 8, address);
	}
}

static void let_through(int family, const char *address)
{
	const unsigned char protocol = family == AF_INET ? NFPROTO_IPV4 : NFPROTO_IPV6;
	for (int at_end = 1; at_end >= 0; at_end--) {
		rule("containers");
		meta(NFT_META_NFPROTO, &protocol, 1, NFT_CMP_EQ);
		address_is(family, at_end, address, family == AF_INET ? 32 : 128);
		if (at_end)
			has_bits(NFT_CT_STATE, 2 | 4, NFT_CMP_NEQ);
		verdict(NF_ACCEPT, NULL);
		end_rule();
	}
}

static void add_rules(int is_dual)
{
	static const char *const jumps[] = { "admin", "isolation_from", NULL, "containers" };
	batch_mark(NFNL_MSG_BATCH_BEGIN);
	publish(AF_INET, "10.66.0.2", 24);
	if (is_dual)
		publish(AF_INET6, "fd66::2", 64);
	use_table(NFPROTO_INET, FIREWALL);
	nft_begin(NFT_MSG_NEWTABLE, NLM_F_CREATE);
	end();
	chain("admin", NULL, 0, 0);
	chain("isolation_to", NULL, 0, 0);
	chain("isolation_from", NULL, 0, 0);
	chain("containers", NULL, 0, 0);
	chain("forward", "filter", NF_INET_FORWARD, 0);
	for (int index = 0; index < 4; index++) {
		rule("forward");
		if (!jumps[index])
			has_bits(NFT_CT_STATE, 2 | 4, NFT_CMP_NEQ);
		verdict(jumps[index] ? NFT_JUMP : NF_ACCEPT, jumps[index]);
		end_rule();
	}
	let_through(AF_INET, "10.66.0.2");
	if (is_dual)
		let_through(AF_INET6, "fd66::2");
	batch_mark(NFNL_MSG_BATCH_END);
	send_all(open_netlink(NETLINK_NETFILTER), "the rules", batch_messages);
}

static void remove_rules(int is_dual)
{
	batch_mark(NFNL_MSG_BATCH_BEGIN);
	for (int index = 0; index < 3; index++) {
		if (index == 1 && !is_dual)
			continue;
		use_table(index == 0 ? NFPROTO_IPV4 : index == 1 ? NFPROTO_IPV6 : NFPROTO_INET, index == 2 ? FIREWALL : TABLE);
		nft_begin(NFT_MSG_DELTABLE, 0);
		end();
	}
	batch_mark(NFNL_MSG_BATCH_END);
	send_all(open_netlink(NETLINK_NETFILTER), "the rules", batch_messages);
}

static void write_switch(const char *path)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "1", 1) < 0)
		fail(path);
	close(fd);
}

int main(int count, char **words)
{
	if (count != 4) {
		fprintf(stderr, "netfloor add|del FOLDER bare|chain|dual\n");
		return 2;
	}
	folder = words[2];
	int is_dual = strcmp(words[3], "dual") == 0, is_chain = is_dual || strcmp(words[3], "chain") == 0;
	int host = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	int netns = open("/run/netns/floor", O_RDONLY | O_CLOEXEC);
	int outer = open_netlink(NETLINK_ROUTE);
	if (host < 0 || netns < 0 || setns(netns, CLONE_NEWNET) < 0)
		fail("the namespace");
	int inner = open_netlink(NETLINK_ROUTE);
	if (setns(host, CLONE_NEWNET) < 0)
		fail("the namespace");
	if (strcmp(words[1], "del") == 0) {
		struct ifinfomsg header = { .ifi_index = link_of(inner, INTERFACE) };
		if (is_chain)
			remove_rules(is_dual);
		begin(RTM_DELLINK, NLM_F_ACK, &header, sizeof header);
		end();
		send_all(inner, "the pair", 1);
		reserve("10.66.0.2", 0);
		if (is_dual)
			reserve("fd66::2", 0);
		return 0;
	}
	make_pair(outer, netns, link_of(outer, BRIDGE));
	reserve("10.66.0.2", 1);
	int index = link_of(inner, INTERFACE);
	put_address(inner, index, AF_INET, "10.66.0.2", 24);
	if (is_dual) {
		reserve("fd66::2", 1);
		put_address(inner, index, AF_INET6, "fd66::2", 64);
	}
	set_link(inner, index, 0);
	put_route(inner, index, AF_INET, "10.66.0.1");
	if (is_dual)
		put_route(inner, index, AF_INET6, "fd66::1");
	if (!is_chain)
		return 0;
	add_rules(is_dual);
	write_switch("/proc/sys/net/ipv4/conf/" BRIDGE "/route_localnet");
	set_link(inner, index, MTU);
	return 0;
}
