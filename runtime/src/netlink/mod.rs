//! Netlink by blocking sockets: route (links, addresses, routes), nf_tables and conntrack.
//! Serves both sides: the CNI plugins and the OCI runtime (`lo` up, netDevices).
