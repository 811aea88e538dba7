//! A lease's life against a server of our own, whose leases are short: asked for, renewed, outliving its daemon, given
//! back; and its end when the server is silent.
//!
//! In: the VM, with the plugins in /opt/cni/bin and the daemon as a service. Out: verdicts.
//! Must never: run on a developer's machine by accident, so all are ignored; in the VM they run with
//! `dhcp_in_vm --ignored --test-threads=1`.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::io::Write;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 81, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 81, 0, 77);
const BRIDGE: &str = "dhcp0";
/// Renewed after half of it; the other half is for a daemon that is killed to come back on a slow machine.
const LEASE_S: u32 = 20;
/// Ends what hangs; it measures nothing.
const DEADLINE: Duration = Duration::from_secs(60);

/// What the server heard.
#[derive(Debug, PartialEq)]
struct Heard {
    /// Option 53.
    kind: u8,
    /// Whether it came to the server alone: from an address, by unicast as far as that shows.
    has_address: bool,
    /// Option 61.
    client_id: Vec<u8>,
}

fn option(message: &[u8], wanted: u8) -> Option<Vec<u8>> {
    let mut rest = message.get(240..)?;
    while let [kind, len, after @ ..] = rest {
        let value = after.get(..usize::from(*len))?;
        if *kind == wanted {
            return Some(value.to_vec());
        }
        rest = &after[usize::from(*len)..];
    }
    None
}

/// A server for one client on the bridge, and what it heard.
struct Server {
    heard: mpsc::Receiver<Heard>,
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Server {
    fn next(&self) -> Heard {
        self.heard.recv_timeout(DEADLINE).unwrap()
    }

    fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        drop(self.heard);
        self.thread.join().unwrap();
    }
}

fn serve() -> Server {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 67)).unwrap();
    runtime::sys::udp::bind_to_device(socket.as_fd(), BRIDGE).unwrap();
    socket.set_broadcast(true).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let (sender, receiver) = mpsc::sync_channel(0);
    let is_over = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&is_over);
    let thread = std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        while !until.load(Ordering::Relaxed) {
            let Ok((len, from)) = socket.recv_from(&mut buffer) else {
                continue;
            };
            let message = &buffer[..len];
            let kind = option(message, 53).unwrap()[0];
            let has_address = message[12..16] != [0; 4];
            let client_id = option(message, 61).unwrap_or_default();
            if sender.send(Heard { kind, has_address, client_id }).is_err() {
                return;
            }
            if !matches!(kind, 1 | 3) {
                continue;
            }
            let mut reply = message[..240].to_vec();
            reply[0] = 2;
            reply[16..20].copy_from_slice(&CLIENT.octets());
            reply.extend([53, 1, if kind == 1 { 2 } else { 5 }, 54, 4]);
            reply.extend(SERVER.octets());
            reply.extend([1, 4, 255, 255, 255, 0, 3, 4]);
            reply.extend(SERVER.octets());
            reply.extend([51, 4]);
            reply.extend(LEASE_S.to_be_bytes());
            reply.push(255);
            let to = if has_address { from } else { SocketAddr::from((Ipv4Addr::BROADCAST, 68)) };
            socket.send_to(&reply, to).unwrap();
        }
    });
    Server { heard: receiver, is_over, thread }
}

fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn bridge(verb: &str, netns: &str, result: &Value) -> Result<Value, String> {
    let config = json!({"cniVersion": "1.1.0", "name": "leases", "type": "bridge", "bridge": BRIDGE,
        "ipam": {"type": "dhcp"}, "prevResult": result});
    let mut plugin = Command::new("/opt/cni/bin/bridge")
        .envs([("CNI_COMMAND", verb), ("CNI_CONTAINERID", "box"), ("CNI_IFNAME", "eth0")])
        .envs([("CNI_NETNS", netns), ("CNI_PATH", "/opt/cni/bin")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    plugin.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
    let output = plugin.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    if output.status.success() { Ok(serde_json::from_str(&said).unwrap_or_default()) } else { Err(said) }
}

fn set_up(netns: &str) {
    sh(&format!(
        "ip link add {BRIDGE} type bridge && ip addr add {SERVER}/24 dev {BRIDGE} && ip link set {BRIDGE} up && ip netns add {netns}"
    ));
}

fn take_down() {
    sh(&format!("ip link del {BRIDGE}"));
}

#[test]
#[ignore = "runs in the VM"]
fn a_lease_is_renewed_also_by_the_next_daemon_and_given_back_when_the_container_is_gone() {
    set_up("box1");
    let server = serve();
    let adding = std::thread::spawn(|| bridge("ADD", "/run/netns/box1", &Value::Null));
    let id = b"\0box/leases/eth0".to_vec();
    let next = |kind: u8, has_address: bool| {
        // A lost message comes twice.
        loop {
            let got = server.next();
            if (got.kind, got.has_address) == (kind, has_address) {
                assert_eq!(got.client_id, id);
                return;
            }
            assert!(got.kind < kind || !got.has_address, "{got:?} while waiting for {kind}");
        }
    };
    next(1, false);
    next(3, false);
    let result = adding.join().unwrap().unwrap();
    assert_eq!(result["ips"][0]["address"], "10.81.0.77/24");
    assert_eq!(result["routes"][0], json!({"dst": "0.0.0.0/0", "gw": "10.81.0.1"}));
    next(3, true);
    next(3, true);
    sh("kill -9 $(pidof dhcp)");
    next(3, true);
    bridge("CHECK", "/run/netns/box1", &result).unwrap();
    // The container ends before DEL, as a runtime's does.
    sh("ip netns del box1");
    let deleting = std::thread::spawn(move || bridge("DEL", "/run/netns/box1", &result).unwrap());
    loop {
        let got = server.next();
        if got.kind == 7 {
            assert!(got.has_address && got.client_id == id);
            break;
        }
    }
    deleting.join().unwrap();
    assert_eq!(sh("ls /run/cni/dhcp"), "");
    server.end();
    take_down();
}

#[test]
#[ignore = "runs in the VM"]
fn a_lease_that_nobody_renews_ends_and_the_interface_goes_down() {
    set_up("box2");
    let server = serve();
    let adding = std::thread::spawn(|| bridge("ADD", "/run/netns/box2", &Value::Null));
    while server.next().kind != 3 {}
    let result = adding.join().unwrap().unwrap();
    server.end();
    let down = "i=0; until ip netns exec box2 ip -o link show eth0 | grep -q 'state DOWN'; do [ $i = 60 ] && exit 1; i=$((i + 1)); sleep 1; done";
    sh(down);
    let error = bridge("CHECK", "/run/netns/box2", &result).unwrap_err();
    assert!(error.contains("holds no lease"), "{error}");
    bridge("DEL", "/run/netns/box2", &result).unwrap();
    sh("ip netns del box2");
    take_down();
}
