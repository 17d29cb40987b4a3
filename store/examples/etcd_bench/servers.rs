//! The servers side by side: started with the same flags in folders of their own, on
//! loopback, one at a time; looked at through /proc; killed and removed at the end.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use skiff_proto::grpc::etcdserverpb as pb;

use crate::load;
use crate::wire::Failure;

/// Far longer than any start takes.
const PATIENCE: Duration = Duration::from_secs(60);
const TICKS_PER_SECOND: f64 = 100.0;

/// A program that serves etcd's API with etcd's flags.
#[derive(Debug, Clone)]
pub struct Program {
    pub name: String,
    /// With arguments before the flags: `skiff store`.
    pub command: Vec<String>,
    pub is_etcd: bool,
}

pub struct Member {
    child: Child,
    pub port: u16,
    pub dir: PathBuf,
}

/// One member, or several that form a cluster.
pub struct Servers {
    program: Program,
    base: PathBuf,
    peers: Vec<u16>,
    pub members: Vec<Member>,
}

fn free_port() -> Result<u16, Failure> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl Servers {
    /// Starts `count` members with empty folders and waits until they are healthy.
    pub async fn start(program: &Program, base: &Path, count: usize) -> Result<Self, Failure> {
        let base = base.join(format!("{}-{count}", program.name.replace(['/', ' '], "-")));
        let _ = std::fs::remove_dir_all(&base);
        std::fs::create_dir_all(&base)?;
        let peers = (0..count).map(|_| free_port()).collect::<Result<_, _>>()?;
        let mut servers = Self { program: program.clone(), base, peers, members: Vec::new() };
        for n in 0..count {
            let member = servers.spawn(n, free_port()?)?;
            servers.members.push(member);
        }
        for port in servers.ports() {
            servers.healthy(port).await?;
        }
        Ok(servers)
    }

    pub fn ports(&self) -> Vec<u16> {
        self.members.iter().map(|member| member.port).collect()
    }

    fn spawn(&self, n: usize, port: u16) -> Result<Member, Failure> {
        let dir = self.base.join(format!("m{n}"));
        let client = format!("http://127.0.0.1:{port}");
        let peer = |n: usize| format!("http://127.0.0.1:{}", self.peers[n]);
        let cluster: Vec<_> = (0..self.peers.len()).map(|n| format!("m{n}={}", peer(n))).collect();
        let mut command = Command::new(&self.program.command[0]);
        command.args(&self.program.command[1..]);
        command.args(["--name", &format!("m{n}"), "--data-dir"]).arg(&dir);
        command.args(["--listen-client-urls", &client]);
        if self.program.is_etcd || self.peers.len() > 1 {
            command.args(["--advertise-client-urls", &client]);
            command.args(["--listen-peer-urls", &peer(n)]);
            command.args(["--initial-advertise-peer-urls", &peer(n)]);
            command.args(["--initial-cluster", &cluster.join(",")]);
        }
        if self.program.is_etcd {
            // Its default of 2 GiB would end the overwrites.
            command.args(["--logger", "zap", "--quota-backend-bytes", "8589934592"]);
        }
        let log = std::fs::File::create(self.base.join(format!("m{n}.log")))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command
            .spawn()
            .map_err(|error| format!("start {}: {error}", self.program.command.join(" ")))?;
        Ok(Member { child, port, dir })
    }

    /// Until a linearizable range is answered, as etcd's own health check does it.
    async fn healthy(&self, port: u16) -> Result<(), Failure> {
        let begin = Instant::now();
        loop {
            if let Ok(mut client) = load::kv(port).await {
                let request = pb::RangeRequest { key: "health".into(), ..Default::default() };
                let range = tokio::time::timeout(Duration::from_secs(1), client.range(request));
                if matches!(range.await, Ok(Ok(_))) {
                    return Ok(());
                }
            }
            if begin.elapsed() > PATIENCE {
                let log = self.base.join("m0.log");
                let text = std::fs::read_to_string(log).unwrap_or_default();
                let last: Vec<_> = text.lines().rev().take(5).collect();
                return Err(format!("{} is not healthy: {last:?}", self.program.name).into());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Asks a member to stop, starts it again, and says how long it took to be healthy.
    pub async fn restart(&mut self, n: usize) -> Result<Duration, Failure> {
        self.members[n].stop()?;
        let begin = Instant::now();
        self.members[n] = self.spawn(n, self.members[n].port)?;
        self.healthy(self.members[n].port).await?;
        Ok(begin.elapsed())
    }

    pub fn kill(&mut self, n: usize) -> Result<(), Failure> {
        self.members[n].child.kill()?;
        self.members[n].child.wait()?;
        Ok(())
    }

    /// After [`Servers::kill`].
    pub async fn revive(&mut self, n: usize) -> Result<(), Failure> {
        self.members[n] = self.spawn(n, self.members[n].port)?;
        self.healthy(self.members[n].port).await
    }

    /// Which member leads, by what it says of itself.
    pub async fn leader(&self) -> Result<usize, Failure> {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            for (n, member) in self.members.iter().enumerate() {
                let url = format!("http://127.0.0.1:{}", member.port);
                let Ok(channel) = tonic::transport::Endpoint::from_shared(url)?.connect().await
                else {
                    continue;
                };
                let mut client = pb::maintenance_client::MaintenanceClient::new(channel);
                let status = client.status(pb::StatusRequest {}).await?.into_inner();
                if status.leader != 0
                    && status.header.is_some_and(|header| header.member_id == status.leader)
                {
                    return Ok(n);
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err("no member leads".into())
    }

    /// Processor seconds of all members so far.
    pub fn cpu_seconds(&self) -> Result<f64, Failure> {
        self.members.iter().map(Member::cpu_seconds).sum()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for member in &mut self.members {
            // Gone already is as good.
            let _ = member.child.kill();
            let _ = member.child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.base);
    }
}

impl Member {
    fn proc(&self, file: &str) -> Result<String, Failure> {
        Ok(std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id()))?)
    }

    fn cpu_seconds(&self) -> Result<f64, Failure> {
        let stat = self.proc("stat")?;
        let after = stat.rsplit(')').next().ok_or("no stat")?;
        let fields: Vec<_> = after.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        Ok(ticks as f64 / TICKS_PER_SECOND)
    }

    pub fn resident_mib(&self) -> Result<f64, Failure> {
        let status = self.proc("status")?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
        let kib: f64 = line.split_whitespace().nth(1).ok_or("no size")?.parse()?;
        Ok(kib / 1024.0)
    }

    /// Of its data folder, as the filesystem counts it.
    pub fn disk_mib(&self) -> Result<f64, Failure> {
        Ok(blocks(&self.dir)? as f64 / 2048.0)
    }

    fn stop(&mut self) -> Result<(), Failure> {
        let pid = i32::try_from(self.child.id())?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM)?;
        self.child.wait()?;
        Ok(())
    }
}

/// Blocks of 512 bytes below a folder. Files may go away meanwhile.
fn blocks(dir: &Path) -> Result<u64, Failure> {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    for entry in std::fs::read_dir(dir)? {
        let Ok(metadata) =
            entry.as_ref().map_err(|_| ()).and_then(|e| e.metadata().map_err(|_| ()))
        else {
            continue;
        };
        sum += metadata.blocks();
        if metadata.is_dir() {
            sum += blocks(&entry?.path())?;
        }
    }
    Ok(sum)
}
