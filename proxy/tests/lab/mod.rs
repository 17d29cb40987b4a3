//! A node, two pods and a client outside, each a network namespace with a name nobody else has, gone on drop.
//!
//! ```text
//! client 192.0.2.2 ── up0 192.0.2.1  node (n1)  br0 10.42.0.1 ─┬─ pod "one" 10.42.0.5
//!                                                              └─ pod "two" 10.42.0.6
//! ```
//!
//! The proxy runs on a thread inside the node's namespace, with a runtime of that thread: everything it opens and
//! every program it runs is in there.

#![allow(dead_code, clippy::unwrap_used)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use skiff_client::testing::FakeApi;
use skiff_proxy::{Config, ProxyError};
use tokio_util::sync::CancellationToken;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// One network namespace.
pub struct Space {
    pub name: String,
}

impl Space {
    fn new(what: &str) -> Space {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let space = Space { name: format!("skpx-{}-{number}-{what}", std::process::id()) };
        run("ip", &["netns", "add", &space.name]);
        space.run("ip link set lo up");
        space
    }

    /// Runs a line inside, words apart by blanks; it must succeed.
    pub fn run(&self, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        run("ip", &[&["netns", "exec", &self.name], &words[..]].concat())
    }

    pub fn within<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let space = File::open(format!("/var/run/netns/{}", self.name))?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(space.as_fd(), CloneFlags::CLONE_NEWNET)?;
                work()
            });
            thread.join().unwrap()
        })
    }

    /// Serves TCP and UDP on a port until the test ends: answers with its own name and the caller's address.
    fn serve(&self, name: &'static str, port: u16) {
        let tcp = self.within(|| TcpListener::bind(("0.0.0.0", port))).unwrap();
        std::thread::spawn(move || {
            for mut stream in tcp.incoming().map_while(Result::ok) {
                let _ = write!(stream, "{name} {}", stream.peer_addr().unwrap().ip());
            }
        });
        let udp = self.within(|| UdpSocket::bind(("0.0.0.0", port))).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(format!("{name} {}", peer.ip()).as_bytes(), peer);
            }
        });
    }

    /// Connects by TCP and reads the answer.
    pub fn ask(&self, target: &str) -> io::Result<String> {
        let target: SocketAddr = target.parse().unwrap();
        self.within(|| {
            let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(5))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })
    }

    /// A UDP socket inside, connected to a target.
    pub fn udp(&self, target: &str) -> UdpSocket {
        self.within(|| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(target)?;
            socket.set_read_timeout(Some(Duration::from_millis(300)))?;
            Ok(socket)
        })
        .unwrap()
    }
}

/// Sends on a UDP socket and reads the answer.
pub fn ask_udp(socket: &UdpSocket) -> io::Result<String> {
    let mut buffer = [0; 64];
    socket.send(b"who")?;
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

pub struct Lab {
    pub node: Space,
    pub one: Space,
    pub two: Space,
    pub client: Space,
}

impl Lab {
    pub fn new() -> Lab {
        let lab = Lab {
            node: Space::new("node"),
            one: Space::new("one"),
            two: Space::new("two"),
            client: Space::new("client"),
        };
        lab.node.run("ip link add br0 type bridge");
        lab.node.run("ip addr add 10.42.0.1/24 dev br0");
        lab.node.run("ip link set br0 up");
        for (pod, port, address) in
            [(&lab.one, "v1", "10.42.0.5/24"), (&lab.two, "v2", "10.42.0.6/24")]
        {
            lab.node
                .run(&format!("ip link add {port} type veth peer name eth0 netns {}", pod.name));
            lab.node.run(&format!("ip link set {port} master br0 up"));
            // As the CNI plugin sets it: a pod's own frames come back to it out of the port they came in.
            lab.node.run(&format!("bridge link set dev {port} hairpin on"));
            pod.run(&format!("ip addr add {address} dev eth0"));
            pod.run("ip link set eth0 up");
            pod.run("ip route add default via 10.42.0.1");
        }
        lab.node
            .run(&format!("ip link add up0 type veth peer name eth0 netns {}", lab.client.name));
        lab.node.run("ip addr add 192.0.2.1/24 dev up0");
        lab.node.run("ip link set up0 up");
        lab.client.run("ip addr add 192.0.2.2/24 dev eth0");
        lab.client.run("ip link set eth0 up");
        lab.client.run("ip route add 10.0.0.0/8 via 192.0.2.1");
        // Services need some route on the node. Not back to where a packet came from: that would add ICMP
        // redirects, which share a rate limit with the refusals that the tests wait for.
        lab.node.run("ip link add void0 type veth peer name void1");
        lab.node.run("ip link set void0 up");
        lab.node.run("ip link set void1 up");
        lab.node.run("ip route add default dev void0");
        lab.one.serve("one", 8080);
        lab.two.serve("two", 8080);
        lab
    }

    /// Everything iptables has in the node, without counters and comments of time.
    pub fn rules(&self) -> String {
        let saved = self.node.run("iptables-save");
        saved.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n")
    }

    /// Starts the proxy and waits until it is ready.
    pub fn start(&self, api: &Arc<FakeApi>) -> Running {
        let (running, ready) = self.launch(api);
        ready.recv_timeout(Duration::from_secs(60)).expect("the proxy is ready");
        running
    }

    /// Starts the proxy; the receiver hears when it is ready.
    pub fn launch(&self, api: &Arc<FakeApi>) -> (Running, std::sync::mpsc::Receiver<()>) {
        let (sender, receiver) = std::sync::mpsc::channel();
        let space = File::open(format!("/var/run/netns/{}", self.node.name)).unwrap();
        let shutdown = CancellationToken::new();
        let (api, stop) = (api.clone(), shutdown.clone());
        let thread = std::thread::spawn(move || {
            setns(space.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let config = Config::new("10.42.0.0/16", "192.0.2.1".parse().unwrap(), "n1");
            let ready = Box::new(move || {
                let _ = sender.send(());
            });
            runtime.block_on(skiff_proxy::run(api, config, stop, ready))
        });
        (Running { shutdown, thread: Some(thread) }, receiver)
    }
}

/// A running proxy; it stops when dropped.
pub struct Running {
    shutdown: CancellationToken,
    thread: Option<JoinHandle<Result<(), ProxyError>>>,
}

impl Running {
    pub fn stop(mut self) {
        self.shutdown.cancel();
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.thread.take().map(JoinHandle::join);
    }
}

/// Waits for something that comes true by itself.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "still not so: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {args:?} (needs root, iproute2 and iptables): {said}"
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
