//! A private host for the plugin: a network namespace of its own, folders of its own, removed on drop.
//!
//! The machine's own namespace is never touched: the plugin runs inside the lab's namespace, as do iptables and ip.

// Each test program uses its own part of the lab.
#![allow(dead_code)]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A network namespace with a name that nobody else has.
pub struct Space {
    pub name: String,
}

impl Space {
    pub fn new(what: &str) -> Space {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("skcni-{}-{number}-{what}", std::process::id());
        run("ip", &["netns", "add", &name]);
        let space = Space { name };
        space.run("ip", &["link", "set", "lo", "up"]);
        space
    }

    pub fn path(&self) -> String {
        format!("/var/run/netns/{}", self.name)
    }

    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs a program inside and gives its output; it must succeed.
    pub fn run(&self, program: &str, args: &[&str]) -> String {
        let output = self
            .command(program)
            .args(args)
            .output()
            .expect("ip netns exec (is iproute2 installed?)");
        assert!(
            output.status.success(),
            "{program} {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn succeeds(&self, program: &str, args: &[&str]) -> bool {
        self.command(program).args(args).output().is_ok_and(|output| output.status.success())
    }

    pub fn within<T: Send>(
        &self,
        work: impl FnOnce() -> std::io::Result<T> + Send,
    ) -> std::io::Result<T> {
        skiff_cni::netns::within(&File::open(self.path())?, work)
    }

    pub fn links(&self) -> Vec<String> {
        let listing: Value =
            serde_json::from_str(&self.run("ip", &["-j", "link", "show"])).unwrap();
        let names = listing.as_array().unwrap().iter();
        names.map(|link| link["ifname"].as_str().unwrap().to_owned()).collect()
    }

    /// A server inside that answers every connection with the address it comes from, until dropped.
    pub fn echo_peer(&self, port: u16) {
        let listener = self.within(|| TcpListener::bind(("0.0.0.0", port))).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let Ok(peer) = stream.peer_addr() else { return };
                let _ = write!(stream, "{}", peer.ip());
            }
        });
    }

    /// Connects from inside and reads what the server says.
    pub fn ask(&self, target: &str) -> std::io::Result<String> {
        let target: SocketAddr = target.parse().unwrap();
        self.within(|| {
            let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(5))?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// A host with the plugin, and the leases of one network.
pub struct Lab {
    pub host: Space,
    pub folder: tempfile::TempDir,
}

impl Lab {
    pub fn new() -> Lab {
        Lab { host: Space::new("host"), folder: tempfile::tempdir().unwrap() }
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub fn conf(&self, subnet: &str) -> Value {
        json!({
            "cniVersion": "1.0.0", "name": "pods", "type": "skiff-bridge",
            "bridge": "cni0", "isDefaultGateway": true, "hairpinMode": true,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": subnet}]], "dataDir": self.data_dir()}
        })
    }

    /// Runs our plugin in the lab's namespace.
    pub fn call(
        &self,
        command: &str,
        container: &str,
        netns: &str,
        conf: &Value,
    ) -> Result<Value, Value> {
        self.call_plugin(env!("CARGO_BIN_EXE_skiff-bridge"), command, container, netns, conf)
    }

    pub fn call_plugin(
        &self,
        plugin: &str,
        command: &str,
        container: &str,
        netns: &str,
        conf: &Value,
    ) -> Result<Value, Value> {
        let mut child = self
            .host
            .command(plugin)
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", container)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_NETNS", netns)
            .env("CNI_PATH", "/usr/lib/cni")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(conf.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        answer(&output)
    }

    pub fn add(&self, container: &Space, conf: &Value) -> Value {
        self.call("ADD", &container.name, &container.path(), conf)
            .unwrap_or_else(|error| panic!("ADD: {error}"))
    }

    pub fn del(&self, container: &Space, conf: &Value) {
        self.call("DEL", &container.name, &container.path(), conf)
            .unwrap_or_else(|error| panic!("DEL: {error}"));
    }

    /// The leases on disk: addresses only.
    pub fn leases(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.data_dir().join("pods")) else {
            return Vec::new();
        };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.parse::<std::net::IpAddr>().is_ok()).collect()
    }
}

fn answer(output: &Output) -> Result<Value, Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    let value = if text.trim().is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    };
    assert!(
        output.stderr.is_empty() || !output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    if output.status.success() { Ok(value) } else { Err(value) }
}

/// The address of a result, without its prefix.
pub fn address(result: &Value) -> String {
    result["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap().to_owned()
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?} (needs root and iproute2): {said}");
}
