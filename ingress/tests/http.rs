//! Real requests over loopback: routing, headers, what clients are told, failures of pods,
//! upgrades, changes under load, slow sides, shutdown.

mod fixture;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fixture::*;
use http_body_util::{BodyExt, Full};
use hyper::Response;
use hyper_util::rt::TokioIo;
use skiff_ingress::{Config, Limits, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_request_reaches_the_pod_with_forwarded_headers() {
    let upstream = Upstream::echo().await;
    let mut ingress = Ingress::start(Limits::default());
    ingress.route(&[upstream.addr]);
    let request = "GET /a/b?c=d HTTP/1.1\r\nHost: Web.Example\r\nConnection: close, x-hop\r\n\
                   X-Hop: 1\r\nX-Forwarded-For: 10.9.9.9\r\nAccept: */*\r\n\r\n";
    let answer = ask(ingress.addr, request).await;
    let port = ingress.addr.port();
    let expected = format!(
        "GET /a/b?c=d\naccept: */*\nhost: Web.Example\nx-forwarded-for: 127.0.0.1\n\
         x-forwarded-host: Web.Example\nx-forwarded-port: {port}\nx-forwarded-proto: http\n\
         x-real-ip: 127.0.0.1"
    );
    assert_eq!(said(&answer), (200, &*expected));
    let absolute = "GET http://web.example/x HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n";
    let answer = ask(ingress.addr, absolute).await;
    assert!(answer.body.starts_with("GET /x\nhost: web.example\n"), "{answer:?}");
    ingress.stop().await;
}

#[tokio::test]
async fn clients_are_told_what_is_missing() {
    let mut ingress = Ingress::start(Limits::default());
    let no_rule = "no Ingress rule matches host \"web.example\" path \"/y\"";
    assert_eq!(said(&ingress.get("/y?q").await), (404, no_rule));
    ingress.route(&[]);
    let nobody = "Service default/web has no ready endpoints";
    assert_eq!(said(&ingress.get("/").await), (503, nobody));
    let gone = refusing().await;
    ingress.route(&[gone]);
    let refused = format!(
        "Service default/web: endpoint {gone} cannot be reached: Connection refused (os error 111)"
    );
    assert_eq!(said(&ingress.get("/").await), (502, &*refused));
    ingress.stop().await;
}

#[tokio::test]
async fn malformed_requests_are_refused() {
    let upstream = Upstream::saying("never").await;
    let mut ingress = Ingress::start(Limits::default());
    ingress.route(&[upstream.addr]);
    let huge = "x".repeat(70 << 10);
    for (request, status) in [
        ("GET / HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n".to_owned(), 400),
        (
            "CONNECT web.example:80 HTTP/1.1\r\nHost: web.example\r\nConnection: close\r\n\r\n"
                .to_owned(),
            400,
        ),
        ("nonsense\r\n\r\n".to_owned(), 400),
        (format!("GET / HTTP/1.1\r\nHost: web.example\r\nX: {huge}\r\n\r\n"), 431),
        ("GET / HTTP/1.0\r\n\r\n".to_owned(), 404),
    ] {
        let answer = ask(ingress.addr, &request).await;
        assert_eq!(answer.status, status, "{:.80}: {answer:?}", request);
    }
    assert_eq!(upstream.connections(), 0);
    ingress.stop().await;
}

#[tokio::test]
async fn endpoints_take_turns_and_one_that_refuses_is_passed_over() {
    let (a, b) = (Upstream::saying("a").await, Upstream::saying("b").await);
    let mut ingress = Ingress::start(Limits::default());
    ingress.route(&[a.addr, b.addr, refusing().await]);
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for _ in 0..12 {
        let answer = ingress.get("/").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        *seen.entry(answer.body).or_default() += 1;
    }
    assert!(seen["a"] >= 3 && seen["b"] >= 3, "{seen:?}");
    ingress.stop().await;
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let upstream = Upstream::saying("ok").await;
    let mut ingress = Ingress::start(Limits::default());
    ingress.route(&[upstream.addr]);
    let mut client = client(ingress.addr).await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await, Ok("ok".to_owned()));
    }
    assert_eq!(upstream.connections(), 1);
    drop(client);
    ingress.stop().await;
}

/// A pod that closes its idle connections just as they are used again.
#[tokio::test]
async fn a_stale_connection_to_a_pod_fails_no_get() {
    let addr = raw_upstream(|mut stream| async move {
        // Promises to keep the connection, then closes on the second request.
        read_head(&mut stream).await;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        stream.write_all(answer).await.expect("the ingress reads");
        read_head(&mut stream).await;
    })
    .await;
    let mut ingress = Ingress::start(Limits::default());
    ingress.route(&[addr]);
    let mut client = client(ingress.addr).await;
    for n in 0..20 {
        assert_eq!(client.get("/").await, Ok("ok".to_owned()), "request {n}");
    }
    drop(client);
    ingress.stop().await;
}

#[tokio::test]
async fn a_pod_that_breaks_off_or_is_late_is_named() {
    let breaks = raw_upstream(|mut stream| async move {
        read_head(&mut stream).await;
    })
    .await;
    let limits = Limits { response_timeout: Duration::from_millis(100), ..Limits::default() };
    let mut ingress = Ingress::start(limits);
    ingress.route(&[breaks]);
    let answer = ingress.get("/").await;
    let expected = format!("Service default/web: endpoint {breaks} broke the connection: ");
    assert!(answer.status == 502 && answer.body.starts_with(&expected), "{answer:?}");
    let silent = Upstream::start(|_| std::future::pending()).await;
    ingress.route(&[silent.addr]);
    let expected =
        format!("Service default/web: endpoint {} did not answer within 100ms", silent.addr);
    assert_eq!(said(&ingress.get("/").await), (504, &*expected));
    ingress.stop().await;
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let upstream = Upstream::start(|request| async move {
        let body = request.into_body().collect().await.expect("the whole body").to_bytes();
        Response::new(Full::from(body))
    })
    .await;
    let mut ingress = Ingress::start(Limits::default());
    ingress.route(&[upstream.addr]);
    let head = "POST / HTTP/1.1\r\nHost: web.example\r\nConnection: close\r\n";
    let sized = format!("{head}Content-Length: 5\r\n\r\nhello");
    assert_eq!(said(&ask(ingress.addr, &sized).await), (200, "hello"));
    let chunked =
        format!("{head}Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n");
    assert_eq!(said(&ask(ingress.addr, &chunked).await), (200, "hello"));
    let big = "x".repeat(3 << 20);
    let large = format!("{head}Content-Length: {}\r\n\r\n{big}", big.len());
    let answer = ask(ingress.addr, &large).await;
    assert!(answer.status == 200 && answer.body == big, "{} bytes", answer.body.len());
    ingress.stop().await;
}

#[tokio::test]
async fn answers_without_a_body_keep_their_length_and_continue_is_said() {
    let upstream = raw_upstream(|mut stream| async move {
        let head = read_head(&mut stream).await;
        assert!(!head.to_ascii_lowercase().contains("expect:"), "{head}");
        let answer = if head.starts_with("HEAD") {
            "HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n"
        } else {
            "HTTP/1.1 204 No Content\r\n\r\n"
        };
        let mut body = [0; 4];
        if head.starts_with("POST") {
            stream.read_exact(&mut body).await.expect("the body");
        }
        stream.write_all(answer.as_bytes()).await.expect("the ingress reads");
    })
    .await;
    let mut ingress = Ingress::start(Limits::default());
    ingress.route(&[upstream]);
    let head = "HEAD / HTTP/1.1\r\nHost: web.example\r\nConnection: close\r\n\r\n";
    let answer = ask(ingress.addr, head).await;
    assert!(answer.status == 200 && answer.body.is_empty(), "{answer:?}");
    assert!(answer.head.contains("content-length: 1234"), "{answer:?}");
    let mut stream = TcpStream::connect(ingress.addr).await.expect("listens");
    let post = "POST / HTTP/1.1\r\nHost: web.example\r\nConnection: close\r\n\
                Content-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(post.as_bytes()).await.expect("takes the head");
    assert_eq!(read_head(&mut stream).await, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"body").await.expect("takes the body");
    assert_eq!(parse(&read_head(&mut stream).await).status, 204);
    ingress.stop().await;
}

/// The first piece arrives while the pod still holds back the second.
#[tokio::test]
async fn a_piece_is_passed_on_before_the_next_one_exists() {
    let release = Arc::new(tokio::sync::Notify::new());
    let held = release.clone();
    let addr = raw_upstream(move |mut stream| {
        let held = held.clone();
        async move {
            read_head(&mut stream).await;
            let first = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n";
            stream.write_all(first).await.expect("the ingress reads");
            held.notified().await;
            stream.write_all(b"6\r\nsecond\r\n0\r\n\r\n").await.expect("the ingress reads");
        }
    })
    .await;
    let mut ingress = Ingress::start(Limits::default());
    ingress.route(&[addr]);
    let mut stream = TcpStream::connect(ingress.addr).await.expect("listens");
    let request = b"GET / HTTP/1.1\r\nHost: web.example\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.expect("takes it");
    read_head(&mut stream).await;
    let mut first = [0; 10];
    stream.read_exact(&mut first).await.expect("the first piece");
    assert_eq!(&first, b"5\r\nfirst\r\n");
    release.notify_one();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.expect("the rest");
    assert_eq!(rest, "6\r\nsecond\r\n0\r\n\r\n");
    ingress.stop().await;
}

/// An endless response to a client that reads nothing: the pod is held back, and the client
/// is cut off in the end.
#[tokio::test]
async fn a_client_that_reads_nothing_holds_the_pod_back_and_is_cut_off() {
    let sent = Arc::new(AtomicUsize::new(0));
    let ended = Arc::new(AtomicBool::new(false));
    let (count, end) = (sent.clone(), ended.clone());
    let addr = raw_upstream(move |mut stream| {
        let (count, end) = (count.clone(), end.clone());
        async move {
            read_head(&mut stream).await;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", u64::MAX);
            stream.write_all(head.as_bytes()).await.expect("the ingress reads");
            while let Ok(n) = stream.write(&[0; 64 << 10]).await {
                count.fetch_add(n, Ordering::SeqCst);
            }
            end.store(true, Ordering::SeqCst);
        }
    })
    .await;
    let limits = Limits { idle_timeout: Duration::from_millis(300), ..Limits::default() };
    let mut ingress = Ingress::start(limits);
    ingress.route(&[addr]);
    let mut stream = TcpStream::connect(ingress.addr).await.expect("listens");
    let request = b"GET / HTTP/1.1\r\nHost: web.example\r\n\r\n";
    stream.write_all(request).await.expect("takes it");
    let cut_off = async {
        while !ended.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, cut_off).await.expect("the pod's connection ends");
    // What the kernel's buffers of three sockets hold at most, and far from endless.
    let passed = sent.load(Ordering::SeqCst);
    assert!(passed < 64 << 20, "{passed} bytes went through to nobody");
    ingress.stop().await;
}

#[tokio::test]
async fn a_client_that_sends_too_slowly_is_cut_off() {
    let upstream = Upstream::start(|request| async move {
        let whole = request.into_body().collect().await;
        Response::new(Full::from(if whole.is_ok() { "whole" } else { "broken" }))
    })
    .await;
    let limits = Limits {
        idle_timeout: Duration::from_millis(100),
        header_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let mut ingress = Ingress::start(limits);
    ingress.route(&[upstream.addr]);
    let stalled = "POST / HTTP/1.1\r\nHost: web.example\r\nContent-Length: 10\r\n\r\nhalf";
    let answer = ask(ingress.addr, stalled).await;
    let expected = (408, "the body of the request did not arrive in time");
    assert_eq!(said(&answer), expected);
    // A head that never ends gets no answer, only the end of the connection.
    let answer = ask(ingress.addr, "GET / HTTP/1.1\r\nHost: web").await;
    assert!([0, 408].contains(&answer.status), "{answer:?}");
    ingress.stop().await;
}

#[tokio::test]
async fn a_protocol_switch_joins_both_sides() {
    let upstream = Upstream::start(|mut request| async move {
        assert_eq!(request.headers()["upgrade"], "websocket");
        assert_eq!(request.headers()["sec-websocket-key"], "k");
        let switched = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(switched.await.expect("switches"));
            let mut word = [0; 4];
            while io.read_exact(&mut word).await.is_ok() {
                word.make_ascii_uppercase();
                io.write_all(&word).await.expect("the client reads");
            }
        });
        let response = Response::builder().status(101).header("connection", "upgrade");
        let response = response.header("upgrade", "websocket");
        response.body(Full::default()).expect("a response")
    })
    .await;
    let mut ingress = Ingress::start(Limits::default());
    ingress.route(&[upstream.addr]);
    let mut stream = TcpStream::connect(ingress.addr).await.expect("listens");
    let request = "GET /chat HTTP/1.1\r\nHost: web.example\r\nConnection: Upgrade\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("takes it");
    let answer = parse(&read_head(&mut stream).await);
    assert_eq!(answer.status, 101, "{answer:?}");
    assert!(answer.head.contains("upgrade: websocket"), "{answer:?}");
    for (word, loud) in [(b"ping", b"PING"), (b"pong", b"PONG")] {
        stream.write_all(word).await.expect("goes through");
        let mut back = [0; 4];
        stream.read_exact(&mut back).await.expect("comes back");
        assert_eq!(&back, loud);
    }
    drop(stream);
    ingress.stop().await;
}

/// Clients on open connections ask without pause while endpoints come and go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_under_load_drop_no_request() {
    let pods =
        [Upstream::saying("a").await, Upstream::saying("b").await, Upstream::saying("c").await];
    let mut ingress = Ingress::start(Limits::default());
    ingress.route(&[pods[0].addr]);
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for _ in 0..8 {
        let (addr, stop) = (ingress.addr, stop.clone());
        clients.push(tokio::spawn(async move {
            let (mut client, mut answers) = (client(addr).await, 0);
            while !stop.load(Ordering::SeqCst) {
                let answer = client.get("/").await.expect("no request is dropped");
                assert!(["a", "b", "c"].contains(&answer.as_str()), "{answer}");
                answers += 1;
            }
            answers
        }));
    }
    let gone = refusing().await;
    for round in 0..200 {
        let (one, other) = (pods[round % 3].addr, pods[(round + 1) % 3].addr);
        match round % 4 {
            0 => ingress.route(&[one]),
            1 => ingress.route(&[one, other]),
            2 => ingress.route(&[other, gone]),
            _ => ingress.route(&[pods[0].addr, pods[1].addr, pods[2].addr]),
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    stop.store(true, Ordering::SeqCst);
    let mut answers = 0;
    for client in clients {
        answers += client.await.expect("no request failed");
    }
    assert!(answers > 100, "{answers} answers");
    ingress.stop().await;
}

#[tokio::test]
async fn shutdown_lets_the_request_under_way_end() {
    let (began, release) =
        (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let (begin, held) = (began.clone(), release.clone());
    let upstream = Upstream::start(move |_| {
        let (begin, held) = (begin.clone(), held.clone());
        async move {
            begin.notify_one();
            held.notified().await;
            Response::new(Full::from("done"))
        }
    })
    .await;
    let mut ingress = Ingress::start(Limits::default());
    ingress.route(&[upstream.addr]);
    let (addr, idle) = (ingress.addr, client(ingress.addr).await);
    let request = "GET / HTTP/1.1\r\nHost: web.example\r\n\r\n";
    let asked = tokio::spawn(async move { ask(addr, request).await });
    began.notified().await;
    ingress.shutdown.cancel();
    // The idle client is let go at once, the busy one is waited for.
    idle.closed().await;
    // Each worker closes its own socket, so this takes until the last one has.
    let refused = async { while TcpStream::connect(addr).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, refused).await.expect("new clients are refused");
    release.notify_one();
    let answer = asked.await.expect("answers");
    assert_eq!(said(&answer), (200, "done"));
    assert!(answer.head.contains("connection: close"), "{answer:?}");
    ingress.stop().await;
}

#[tokio::test]
async fn a_port_already_taken_is_one_clear_error() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = taken.local_addr().expect("bound");
    let config = Config { listen: vec![addr], ..Config::default() };
    let error = Server::bind(&config).err().expect("the port is taken").to_string();
    let port = addr.port();
    assert_eq!(
        error,
        format!(
            "ingress cannot listen on {addr}: another program has port {port}; find it with \
             `ss -ltnp 'sport = :{port}'` and stop it, or give the ingress another address"
        )
    );
    // Another ingress that would share the port is refused as well.
    let first = Ingress::start(Limits::default());
    let second = Config { listen: vec![first.addr], ..Config::default() };
    assert!(Server::bind(&second).is_err());
    first.stop().await;
}

/// A client that keeps its connection.
struct Client {
    sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    connection: tokio::task::JoinHandle<hyper::Result<()>>,
}

async fn client(addr: std::net::SocketAddr) -> Client {
    let stream = TcpStream::connect(addr).await.expect("listens");
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.expect("speaks HTTP");
    Client { sender, connection: tokio::spawn(connection) }
}

impl Client {
    async fn get(&mut self, path: &str) -> Result<String, String> {
        self.sender.ready().await.map_err(|error| error.to_string())?;
        let request = hyper::Request::get(path).header("host", "web.example");
        let request = request.body(Full::default()).expect("a request");
        let sent = self.sender.send_request(request).await;
        let response = sent.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
        let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        if status.is_success() { Ok(body) } else { Err(format!("{status} {body}")) }
    }

    async fn closed(self) {
        let ended = tokio::time::timeout(PATIENCE, self.connection).await;
        // Whether this client calls an end without any request an error does not matter.
        let _ = ended.expect("is closed").expect("does not panic");
    }
}
